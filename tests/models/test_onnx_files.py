"""Whole .onnx files: read, folded and compiled, they compute what onnxruntime does."""

from __future__ import annotations

from collections import Counter
from random import Random

import numpy as np
import pytest
from model_files import OCR, model_files
from mutated_onnx import change_bytes, change_message
from onnx_models import LIGHT, light, model, run_onnxruntime
from onnx_operators import MODELS

import tvmconv
from tvmconv.errors import ModelError
from tvmconv.models.folding.fold import fold
from tvmconv.models.reading import read
from tvmconv.models.reference import evaluate

onnx = pytest.importorskip("onnx")
CLOSE = 1e-4  # of the largest output: float32 through a hundred layers


def ask(graph):
    rng = np.random.default_rng(0)
    return {
        name: rng.uniform(0, 1, tensor.shape).astype(tensor.dtype)
        for name, tensor in graph.inputs.items()
    }


def assert_close(made, expected):
    for out, wanted in zip(made, expected, strict=True):
        assert np.shape(out) == wanted.shape
        assert np.ptp(wanted) > 0.1 * np.abs(wanted).max()
        assert np.abs(out - wanted).max() <= CLOSE * np.abs(wanted).max()


# The others repeat these layers and have matrices of hundreds of megabytes.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "transposes"),
    [
        ("squeezenet", 1), ("resnet50", 1), ("densenet121", 1), ("inception_v1", 1),
        ("inception_v2", 1), ("shufflenet", 17),  # 16 of shuffled channels
    ],
)  # fmt: skip
def test_light_models_compute_what_onnxruntime_does(name, transposes):
    content = light(name)
    graph = fold(read(content))
    inputs = ask(graph)

    assert Counter(node.op for node in graph.nodes)["transpose"] == transposes
    assert_close(evaluate(graph, inputs).values(), run_onnxruntime(content, inputs))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_compiled_light_models_compute_what_onnxruntime_does(name, tmp_path):
    content = light(name)
    (tmp_path / "light.onnx").write_bytes(content)
    path = tvmconv.compile(tmp_path / "light.onnx", output=tmp_path / "light.tvmconv")
    inputs = ask(read(content))

    made = tvmconv.load(path)(**inputs)

    made = made if isinstance(made, (list, tuple)) else [made]
    assert_close([np.asarray(each) for each in made], run_onnxruntime(content, inputs))


@pytest.mark.parametrize("file", sorted(LIGHT.glob("*.onnx")), ids=lambda file: file.stem)
def test_every_light_model_can_be_read(file):
    graph = read(file)

    assert sum(node.op == "transpose" for node in graph.nodes) <= 50


@pytest.mark.parametrize("name", ["input as output", "shape output", "attention"])
def test_compiled_operators_compute_what_onnxruntime_does(name, tmp_path):
    """Outputs that are inputs or constants, and products of matrices that lie transposed."""
    graph = read(MODELS[name])
    x = np.random.default_rng(0).uniform(-1, 1, graph.inputs["x"].shape).astype(np.float32)

    made = tvmconv.load(tvmconv.compile(graph, output=tmp_path / "m.tvmconv"))(x)

    made = made if isinstance(made, tuple) else (made,)
    for out, wanted in zip(made, run_onnxruntime(MODELS[name], {"x": x}), strict=True):
        np.testing.assert_allclose(np.asarray(out), wanted, rtol=1e-5, atol=1e-5)


OCR_SHAPES = {
    "ch_PP-OCRv4_det_infer": (1, 3, 64, 96),
    "ch_PP-OCRv4_rec_infer": (1, 3, 48, 96),
    "ch_ppocr_mobile_v2.0_cls_infer": (1, 3, 48, 96),
}


def page(shape):
    """White, with a line of six dark blots that a detector takes for letters; of noise it sees nothing."""
    x, rng = np.full(shape, 2, np.float32), np.random.default_rng(0)
    for left in range(10, 82, 12):
        blot = rng.choice([-2, 2], (5, 2), p=[0.7, 0.3])
        x[:, :, 24:44, left : left + 8] = np.kron(blot, np.ones((4, 4)))
    return x


@pytest.mark.slow
@pytest.mark.parametrize("name", OCR_SHAPES)
def test_compiled_ocr_models_compute_what_onnxruntime_does(name, tmp_path):
    file, shape = model_files(OCR)[name], OCR_SHAPES[name]
    path = tvmconv.compile(file, output=tmp_path / "m.tvmconv", input_shapes={"x": shape})
    x = page(shape)
    (expected,) = run_onnxruntime(file.read_bytes(), {"x": x})

    made = tvmconv.load(path)(x)

    made = made[0] if isinstance(made, (list, tuple)) else made
    assert expected.max() > 0.1  # it sees the page
    assert np.abs(np.asarray(made) - expected).max() <= CLOSE * np.abs(expected).max()


def open_model(*shape):
    made = onnx.load_from_string(model([("Relu", ["x"], ["y"], {})], {"x": shape}))
    return made.SerializeToString()


def test_an_unknown_extent_is_an_error_that_says_what_to_give():
    content = open_model("batch", 3, "height", 4)

    with pytest.raises(
        ModelError, match=r"'x'.*\(\?, 3, \?, 4\).*input_shapes=\{'x': \(1, 3, \?, 4\)\}"
    ):
        read(content)
    graph = read(content, {"x": (2, 3, 5, 4)})
    assert graph.inputs["x"].shape == (2, 3, 5, 4)
    with pytest.raises(ModelError, match="input_shapes has"):
        read(content, {"x": (2, 3, 5)})
    with pytest.raises(ModelError, match="names 'z', but the inputs are"):
        read(content, {"z": (2, 3, 5, 4)})


