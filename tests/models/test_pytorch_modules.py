"""Modules of PyTorch: exported, read and folded, they compute what PyTorch does."""

from __future__ import annotations

import numpy as np
import pytest

import tvmconv
from tvmconv.errors import ModelError
from tvmconv.models.folding.fold import fold
from tvmconv.models.reading import read
from tvmconv.models.reference import evaluate

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
nn, F = torch.nn, torch.nn.functional
IMAGE = (2, 8, 6, 8)


class Of(nn.Module):
    """A function of an image as a module."""

    def __init__(self, function, *layers):
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x):
        return self.function(x, *self.layers)


class InvertedResidual(nn.Module):
    """As MobileNetV2's."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6(inplace=True),
            nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False), nn.BatchNorm2d(24), nn.ReLU6(True),
            nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8),
        )  # fmt: skip

    def forward(self, x):
        return x + self.layers(x)


class Residual(nn.Module):
    """As ResNet's, whose sum and activation are in place."""

    def __init__(self):
        super().__init__()
        self.one, self.two = (nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8)])
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        made = self.relu(self.norms[0](self.one(x)))
        made = self.norms[1](self.two(made))
        made += x
        return self.relu(made)


class ConvNeXt(nn.Module):
    """Its norm and its dense layers have channels last in the module itself."""

    def __init__(self):
        super().__init__()
        self.depthwise = nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.norm, self.wide, self.narrow = nn.LayerNorm(8), nn.Linear(8, 32), nn.Linear(32, 8)
        self.scale = nn.Parameter(torch.full((8,), 0.5))

    def forward(self, x):
        made = self.depthwise(x).permute(0, 2, 3, 1)
        made = self.scale * self.narrow(F.gelu(self.wide(self.norm(made))))
        return x + made.permute(0, 3, 1, 2)


class Gate(nn.Module):
    """Squeeze and excite, as MobileNetV3's."""

    def __init__(self):
        super().__init__()
        self.conv, self.gate = nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        x = F.hardswish(self.conv(x), inplace=True)
        x = x * F.hardsigmoid(self.gate(F.adaptive_avg_pool2d(x, 1)))
        return torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)


def attend(x, layer):
    tokens = x.flatten(2).transpose(1, 2)
    return layer(tokens, tokens, tokens, need_weights=False)[0]


def sdpa(x):
    return F.scaled_dot_product_attention(x, x * 2, x - 1)


def in_place_twice(x):
    y = x * 2
    y += 1
    z = y * y.mean((2, 3), keepdim=True).flatten(1)[..., None, None].relu_()
    y.mul_(2)
    return y + z


MODULES = {
    "inverted residual": InvertedResidual,
    "residual": Residual,
    "convnext": ConvNeXt,
    "gate": Gate,
    "conv same": lambda: nn.Conv2d(8, 6, 4, padding="same", dilation=(1, 2), groups=2),
    "conv pads": lambda: nn.Conv2d(8, 16, (3, 2), (2, 1), (1, 0), groups=8),
    "transposed": lambda: nn.ConvTranspose2d(8, 6, 3, 2, 1, output_padding=1, groups=2),
    "max pool": lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    "average pool": lambda: nn.AvgPool2d(3, padding=1, ceil_mode=True),
    "average pool uncounted": lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    "adaptive": lambda: nn.AdaptiveAvgPool2d((3, 2)),
    "up nearest": lambda: nn.Upsample(scale_factor=2),
    "up exact": lambda: nn.Upsample((9, 5), mode="nearest-exact"),
    "up bilinear": lambda: nn.Upsample(scale_factor=(1.5, 2), mode="bilinear"),
    "up corners": lambda: nn.Upsample((9, 5), mode="bilinear", align_corners=True),
    "up bicubic": lambda: nn.Upsample((9, 20), mode="bicubic"),
    "shuffles": lambda: Of(lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2) * 2),
    "channel shuffle": lambda: nn.ChannelShuffle(4),
    "group norm": lambda: nn.GroupNorm(4, 8),
    "instance norm": lambda: nn.InstanceNorm2d(8, affine=True),
    "layer norm": lambda: nn.LayerNorm((6, 8)),
    "attention": lambda: Of(attend, nn.MultiheadAttention(8, 2, batch_first=True)),
    "scaled dot product": lambda: Of(sdpa),
    "linear": lambda: nn.Linear(8, 5, bias=False),
    "products": lambda: Of(lambda x: (x @ x.mT).flatten(0, 1).bmm(torch.ones(16, 6, 2))),
    "flatten": lambda: Of(lambda x, conv: conv(x).flatten(1), nn.Conv2d(8, 3, 1)),
    "joined": lambda: Of(lambda x: torch.cat([*x.chunk(3, 1), *x.split((2, 6), 1)[:1]], 1)),
    "stacked": lambda: Of(lambda x: torch.stack([*x.unbind(2)][::2], -1)),
    "cut": lambda: Of(lambda x: x[:, 1:-1, ::2, 3]),
    "rolled": lambda: Of(lambda x: torch.roll(x, (2, -1), (2, 3))),
    "padded": lambda: Of(lambda x: F.pad(F.pad(x, (1, 2, 0, 1), value=2.0), (1, 1, 1, 1), "reflect")),
    "shapes": lambda: Of(
        lambda x: x.view(2, 2, -1, 48).squeeze()[..., None].expand(-1, -1, -1, -1, 3).permute(4, 0, 2, 1, 3)
    ),
    "reductions": lambda: Of(
        lambda x: x.mean((2, 3), keepdim=True) + x.sum(1, keepdim=True) - x.amax(3, True) * x.mean()
    ),
    "activations": lambda: Of(
        lambda x: sum(
            f(x)
            for f in (
                F.silu, F.gelu, F.mish, F.softplus, F.elu, F.leaky_relu, F.relu6, F.hardtanh, F.hardsigmoid,
                torch.sigmoid, torch.tanh, torch.erf, lambda y: F.gelu(y, approximate="tanh"),
                lambda y: y.clamp(min=-0.5), lambda y: y.clamp(-1, 0.5), torch.abs, torch.square,
            )
        )
    ),
    "arithmetic": lambda: Of(
        lambda x: (1 - x) / (x.abs() + 1).sqrt() + torch.sub(x, x * 2, alpha=3) ** 2 - x.exp().reciprocal()
    ),
    "where of numbers": lambda: Of(lambda x: torch.where(x > 0, 2.0, x)),
    "where": lambda: Of(lambda x: torch.where((x > 0) & (x < 0.5), x, x * 2)),
    "prelu": lambda: nn.PReLU(8),
    "softmax": lambda: Of(lambda x: x.softmax(1) + F.log_softmax(x, 2)),
    "in place": lambda: Of(in_place_twice),
}  # fmt: skip
# Of the input to NHWC and of the output back: none between.
TRANSPOSES = {"inverted residual": 2, "residual": 2, "convnext": 2, "gate": 1}


