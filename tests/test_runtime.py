"""Kernels in this process: right results from any array, clear errors, threads, safe loading."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import timeit
from pathlib import Path

import numpy as np
import pytest
import runtime_bundle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runtime_bundle import (
    EMPTY,
    LARGE,
    PACKED,
    PLAIN,
    RESIDUAL,
    SPECS,
    TINY,
    assert_right,
    operands,
    reference,
)

from tvmconv import bundle, errors
from tvmconv.runtime import Library, empty_aligned, engine, load
from tvmconv.spec import ConvSpec

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def path(tmp_path_factory):
    return runtime_bundle.build(tmp_path_factory.mktemp("runtime") / "kernels")


@pytest.fixture(scope="session")
def library(path):
    return load(path)


@pytest.fixture
def copied(path, tmp_path, monkeypatch):
    """A bundle to damage; opening any of its libraries fails the test."""

    def opened(*_):
        pytest.fail("a library was opened before everything was checked")

    monkeypatch.setattr(engine, "open_runtime", opened)
    monkeypatch.setattr(engine, "open_kernels", opened)
    return Path(shutil.copytree(path, tmp_path / "copy"))


def in_new_process(code, *arguments, **environment):
    """Run Python code that prints JSON, in a process of its own; return what it printed."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        **environment,
    }
    environment.pop("TVM_BIND_THREADS", None)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# Results


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.key)
def test_every_kernel_is_right(path, spec, threads):
    x, w, bias, residual = operands(spec)
    kernel = load(path, threads=threads)[spec]
    result = kernel(x, w, bias=bias, residual=residual)
    assert_right(spec, result, x, w, bias, residual)
    assert result.dtype == x.dtype
    assert result.ctypes.data % 64 == 0
    layer = kernel.bind(w, bias=bias)
    out = np.full(spec.output_shape, 7, x.dtype)
    assert layer(x, residual=residual, out=out) is out
    np.testing.assert_array_equal(out, result)


def test_kernels_say_what_they_are(library):
    kernel = library[PACKED.key]
    assert kernel.spec == PACKED
    assert (kernel.key, kernel.schedule) == (PACKED.key, "direct")
    assert kernel.decisions == {"width": runtime_bundle.WIDTH}
    assert kernel.machine == runtime_bundle.MACHINE
    assert "schedule='direct'" in repr(kernel.bind(*operands(PACKED)[1:3]))


def test_bound_weights_are_copies(library):
    for spec in (PACKED, RESIDUAL):
        x, w, bias, residual = operands(spec)
        layer = library[spec].bind(w, bias)
        expected = layer(x, residual)
        w += 1
        bias += 1
        np.testing.assert_array_equal(layer(x, residual), expected)


def test_an_empty_output_needs_no_kernel(library):
    x, w, bias, _ = operands(EMPTY)
    result = library[EMPTY](x, w, bias)
    assert result.shape == EMPTY.output_shape
    assert result.size == 0
    with pytest.raises(ValueError, match=r"w of .* must have shape"):
        library[EMPTY](x, w[1:], bias)


@pytest.mark.parametrize("shape", [(), (0,), (3, 5), (2, 0, 3), (1000, 1000)])
@pytest.mark.parametrize("dtype", ["float32", "int8", np.float64])
def test_empty_aligned(shape, dtype):
    array = empty_aligned(shape, dtype)
    assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert array.ctypes.data % 64 == 0
    array[...] = 1


# Arrays of every kind

PRESENTATIONS = (
    "plain", "reversed", "strided", "fortran", "element offset", "byte offset", "swapped",
    "read-only", "subclass",
)  # fmt: skip


def presented(array, how):
    """The same values as a fresh array that lies in memory in some other way."""
    if how == "reversed":
        return array[..., ::-1].copy()[..., ::-1]
    if how == "strided":
        wide = np.zeros((*array.shape[:-1], array.shape[-1] * 3), array.dtype)
        wide[..., 1::3] = array
        return wide[..., 1::3]
    if how == "fortran":
        return np.asfortranarray(array)
    if how in ("element offset", "byte offset"):
        offset = 1 if how == "byte offset" else array.itemsize
        raw = np.zeros(array.nbytes + 64 + offset, np.uint8)
        raw = raw[-raw.ctypes.data % 64 + offset :][: array.nbytes]
        view = raw.view(array.dtype).reshape(array.shape)
        view[...] = array
        return view
    if how == "swapped":
        return array.astype(array.dtype.newbyteorder())
    copy = array.copy()
    if how == "read-only":
        copy.flags.writeable = False
    return copy.view(np.recarray) if how == "subclass" else copy


