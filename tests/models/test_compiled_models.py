"""Whole small models: compiled, loaded and called as users do."""

import json
import pickle
import shutil
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tvm_ffi

import tvmconv
from tvmconv.bundle import signature
from tvmconv.commands import cli
from tvmconv.models import reference
from tvmconv.models.graph import Builder

CONV = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1)}
RANDOM = np.random.default_rng(5)


def values(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def heads():
    """Two inputs; a residual, views, parts joined in place, an output that others read, and one twice."""
    b = Builder("heads")
    image, extra = b.input("image", (1, 6, 6, 8), "float32"), b.input("extra", (1, 6), "float32")
    w = b.constant("w", values(3, 3, 8, 8) / 8)
    first = b.node("conv2d", [image, w, b.constant("b", values(8))], activation="relu", **CONV)
    second = b.node("conv2d", [first, w, "", first], activation=None, **CONV)
    boxes = [
        b.node("reshape", [each], shape=(1, 72, 4))
        for each in (
            b.node("tanh", [second]),
            b.node("conv2d", [second, w], activation=None, **CONV),
        )
    ]
    joined = b.node("concat", boxes, axis=1)
    b.output("boxes", joined)
    b.output("same", joined)
    b.output("features", second)
    b.output("passed", b.node("reshape", [extra], shape=(1, 2, 3)))
    b.output("flat", b.node("reshape", [second], shape=(1, 288)))
    score = b.node("mean", [second], axes=(1, 2), keepdims=False)
    w = b.constant("dense", values(8, 6))
    b.output("score", b.node("add", [b.node("dense", [score, w, ""], activation=None), extra]))
    return b.graph()


def one():
    b = Builder("one")
    x = b.input("x", (1, 5, 4, 3), "float32")
    w = b.constant("w", values(3, 3, 3, 16))
    y = b.node("conv2d", [x, w], activation="relu", **CONV)
    b.output("y", b.node("softmax", [y], axis=3))
    return b.graph()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    graphs = {"heads": heads(), "one": one()}
    return {
        name: (graph, tvmconv.compile(graph, output=folder / f"{name}.tvmconv"))
        for name, graph in graphs.items()
    }


@pytest.fixture(scope="module")
def model(compiled):
    graph, path = compiled["one"]
    return graph, tvmconv.load(path, threads=1)


def close(made, expected):
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_model_of_several_outputs_computes_them_all(compiled, threads):
    graph, path = compiled["heads"]
    model = tvmconv.load(path, threads=threads)
    inputs = {each.name: values(*each.shape) for each in model.inputs}
    expected = reference.evaluate(graph, inputs)

    for made in (model(*inputs.values()), model(**inputs)):
        assert [each.name for each in model.outputs] == list(expected)
        for array, right in zip(made, expected.values(), strict=True):
            close(array, right)


def test_parts_of_a_concatenation_are_computed_in_place(compiled):
    _, path = compiled["heads"]
    layers = tvmconv.load(path, threads=1).variant.program.layers

    assert not [layer for layer in layers if "concat" in layer.operators]


def test_slopes_and_a_residual_of_fewer_channels_are_computed_by_the_convolution(tmp_path):
    b = Builder("face")
    x = b.input("x", (1, 6, 6, 8), "float32")
    wide = b.node("conv2d", [x, b.constant("w", values(3, 3, 8, 20))], activation=None, **CONV)
    skip = b.node("pad", [x], pads=((0, 0),) * 3 + ((0, 12),), value=0.0, mode="constant")
    total = b.node("add", [skip, wide])
    b.output("y", b.node("prelu", [total, b.constant("s", values(1, 1, 20))]))
    graph = b.graph()
    model = tvmconv.load(tvmconv.compile(graph, output=tmp_path / "m.tvmconv"), threads=1)
    x = values(1, 6, 6, 8)

    (layer,) = model.variant.program.layers
    assert layer.key.endswith("_residual8_prelu")
    np.testing.assert_allclose(
        model(x), reference.evaluate(graph, {"x": x})["y"], rtol=1e-4, atol=1e-4
    )


def test_a_result_is_written_where_it_is_wanted(model):
    graph, model = model
    x = values(1, 5, 4, 3)
    expected = reference.evaluate(graph, {"x": x})["y"]
    for out in (np.empty((1, 5, 4, 16), np.float32), np.empty((1, 5, 4, 32), np.float32)[..., ::2]):
        assert model(x, out=out) is out
        close(out, expected)


def test_out_may_be_the_input(tmp_path):
    b = Builder("in place")
    b.output("y", b.node("transpose", [b.input("x", (4, 4), "float32")], permutation=(1, 0)))
    model = tvmconv.load(tvmconv.compile(b.graph(), output=tmp_path / "m.tvmconv"), threads=1)
    x = values(4, 4)
    expected = x.T.copy()

    close(model(x, out=x), expected)


def test_any_layout_and_tensors_with_dlpack_are_taken(model):
    graph, model = model
    x = values(1, 5, 4, 3)
    expected = reference.evaluate(graph, {"x": x})["y"]
    odd = np.frombuffer(b"\0" * 4 + x.tobytes(), np.float32)[1:].reshape(x.shape)
    strided = np.asfortranarray(x)
    for given in (odd, strided, tvm_ffi.from_dlpack(x)):
        close(model(given), expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_batch_is_computed_image_by_image(compiled, threads):
    graph, path = compiled["one"]
    model = tvmconv.load(path, threads=threads)
    batch = values(5, 5, 4, 3)
    expected = [reference.evaluate(graph, {"x": image[None]})["y"] for image in batch]
    out = np.empty((5, 5, 4, 16), np.float32)

    close(model(batch), np.concatenate(expected))
    close(model(batch, out=out), np.concatenate(expected))
    assert model(batch[:0]).shape == (0, 5, 4, 16)


def test_calls_may_run_at_once(model):
    graph, model = model
    images = [values(1, 5, 4, 3) for _ in range(40)]
    expected = [reference.evaluate(graph, {"x": image})["y"] for image in images]
    with ThreadPoolExecutor(4) as pool:
        for made, right in zip(pool.map(model, images), expected, strict=True):
            close(made, right)


@pytest.mark.parametrize(
    ("arguments", "named", "kind", "words"),
    [
        ([], {}, TypeError, ("lacks the input x", "(1, 5, 4, 3)")),
        ([values(1, 5, 4, 3)] * 2, {}, TypeError, ("takes 1 inputs", "2 were given")),
        ([], {"z": 1}, TypeError, ("z is no input", "x (1, 5, 4, 3)")),
        ([values(1, 5, 4, 3)], {"x": 1}, TypeError, ("x is twice",)),
        ([values(1, 5, 5, 3)], {}, ValueError, ("input x", "(1, 5, 5, 3)", "(1, 5, 4, 3)")),
        ([np.zeros((1, 5, 4, 3))], {}, TypeError, ("input x", "float64", "float32")),
        ([[1.0]], {}, TypeError, ("input x", "list")),
        ([values(1, 5, 4, 3)], {"out": values(1, 5, 4, 3)}, ValueError, ("output y", "(1, 5, 4, 16)")),
        ([values(1, 5, 4, 3)], {"out": ()}, TypeError, ("1 arrays", "0 were given")),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(model, arguments, named, kind, words):
    with pytest.raises(kind) as error:
        model[1](*arguments, **named)

    assert all(word in str(error.value) for word in words)


def test_a_model_runs_without_tvm(compiled):
    code = (
        "import sys, numpy, tvmconv; m = tvmconv.load(sys.argv[1], threads=1);"
        "y = m(numpy.ones((1, 5, 4, 3), 'f4')); assert 'tvm' not in sys.modules; print(y.sum())"
    )
    path = compiled["one"][1]
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=True)

    assert float(done.stdout) == pytest.approx(20, abs=1e-4)


def test_altered_weights_are_refused(compiled, tmp_path):
    import shutil

    path = shutil.copytree(compiled["one"][1], tmp_path / "m.tvmconv")
    (weights,) = path.glob("*.weights.bin")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(
        tvmconv.errors.BundleError, match=r"weights\.bin is truncated or altered.*CRC-32"
    ):
        tvmconv.load(path)


def test_weights_of_a_signed_model_are_checked_by_what_cannot_be_forged(compiled, tmp_path):
    import shutil

    path = shutil.copytree(compiled["one"][1], tmp_path / "m.tvmconv")
    secret = tmp_path / "key"
    public = signature.make_keys(secret)
    signed = signature.sign(
        (path / "manifest.json").read_bytes(), signature.read_private_key(secret)
    )
    (path / signature.SIGNATURE_NAME).write_bytes(signed)
    assert len(tvmconv.load(path, trusted=public).inputs) == 1
    (weights,) = path.glob("*.weights.bin")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(tvmconv.errors.BundleError, match="SHA-256"):
        tvmconv.load(path, trusted=public)


def test_compiling_again_replaces_the_model(compiled, tmp_path):
    graph, _ = compiled["one"]
    for _ in range(2):
        path = tvmconv.compile(graph, output=tmp_path / "m.tvmconv")

    assert len(tvmconv.load(path).inputs) == 1


def test_inspect_shows_calls_arena_and_weights(compiled, capsys):
    path = str(compiled["heads"][1])

    assert cli.main(["inspect", path]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("image", "arena", "weights", "conv2d_1x6x6x8", "mean"))
    assert cli.main(["inspect", path, "--json"]) == 0
    program = json.loads(capsys.readouterr().out)["variants"][0]["program"]
    assert program["arena_bytes"] <= program["values_bytes"]


def test_compile_says_what_cannot_be_read(tmp_path, capsys):
    file = tmp_path / "m.tflite"
    file.write_bytes(b"no model")

    assert cli.main(["compile", str(file), "--output", str(tmp_path / "m.tvmconv")]) == 1
    assert "m.tflite" in capsys.readouterr().err


def test_pickling_a_model_says_what_to_pass_to_another_process(model):
    _, loaded = model

    assert weakref.ref(loaded)() is loaded
    with pytest.raises(TypeError, match=r"a Model cannot be pickled.*path.*tvmconv\.load"):
        pickle.dumps(loaded)


def test_a_process_that_calls_a_model_loads_nothing_for_gpus_and_no_pool_of_threads(compiled):
    _, path = compiled["one"]
    code = (
        "import sys, numpy, tvmconv\n"
        "model = tvmconv.load(sys.argv[1], threads=1, device='cpu')\n"
        "model(*[numpy.zeros(each.shape, each.dtype) for each in model.inputs])\n"
        "unused = 'tvmconv.runtime.cuda.', 'concurrent.futures', 'tvmconv.building', 'tvm.'\n"
        "print(*[name for name in sys.modules if name.startswith(unused)])"
    )
    command = [sys.executable, "-c", code, str(path)]
    run = subprocess.run(command, capture_output=True, text=True)

    assert (run.stdout.strip(), run.stderr) == ("", "")


def gated(read_again):
    """Squeeze-and-excite; with ``read_again`` what is multiplied by the gate is needed later."""
    b = Builder("gated")
    x = b.input("x", (1, 6, 6, 8), "float32")
    wide = b.node("conv2d", [x, b.constant("w", values(3, 3, 8, 24))], activation="relu", **CONV)
    gate = b.node("sigmoid", [b.node("mean", [wide], axes=(1, 2), keepdims=True)])
    product = b.node("multiply", [wide, gate])
    window = b.constant("v", values(3, 3, 24, 24) / 9)
    last = b.node("conv2d", [product, window], activation=None, **CONV)
    b.output("y", b.node("subtract", [last, wide]) if read_again else last)
    return b.graph()


@pytest.mark.parametrize("read_again", [False, True])
def test_a_product_lies_where_its_factor_was_unless_that_is_read_again(tmp_path, read_again):
    graph = gated(read_again)
    model = tvmconv.load(tvmconv.compile(graph, output=tmp_path / "m.tvmconv"), threads=1)
    x = values(1, 6, 6, 8)
    layers = model.variant.program.layers
    (product,) = (each for each in layers if each.operators == ("multiply",))
    data, _, out = (each.begin for each in product.arguments)

    assert (data == out) != read_again
    np.testing.assert_allclose(
        model(x), reference.evaluate(graph, {"x": x})["y"], rtol=1e-4, atol=1e-4
    )


def test_what_only_a_mean_reads_is_never_stored(tmp_path):
    b = Builder("means")
    x = b.input("x", (2, 5, 6, 20), "float32")
    gate = b.input("gate", (20,), "float32")
    for number, (axes, keep) in enumerate([((1, 2), True), ((3,), False), ((0, 1, 2, 3), False)]):
        scaled = b.node("multiply", [x, b.constant("c", np.float32([number + 0.5]))])
        shifted = b.node("add", [scaled, gate])
        b.output(f"y{number}", b.node("mean", [shifted], axes=axes, keepdims=keep))
    square = b.node("squared_difference", [x, b.node("mean", [x], axes=(3,), keepdims=True)])
    b.output("variance", b.node("mean", [square], axes=(3,), keepdims=True))
    graph = b.graph()
    model = tvmconv.load(tvmconv.compile(graph, output=tmp_path / "m.tvmconv"), threads=2)
    arrays = {"x": values(2, 5, 6, 20), "gate": values(20)}

    assert [each.operators[-1] for each in model.variant.program.layers] == ["mean"] * 5
    for made, right in zip(
        model(**arrays), reference.evaluate(graph, arrays).values(), strict=True
    ):
        close(made, right)


OVERWRITTEN = """
import sys
from pathlib import Path
import numpy as np
import tvmconv
model = tvmconv.load(sys.argv[1], threads=1)
x = np.ones((1, 5, 4, 3), "float32")
right = model(x)
(file,) = Path(sys.argv[1]).glob("*.weights.bin")
with open(file, "r+b") as stream:
    stream.write(bytes(file.stat().st_size))
assert np.array_equal(model(x), right), "zeros"
file.write_bytes(b"")
assert np.array_equal(model(x), right), "cut short"
try:
    tvmconv.load(sys.argv[1])
except tvmconv.errors.BundleError as error:
    print(error)
"""


def test_weights_may_be_overwritten_in_place_while_a_model_is_used(compiled, tmp_path):
    path = shutil.copytree(compiled["one"][1], tmp_path / "model")
    done = subprocess.run(
        [sys.executable, "-c", OVERWRITTEN, str(path)], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert "weights.bin is truncated or altered" in done.stdout
    assert "or: tvmconv compile MODEL --machine host" in done.stdout
    assert "tvmconv build" not in done.stdout


def test_a_damaged_manifest_of_a_model_names_the_command_that_made_it(compiled, tmp_path):
    path = shutil.copytree(compiled["one"][1], tmp_path / "model")
    file = path / "manifest.json"
    file.write_text(file.read_text().replace('"arena_bytes": ', '"arena_bytes": 1'))

    with pytest.raises(tvmconv.errors.BundleError, match=r"altered.*or: tvmconv compile MODEL"):
        tvmconv.load(path)


def test_a_wrong_dtype_is_said_in_words_that_can_be_typed(model):
    _, loaded = model
    with pytest.raises(TypeError) as caught:
        loaded(np.ones((1, 5, 4, 3)))

    assert str(caught.value).endswith(
        "must have dtype float32, dtype float64 was given: convert it, e.g. with .astype('float32')"
    )