def made(name):
    torch.manual_seed(1)
    module = MODULES[name]().eval()
    for buffer, values in module.named_buffers():
        if "running" in buffer:
            values.uniform_(0.5, 1.5)
    return module


@pytest.mark.parametrize("name", MODULES)
def test_a_module_computes_what_pytorch_does(name):
    module, x = made(name), torch.empty(IMAGE).uniform_(-1, 1)
    with torch.no_grad():
        expected = module(x.clone()).numpy()

    graph = read(module, example_inputs=(x,))

    (public,) = graph.inputs
    for each in (graph, fold(graph)):
        (out,) = evaluate(each, {public: x.numpy()}).values()
        assert out.shape == expected.shape
        np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TRANSPOSES)
def test_transposes_are_left_at_the_borders_alone(name):
    graph = fold(read(made(name), example_inputs=(torch.zeros(IMAGE),)))

    assert sum(node.op == "transpose" for node in graph.nodes) == TRANSPOSES[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSPOSES)
def test_a_compiled_module_computes_what_pytorch_does(name, tmp_path):
    module, x = made(name), torch.empty(IMAGE).uniform_(-1, 1)
    with torch.no_grad():
        expected = module(x.clone()).numpy()

    path = tvmconv.compile(module, output=tmp_path / "m.tvmconv", example_inputs=(x,))

    out = tvmconv.load(path)(x.numpy())
    out = out[0] if isinstance(out, (list, tuple)) else out
    np.testing.assert_allclose(np.asarray(out), expected, rtol=1e-4, atol=1e-5)


def test_an_exported_program_is_read_too():
    program = torch.export.export(made("gate"), (torch.zeros(IMAGE),))

    assert read(program).inputs["x"].shape == IMAGE


def test_a_view_that_is_changed_in_place_is_refused():
    def change(x):
        y = x * 2
        y[:, 0].mul_(3)
        return y

    with pytest.raises(ModelError, match=r"aten\.mul, node .*in place"):
        read(Of(change).eval(), example_inputs=(torch.zeros(IMAGE),))


def test_a_tensor_that_a_view_of_a_view_shows_is_not_changed_in_place():
    def change(x):
        y = x * 2
        z = y[:, :1].view(-1)
        y.mul_(3)
        return y.sum() + z

    with pytest.raises(ModelError, match=r"aten\.mul, node .*in place"):
        read(Of(change).eval(), example_inputs=(torch.zeros(IMAGE),))


def test_a_tensor_with_views_that_is_changed_in_place_is_refused():
    def change(x):
        y = x * 2
        z = y.view(-1)
        y.mul_(3)
        return z

    with pytest.raises(ModelError, match=r"aten\.mul, node .*in place"):
        read(Of(change).eval(), example_inputs=(torch.zeros(IMAGE),))


def test_what_is_not_supported_is_named():
    module = Of(lambda x: torch.fft.fft(x).abs() + torch.cumsum(x, 1)).eval()

    with pytest.raises(ModelError, match=r"(?s)aten\.fft_fft, node.*aten\.cumsum, node"):
        read(module, example_inputs=(torch.zeros(IMAGE),))


def test_dynamic_shapes_and_training_and_missing_inputs_are_refused():
    x, batch = torch.zeros(IMAGE), torch.export.Dim("batch", min=2, max=9)
    program = torch.export.export(made("gate"), (x,), dynamic_shapes=[{0: batch}])

    with pytest.raises(ModelError, match="fixed shapes"):
        read(program)
    with pytest.raises(ModelError, match=r"\.eval\(\)"):
        read(made("gate").train(), example_inputs=(x,))
    with pytest.raises(ModelError, match="example_inputs"):
        read(made("gate"))
    with pytest.raises(ModelError, match="cannot be exported"):
        read(made("gate"), example_inputs=(torch.zeros(3, 3),))
    with pytest.raises(ModelError, match="int is no model"):
        read(3)
    with pytest.raises(ModelError, match="input_shapes are of files"):
        read(made("gate"), {"x": IMAGE}, (x,))
