"""``tvmconv bench`` of a whole model."""

import dataclasses
import html.parser
import json

import numpy as np
import pytest
from model_files import FACES, model_files

import tvmconv
from tvmconv import hardware
from tvmconv.bundle import manifest
from tvmconv.commands.models import bench
from tvmconv.errors import BundleError
from tvmconv.measuring.bench.models import profile
from tvmconv.measuring.peers import models
from tvmconv.models.folding.fold import fold
from tvmconv.models.graph import Builder
from tvmconv.models.reading import read
from tvmconv.problem.spec import ConvSpec

pytestmark = pytest.mark.usefixtures("user_records")
pytest_plugins = ("bundle_fixtures",)
RANDOM = np.random.default_rng(5)


def small():
    b = Builder("small")
    x = b.input("x", (1, 5, 4, 3), "float32")
    b.output("y", b.node("tanh", [x]))
    b.output("z", b.node("exp", [x]))
    return b.graph()


def test_a_compiled_model_is_timed_alone(invoke, tmp_path):
    path = tvmconv.compile(small(), output=tmp_path / "m.tvmconv")

    code, out, _ = invoke("bench", path, "--rounds", 2, "--json", "-")

    found = json.loads(out)
    assert code == 0
    assert len(found["seconds"]["tvmconv"]) == 2
    assert 0 < found["median_seconds"]["tvmconv"] < 1
    assert invoke("bench", path, "--rounds", 1)[1].splitlines()[2].startswith("tvmconv")


def branches():
    """Two inputs, views, parts joined in place, a dense layer, an output that others read."""
    b = Builder("branches")
    image, extra = b.input("image", (1, 6, 6, 8), "float32"), b.input("extra", (1, 6), "float32")
    w = b.constant("w", RANDOM.standard_normal((3, 3, 8, 8)).astype(np.float32))
    fixed = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "activation": None}
    first = b.node("conv2d", [image, w], **fixed)
    second = b.node("conv2d", [first, w, "", first], **fixed)
    parts = [
        b.node("reshape", [each], shape=(1, 72, 4))
        for each in (b.node("tanh", [second]), b.node("conv2d", [second, w], **fixed))
    ]
    b.output("joined", b.node("concat", parts, axis=1))
    b.output("features", second)
    b.output("passed", b.node("reshape", [extra], shape=(1, 2, 3)))
    w = b.constant("dense", RANDOM.standard_normal((8, 6)).astype(np.float32))
    score = b.node("mean", [second], axes=(1, 2), keepdims=False)
    b.output("score", b.node("add", [b.node("dense", [score, w, ""], activation=None), extra]))
    return b.graph()


def test_a_profile_has_every_call_on_its_own_arrays(invoke, tmp_path):
    path = tvmconv.compile(branches(), output=tmp_path / "m.tvmconv")
    layers = manifest.read_manifest(path).variants[0].program.layers

    code, out, err = invoke("bench", path, "--profile", "--rounds", 2, "--json", "-")

    found = json.loads(out)
    assert code == 0, err  # which it is only where the calls make what the program makes
    assert [row["symbol"] for row in found["rows"]] == [layer.symbol for layer in layers]
    assert sum(row["share"] for row in found["rows"]) == pytest.approx(100)
    assert found["kinds"]["conv2d 3x3"]["calls"] == 3
    whole = found["sum_microseconds"] * (1 + found["difference_percent"] / 100)
    assert whole == pytest.approx(found["whole_microseconds"])
    largest = max(row["bytes"] for row in found["rows"])
    assert found["roof"]["bandwidths"][-1]["working_set"] >= largest
    flops = {row["key"]: row["flops"] for row in found["rows"] if row["key"]}
    assert flops == {key: ConvSpec.from_key(key).flops for key in flops}
    code, out, _ = invoke("bench", path, "--profile", "--rounds", 1)
    assert "us of the calls, each repeated alone" in out
    assert "% of the sum" in out


def test_a_profile_of_calls_on_other_arrays_is_refused(tmp_path):
    path = tvmconv.compile(branches(), output=tmp_path / "m.tvmconv")
    model = tvmconv.load(path, threads=1)
    program = model.variant.program
    (*inputs, result) = program.layers[-1].arguments
    moved = dataclasses.replace(result, memory="arena", begin=0)
    last = dataclasses.replace(program.layers[-1], arguments=(*inputs, moved))
    changed = dataclasses.replace(program, layers=(*program.layers[:-1], last))
    model.variant = dataclasses.replace(model.variant, program=changed)

    with pytest.raises(BundleError, match="one by one, make another"):
        profile(model, hardware.detect(), 1, lambda *_: None)


