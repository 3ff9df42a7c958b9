"""Reads from a file which GPU architectures its device code is for: CUDA's fatbins inside it."""

from __future__ import annotations

import struct
from dataclasses import dataclass

# fatbinary_section.h of the CUDA toolkit names the magic number; the header in front of each part is not
# documented: kind and architecture are as ZLUDA's and Gdev's authors found them, and
# tests/building/test_fatbin.py compares what is read here with what cuobjdump says.
_HEADER = struct.Struct("<4sHHQ")  # magic, version, size of this header, size of all parts
_PART = struct.Struct(
    "<HHIQIIII"
)  # kind, version, size of this header, size of the part, ..., arch
_MAGIC = b"\x50\xed\x55\xba"
_PTX, _CUBIN = 1, 2


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
    return DeviceCode(frozenset(cubins), frozenset(ptx))


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
