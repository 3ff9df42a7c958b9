"""Links one AArch64 object file into an image at a fixed address, without a linker.

Only what TVM's LLVM writes is understood: sections that are loaded, and the relocations of the small code
model; anything else is an error. Numbers and formulas: "ELF for the Arm 64-bit Architecture" (AAELF64).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tvmconv.errors import BuildError

_MACHINE_AARCH64, _RELOCATABLE = 183, 1
_ALLOCATED, _EXECUTABLE = 0x2, 0x4
_RELA, _NOBITS, _SYMTAB = 4, 8, 2
_PAGE = 0x1000


@dataclass(frozen=True)
class Image:
    """What lies at ``base``: bytes, where they are code, and the addresses of the symbols they define."""

    base: int
    content: bytes
    code: tuple[tuple[int, int], ...]
    symbols: Mapping[str, int]


@dataclass(frozen=True)
class _Section:
    name: str
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int


@dataclass(frozen=True)
class _Symbol:
    name: str
    section: int
    value: int


def link(content: bytes, base: int, imports: Mapping[str, int]) -> Image:
    """Place an object file at ``base``; ``imports`` are the addresses of what it does not define.

    Raises BuildError where it is no AArch64 object, has an unknown relocation, or wants another import.
    """
    kind, machine = struct.unpack_from("<HH", content, 16) if content[:4] == b"\x7fELF" else (0, 0)
    if (kind, machine) != (_RELOCATABLE, _MACHINE_AARCH64):
        raise BuildError("only a relocatable object file for AArch64 can be simulated")
    sections = _sections(content)
    symbols = _symbols(content, sections)
    places, end = _placed(sections, base)
    missing = sorted(
        {s.name for s in symbols if s.section == 0 and s.name and s.name not in imports}
    )
    if missing:
        raise BuildError(
            f"the kernel calls {', '.join(missing)}; known are {', '.join(sorted(imports))}"
        )
    # Behind the sections one pointer for every symbol: what a linker makes of the global offset table.
    table = -(-end // 8) * 8
    image = bytearray(table + 8 * len(symbols) - base)
    for number, place in places.items():
        section = sections[number]
        if section.kind != _NOBITS:
            at = place - base
            image[at : at + section.size] = content[section.offset : section.offset + section.size]
    addresses = [
        imports[s.name] if s.section == 0 and s.name else places.get(s.section, 0) + s.value
        for s in symbols
    ]
    for number, address in enumerate(addresses):
        struct.pack_into("<Q", image, table + 8 * number - base, address)
    for section in sections:
        if section.kind == _RELA and section.info in places:
            _relocate(content, section, places[section.info], image, base, addresses, table)
    code = [
        (places[number], places[number] + section.size)
        for number, section in enumerate(sections)
        if number in places and section.flags & _EXECUTABLE
    ]
    defined = {s.name: a for s, a in zip(symbols, addresses, strict=True) if s.name and s.section}
    return Image(base, bytes(image), tuple(code), defined)


def _sections(content: bytes) -> list[_Section]:
    (offset,) = struct.unpack_from("<Q", content, 40)
    size, count, names = struct.unpack_from("<HHH", content, 58)
    raw = [struct.unpack_from("<IIQQQQIIQQ", content, offset + size * i) for i in range(count)]
    strings = raw[names][4]
    return [
        _Section(_string(content, strings + r[0]), r[1], r[2], r[4], r[5], r[6], r[7], max(r[8], 1))
        for r in raw
    ]


def _string(content: bytes, at: int) -> str:
    return content[at : content.index(b"\0", at)].decode()


def _symbols(content: bytes, sections: list[_Section]) -> list[_Symbol]:
    (table,) = (section for section in sections if section.kind == _SYMTAB)
    strings = sections[table.link].offset
    return [
        _Symbol(_string(content, strings + name), section, value)
        for name, _, _, section, value, _ in struct.iter_unpack(
            "<IBBHQQ", content[table.offset : table.offset + table.size]
        )
    ]


def _placed(sections: list[_Section], base: int) -> tuple[dict[int, int], int]:
    """Addresses of the sections that are loaded, one behind the other, and where they end."""
    places, at = {}, base
    for number, section in enumerate(sections):
        if section.flags & _ALLOCATED and section.name != ".eh_frame":
            at = -(-at // section.alignment) * section.alignment
            places[number] = at
            at += section.size
    return places, at


def _relocate(
    content: bytes,
    section: _Section,
    place: int,
    image: bytearray,
    base: int,
    addresses: list[int],
    table: int,
) -> None:
    """Apply one section's relocations; S + A and the address P of the place as the manual calls them."""
    entries = content[section.offset : section.offset + section.size]
    for offset, info, addend in struct.iter_unpack("<QQq", entries):
        kind, number = info & 0xFFFFFFFF, info >> 32
        at, target = place + offset - base, addresses[number] + addend
        if kind == _ABS64:
            struct.pack_into("<Q", image, at, target)
            continue
        if kind in _OF_TABLE:
            target = table + 8 * number
        if kind not in _INSTRUCTIONS:
            raise BuildError(
                f"the object file has a relocation of kind {kind}, which is unknown here"
            )
        (word,) = struct.unpack_from("<I", image, at)
        struct.pack_into("<I", image, at, word | _INSTRUCTIONS[kind](target, place + offset))


def _page_of(target: int, place: int) -> int:
    pages = (target // _PAGE - place // _PAGE) & 0x1FFFFF
    return (pages & 3) << 29 | (pages >> 2) << 5


def _offset_in_page(shift: int) -> Callable[[int, int], int]:
    """The low twelve bits, in units of the access's size."""
    return lambda target, _place: ((target % _PAGE) >> shift) << 10


def _branch(target: int, place: int) -> int:
    if not -(1 << 27) <= target - place < 1 << 27:
        raise BuildError(f"a branch from {place:#x} cannot reach {target:#x}")
    return ((target - place) >> 2) & 0x3FFFFFF


_ABS64 = 257
_OF_TABLE = (311, 312)  # ADR_GOT_PAGE, LD64_GOT_LO12_NC
_INSTRUCTIONS: Mapping[int, Callable[[int, int], int]] = {
    275: _page_of,  # ADR_PREL_PG_HI21
    277: _offset_in_page(0),  # ADD_ABS_LO12_NC
    278: _offset_in_page(0),  # LDST8_ABS_LO12_NC
    282: _branch,  # JUMP26
    283: _branch,  # CALL26
    284: _offset_in_page(1),  # LDST16_ABS_LO12_NC
    285: _offset_in_page(2),  # LDST32
    286: _offset_in_page(3),  # LDST64
    299: _offset_in_page(4),  # LDST128
    311: _page_of,
    312: _offset_in_page(3),
}
