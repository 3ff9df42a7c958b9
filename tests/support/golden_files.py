"""Texts that are kept in files, with the command that renews them, and scheduled loops as such a text."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

UPDATE = "--update-golden"


def check(path: Path, text: str, update: bool) -> None:
    """Compare ``text`` with a file, or write it there if ``update``; fails with the command that does."""
    if update:
        path.write_text(text)
        return
    if not path.is_file():
        raise AssertionError(f"{path.name} is missing. To write it: {_command(path)}")
    known = path.read_text()
    if known != text:
        lines = difflib.unified_diff(
            known.splitlines(), text.splitlines(), path.name, "now", n=1, lineterm=""
        )
        shown = "\n".join(lines)
        raise AssertionError(
            f"{shown}\nIf that is what you wanted: {_command(path)}, and commit it."
        )


def _command(path: Path) -> str:
    return f"pytest {UPDATE} tests/{path.parent.name}"


_LOOP = re.compile(r"for (?P<names>[\w, ]+) in (?:T\.)?(?P<kind>\w+)\((?P<rest>.*)\):$")
_BLOCK = re.compile(r'with T\.sblock\("(?P<name>[^"]+)"\):$')
_BUFFER = re.compile(r"(?P<name>\w+) = T\.sblock_alloc_buffer\((?P<rest>.*)\)$")
_KINDS = {"range": "", "thread_binding": "thread", "vectorized": "vector"}


def loops_text(function: Any) -> str:
    """The loops and blocks of a scheduled TVM function, one a line, without what the blocks compute."""
    lines = []
    for line in function.script().splitlines():
        bare = line.strip()
        indent = " " * ((len(line) - len(bare)) // 2 - 2)
        if loop := _LOOP.match(bare):
            kind = _KINDS.get(loop["kind"], loop["kind"])
            lines.append(f"{indent}{loop['names']}: {kind} {loop['rest']}".replace(":  ", ": "))
        elif buffer := _BUFFER.match(bare):
            lines.append(f"{indent}{buffer['name']} = buffer {buffer['rest']}")
        elif (block := _BLOCK.match(bare)) and block["name"] != "root":
            lines.append(f"{indent}{block['name']}")
    return "\n".join(lines)