def test_all_that_is_not_supported_is_named_up_to_ten():
    nodes = [("ArgMax", ["x"], [f"y{index}"], {}) for index in range(12)]

    with pytest.raises(ModelError, match=r"ArgMax, operator 9, [^$]*and 2 more") as error:
        read(model(nodes, {"x": (2, 3)}, outputs=("y1",)))
    assert "End the model in front of it" in str(error.value)


def test_a_circle_and_a_missing_value_are_named():
    nodes = [("Relu", ["b"], ["a"], {}), ("Relu", ["a"], ["b"], {})]

    with pytest.raises(ModelError, match=r"Relu, operator 0, .*makes its inputs \['b'\]"):
        read(model(nodes, {"x": (2, 3)}, outputs=("b",)))


@pytest.mark.parametrize("opset", [6, 99])
def test_other_opsets_are_refused(opset):
    with pytest.raises(ModelError, match=f"its opset is {opset}, but 7 to"):
        read(model([("Relu", ["x"], ["y"], {})], {"x": (2, 3)}, opset=opset))


def external(folder, location, **more):
    made = onnx.load_from_string(
        model([("Add", ["x", "c"], ["y"], {})], {"x": (2, 3)}, {"c": np.zeros(3, np.float32)})
    )
    constant = made.graph.initializer[0]
    constant.ClearField("raw_data")
    constant.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        constant.external_data.add(key=key, value=str(value))
    path = folder / "model.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def test_constants_may_lie_in_a_file_beside_the_models(tmp_path):
    (tmp_path / "data.bin").write_bytes(b"head" + np.float32([1, 2, 3]).tobytes())
    path = external(tmp_path, "data.bin", offset=4, length=12)

    (made,) = evaluate(read(path), {"x": np.zeros((2, 3))}).values()
    np.testing.assert_array_equal(made, [[1, 2, 3]] * 2)
    with pytest.raises(ModelError, match="give a path"):
        read(path.read_bytes())


@pytest.mark.parametrize(
    ("location", "more"),
    [
        ("../data.bin", {}), ("/etc/hostname", {}), ("link.bin", {}), ("nothing.bin", {}), ("", {}),
        ("data.bin", {"offset": 4}), ("data.bin", {"offset": -4}), ("data.bin", {"length": 2**40}),
    ],
)  # fmt: skip
def test_other_data_outside_the_models_folder_is_refused(tmp_path, location, more):
    folder = tmp_path / "models"
    folder.mkdir()
    for place in (tmp_path, folder):
        (place / "data.bin").write_bytes(bytes(12))
    (folder / "link.bin").symlink_to(tmp_path / "data.bin")

    with pytest.raises(ModelError, match="'c'"):
        read(external(folder, location, **more))


@pytest.mark.parametrize("change", [change_bytes, change_message])
def test_mutated_files_are_read_or_refused(change):
    contents = [*MODELS.values(), (LIGHT / "light_squeezenet.onnx").read_bytes()]
    refused = 0
    for seed in range(600):
        rng = Random(seed)
        content = change(rng.choice(contents), rng)
        try:
            read(content)
        except ModelError:
            refused += 1
    assert 60 < refused < 590


@pytest.mark.parametrize(
    ("op", "second", "third", "message"),
    [
        ("Conv", np.zeros((5, 3, 1, 1), np.float32), np.zeros(4, np.float32), "makes 5 channels"),
        ("Conv", np.zeros((5, 3, 1, 1)), np.zeros(5), "mixes float32 and float64"),
        (
            "ConvTranspose",
            np.zeros((3, 5, 1, 1), np.float32),
            np.zeros((4, 5), np.float32),
            "makes 5",
        ),
        ("Sum", np.zeros(4, np.float32), np.zeros(4, np.int64), "mixes float32 and int64"),
    ],
)
def test_shapes_and_dtypes_that_do_not_fit_are_refused(op, second, third, message):
    content = model(
        [(op, ["x", "a", "b"], ["y"], {})], {"x": (1, 3, 4, 4)}, {"a": second, "b": third}
    )

    with pytest.raises(ModelError, match=message):
        read(content)


def test_computed_indices_that_are_no_integers_are_refused():
    nodes = [("MatMul", ["a", "a"], ["i"], {}), ("Gather", ["x", "i"], ["y"], {})]

    with pytest.raises(ModelError, match="its indices are float32"):
        read(model(nodes, {"x": (2, 3)}, {"a": np.eye(2, dtype=np.float32)}))


def test_a_dilated_filter_that_no_memory_holds_is_refused():
    content = model(
        [("ConvTranspose", ["x", "w"], ["y"], {"dilations": [2**40, 1]})],
        {"x": (1, 2, 4, 4)},
        {"w": np.zeros((2, 2, 3, 3), np.float32)},
    )

    with pytest.raises(ModelError, match="its dilations are"):
        read(content)


def test_shapes_that_ask_for_gigabytes_are_refused():
    """Each constant is below what a single node may fold to; together they are 100 GiB."""
    shape = np.asarray([1 << 24], np.int64)
    nodes = [("ConstantOfShape", ["s"], [f"v{index}"], {}) for index in range(1600)]

    with pytest.raises(ModelError, match="constants take more than"):
        read(model(nodes, {"x": (2, 3)}, {"s": shape}, outputs=("v1",)))


@pytest.mark.parametrize("length", [0, 1, 3, 8, 40, 1000, 50_000])
def test_truncated_files_are_refused(length, tmp_path):
    path = tmp_path / "cut.onnx"
    path.write_bytes((LIGHT / "light_resnet50.onnx").read_bytes()[:length])

    with pytest.raises(ModelError, match="truncated"):
        read(path)
