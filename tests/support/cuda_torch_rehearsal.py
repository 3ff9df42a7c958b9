"""What the kit asks of PyTorch on a GPU, with PyTorch on the CPU: its operations are real, the GPU's are not.

A CUDA graph here is a list of the operations that ran while it was captured; a replay runs them again.
"""

from __future__ import annotations

import contextlib
import time
import types

from torch.utils._python_dispatch import TorchDispatchMode


class Torch:
    """PyTorch, but for ``cuda``."""

    def __init__(self, torch, l2_bytes):
        self._torch = torch
        self.cuda = Cuda(l2_bytes)

    def __getattr__(self, name):
        return getattr(self._torch, name)

    def kernel(self, spec, wrong=False):
        return Kernel(self._torch, spec, wrong)


class Cuda:
    def __init__(self, l2_bytes):
        self._properties = types.SimpleNamespace(L2_cache_size=l2_bytes)
        self.captured = []  # of each graph, how many convolutions it holds, and of how many inputs

    def get_device_properties(self, _device):
        return self._properties

    def synchronize(self):
        pass

    def current_stream(self):
        return self.Stream()

    def stream(self, _stream):
        return contextlib.nullcontext()

    class Stream:
        def wait_stream(self, _other):
            pass

    class CUDAGraph:
        def __init__(self):
            self.steps = []

        def replay(self):
            for function, arguments, named, out in self.steps:
                again = function(*arguments, **named)
                if again is not out and again.data_ptr() != out.data_ptr():
                    out.copy_(again)

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = time.perf_counter()

        def synchronize(self):
            pass

        def elapsed_time(self, end):
            return (end.at - self.at) * 1e3

    @contextlib.contextmanager
    def graph(self, graph):
        with Recording(graph.steps):
            yield
        read = [step[1][0].data_ptr() for step in graph.steps if "convolution" in str(step[0])]
        self.captured.append((len(read), len(set(read))))


class Recording(TorchDispatchMode):
    def __init__(self, steps):
        super().__init__()
        self._steps = steps

    def __torch_dispatch__(self, function, _types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self._steps.append((function, args, kwargs or {}, out))
        return out


class Kernel:
    """As `GpuKernel`, computed by PyTorch; a ``wrong`` one doubles everything."""

    def __init__(self, torch, spec, wrong):
        self._torch, self._spec, self._wrong = torch, spec, wrong
        self.schedule, self.decisions = "rehearsal", {}
        self.entry = types.SimpleNamespace(record=None)
        self.bound = 0

    def bind(self, w, bias):
        self.bound += 1
        torch, spec = self._torch, self._spec
        depthwise = spec.op == "depthwise_conv2d"
        window = w.permute(2, 3, 0, 1) if depthwise else w.permute(3, 2, 0, 1)
        held = window.clone(), None if bias is None else bias.clone()
        top, bottom, left, right = spec.pads

        def call(x, residual, out):
            image = torch.nn.functional.pad(x.permute(0, 3, 1, 2), (left, right, top, bottom))
            made = torch.nn.functional.conv2d(image, *held, spec.strides, 0, 1, spec.groups)
            made = torch.relu(made) if spec.activation == "relu" else made
            out.copy_(made.permute(0, 2, 3, 1) * (2 if self._wrong else 1))
            return out

        return call
