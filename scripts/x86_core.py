"""An emulated x86-64 core without AVX that runs kernels of a library which this process has loaded.

Code and data are this process's own, copied page by page when the emulated core first touches them, so
nothing has to be linked. What kernels call in TVM's runtime and in the C library is done here. For
scripts/trust_simulation.py: the prediction is tried where it can be measured.
"""

from __future__ import annotations

import ctypes
import re
import struct
import subprocess
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import unicorn
from unicorn import x86_const as names

from tvmconv.measuring.simulate import cycles
from tvmconv.measuring.simulate.caches import Caches, Traffic, Watch

_PAGE = 0x1000
_STACK, _STACK_BYTES = 0x1000_0000, 1 << 20
_HEAP = 0x2000_0000
_RETURN = _STACK + 0x100  # an address that is mapped, and never executed
_DLTENSOR = 7  # TVMFFITypeIndex kTVMFFIDLTensorPtr
_REPEATED = 50
Block = tuple[int, int]


class Core:
    """Runs functions of loaded libraries; ``counted`` are the blocks of the last call."""

    def __init__(self, runtime: str) -> None:
        self._uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        self._uc.mem_map(_STACK, _STACK_BYTES)
        self._heap = _HEAP
        self.counted: Counter[Block] = Counter()
        self._keep: list[Any] = []
        self._left = float("inf")
        self._uc.hook_add(unicorn.UC_HOOK_MEM_UNMAPPED, self._fetch)
        self._uc.hook_add(unicorn.UC_HOOK_BLOCK, self._on_block)
        libraries = (ctypes.CDLL(runtime), ctypes.CDLL(None))
        for number, (name, act) in enumerate(_CALLS.items()):
            symbol = getattr(libraries[number >= 3], name)
            at = ctypes.cast(symbol, ctypes.c_void_p).value
            self._uc.hook_add(unicorn.UC_HOOK_CODE, act, self, begin=at, end=at)

    def call(self, library: str, symbol: str, arrays: Sequence[Any], caches: Caches) -> Traffic:
        """Run a function that has been called natively before, so that its imports are bound."""
        tensors = [_tensor(array, self._keep) for array in arrays]
        packed = b"".join(struct.pack("<iiQ", _DLTENSOR, 0, at) for at in tensors)
        arguments, result = ctypes.create_string_buffer(packed), ctypes.create_string_buffer(16)
        self._keep += [arguments, result]
        function = getattr(ctypes.CDLL(library), f"__tvm_ffi_{symbol}")
        registers = (0, ctypes.addressof(arguments), len(arrays), ctypes.addressof(result))
        for name, value in zip(("RDI", "RSI", "RDX", "RCX"), registers, strict=True):
            self._uc.reg_write(getattr(names, f"UC_X86_REG_{name}"), value)
        stack = _STACK + _STACK_BYTES - 0x1000 - 8
        self._uc.mem_write(stack, struct.pack("<Q", _RETURN))
        self._uc.reg_write(names.UC_X86_REG_RSP, stack)
        for array in arrays:
            caches.pass_over(array.ctypes.data, array.nbytes, written=array is arrays[-1])
        self.counted.clear()
        watch = Watch(self._uc, caches)
        self._left = watch.blocks
        self._uc.emu_start(ctypes.cast(function, ctypes.c_void_p).value, _RETURN)
        if (at := self._uc.reg_read(names.UC_X86_REG_RIP)) != _RETURN:
            watch.rest()
            self._left = float("inf")
            self._uc.emu_start(at, _RETURN)
        out = arrays[-1]
        read = bytes(self._uc.mem_read(out.ctypes.data, out.nbytes))
        out[...] = np.frombuffer(read, out.dtype).reshape(out.shape)
        return watch.end(self.counted.total())

    def _fetch(self, uc: Any, _kind: int, address: int, size: int, _value: int, _data: Any) -> bool:
        for page in range(address // _PAGE, (address + max(size, 1) - 1) // _PAGE + 1):
            uc.mem_map(page * _PAGE, _PAGE)
            uc.mem_write(page * _PAGE, ctypes.string_at(page * _PAGE, _PAGE))
        return True

    def _on_block(self, uc: Any, address: int, size: int, _data: Any) -> None:
        if not self._left:
            uc.emu_stop()
            return
        self._left -= 1
        self.counted[address, size] += 1

    def allocate(self, size: int) -> int:
        """Zeroed memory of the emulated core alone."""
        address = self._heap
        whole = -(-size // _PAGE) * _PAGE
        self._uc.mem_map(address, whole)
        self._heap += whole + _PAGE
        return address


def _tensor(array: Any, keep: list[Any]) -> int:
    shape = (ctypes.c_int64 * array.ndim)(*array.shape)
    head = struct.pack(
        "<QiiiBBHQQQ", array.ctypes.data, 1, 0, array.ndim, 2, 32, 1, ctypes.addressof(shape), 0, 0
    )
    made = ctypes.create_string_buffer(head)
    keep += [shape, made, array]
    return ctypes.addressof(made)


def _argument(uc: Any, name: str) -> int:
    value: int = uc.reg_read(getattr(names, f"UC_X86_REG_{name}"))
    return value


def _return(uc: Any, value: int) -> None:
    stack = _argument(uc, "RSP")
    (back,) = struct.unpack("<Q", uc.mem_read(stack, 8))
    uc.reg_write(names.UC_X86_REG_RSP, stack + 8)
    uc.reg_write(names.UC_X86_REG_RAX, value)
    uc.reg_write(names.UC_X86_REG_RIP, back)


def _launch(uc: Any, _address: int, _size: int, core: Core) -> None:
    """One task, the caller's own."""
    function, data = _argument(uc, "RDI"), _argument(uc, "RSI")
    environment = core.allocate(16)
    uc.mem_write(environment, struct.pack("<Qi", 0, 1))
    for name, value in (("RDI", 0), ("RSI", environment), ("RDX", data), ("RIP", function)):
        uc.reg_write(getattr(names, f"UC_X86_REG_{name}"), value)


def _workspace(uc: Any, _address: int, _size: int, core: Core) -> None:
    _return(uc, core.allocate(max(_argument(uc, "RDX"), 1)))


def _free(uc: Any, _address: int, _size: int, _core: Core) -> None:
    _return(uc, 0)


def _copy(uc: Any, _address: int, _size: int, _core: Core) -> None:
    to, source, size = (_argument(uc, name) for name in ("RDI", "RSI", "RDX"))
    uc.mem_write(to, bytes(uc.mem_read(source, size)))
    _return(uc, to)


def _fill(uc: Any, _address: int, _size: int, _core: Core) -> None:
    to, value, size = (_argument(uc, name) for name in ("RDI", "RSI", "RDX"))
    uc.mem_write(to, bytes([value & 0xFF]) * size)
    _return(uc, to)


_CALLS = {  # three of TVM's runtime, then those of the C library
    "TVMBackendParallelLaunch": _launch,
    "TVMBackendAllocWorkspace": _workspace,
    "TVMBackendFreeWorkspace": _free,
    "memcpy": _copy,
    "memset": _fill,
}


def predict(blocks: Counter[Block], processor: str) -> float:
    """Cycles of the blocks on LLVM's model of a processor, caches left aside."""
    assemble, analyse = cycles.tools()
    whole = cycles.joined(blocks)
    regions = []
    for address, size in whole:
        content = " ".join(f"0x{byte:02x}" for byte in ctypes.string_at(address, size))
        regions.append(f"{content} 0x0f 0x0b\n")  # and ud2, where the next begins
    said = _run([assemble, "-disassemble", "-triple=x86_64", "-mattr=+sse4.2"], "".join(regions))
    texts = "\n".join(line for line in said.splitlines() if not line.startswith("\t.")).split("ud2")
    marked = "".join(
        f"# LLVM-MCA-BEGIN {number}\n{text}\n# LLVM-MCA-END {number}\n"
        for number, text in enumerate(texts[:-1])
    )
    options = (f"-iterations={_REPEATED}", "-resource-pressure=0", "-instruction-info=0")
    said = _run([analyse, "-mtriple=x86_64", f"-mcpu={processor}", *options], marked)
    taken = [int(each) / _REPEATED for each in re.findall(r"Total Cycles:\s+(\d+)", said)]
    if len(taken) != len(whole):
        raise SystemExit(f"llvm-mca analysed {len(taken)} of {len(whole)} blocks")
    return sum(times * cost for times, cost in zip(whole.values(), taken, strict=True))


def _run(command: list[str], text: str) -> str:
    result = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed: {result.stderr.strip()[:500]}")
    return result.stdout
