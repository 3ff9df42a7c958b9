"""What kernels on CPUs and on GPUs share: weak references, pickling, copying; scratch memory on a CPU."""

import copy
import pickle
import weakref

import gpu_rehearsal
import numpy as np
import pytest
from plain_bundle import PACKED, operands
from runtime_calls import shared_bundle

from tvmconv.building import toolchain
from tvmconv.building.compile import compile_functions
from tvmconv.bundle import manifest
from tvmconv.bundle.folder import whole_file
from tvmconv.checking import oracle
from tvmconv.compute import conv2d
from tvmconv.runtime import GpuLibrary, Kernel, engine, load


def on_cpu():
    library = load(shared_bundle(), threads=1)
    kernel = library[PACKED]
    return library, kernel, kernel.bind(*operands(PACKED)[1:3])


def on_gpu():
    gpu = gpu_rehearsal.Rehearsal()
    kernel = gpu_rehearsal.kernel(gpu)
    arguments = oracle.random_arguments(kernel.spec, seed=0)
    weights = (gpu_rehearsal.Tensor(arguments[name]) for name in ("filter", "bias"))
    found = load(shared_bundle())
    library = GpuLibrary(found.path, found.manifest, found.variant, {}, gpu, found.mapped)
    return library, kernel, kernel.bind(*weights)


@pytest.mark.parametrize("made", [on_cpu, on_gpu])
def test_weak_references(made):
    for each in made():
        assert weakref.ref(each)() is each


@pytest.mark.parametrize("made", [on_cpu, on_gpu])
def test_pickling_says_what_to_pass_to_another_process(made):
    for each in made():
        name = type(each).__name__
        with pytest.raises(TypeError, match=rf"a {name} cannot be pickled.*path.*tvmconv\.load"):
            pickle.dumps({"layer": each})


@pytest.mark.parametrize("made", [on_cpu, on_gpu])
def test_a_copy_is_the_same_kernel(made):
    for each in made():
        assert copy.copy(each) is each
        assert copy.deepcopy([each])[0] is each


def test_a_kernel_on_a_cpu_gets_scratch_memory_in_every_call(tmp_path):
    spec = gpu_rehearsal.SPEC
    main, pack, workspace = gpu_rehearsal.tvm_functions(spec)
    path = tmp_path / "kernel.so"
    compiled = compile_functions({"main": main, "pack": pack}, {"kind": "llvm"})
    compiled.export_library(str(path), fcompile=toolchain.link)
    shape = conv2d.packed_filter_shape(spec, gpu_rehearsal.BLOCK)
    entry = manifest.KernelEntry(
        "main", "any", {}, pack=manifest.PackEntry("pack", shape, "float32"), workspace=workspace
    )
    load(shared_bundle(), threads=1)  # opens the runtime
    library = engine.open_kernels(whole_file(path))
    functions = library.function("main"), library.function("pack")
    kernel = Kernel(spec, entry, "here", *functions, threads=1)
    arguments = oracle.random_arguments(spec, seed=0)
    layer = kernel.bind(arguments["filter"], arguments["bias"])
    out = np.empty(spec.output_shape, np.float32)

    for _ in range(2):
        layer(arguments["data"], arguments["residual"], out)
        oracle.assert_close(spec, oracle.conv(spec, **arguments), out)
    pointers = layer.pointers(arguments["data"], arguments["residual"], out)
    assert len(pointers) == len(main.params)
