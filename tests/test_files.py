"""JSON from files of others: what is refused, and how."""

from __future__ import annotations

import dataclasses
import os

import pytest

from tvmconv import files


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 100_000, "100 deep"),
        ("[" * 990 + "]" * 990, "100 deep"),
        ('{"a":' * 101 + "1" + "}" * 101, "100 deep"),
        ('{"seconds": NaN}', "NaN is no number"),
        ("[-Infinity]", "-Infinity is no number"),
        ("[1e999]", "1e999 is too large"),
        (b"\xff", "utf-8"),
        ("", "Expecting value"),
    ],
    ids=["brackets", "nested", "objects", "nan", "infinite", "large", "bytes", "empty"],
)
def test_what_is_no_json_is_a_value_error(text, why):
    with pytest.raises(ValueError, match=why):
        files.parse_json(text)


def test_what_stands_just_deep_enough_is_read():
    value = files.parse_json("[" * 99 + "1.5" + "]" * 99)

    for _ in range(99):
        (value,) = value
    assert value == 1.5


@pytest.mark.timeout(20)
def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"")
    os.truncate(tmp_path / "large", 1 << 40)

    for name, why in (("pipe", "not a regular file"), ("large", "more than"), ("none", "No such")):
        with pytest.raises(OSError, match=why):
            files.read_json(tmp_path / name)


def test_a_whole_number_is_a_float_where_that_is_wanted():
    assert files.decode(float, 3, "x") == 3.0
    with pytest.raises(ValueError, match="x must be float, found int"):
        files.decode(float, 10**400, "x")
    with pytest.raises(ValueError, match="x must be int, found float"):
        files.decode(int, 3.0, "x")


@dataclasses.dataclass
class _Sides:
    sides: tuple[int, ...]
    names: dict[str, float] | None = None


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"sides": [1, True], "names": None}, r"it.sides\[1\] must be int, found bool"),
        ({"sides": [1, 2.0], "names": None}, r"it.sides\[1\] must be int, found float"),
        ({"sides": 1, "names": None}, r"it.sides must be tuple\[int, ...\], found int"),
        ({"sides": [], "names": {"a": "b"}}, r"it.names\['a'\] must be float, found str"),
        ({"sides": [], "names": []}, r"it.names must be dict\[str, float\], found list"),
        ({"sides": []}, r"missing are \['names'\]"),
        ([], "it must be an object, found list"),
    ],
)
def test_a_message_names_the_place_in_lists_and_objects(value, why):
    with pytest.raises(ValueError, match=why):
        files.decode(_Sides, value, "it")


def test_objects_lists_and_what_may_be_none_are_decoded():
    found = files.decode(_Sides, {"names": {"a": 1}, "sides": [3, 4]}, "it")

    assert found == _Sides((3, 4), {"a": 1.0})
    assert type(found.names["a"]) is float
    assert files.decode(_Sides, {"sides": [], "names": None}, "it") == _Sides(())
