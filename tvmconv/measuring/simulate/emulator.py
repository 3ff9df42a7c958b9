"""One emulated AArch64 core that runs kernels and counts how often each of their basic blocks runs.

The processor is unicorn's (pip install unicorn), inside this process. What a kernel calls that is not in
its object file is done here: parallel loops run serially, as one task; memory and the C library's
functions are Python's, and are charged an estimate of what they take on a board.

Arrays lie so that they end where a page ends, with nothing mapped behind: reading beyond is an error.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmconv.errors import BuildError, MissingToolError
from tvmconv.measuring.simulate.caches import Caches, Traffic, Watch
from tvmconv.measuring.simulate.elf import Image, link

Array = npt.NDArray[Any]

_PAGE = 0x1000
# A branch reaches 128 MiB: the stubs lie beside the image.
_STUBS, _IMAGE, _STACK, _HEAP = 0x1000_0000, 0x1001_0000, 0x3000_0000, 0x4000_0000
_STACK_BYTES = 1 << 20
_RETURN = _STUBS + 0xFF0  # where a call ends
_ALIGNED = 64  # what the runtime promises of packed filters
_LAUNCH, _ENVIRONMENT = "TVMBackendParallelLaunch", _STUBS + 0xF00
_DLTENSOR = 7  # TVMFFITypeIndex kTVMFFIDLTensorPtr
# mov x3, x0; mov x2, x1; mov w0, #0; mov x1, #_ENVIRONMENT; br x3: the one task is the caller's own.
_LAUNCH_CODE = (0xAA0003E3, 0xAA0103E2, 0x52800000, 0xD2A20001, 0x913C0021, 0xD61F0060)
_RET = 0xD65F03C0

Block = tuple[int, int]


@dataclass(frozen=True)
class Counts:
    """How often each block (address, bytes) of a kernel ran, and what its calls elsewhere were charged.

    ``traffic`` is None where no cache was given.
    """

    blocks: Counter[Block]
    charged: int
    image: Image
    traffic: Traffic | None = None

    @property
    def instructions(self) -> int:
        """All instructions executed."""
        return self.charged + sum(size // 4 * count for (_, size), count in self.blocks.items())

    def count(self, matches: Callable[[int], bool]) -> int:
        """Executed instructions whose word ``matches``."""
        return sum(
            times * sum(matches(word) for word in self.words(block))
            for block, times in self.blocks.items()
        )

    def words(self, block: Block) -> tuple[int, ...]:
        """The instructions of a block."""
        start, size = block[0] - self.image.base, block[1]
        return struct.unpack(f"<{size // 4}I", self.image.content[start : start + size])


def is_multiply_add(word: int) -> bool:
    """Whether this is a vector FMLA or FMLS, of whole vectors or by a lane (Arm ARM, C4.1)."""
    vectors = word & 0xBF20FC00 == 0x0E20CC00 or word & 0xBF60FC00 == 0x0E400C00
    by_lane = word & 0xBF80B400 == 0x0F801000 or word & 0xBFC0B400 == 0x0F001000
    return vectors or by_lane


class Emulator:
    """Loads one object file; `call` runs a function of it on arrays.

    Raises MissingToolError without unicorn, BuildError for an object file that cannot be linked here.
    """

    def __init__(self, content: bytes) -> None:
        self._caches: Caches | None = None
        self._left = math.inf  # blocks until the caches are watched no more
        self._unicorn, self._registers = _unicorn()
        self._core = self._unicorn.Uc(
            self._unicorn.UC_ARCH_ARM64,
            self._unicorn.UC_MODE_ARM | self._unicorn.UC_MODE_LITTLE_ENDIAN,
        )
        self._core.ctl_set_cpu_model(self._registers.UC_CPU_ARM64_MAX)
        # Every slot returns; the functions are called from there.
        stubs = {name: _STUBS + 64 * (1 + at) for at, name in enumerate(_CALLS)}
        self._stubs = {address: name for name, address in stubs.items()}
        self.image = link(content, _IMAGE, {**stubs, _LAUNCH: _STUBS})
        self._heap = _HEAP
        self._counted: Counter[Block] = Counter()
        self._charged = 0
        self._fault = ""
        self._map()
        self._core.hook_add(self._unicorn.UC_HOOK_BLOCK, self._on_block)
        self._core.hook_add(
            self._unicorn.UC_HOOK_CODE, self._on_call, begin=_STUBS + 64, end=_RETURN - 1
        )

    def _map(self) -> None:
        core, image = self._core, self.image
        core.mem_map(image.base, _pages(len(image.content)))
        core.mem_write(image.base, image.content)
        for name, pointer in image.symbols.items():
            stub = name.removeprefix("__")
            known = {_LAUNCH: _STUBS, **{n: a for a, n in self._stubs.items()}}
            if name.startswith("__TVM"):  # TVM's loader fills these in
                core.mem_write(pointer, struct.pack("<Q", known[stub]))
        core.mem_map(_STUBS, _PAGE)
        core.mem_write(_STUBS, struct.pack(f"<{_PAGE // 4}I", *[_RET] * (_PAGE // 4)))
        core.mem_write(_STUBS, struct.pack(f"<{len(_LAUNCH_CODE)}I", *_LAUNCH_CODE))
        core.mem_write(_ENVIRONMENT, struct.pack("<Qi", 0, 1))  # one task
        core.mem_map(_STACK, _STACK_BYTES)
        core.reg_write(self._registers.UC_ARM64_REG_CPACR_EL1, 3 << 20)  # vectors are not trapped

    def call(self, function: str, arrays: Sequence[Array], caches: Caches | None = None) -> Counts:
        """Run a function of the object on arrays, the last of which it writes; return what it took.

        ``caches`` are watched on the way; they hold what a call before would have left.
        """
        addresses = [self._place(array) for array in arrays]
        tensors = b"".join(
            struct.pack("<iiQ", _DLTENSOR, 0, self._tensor(array, address))
            for array, address in zip(arrays, addresses, strict=True)
        )
        arguments, result = self._allocate(len(tensors)), self._allocate(16)
        self._core.mem_write(arguments, tensors)
        self._counted, self._charged, self._fault = Counter(), 0, ""
        self._caches = caches
        if caches is not None:
            for array, address in zip(arrays, addresses, strict=True):
                caches.pass_over(address, array.nbytes, written=array is arrays[-1])
        entry = self.image.symbols[f"__tvm_ffi_{function}"]
        traffic = self._run(entry, (0, arguments, len(arrays), result))
        out = arrays[-1]
        read = bytes(self._core.mem_read(addresses[-1], out.nbytes))
        out[...] = np.frombuffer(read, out.dtype).reshape(out.shape)
        return Counts(self._counted, self._charged, self.image, traffic)

    def _run(self, entry: int, arguments: tuple[int, ...]) -> Traffic | None:
        core, names = self._core, self._registers
        for number, value in enumerate(arguments):
            core.reg_write(getattr(names, f"UC_ARM64_REG_X{number}"), value)
        core.reg_write(names.UC_ARM64_REG_SP, _STACK + _STACK_BYTES - 64)
        core.reg_write(names.UC_ARM64_REG_LR, _RETURN)
        try:
            traffic = self._start(entry)
        except self._unicorn.UcError as error:
            at = core.reg_read(names.UC_ARM64_REG_PC)
            raise BuildError(
                f"the kernel failed {at - self.image.base:#x} bytes in: {error}"
            ) from error
        status = core.reg_read(names.UC_ARM64_REG_W0)
        if self._fault or status:
            raise BuildError(f"the kernel refused its arguments: {self._fault or status}")
        return traffic

    def _start(self, entry: int) -> Traffic | None:
        """Run until the call returns; with caches, stop where they are watched no more."""
        core = self._core
        if self._caches is None:
            core.emu_start(entry, _RETURN)
            return None
        watch = Watch(core, self._caches)
        self._left = watch.blocks
        core.emu_start(entry, _RETURN)
        at = core.reg_read(self._registers.UC_ARM64_REG_PC)
        if at != _RETURN:
            watch.rest()
            self._left = math.inf
            core.emu_start(at, _RETURN)
        return watch.end(self._counted.total())

    def _on_block(self, core: Any, address: int, size: int, _data: object) -> None:
        if address < _IMAGE:
            return
        if not self._left:
            core.emu_stop()  # before this block: it is counted when the call goes on
            return
        self._left -= 1
        self._counted[(address, size)] += 1

    def _on_call(self, core: Any, address: int, _size: int, _data: object) -> None:
        name = self._stubs.get(address)
        if name is not None:
            self._charged += _CALLS[name](self, core)

    def _place(self, array: Array) -> int:
        """Copy an array to where its end is a page's, as nearly as its alignment allows; a gap follows."""
        size = array.nbytes
        end = self._heap + _pages(max(size, 1))
        address = (end - size) // _ALIGNED * _ALIGNED
        self._core.mem_map(self._heap, end - self._heap)
        self._core.mem_write(address, array.tobytes())
        self._heap = end + _PAGE
        return address

    def _allocate(self, size: int) -> int:
        address = self._heap
        self._core.mem_map(address, _pages(size))
        self._heap += _pages(size) + _PAGE
        return address

    def _tensor(self, array: Array, address: int) -> int:
        """A DLTensor with its shape behind it."""
        at = self._allocate(_PAGE)
        code = 4 if array.dtype.name == "bfloat16" else {"i": 0, "u": 1, "f": 2}[array.dtype.kind]
        kind = (1, 0, array.ndim, code, 8 * array.itemsize, 1)
        head = struct.pack("<QiiiBBHQQQ", address, *kind, at + 64, 0, 0)
        self._core.mem_write(at, head)
        self._core.mem_write(at + 64, struct.pack(f"<{array.ndim}q", *array.shape))
        return at


