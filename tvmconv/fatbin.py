"""Reads from a file which GPU architectures its device code is for: CUDA's fatbins and cubins inside it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

# fatbinary_section.h of the CUDA toolkit names the magic number; the header in front of each part is not
# documented: kind and architecture are as ZLUDA's and Gdev's authors found them, and tests/test_fatbin.py
# compares what is read here with what cuobjdump says.
_HEADER = struct.Struct("<4sHHQ")  # magic, version, size of this header, size of all parts
_PART = struct.Struct(
    "<HHIQIIII"
)  # kind, version, size of this header, size of the part, ..., arch
_MAGIC = b"\x50\xed\x55\xba"
_PTX, _CUBIN = 1, 2

# A cubin alone is an ELF file of machine EM_CUDA; e_flags holds the architecture.
_ELF = struct.Struct("<16sHHIQQQI")
_EM_CUDA = 190
_ABI_OF_CUDA_13 = 8  # e_ident[EI_ABIVERSION]: from there on the architecture is in bits 8 to 15


@dataclass(frozen=True)
class DeviceCode:
    """Architectures, like ``sm_90``, that machine code is there for, and those that PTX starts from."""

    cubins: frozenset[str]
    ptx: frozenset[str]


def device_code(data: bytes) -> DeviceCode:
    """Find all device code in the bytes of a file, an object or shared library for example."""
    cubins, ptx = set[str](), set[str]()
    begin = data.find(_MAGIC)
    while begin >= 0:
        for kind, arch in _parts(data, begin):
            {_CUBIN: cubins, _PTX: ptx}.get(kind, set()).add(f"sm_{arch}")
        begin = data.find(_MAGIC, begin + 1)
    return DeviceCode(frozenset(cubins or _lone_cubins(data)), frozenset(ptx))


def _parts(data: bytes, begin: int) -> list[tuple[int, int]]:
    """(kind, architecture) of each part of the fatbin at ``begin``; none where that is no fatbin."""
    if begin + _HEADER.size > len(data):
        return []
    _, _, header_size, size = _HEADER.unpack_from(data, begin)
    at, end = begin + header_size, begin + header_size + size
    found = []
    while at + _PART.size <= min(end, len(data)):
        kind, _, part_header, part_size, *_, arch = _PART.unpack_from(data, at)
        if kind not in (_PTX, _CUBIN) or not part_header:
            break
        found.append((kind, arch))
        at += part_header + part_size
    return found


def _lone_cubins(data: bytes) -> set[str]:
    """Architectures of cubins that are in no fatbin, which NVRTC without nvFatbin makes."""
    found, begin = set(), data.find(b"\x7fELF")
    while begin >= 0 and begin + 52 <= len(data):
        machine = int.from_bytes(data[begin + 18 : begin + 20], "little")
        if machine == _EM_CUDA:
            flags = int.from_bytes(data[begin + 48 : begin + 52], "little")
            new = data[begin + 8] >= _ABI_OF_CUDA_13
            found.add(f"sm_{flags >> 8 & 0xFF if new else flags & 0xFF}")
        begin = data.find(b"\x7fELF", begin + 1)
    return found