class Tags(html.parser.HTMLParser):
    """What a page is made of; raises where an element is not closed."""

    def __init__(self):
        super().__init__()
        self.names, self.links, self.text, self._open = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "br"):
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.names.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("graph", [small, branches])
def test_a_report_is_one_page_that_needs_nothing_else(invoke, tmp_path, graph):
    path = tvmconv.compile(
        dataclasses.replace(graph(), name="<b>&.tflite"), output=tmp_path / "m.tvmconv"
    )
    layers = manifest.read_manifest(path).variants[0].program.layers
    file = tmp_path / "page.html"

    code, out, err = invoke("bench", path, "--report", file, "--rounds", 1, "--json", "-")

    page, found = file.read_text(), Tags()
    found.feed(page)
    assert code == 0, err
    assert len(json.loads(out)["profile"]["rows"]) == len(layers)
    assert found.links == []
    assert not {"script", "link", "img", "b&"} & set(found.names)
    assert "url(" not in page
    assert "http" not in page
    assert page.count("<tr>") == 1 + len(layers)
    assert "<b>&.tflite" in found.text  # as text, not as an element
    assert found.names.count("svg") == (2 if graph is small else 4)
    assert "tvmconv" in found.text


MISTAKES = {
    "page": (["m.tflite", "--report", "page.pdf"], "--report page.pdf: the name must end in .html"),
    "nowhere": (["m.tflite", "--report", "no/page.html"], "there is no directory no"),
    "layers": (["mobilenet_v2", "--report", "page.html"], "--report is for a whole model"),
    "missing": (["nowhere.tflite"], "nowhere.tflite does not exist"),
    "folder": (["folder.onnx", "--peers", "all"], "--peers opens the model's own file"),
    "peer": (["m.tflite", "--peers", "xnnpack"], "raced with litert, onnxruntime, openvino, mnn,"),
    "workload": (["mobilenet_v2", "--profile"], "--profile is for a whole model"),
    "both": (["m.tflite", "--profile", "--peers", "all"], "give one of them"),
    "cold": (["m.tflite", "--cache", "cold"], "are for layers, not for a whole model"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_say_what_is_allowed(invoke, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "m.tflite").write_bytes(b"")
    arguments, message = MISTAKES[case]

    code, _, err = invoke("bench", *arguments)

    assert (code, message in err) == (2, True), err


def test_a_peer_that_cannot_run_the_file_says_why(invoke, tmp_path):
    (tmp_path / "m.tflite").write_bytes(b"")

    code, _, err = invoke("bench", tmp_path / "m.tflite", "--peers", "onnxruntime")

    assert code == 1
    assert "nothing to race m.tflite with. onnxruntime: it opens .onnx files" in err


def test_kernels_are_no_model(invoke, built):
    code, _, err = invoke("bench", built)

    assert code == 2
    assert "holds kernels, no model" in err


@pytest.fixture(scope="module")
def file():
    pytest.importorskip("ai_edge_litert")
    return model_files(FACES)["face_detection_short_range"]


@pytest.mark.slow
def test_a_real_model_is_raced_with_its_runtime(invoke, file):
    code, out, _ = invoke("bench", file, "--peers", "all", "--rounds", 2, "--json", "-")

    found = json.loads(out)
    assert code == 0
    assert {"tvmconv", "litert"} <= set(found["seconds"])
    assert found["absent"]["torch"] == "pnnx, which converts for it, opens .onnx files"
    assert found["versions"]["litert"].keys() == {"ai-edge-litert"}
    assert found["errors"]["litert"] < 1e-5
    theirs, mine = (found["seconds"][name] for name in ("litert", "tvmconv"))
    assert found["ratios"]["litert"] == pytest.approx(np.median(np.divide(theirs, mine)))


@pytest.mark.slow
def test_a_runtime_with_other_values_has_no_time(file, tmp_path, capsys):
    graph = fold(read(file))
    last = next(name for name in reversed(graph.constants) if graph.constants[name].ndim == 4)
    changed = {**graph.constants, last: graph.constants[last] * np.float32(1.01)}
    other = dataclasses.replace(graph, constants=changed)
    path = tvmconv.compile(other, output=tmp_path / "m.tvmconv")

    raced = models.race(path, file, ["litert"], 1, 1, lambda *_: None)
    bench.show_race(raced)

    assert set(raced.seconds) == {"tvmconv"}
    assert "litert has no time: its outputs are not ours" in capsys.readouterr().out