presentations = st.sampled_from(PRESENTATIONS)
spec_of_any_kind = st.sampled_from([PACKED, RESIDUAL, PLAIN, TINY])
fuzz = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@fuzz
@given(spec_of_any_kind, st.tuples(*[presentations] * 5), st.booleans(), st.integers(0, 9))
def test_any_memory_layout_gives_the_same_result(library, spec, how, bind, seed):
    values = operands(spec, seed)
    x, w, bias, residual = (
        None if value is None else presented(value, kind)
        for value, kind in zip(values, how[:4], strict=True)
    )
    out = presented(np.full(spec.output_shape, np.nan, np.float32), how[4])
    kernel = library[spec]
    if how[4] == "read-only":
        with pytest.raises(ValueError, match=r"out of .* is read-only"):
            kernel(x, w, bias, residual, out)
        assert np.isnan(out).all()
        return
    if bind:
        result = kernel.bind(w, bias)(x, residual=residual, out=out)
    else:
        result = kernel(x, w, bias, residual, out)
    assert result is out
    assert_right(spec, out, *values)


@fuzz
@given(spec_of_any_kind, st.data())
def test_out_may_overlap_every_input(library, spec, data):
    values = operands(spec, 3)
    total = sum(value.size for value in values if value is not None)
    memory = np.zeros(total + np.prod(spec.output_shape), np.float32)
    views, begin = [], 0
    for value in values:
        view = None
        if value is not None:
            view = memory[begin : begin + value.size].reshape(value.shape)
            view[...] = value
            begin += value.size
        views.append(view)
    first = data.draw(st.integers(0, total), "first element of out")
    out = memory[first : first + np.prod(spec.output_shape)].reshape(spec.output_shape)
    x, w, bias, residual = views
    if data.draw(st.booleans(), "bind"):
        library[spec].bind(w, bias)(x, residual, out)
    else:
        library[spec](x, w, bias, residual, out)
    assert_right(spec, out, *values)


def test_the_residual_may_be_the_output(library):
    x, w, bias, residual = operands(RESIDUAL)
    expected = reference(RESIDUAL, x, w, bias, residual)
    library[RESIDUAL](x, w, bias, residual, out=residual)
    np.testing.assert_allclose(residual, expected, rtol=1e-5, atol=1e-5)