def _pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def _unicorn() -> tuple[Any, Any]:
    try:
        import unicorn
        from unicorn import arm64_const
    except ImportError as error:
        raise MissingToolError(
            "unicorn is needed to simulate kernels, found: not installed. "
            "To mend it: pip install 'tvmconv[simulate]'"
        ) from error
    return unicorn, arm64_const


def _integers(core: Any, count: int) -> list[int]:
    from unicorn import arm64_const

    return [core.reg_read(getattr(arm64_const, f"UC_ARM64_REG_X{at}")) for at in range(count)]


def _allocate_workspace(emulator: Emulator, core: Any) -> int:
    from unicorn import arm64_const

    size = max(_integers(core, 3)[2], 1)
    address = emulator._allocate(size)
    if emulator._caches is not None:  # the call before had the same memory
        emulator._caches.pass_over(address, size, written=True)
    core.reg_write(arm64_const.UC_ARM64_REG_X0, address)
    return 50  # TVM keeps freed ones in a list


def _free_workspace(_emulator: Emulator, core: Any) -> int:
    from unicorn import arm64_const

    core.reg_write(arm64_const.UC_ARM64_REG_X0, 0)
    return 50


def _copy(_emulator: Emulator, core: Any) -> int:
    to, source, size = _integers(core, 3)
    core.mem_write(to, bytes(core.mem_read(source, size)))
    return _lines(size)


