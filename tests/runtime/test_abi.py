"""libtvm_ffi through its C interface: values go in and out, errors and references come back."""

import gc

import pytest
import tvm_ffi
from runtime_calls import in_new_process, shared_bundle

from tvmconv.runtime import abi, load


def refused(kind, message):
    """A function of libtvm_ffi that fails."""

    @tvm_ffi.register_global_func("tvmconv.tests.refused", override=True)
    def fail():
        raise kind(message)

    return abi.required_function("tvmconv.tests.refused")


@pytest.mark.parametrize("kind", [ValueError, TypeError, IndexError])
def test_an_error_keeps_its_class_and_words(kind):
    with pytest.raises(kind, match="no such shape: é"):
        refused(kind, "no such shape: é")()


def test_an_error_of_an_unknown_class_is_a_runtime_error():
    class OwnError(Exception):
        pass

    with pytest.raises(RuntimeError, match="something else"):
        refused(OwnError, "something else")()


def test_arguments_and_results_are_those_of_the_package():
    given = []

    @tvm_ffi.register_global_func("tvmconv.tests.given", override=True)
    def note(*arguments):
        given.extend(arguments)
        return arguments[-1]

    function = abi.required_function("tvmconv.tests.given")
    strings = abi.required_function("ffi.Array")("a", "a longer string")
    back = function(-(1 << 40), "text", strings)

    assert given[:2] == [-(1 << 40), "text"]
    assert list(given[2]) == ["a", "a longer string"]
    assert abi.lent(back).same_as(given[2])
    assert function(7) is None


def test_objects_are_given_back():
    made = tvm_ffi.Array(["a string"])

    @tvm_ffi.register_global_func("tvmconv.tests.made", override=True)
    def give():
        return made

    def references():
        return abi._Header.from_address(made.__chandle__()).references & 0xFFFFFFFF

    function = abi.required_function("tvmconv.tests.made")
    gc.collect()
    before = references()
    held = [function() for _ in range(100)]
    lent = [abi.lent(each) for each in held]
    assert references() >= before + 100
    del held, lent
    gc.collect()
    assert references() == before


def test_a_function_that_no_library_has_is_named():
    assert abi.find_function("tvmconv.no.such") is None
    with pytest.raises(Exception, match=r"tvmconv\.no\.such.*pip install --upgrade"):
        abi.required_function("tvmconv.no.such")


def test_a_library_is_lent_to_the_package():
    library = load(shared_bundle(), threads=1)

    assert library.module.same_as(library.module)
    assert library.module.kind == "library"


ENDING = """
import json, sys, threading
import plain_bundle as b
import tvmconv
x, w, *_ = b.operands(b.TINY)
library = tvmconv.load(sys.argv[1], threads=1)
layer = library[b.TINY].bind(w)
sys.modules["kept"] = layer  # until the very end of the interpreter
print(json.dumps([layer(x).shape[0], "tvm_ffi" in sys.modules]))
"""


def test_a_process_ends_quietly_with_kernels_in_it():
    assert in_new_process(ENDING, shared_bundle()) == [1, False]


TOGETHER = """
import json, sys
import plain_bundle as b
import tvmconv
x, w, *_ = b.operands(b.TINY)
if sys.argv[2] == "first":
    import tvm_ffi
layer = tvmconv.load(sys.argv[1], threads=1)[b.TINY].bind(w)
b.assert_right(b.TINY, layer(x), x, w)
import tvm_ffi
b.assert_right(b.TINY, layer(tvm_ffi.from_dlpack(x)), x, w)
maps = {line.split()[5] for line in open("/proc/self/maps") if "libtvm_ffi.so" in line}
print(json.dumps(len(maps)))
"""


@pytest.mark.parametrize("order", ["first", "last"])
def test_the_package_may_be_imported_before_and_after(order):
    assert in_new_process(TOGETHER, shared_bundle(), order) == 1
