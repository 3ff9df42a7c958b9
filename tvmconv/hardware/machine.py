"""Facts of machines, as types; schedules read nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tvmconv.errors import HardwarePackError
from tvmconv.hardware.cuda_driver import capability
from tvmconv.problem.rules import ITEM_BYTES


@dataclass(frozen=True)
class Cpu:
    """Facts of one core of a CPU.

    Attributes:
        vector_bytes: width of a vector register.
        vector_registers: architectural vector registers.
        fma_ports: vector multiply-adds a cycle.
        fma_latency: cycles from a multiply-add to one that uses its result.
        load_ports: vector loads a cycle from the first-level cache.
        l1_bytes, l2_bytes: its data caches.
        gigahertz: the clock of a usual board. This and the next two are for predictions only, and 0 where
            nobody looked them up: such a machine cannot be simulated.
        l2_bytes_per_cycle, memory_bytes_per_cycle: what one core moves between its caches, and beyond.
    """

    vector_bytes: int
    vector_registers: int
    fma_ports: int
    fma_latency: int
    load_ports: int
    l1_bytes: int
    l2_bytes: int
    gigahertz: float = 0.0
    l2_bytes_per_cycle: float = 0.0
    memory_bytes_per_cycle: float = 0.0

    def lanes(self, dtype: str) -> int:
        """Elements of ``dtype`` in one vector register."""
        return self.vector_bytes // ITEM_BYTES[dtype]


@dataclass(frozen=True)
class Gpu:
    """Facts of a card and of one of its multiprocessors.

    Attributes:
        arch: as CUDA's compilers spell it: ``sm_90``.
        multiprocessors: of the whole card.
        fma_lanes: float32 multiply-adds that a multiprocessor does in a cycle outside of its tensor cores.
        shared_bytes: the most shared memory that one block may ask for.
        shared_bytes_per_multiprocessor: what the blocks on one multiprocessor share; each takes 1 KiB
            more than it asks for, from sm_80 on.
        threads_per_multiprocessor, blocks_per_multiprocessor: the most that are there at a time.
        l2_bytes: of the whole card.
        bandwidth: of its memory, in bytes a second.
        clock: boost clock in Hz.
        tensor_core_dtypes: inputs of tensor cores; float32 stands for TF32.
        async_copy: whether it copies to shared memory past the registers (cp.async).
        registers_per_multiprocessor: of 32 bits.
        cluster_blocks: how many blocks can wait for each other, on every card of the architecture.
        tensor_rates: multiply-adds that the tensor cores of a multiprocessor do in a cycle at most, dense,
            with sums in float32 or int32: of operands of one byte, of two, and of TF32.
    """

    arch: str
    multiprocessors: int
    fma_lanes: int
    shared_bytes: int
    shared_bytes_per_multiprocessor: int
    threads_per_multiprocessor: int
    blocks_per_multiprocessor: int
    l2_bytes: int
    bandwidth: int
    clock: int
    tensor_core_dtypes: tuple[str, ...]
    async_copy: bool
    registers_per_multiprocessor: int = 65536
    cluster_blocks: int = 1
    tensor_rates: tuple[int, int, int] = (0, 0, 0)

    @property
    def capability(self) -> tuple[int, int]:
        """Compute capability: (9, 0) for ``sm_90``."""
        return capability(self.arch)


@dataclass(frozen=True)
class Machine:
    """What kernels are made for, as published by its vendor or measured; schedules read nothing else.

    Attributes:
        name: what users call it; also the folder of its tuning records.
        description: one line for people.
        architecture: as ``platform.machine()`` spells it; of a GPU, that of its host.
        target: TVM's target, in its dict form.
        features: the ``/proc/cpuinfo`` flags of every instruction set that ``target`` may use.
        core: what computes.
    """

    name: str
    description: str
    architecture: str
    target: Mapping[str, Any]
    features: tuple[str, ...]
    core: Cpu | Gpu

    @property
    def cpu(self) -> Cpu:
        """Facts of the CPU; raises HardwarePackError where a GPU computes."""
        if isinstance(self.core, Gpu):
            raise HardwarePackError(
                f"{self.name} is a GPU, which has no vector registers: a schedule for CPUs was asked for it"
            )
        return self.core

    @property
    def gpu(self) -> Gpu | None:
        """Facts of the GPU, None where a CPU computes."""
        return self.core if isinstance(self.core, Gpu) else None
