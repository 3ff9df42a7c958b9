"""tvmconv.conv2d and depthwise_conv2d: their values, their refusals, and the cache behind them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_oracle
from illegal_calls import ILLEGAL_CALLS, IllegalCall

import tvmconv
from tvmconv import errors, hardware
from tvmconv.building import kernel_cache
from tvmconv.checking import oracle
from tvmconv.problem.calls import spec_of_conv2d_call, spec_of_depthwise_call
from tvmconv.records import choice, log
from tvmconv.records.record import Record
from tvmconv.runtime import tensors

FUNCTIONS = {"conv2d": tvmconv.conv2d, "depthwise_conv2d": tvmconv.depthwise_conv2d}
SPEC_OF = {"conv2d": spec_of_conv2d_call, "depthwise_conv2d": spec_of_depthwise_call}
PADS = [(0, 0), (1, 2), (3, 0), (0, 0)]
TESTS = Path(__file__).parent
SPEC = tvmconv.ConvSpec.conv2d((1, 6, 5, 8), (3, 3, 8, 16))

ONES = [1, 1, 1, 1]
# op, input shape, filter shape, and what differs from ONES strides, SAME padding and float32
CALLS = {
    "plain": ("conv2d", (1, 9, 8, 3), (3, 3, 3, 16), {"strides": 1}),
    "pointwise": ("conv2d", (2, 7, 7, 24), (1, 1, 24, 40), {"strides": None, "padding": "VALID"}),
    "strided": ("conv2d", (1, 11, 12, 8), (3, 3, 8, 16), {"strides": [1, 2, 2, 1]}),
    "dilated": ("conv2d", (1, 9, 9, 8), (3, 2, 8, 8), {"dilations": [2, 1]}),
    "padded": ("conv2d", (1, 6, 6, 4), (3, 3, 4, 8), {"strides": 2, "padding": PADS}),
    "grouped": ("conv2d", (1, 6, 6, 8), (3, 3, 2, 12), {"padding": "VALID"}),
    "rank5": ("conv2d", (2, 2, 5, 6, 4), (2, 2, 4, 5), {}),
    "half": ("conv2d", (1, 5, 5, 16), (1, 1, 16, 8), {"dtype": "float16"}),
    "brain": ("conv2d", (1, 5, 5, 16), (1, 1, 16, 8), {"dtype": "bfloat16"}),
    "double": ("conv2d", (1, 5, 5, 3), (3, 3, 3, 4), {"dtype": "float64"}),
    "empty": ("conv2d", (0, 5, 5, 3), (3, 3, 3, 4), {}),
    "depthwise": ("depthwise_conv2d", (1, 9, 9, 16), (3, 3, 16, 1), {"strides": [1, 2, 2, 1]}),
    "multiplied": ("depthwise_conv2d", (2, 6, 7, 5), (3, 2, 5, 3), {"padding": PADS}),
    "far": ("conv2d", (4, 5, 6, 8), (3, 3, 8, 8), {"dilations": [20000, 2]}),
    "farther": ("conv2d", (1, 3, 4, 5), (3, 5, 5, 7), {"dilations": 2**30, "dtype": "float64"}),
    "depthwise_far": ("depthwise_conv2d", (2, 5, 6, 8), (3, 5, 8, 2), {"dilations": (9, 6)}),
    "depthwise_dilated": ("depthwise_conv2d", (1, 8, 8, 8), (3, 3, 8, 1), {"dilations": (2, 2)}),
}


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def isolated(monkeypatch, tmp_path):
    """A cache and records of this test's own, also for the processes it starts."""
    monkeypatch.setenv("TVMCONV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(kernel_cache, "_kernels", {})


@pytest.fixture
def warm(shared_cache, monkeypatch):
    """A cache that several tests fill, for those that do not ask how a kernel came about."""
    monkeypatch.setenv("TVMCONV_CACHE_DIR", str(shared_cache))


def operands(spec=SPEC):
    arguments = oracle.random_arguments(spec, 0)
    return arguments["data"], arguments["filter"]


def assert_right(out, spec=SPEC):
    oracle.check(spec, oracle.random_arguments(spec, 0), out)


def entries(folder):
    return sorted(folder.rglob("*.tvmconv"))


@pytest.mark.parametrize("label", CALLS)
def test_values_are_tensorflows(label, warm):
    op, input_shape, filter_shape, changes = CALLS[label]
    arguments = {"strides": ONES, "padding": "SAME", **changes}
    dtype = arguments.pop("dtype", "float32")
    spec = SPEC_OF[op](input_shape, dtype, filter_shape, dtype, **arguments)
    x, w = operands(spec)
    expected = tensorflow_oracle.run(op, x, w, **arguments)
    out = FUNCTIONS[op](x, w, **arguments)
    rtol, atol = oracle.tolerance(dtype, spec.reduction_length)
    oracle.assert_close(spec, expected, out, (2 * rtol, 2 * atol))  # TensorFlow rounds as well


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38, 1e6])
def test_what_one_pixel_holds_is_seen_only_where_its_window_is(value):
    """Of a layer that `build` computes by Winograd's algorithm."""
    rng = np.random.default_rng(0)
    filters = rng.standard_normal((3, 3, 64, 64)).astype("float32")
    clean = rng.standard_normal((1, 14, 14, 64)).astype("float32")
    spoilt = clean.copy()
    spoilt[0, 5, 6, 3] = value
    unseen = np.ones((14, 14), bool)
    unseen[4:7, 5:8] = False

    expected = tvmconv.conv2d(clean, filters, 1, "SAME")[0]
    found = tvmconv.conv2d(spoilt, filters, 1, "SAME")[0]

    np.testing.assert_array_equal(found[unseen], expected[unseen])