WRONG = {
    "list": (lambda a: a.tolist(), TypeError, "must be a NumPy array or a tensor with DLPack"),
    "scalar": (lambda a: 1.0, TypeError, "float was given"),
    "float64": (lambda a: a.astype(np.float64), TypeError, "dtype float64 was given"),
    "float16": (lambda a: a.astype(np.float16), TypeError, "must have dtype float32"),
    "int32": (lambda a: np.ones(a.shape, np.int32), TypeError, "dtype int32 was given"),
    "object": (lambda a: a.astype(object), TypeError, "dtype object was given"),
    "longer": (lambda a: np.concatenate([a, a], -1), ValueError, "must have shape"),
    "transposed": (lambda a: a.T if a.ndim > 1 else a[None], ValueError, "must have shape"),
    "rank": (lambda a: a[None], ValueError, "must have shape"),
    "flat": (lambda a: np.concatenate([a.ravel()] * 2), ValueError, "must have shape"),
    "empty": (lambda a: a[:0], ValueError, "must have shape"),
    "masked": (lambda a: np.ma.masked_array(a), TypeError, "masked array"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("name", ["x", "w", "bias", "residual", "out"])
def test_wrong_arrays_are_refused_by_name(library, name, kind):
    wrong, error, message = WRONG[kind]
    x, w, bias, residual = operands(RESIDUAL)
    out = np.full(RESIDUAL.output_shape, np.nan, np.float32)
    arguments = {"x": x, "w": w, "bias": bias, "residual": residual, "out": out}
    arguments[name] = wrong(arguments[name])
    with pytest.raises(error) as caught:
        library[RESIDUAL](**arguments)
    text = str(caught.value)
    assert text.startswith(f"{name} of {RESIDUAL.key}")
    assert message in text or (name == "out" and kind in ("list", "scalar"))
    assert np.isnan(out).all()


def test_arguments_that_are_missing_or_too_many(library):
    x, w, bias, _ = operands(RESIDUAL)
    kernel = library[RESIDUAL]
    with pytest.raises(ValueError, match="was built with bias, but none was given"):
        kernel.bind(w)
    with pytest.raises(ValueError, match="was built with residual, but none was given"):
        kernel.bind(w, bias)(x)
    x, w, _, _ = operands(TINY)
    with pytest.raises(ValueError, match="was built without bias, but one was given"):
        library[TINY].bind(w, np.zeros(8, np.float32))
    with pytest.raises(ValueError, match="was built without residual, but one was given"):
        library[TINY](x, w, residual=np.zeros(TINY.output_shape, np.float32))


class Tensor:
    """A CPU tensor of a framework that this package has never heard of."""

    def __init__(self, array, device=(1, 0)):
        self.array, self.device = array, device

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device


@pytest.mark.parametrize("how", ["plain", "strided", "reversed", "fortran", "element offset"])
def test_dlpack_tensors_are_read_in_place(library, how):
    x, w, bias, residual = operands(RESIDUAL)
    tensors = [Tensor(presented(value, how)) for value in (x, w, bias, residual)]
    result = library[RESIDUAL](*tensors)
    assert type(result) is np.ndarray
    assert_right(RESIDUAL, result, x, w, bias, residual)
    assert_right(RESIDUAL, library[RESIDUAL](tensors[0], w, bias, tensors[3]), x, w, bias, residual)


def test_tensors_elsewhere_are_refused(library):
    x, w, _, _ = operands(TINY)
    with pytest.raises(ValueError, match=r"x of .* is not in CPU memory .*type is 2"):
        library[TINY](Tensor(x, device=(2, 0)), w)
    with pytest.raises(TypeError, match=r"out of .* must be a NumPy array or a torch tensor"):
        library[TINY](x, w, out=Tensor(np.zeros(TINY.output_shape, np.float32)))


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.key)
def test_torch_in_torch_out(library, spec):
    torch = pytest.importorskip("torch")
    values = operands(spec)

    def tensor(array):
        if array is None:
            return None
        if array.dtype.name == "bfloat16":
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)

    x, w, bias, residual = (tensor(value) for value in values)
    layer = library[spec].bind(w, bias)
    result = layer(x, residual)
    assert isinstance(result, torch.Tensor)
    assert result.dtype == x.dtype
    assert_right(spec, result.double().numpy(), *values)
    out = torch.zeros_like(result)
    strided = torch.stack([x, x], -1)[..., 0]
    assert layer(strided, residual, out=out) is out
    assert torch.equal(out, result)


@pytest.mark.slow
def test_torch_tensors_that_have_no_plain_memory(library):
    torch = pytest.importorskip("torch")
    x, w, _, _ = operands(TINY)
    x = torch.from_numpy(x)
    for wrong, error, message in (
        (x.clone().requires_grad_(), ValueError, r"pass it with \.detach"),
        (torch.complex(x, x).conj().imag, ValueError, r"pass it with \.resolve_neg"),
        (x.to_sparse(), TypeError, "DLPack"),
        (x.to("meta"), TypeError, "DLPack"),
        (x.to(torch.complex64), TypeError, "complex64"),
    ):
        with pytest.raises(error, match=message):
            library[TINY](wrong, w)


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.key)
def test_tensorflow_in_tensorflow_out(library, spec):
    tensorflow = pytest.importorskip("tensorflow")
    values = operands(spec)
    tensors = [None if value is None else tensorflow.constant(value) for value in values]
    result = library[spec](*tensors)
    assert isinstance(result, tensorflow.Tensor)
    assert_right(spec, result.numpy(), *values)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [PACKED, EMPTY, runtime_bundle.BRAIN], ids=lambda s: s.key)
def test_jax_in_jax_out(library, spec):
    jax = pytest.importorskip("jax")
    values = operands(spec)
    tensors = [None if value is None else jax.numpy.asarray(value) for value in values]
    result = library[spec](*tensors)
    assert isinstance(result, jax.Array)
    assert_right(spec, np.asarray(result), *values)


# Threads


