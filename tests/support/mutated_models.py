"""Damaged .tflite files: mutations of a sound one, mostly of its tables and not of its weights."""

from __future__ import annotations

from functools import lru_cache
from random import Random

import numpy as np

from tvmconv.models.tflite.file import parse

_NUMBERS = (0, 1, 2, 3, 4, 7, 8, 255, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 4)


@lru_cache(maxsize=8)
def table_bytes(content: bytes) -> list[int]:
    """Offsets of all bytes that are of no constant."""
    start = np.frombuffer(content, np.uint8).__array_interface__["data"][0]
    tables = np.ones(len(content), bool)
    for tensor in parse(content, "sound").tensors:
        if tensor.constant is not None and tensor.constant.nbytes > 64:
            first = tensor.constant.__array_interface__["data"][0] - start
            if 0 <= first < len(content):  # else a copy, of a sparse one
                tables[first : first + tensor.constant.nbytes] = False
    return np.flatnonzero(tables).tolist()


def mutate(content: bytes, seed: int) -> bytes:
    """Change one to four places, or cut off the end."""
    rng, changed = Random(seed), bytearray(content)
    offsets = table_bytes(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.choice(offsets)
        kind = rng.randrange(5)
        if kind == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at] = rng.randrange(256)
        elif kind == 2:
            changed[at : at + 4] = rng.choice(_NUMBERS).to_bytes(4, "little")
        elif kind == 3:  # a table or vector in another's place
            other = rng.choice(offsets)
            length = rng.choice((1, 4, 16))
            changed[at : at + length] = content[other : other + length]
        elif rng.random() < 0.2:
            del changed[at:]
            break
    return bytes(changed)