@pytest.mark.parametrize("op", FUNCTIONS)
def test_channels_may_come_first(op, warm):
    x = np.random.default_rng(0).standard_normal((1, 4, 7, 6)).astype(np.float32)
    w = np.random.default_rng(1).standard_normal((3, 3, 4, 2)).astype(np.float32)
    out = FUNCTIONS[op](x, w, ONES, "SAME", data_format="NCHW")
    last = FUNCTIONS[op](x.transpose(0, 2, 3, 1), w, ONES, "SAME")
    np.testing.assert_allclose(out.transpose(0, 2, 3, 1), last, rtol=1e-5, atol=1e-5)


def test_arguments_have_tensorflows_order_and_names(warm):
    x, w = operands()
    expected = tvmconv.conv2d(x, w, 1, "SAME")
    again = tvmconv.conv2d(
        input=x, filters=w, strides=1, padding="SAME", data_format=None, dilations=1, name="layer"
    )
    np.testing.assert_array_equal(again, expected)
    np.testing.assert_array_equal(tvmconv.conv2d(x, w, 1, "SAME", "NHWC", None, "layer"), expected)
    window = w[..., :1].copy()
    np.testing.assert_array_equal(
        tvmconv.depthwise_conv2d(x, window, ONES, "SAME", "NHWC", [1, 1], "layer"),
        tvmconv.depthwise_conv2d(input=x, filter=window, strides=ONES, padding="SAME", name=None),
    )


def test_tensors_come_back_as_their_own_kind(warm):
    tf = tensorflow_oracle.tensorflow()
    x, w = operands()
    out = tvmconv.conv2d(tf.constant(x), tf.constant(w), 1, "SAME")
    assert isinstance(out, tf.Tensor)
    assert_right(out.numpy())
    nothing = tvmconv.conv2d(tf.constant(x[:0]), w, 1, "SAME")
    assert isinstance(nothing, tf.Tensor)
    assert nothing.shape == (0, 6, 5, 16)


def test_arrays_of_any_strides_and_byte_order(warm):
    x, w = operands()
    swapped = w.astype(">f4")
    assert_right(tvmconv.conv2d(np.asfortranarray(x), swapped, 1, "SAME"))


@pytest.mark.parametrize("call", ILLEGAL_CALLS, ids=lambda call: call.label)
def test_a_wrong_call_is_refused_before_anything_is_compiled(call: IllegalCall, tmp_path):
    arguments = call.arguments()
    x, w = (
        np.ones(arguments.pop(f"{name}_shape"), tensors.numpy_dtype(arguments.pop(f"{name}_dtype")))
        for name in ("input", "filter")
    )
    with pytest.raises(call.error, match=call.names):
        FUNCTIONS[call.op](x, w, **arguments)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("op", FUNCTIONS)
@pytest.mark.parametrize("position", [0, 1])
def test_a_list_is_no_array(op, position, tmp_path):
    arrays = list(operands())
    arrays[position] = arrays[position].tolist()
    with pytest.raises(TypeError, match=r"(input|filters?) must be .*list was given.*asarray"):
        FUNCTIONS[op](*arrays, ONES, "SAME")
    assert not (tmp_path / "cache").exists()


def run_python(code, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS / "support")]),
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


CALL = """
import sys
import tvmconv
from test_functional import SPEC, assert_right, operands
{before}
assert_right(tvmconv.conv2d(*operands(), 1, "SAME"))
print("tvm" in sys.modules)
"""


def finish(process):
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return out.strip(), error