def test_calls_from_several_python_threads(path):
    libraries = [load(path, threads=count) for count in (1, 2)]
    specs = (PACKED, RESIDUAL, LARGE)
    layers = []
    for spec in specs:
        _, w, bias, _ = operands(spec)
        layers += [(spec, w, bias, each[spec].bind(w, bias)) for each in libraries]
    failures = []

    def work(seed):
        try:
            for turn in range(12):
                for spec, w, bias, layer in layers:
                    x, _, _, residual = operands(spec, 100 * seed + turn)
                    out = np.empty(spec.output_shape, np.float32)
                    assert_right(spec, layer(x, residual, out), x, w, bias, residual)
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []


def test_calls_release_the_global_lock(library):
    x, w, _, _ = operands(LARGE)
    layer = library[LARGE].bind(w)
    running = threading.Event()
    stop = threading.Event()
    overlapping = 0
    inside = False

    def watch():
        nonlocal overlapping
        running.set()
        while not stop.is_set():
            overlapping += inside
            time.sleep(0)  # gives the lock back

    watcher = threading.Thread(target=watch)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # from here on only a released lock lets the watcher run
    try:
        watcher.start()
        running.wait()
        for _ in range(20):
            inside = True
            layer(x)
            inside = False
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        watcher.join()
    assert overlapping > 0


@pytest.mark.parametrize("wrong", [0, -1])
def test_a_thread_count_must_be_positive(path, wrong):
    with pytest.raises(ValueError, match="threads must be at least 1"):
        load(path, threads=wrong)


@pytest.mark.parametrize("wrong", ["2", 1.0, True])
def test_a_thread_count_must_be_an_int(path, wrong):
    with pytest.raises(TypeError, match="threads must be None or an int"):
        load(path, threads=wrong)


THREADS = """
import json, os, sys
import runtime_bundle as b
import tvmconv
def state():
    return len(os.listdir("/proc/self/task")), sorted(os.sched_getaffinity(0))
x, w, _, _ = b.operands(b.LARGE)
states = []
for threads in json.loads(sys.argv[2]):
    library = tvmconv.load(sys.argv[1], threads=threads)
    states = states or [state()]
    b.assert_right(b.LARGE, library[b.LARGE](x, w), x, w)
    states.append(state())
print(json.dumps(states))
"""


def test_one_thread_starts_no_pool_and_more_start_one(path):
    before, one, one_again, three, back = in_new_process(THREADS, path, [1, 1, 3, 1])
    assert one == one_again == before
    assert three[0] == before[0] + 2
    assert three[1] == back[1] == before[1]  # nobody was pinned


def test_the_users_own_binding_is_respected(path):
    code = "import os, json, sys, tvmconv; tvmconv.load(sys.argv[1]);" + (
        "print(json.dumps(os.environ['TVM_BIND_THREADS']))"
    )
    assert in_new_process(code, path) == "0"
    kept = "import os; os.environ['TVM_BIND_THREADS'] = '1';" + code
    assert in_new_process(kept, path) == "1"


FORK = """
import json, os, sys, threading
import runtime_bundle as b
import tvmconv
library = tvmconv.load(sys.argv[1], threads=2)
def check():
    x, w, _, _ = b.operands(b.LARGE)
    b.assert_right(b.LARGE, library[b.LARGE](x, w), x, w)
check()
child = os.fork()
if child == 0:
    check()
    worker = threading.Thread(target=check)
    worker.start()
    worker.join()
    os._exit(7)
print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
"""


def test_a_forked_child_can_compute(path):
    assert in_new_process(FORK, path) == 7


# Loading


def test_a_library_is_a_mapping(library):
    assert isinstance(library, Library)
    assert set(library) == {spec.key for spec in SPECS}
    assert len(library) == len(SPECS)
    assert PACKED.key in library
    assert PACKED in library
    assert library[PACKED] is library[PACKED.key]
    assert library.get("nothing") is None
    assert "10 kernels for tests" in repr(library)


def test_an_unknown_key_lists_the_nearest(library):
    other = ConvSpec.conv2d((1, 6, 5, 4), (3, 3, 4, 12), bias=True)
    with pytest.raises(KeyError) as caught:
        library[other]
    assert isinstance(caught.value, errors.UnknownNameError)
    text = str(caught.value)
    assert f"has no kernel {other.key}; the nearest of its 10: {PACKED.key}," in text
    assert f"tvmconv build {other.key} --machine tests" in text