def _fill(_emulator: Emulator, core: Any) -> int:
    to, value, size = _integers(core, 3)
    core.mem_write(to, bytes([value & 0xFF]) * size)
    return _lines(size)


def _lines(size: int) -> int:
    """What glibc's memcpy and memset take: six instructions for 64 bytes, and 15 around them."""
    return 15 + 6 * (size // 64)


def _exponential(_emulator: Emulator, core: Any) -> int:
    from unicorn import arm64_const

    (value,) = struct.unpack("<f", struct.pack("<I", core.reg_read(arm64_const.UC_ARM64_REG_S0)))
    with np.errstate(all="ignore"):
        result = np.exp(np.float32(value))
    (bits,) = struct.unpack("<I", struct.pack("<f", result))
    core.reg_write(arm64_const.UC_ARM64_REG_S0, bits)
    return 25  # glibc 2.36, expf


def _double_exponential(_emulator: Emulator, core: Any) -> int:
    from unicorn import arm64_const

    (value,) = struct.unpack("<d", struct.pack("<Q", core.reg_read(arm64_const.UC_ARM64_REG_D0)))
    result = math.exp(value) if value < 709 else math.inf
    (bits,) = struct.unpack("<Q", struct.pack("<d", result))
    core.reg_write(arm64_const.UC_ARM64_REG_D0, bits)
    return 40


def _refuse(emulator: Emulator, core: Any) -> int:
    """The message of a kernel that finds its arguments wrong: a kind, and pieces of text."""
    _, parts, count = _integers(core, 3)
    pointers = struct.unpack(f"<{count}Q", bytes(core.mem_read(parts, 8 * count)))
    texts = (
        bytes(core.mem_read(pointer, 200)).partition(b"\0")[0] for pointer in pointers if pointer
    )
    emulator._fault = b"".join(texts).decode(errors="replace")
    return 0


# What kernels call, and the instructions charged for it.
_CALLS: dict[str, Callable[[Emulator, Any], int]] = {
    "TVMBackendAllocWorkspace": _allocate_workspace,
    "TVMBackendFreeWorkspace": _free_workspace,
    "TVMFFIErrorSetRaisedFromCStrParts": _refuse,
    "memcpy": _copy,
    "memmove": _copy,
    "memset": _fill,
    "expf": _exponential,
    "exp": _double_exponential,
}