def test_a_second_process_does_not_load_the_compiler(tmp_path):
    assert finish(run_python(CALL.format(before="")))[0] == "True"
    before = [path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.so")]
    assert finish(run_python(CALL.format(before="")))[0] == "False"
    assert [path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.so")] == before


def test_racing_processes_compile_once(tmp_path):
    start = tmp_path / "start"
    before = f"""
import logging, os, time
logging.basicConfig(level=logging.INFO)
while not os.path.exists({str(start)!r}): time.sleep(0.01)
"""
    processes = [run_python(CALL.format(before=before)) for _ in range(3)]
    time.sleep(1.5)  # all have imported what they need
    start.touch()
    results = [finish(process) for process in processes]
    assert sum("compiling" in error for _, error in results) == 1
    (entry,) = entries(tmp_path / "cache")
    assert_right(tvmconv.load(entry)[SPEC](*operands()))
    others = {path.name for path in entry.parent.iterdir()} - {entry.name}
    assert others <= {f".{entry.name}.lock"}  # no half-made bundles


def truncate_library(entry):
    library = next(path for path in entry.glob("*.so") if not path.name.startswith("libtvm"))
    content = library.read_bytes()
    library.unlink()  # this process has it open: cut short in place, the next access to it is fatal
    library.write_bytes(content[:100])


def replace_by_file(entry):
    for path in entry.iterdir():
        path.unlink()
    entry.rmdir()
    entry.write_text("nothing")


DAMAGE = {
    "library": truncate_library,
    "manifest": lambda entry: (entry / "manifest.json").write_text("{"),
    "empty": lambda entry: [path.unlink() for path in entry.iterdir()],
    "file": replace_by_file,
    "link": lambda entry: entry.rename(entry.with_suffix(".gone")) and entry.symlink_to("nowhere"),
    "runtime": lambda entry: [
        (link.unlink(), link.symlink_to("nowhere")) for link in entry.glob("libtvm*")
    ],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_compiled_again(damage, tmp_path, caplog):
    x, w = operands()
    tvmconv.conv2d(x, w, 1, "SAME")
    (entry,) = entries(tmp_path / "cache")
    DAMAGE[damage](entry)
    kernel_cache._kernels.clear()
    assert_right(tvmconv.conv2d(x, w, 1, "SAME"))
    assert f"{entry} cannot be used and is compiled again" in caplog.text
    assert SPEC.key in tvmconv.load(entry)


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TVMCONV_CACHE_DIR", str(tmp_path / "file" / "cache"))
    x, w = operands()
    assert_right(tvmconv.conv2d(x, w, 1, "SAME"))
    assert "cannot be written" in caplog.text
    assert "TVMCONV_CACHE_DIR" in caplog.text
    assert_right(tvmconv.conv2d(x, w, 1, "SAME"))  # the kernel stays in this process


def test_a_read_only_cache_is_read(tmp_path):
    x, w = operands()
    tvmconv.conv2d(x, w, 1, "SAME")
    (entry,) = entries(tmp_path / "cache")
    (entry.parent / f".{entry.name}.lock").unlink(missing_ok=True)
    entry.parent.chmod(0o555)
    try:
        kernel_cache._kernels.clear()
        assert_right(tvmconv.conv2d(x, w, 1, "SAME"))
    finally:
        entry.parent.chmod(0o755)
    assert [path.name for path in entry.parent.iterdir()] == [entry.name]  # no lock was taken


def test_what_was_not_opened_for_longest_leaves_a_full_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TVMCONV_CACHE_MB", "0")
    x, w = operands()

    def call(strides):
        kernel_cache._kernels.clear()
        assert tvmconv.conv2d(x, w, strides, "SAME") is not None
        return set(entries(tmp_path / "cache"))

    (first,) = call((1, 1))
    (second,) = call((1, 2)) - {first}  # who has just opened one may be reading it
    for entry in (first, second):
        os.utime(entry, (0, 0))
    assert call((1, 1)) == {first, second}  # nothing was built, and the first is young again
    assert first.stat().st_mtime > second.stat().st_mtime
    left = call((2, 1))
    assert first in left
    assert second not in left
    assert len(left) == 2
    assert not (second.parent / f".{second.name}.lock").exists()


def test_a_cache_below_its_limit_keeps_everything(tmp_path):
    x, w = operands()
    tvmconv.conv2d(x, w, (1, 1), "SAME")
    (first,) = entries(tmp_path / "cache")
    os.utime(first, (0, 0))
    tvmconv.conv2d(x, w, (2, 1), "SAME")
    assert first in entries(tmp_path / "cache")


def test_a_limit_that_is_no_number_is_refused_before_anything_is_compiled(tmp_path, monkeypatch):
    monkeypatch.setenv("TVMCONV_CACHE_MB", "1e3")
    with pytest.raises(ValueError, match="TVMCONV_CACHE_MB is '1e3': give the most"):
        tvmconv.conv2d(*operands(), 1, "SAME")
    assert not (tmp_path / "cache").exists()


def test_no_kernel_for_an_empty_output(tmp_path):
    x, w = operands()
    out = tvmconv.conv2d(x[:0], w, 1, "SAME")
    assert (out.shape, out.dtype) == ((0, 6, 5, 16), np.float32)
    assert not (tmp_path / "cache").exists()


def test_a_new_record_makes_a_new_kernel(tmp_path):
    x, w = operands()
    tvmconv.conv2d(x, w, 1, "SAME")
    untuned = kernel_cache.kernel(SPEC)
    assert untuned.entry.record is None
    machine, pack = hardware.find_machine("host")
    default = choice.default_choice(SPEC, machine, pack)
    tuned = next(
        point
        for point in hardware.space(default.schedule, SPEC, machine)
        if point != default.decisions
    )
    record = Record(
        SPEC.key, default.schedule.name, tuned, 1.0, 2.0, "measured", machine.name, "test", None,
        "here", None, 1, "warm", 11, 1, "0.27", "2026-01-01",
    )  # fmt: skip
    (file,) = log.write(log.user_directory(), [record])
    assert file.is_relative_to(tmp_path)
    kernel_cache._kernels.clear()
    assert_right(tvmconv.conv2d(x, w, 1, "SAME"))
    assert kernel_cache.kernel(SPEC).decisions == tuned != untuned.decisions
    assert len(entries(tmp_path / "cache")) == 2
    file.write_text(file.read_text().replace('"microseconds"', '"hours"'))
    kernel_cache._kernels.clear()
    with pytest.raises(errors.RecordError, match=r"line 1"):
        tvmconv.conv2d(x, w, 1, "SAME")


def test_the_digest_changes_with_cpu_and_sources(monkeypatch, tmp_path):
    digests = {kernel_cache.machine_digest.__wrapped__() for _ in range(2)}
    assert len(digests) == 1
    with monkeypatch.context() as patch:
        patch.setattr(kernel_cache.host, "cpu_features", lambda: frozenset({"sse4_2"}))
        digests.add(kernel_cache.machine_digest.__wrapped__())
    source = tmp_path / "schedule.py"
    for text in ("a = 1", "a = 2"):
        source.write_text(text)
        with monkeypatch.context() as patch:
            patch.setattr(kernel_cache, "_pack_sources", lambda _module: [source])
            digests.add(kernel_cache.machine_digest.__wrapped__())
    assert len(digests) == 4


def test_the_sources_of_every_pack_count():
    covered = {str(path) for path in kernel_cache._pack_sources("tvmconv.schedules.x86")}
    covered |= {str(path) for path in kernel_cache._PACKAGE.rglob("*.py")}
    for module in (
        "schedules.x86.conv2d_direct",
        "schedules.shared.dense",
        "lowering.cpu",
        "compute.conv2d",
    ):
        __import__(f"tvmconv.{module}")
        assert sys.modules[f"tvmconv.{module}"].__file__ in covered


def test_a_key_longer_than_a_file_name_is_shortened(tmp_path):
    spec = tvmconv.ConvSpec.conv2d((*[1] * 100, 5, 5, 3), (1, 1, 3, 4))
    name = kernel_cache.entry_path(spec).name
    assert len(name) < 200 < len(spec.key)
    other = tvmconv.ConvSpec.conv2d((*[1] * 101, 5, 5, 3), (1, 1, 3, 4))
    assert kernel_cache.entry_path(other).name != name


COMPILER = """
import sys, time
from tvmconv.building import builder, kernel_cache
from tvmconv.problem.spec import ConvSpec
def hang(*_):
    print("compiling", flush=True)
    time.sleep(600)
builder._variant = hang
kernel_cache.kernel(ConvSpec.from_key(sys.argv[1]))
"""


def test_what_a_killed_compiler_has_left_in_the_cache_is_removed(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", COMPILER, SPEC.key], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "compiling\n"
    process.kill()
    process.communicate()
    folder = kernel_cache.entry_path(SPEC).parent
    left = [path for path in folder.iterdir() if path.is_dir()]
    assert len(left) == 1

    other = tvmconv.ConvSpec.conv2d((1, 3, 3, 2), (1, 1, 2, 2))
    kernel_cache.kernel(other)

    assert [path for path in folder.iterdir() if path.is_dir()] == [kernel_cache.entry_path(other)]