def signed(directory, **changes):
    """Change fields of the bundle's only variant and sign the manifest again."""
    found = bundle.read_manifest(directory)
    variant = dataclasses.replace(found.variants[0], **changes)
    bundle.write_manifest(directory, dataclasses.replace(found, variants=(variant,)))


def library_file(directory):
    return directory / bundle.library_name(runtime_bundle.MACHINE)


def runtime_file(directory):
    return next(directory.glob("libtvm_runtime-*"))


@pytest.mark.parametrize("which", [library_file, runtime_file])
@pytest.mark.parametrize("share", [0, 0.5, 0.999])
def test_a_truncated_library_is_noticed(copied, which, share):
    file = which(copied)
    os.truncate(file, int(file.stat().st_size * share))
    with pytest.raises(errors.BundleError, match=f"{file.name} is truncated or altered"):
        load(copied)


@pytest.mark.parametrize("which", [library_file, runtime_file])
def test_a_flipped_byte_is_noticed(copied, which):
    data = bytearray(which(copied).read_bytes())
    data[len(data) // 2] ^= 1
    which(copied).write_bytes(data)
    with pytest.raises(errors.BundleError, match="is truncated or altered"):
        load(copied)


@pytest.mark.parametrize("which", [library_file, runtime_file])
def test_a_missing_file_is_noticed(copied, which):
    which(copied).unlink()
    with pytest.raises(errors.BundleError, match="copy the whole directory again"):
        load(copied)


def test_a_damaged_or_newer_manifest_is_noticed(copied):
    file = copied / bundle.MANIFEST_NAME
    body = json.loads(file.read_text())
    file.write_text(json.dumps({**body, "format": bundle.FORMAT + 1}))
    with pytest.raises(errors.BundleError, match="pip install 'tvmconv>="):
        load(copied)
    os.truncate(file, 300)
    with pytest.raises(errors.BundleError, match="truncated or damaged"):
        load(copied)
    file.unlink()
    with pytest.raises(errors.BundleError, match="holds no manifest"):
        load(copied)


def test_another_architecture_is_refused(copied):
    signed(copied, architecture="riscv64")
    with pytest.raises(errors.IncompatibleMachineError, match="tests is for riscv64 linux"):
        load(copied)


def test_features_that_the_cpu_lacks_are_listed(copied):
    signed(copied, features=("avx9000", "fma5"))
    with pytest.raises(errors.IncompatibleMachineError, match="needs avx9000, fma5, which this"):
        load(copied)


def test_a_variant_must_exist(copied):
    with pytest.raises(errors.UnknownNameError, match="no variant 'zen9'; it has tests"):
        load(copied, machine="zen9")


def test_keys_of_a_later_version_are_refused(copied):
    found = bundle.read_manifest(copied)
    variant = dataclasses.replace(
        found.variants[0], kernels={"conv3d_1": next(iter(found.variants[0].kernels.values()))}
    )
    bundle.write_manifest(
        copied, dataclasses.replace(found, keys=("conv3d_1",), variants=(variant,))
    )
    with pytest.raises(errors.BundleError, match=r"conv3d_1.* pip install 'tvmconv>="):
        load(copied)


def test_a_library_that_lacks_a_function_is_refused(path, tmp_path):
    copy = Path(shutil.copytree(path, tmp_path / "copy"))
    kernels = dict(bundle.read_manifest(copy).variants[0].kernels)
    kernels[TINY.key] = dataclasses.replace(kernels[TINY.key], symbol="nobody")
    signed(copy, kernels=kernels)
    with pytest.raises(errors.BundleError, match="no function nobody"):
        load(copy)[TINY]


def test_a_library_that_cannot_be_opened_is_a_bundle_error(path, tmp_path):
    copy = Path(shutil.copytree(path, tmp_path / "copy"))
    library_file(copy).write_bytes(b"not a library")
    signed(copy, sha256=bundle.file_digest(library_file(copy)))
    with pytest.raises(errors.BundleError, match="cannot be opened"):
        load(copy)


def test_a_rebuilt_bundle_replaces_the_old_one_in_the_same_process(path, tmp_path):
    output = Path(shutil.copytree(path, tmp_path / "kernels"))
    old = load(output)
    x, w, bias, _ = operands(PACKED)
    layer = old[PACKED].bind(w, bias)
    rebuilt = ConvSpec.conv2d(PACKED.input_shape, PACKED.filter_shape, bias=True)  # no activation
    staging = runtime_bundle.build(tmp_path / "staging", [rebuilt])
    bundle.publish(staging, output)
    new = load(output)
    assert list(new) == [rebuilt.key]
    assert_right(rebuilt, new[rebuilt](x, w, bias), x, w, bias)
    assert_right(PACKED, layer(x), x, w, bias)  # what was loaded stays usable


ORDERS = """
import json, sys
import runtime_bundle as b
def use(path):
    import tvmconv
    x, w, _, _ = b.operands(b.LARGE)
    b.assert_right(b.LARGE, tvmconv.load(path, threads=2)[b.LARGE](x, w), x, w)
def compile():
    import tvm
    from tvm import te
    a = te.placeholder((4,))
    tvm.compile(te.create_prim_func([a, te.compute((4,), lambda i: a[i] + 1)]), {"kind": "llvm"})
for step in sys.argv[1:]:
    compile() if step == "tvm" else use(step)
maps = {line.split()[-1] for line in open("/proc/self/maps") if "/libtvm_runtime" in line}
print(json.dumps(sorted(name for name in maps if "_extra" not in name)))
"""


@pytest.mark.parametrize("order", ["load, tvm", "tvm, load", "load, load", "load, tvm, load"])
def test_one_runtime_serves_tvm_and_all_bundles(path, tmp_path, order):
    other = shutil.copytree(path, tmp_path / "other")
    bundles = iter([path, other])
    steps = ["tvm" if step == "tvm" else next(bundles) for step in order.split(", ")]
    assert len(in_new_process(ORDERS, *steps)) == 1


def test_another_tvm_installed_is_warned_of(path, tmp_path):
    copy = Path(shutil.copytree(path, tmp_path / "copy"))
    with open(runtime_file(copy), "ab") as file:
        file.write(b"another build")
    digest = bundle.file_digest(runtime_file(copy))
    signed(copy, runtime=bundle.RuntimeEntry(runtime_file(copy).name, digest))
    code = (
        "import json, sys, warnings\n"
        "import tvmconv\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    tvmconv.load(sys.argv[1])\n"
        "maps = {l.split()[-1] for l in open('/proc/self/maps') if 'libtvm_runtime' in l}\n"
        "print(json.dumps([sorted(maps), [str(w.message) for w in caught]]))"
    )
    libraries, messages = in_new_process(code, copy)
    assert libraries == [str(runtime_file(copy))]
    assert "import tvm before loading the bundle" in messages[0]


def test_importing_and_loading_pull_in_little(path):
    code = (
        "import json, sys\n"
        "import tvmconv\n"
        "heavy = {'numpy', 'tvm', 'tvm_ffi'}\n"
        "first = sorted(heavy & set(sys.modules))\n"
        "tvmconv.ConvSpec\n"
        "second = sorted(heavy & set(sys.modules))\n"
        "tvmconv.load(sys.argv[1])\n"
        "print(json.dumps([first, second, sorted(heavy & set(sys.modules))]))"
    )
    assert in_new_process(code, path) == [[], [], ["numpy", "tvm_ffi"]]


def test_an_unknown_public_name_is_an_attribute_error():
    import tvmconv

    with pytest.raises(AttributeError, match="no attribute 'convolve'; it has"):
        tvmconv.convolve  # noqa: B018
    assert set(tvmconv.__all__) <= set(dir(tvmconv))


# Cost


@pytest.mark.slow
def test_a_call_costs_microseconds(path):
    x, w, _, _ = operands(TINY)
    layer = load(path, threads=1)[TINY].bind(w)
    out = layer(x)
    pointers = layer._frames[0][3]
    function, number = layer._function, 20_000
    whole = min(timeit.repeat(lambda: layer(x, out=out), number=number, repeat=7)) / number
    bare = min(timeit.repeat(lambda: function(*pointers), number=number, repeat=7)) / number
    print(f"call {whole * 1e6:.2f} us, of it {bare * 1e6:.2f} us in the compiled function")
    assert whole - bare < 15e-6  # 1.7 to 2.6 us on a quiet 2.7 GHz core
