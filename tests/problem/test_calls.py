import re
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from illegal_calls import BASES, ILLEGAL_CALLS, IllegalCall

from tvmconv.problem.calls import spec_of_conv2d_call, spec_of_depthwise_call
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime.tensors import numpy_dtype

SPEC_OF = {"conv2d": spec_of_conv2d_call, "depthwise_conv2d": spec_of_depthwise_call}
NCHW = {"data_format": "NCHW", "input_shape": (1, 4, 5, 6)}
PADS = [(0, 0), (1, 2), (3, 0), (0, 0)]
PADS_NCHW = [(0, 0), (0, 0), (1, 2), (3, 0)]

# Forms of arguments that TensorFlow takes, each with the strides, dilations or pads it must become.
LEGAL_FORMS = [
    ("conv2d", {"strides": None}, {"strides": (1, 1)}),
    ("conv2d", {"strides": 2}, {"strides": (2, 2)}),
    ("conv2d", {"strides": np.int32(2)}, {"strides": (2, 2)}),
    ("conv2d", {"strides": [3]}, {"strides": (3, 3)}),
    ("conv2d", {"strides": (2, 1)}, {"strides": (2, 1)}),
    ("conv2d", {"strides": np.array([1, 3])}, {"strides": (1, 3)}),
    ("conv2d", {"strides": [1, 2, 3, 1]}, {"strides": (2, 3)}),
    ("conv2d", {"strides": [1, 1, 2, 3], **NCHW}, {"strides": (2, 3)}),
    ("conv2d", {"dilations": None}, {"dilations": (1, 1)}),
    ("conv2d", {"dilations": 2}, {"dilations": (2, 2)}),
    ("conv2d", {"dilations": (np.int64(1), 2)}, {"dilations": (1, 2)}),
    ("conv2d", {"dilations": [1, 1, 2, 1]}, {"dilations": (1, 2)}),
    ("conv2d", {"dilations": (1, 1, 2, 1), **NCHW}, {"dilations": (2, 1)}),
    ("conv2d", {"dilations": 2, "strides": 2}, {"dilations": (2, 2), "strides": (2, 2)}),
    ("conv2d", {"padding": "SAME", "strides": 2}, {"pads": (1, 1, 0, 1)}),
    ("conv2d", {"padding": "VALID"}, {"pads": (0, 0, 0, 0)}),
    ("conv2d", {"padding": PADS}, {"pads": (1, 2, 3, 0)}),
    ("conv2d", {"padding": tuple(PADS)}, {"pads": (1, 2, 3, 0)}),
    ("conv2d", {"padding": [[0, 0], [1.0, 2], (0, 9), (0, 0)]}, {"pads": (1, 2, 0, 9)}),
    ("conv2d", {"padding": PADS_NCHW, **NCHW}, {"pads": (1, 2, 3, 0)}),
    ("conv2d", {"data_format": None}, {"data_format": "NHWC"}),
    ("conv2d", {"input_shape": (2, 0, 3, 5, 6, 4)}, {"input_shape": (2, 0, 3, 5, 6, 4)}),
    ("conv2d", {"input_shape": (2, 3, 4, 5, 6), "data_format": "NCHW"}, {"pads": (1, 1, 1, 1)}),
    ("conv2d", {"input_shape": (0, 0, 6, 4), "strides": 2}, {"pads": (0, 1, 0, 1)}),
    ("depthwise_conv2d", {"strides": (1, 2, 2, 1)}, {"strides": (2, 2)}),
    ("depthwise_conv2d", {"strides": [1, 1, 3, 3], **NCHW}, {"strides": (3, 3)}),
    ("depthwise_conv2d", {"dilations": [2, 3]}, {"dilations": (2, 3)}),
    ("depthwise_conv2d", {"dilations": np.array([2, 1])}, {"dilations": (2, 1)}),
    ("depthwise_conv2d", {"data_format": "NHWC"}, {"data_format": "NHWC"}),
    ("depthwise_conv2d", {"padding": PADS, "dilations": (2, 2)}, {"pads": (1, 2, 3, 0)}),
    ("depthwise_conv2d", {"padding": PADS_NCHW, **NCHW}, {"pads": (1, 2, 3, 0)}),
]


@pytest.mark.parametrize("call", ILLEGAL_CALLS, ids=lambda call: call.label)
def test_illegal_call_is_refused_by_name(call: IllegalCall):
    with pytest.raises(call.error, match=call.names) as caught:
        SPEC_OF[call.op](**call.arguments())
    assert type(caught.value) is call.error


@pytest.mark.parametrize("call", ILLEGAL_CALLS, ids=lambda call: call.label)
def test_tensorflow_on_illegal_call(call: IllegalCall):
    """Checks the table itself: what it calls illegal, TensorFlow refuses, or the table says so."""
    arguments = call.arguments()
    data, window = (
        np.ones(arguments.pop(f"{name}_shape"), numpy_dtype(arguments.pop(f"{name}_dtype")))
        for name in ("input", "filter")
    )
    tensorflow_oracle.tensorflow()  # skips here, not inside raises
    if call.tensorflow_accepts:
        tensorflow_oracle.run(call.op, data, window, **arguments)
        return
    with pytest.raises(Exception) as caught:  # noqa: PT011  # its class varies by kernel
        tensorflow_oracle.run(call.op, data, window, **arguments)
    # Else a row in NCHW would be refused for its data format, whatever its mistake is.
    assert call.label == "int32_nchw" or "NHWC tensor format" not in str(caught.value)


def test_labels_are_distinct():
    labels = [call.label for call in ILLEGAL_CALLS]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize(("op", "changes", "fields"), LEGAL_FORMS)
def test_legal_form(op, changes, fields):
    arguments = {**BASES[op], **changes}
    spec = SPEC_OF[op](**arguments)
    assert {name: getattr(spec, name) for name in fields} == fields
    assert tensorflow_oracle.output_shape(op, **arguments) == spec.output_shape


@pytest.mark.parametrize(
    "dtype", ["float32", np.float32, np.dtype("float32"), SimpleNamespace(name="float32")]
)
def test_dtype_forms(dtype):
    spec = spec_of_conv2d_call(
        (1, 5, 6, 4), dtype, (3, 3, 4, 2), "float32", strides=1, padding="SAME"
    )
    assert spec.dtype == "float32"


def test_dtype_of_tensorflow_and_ml_dtypes():
    tf = tensorflow_oracle.tensorflow()
    spec = spec_of_depthwise_call(
        tf.TensorShape([1, 5, 6, 4]),
        tf.bfloat16,
        (3, 3, 4, 2),
        numpy_dtype("bfloat16"),
        strides=[1, 1, 1, 1],
        padding="SAME",
    )
    assert spec.dtype == "bfloat16"
    assert spec.input_shape == (1, 5, 6, 4)


def test_unequal_depthwise_strides_are_an_extension():
    arguments = {**BASES["depthwise_conv2d"], "strides": [1, 1, 2, 1]}
    assert spec_of_depthwise_call(**arguments).output_shape == (1, 5, 3, 8)


def test_spec_class_method_is_lenient_where_the_depthwise_call_is_not():
    for strides, dilations in ((2, 1), ([2], [1]), ((2, 2), None), ([1, 2, 2, 1], [1, 1, 1, 1])):
        spec = ConvSpec.depthwise_conv2d((1, 5, 6, 4), (3, 3, 4, 2), strides, dilations=dilations)
        assert (spec.strides, spec.dilations) == ((2, 2), (1, 1))


def test_unknown_extent_is_refused():
    with pytest.raises(TypeError, match=r"shape of input.*None"):
        ConvSpec.conv2d((None, 5, 6, 4), (3, 3, 4, 2))
    with pytest.raises(ValueError, match=r"shape of filter.*negative"):
        ConvSpec.conv2d((1, 5, 6, 4), (3, -3, 4, 2))


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 5),
    st.floats(),
    st.text(max_size=4),
    st.binary(max_size=4),
    st.lists(st.integers(-1, 3), max_size=5),
    st.lists(st.tuples(st.integers(-1, 3), st.floats()), max_size=5),
    st.dictionaries(st.integers(), st.integers(), max_size=4),
)


@settings(max_examples=200, deadline=None)
@given(
    op=st.sampled_from(sorted(SPEC_OF)),
    name=st.sampled_from([name for name in BASES["conv2d"] if "dtype" not in name]),
    junk=JUNK,
)
def test_junk_gives_a_spec_or_an_error_that_names_it(op, name, junk):
    try:
        spec = SPEC_OF[op](**{**BASES[op], name: junk})
    except (TypeError, ValueError) as error:
        words = {"strides": "Stride|strides", "dilations": "Dilation|dilations"}
        word = words.get(name, name.partition("_")[0])
        assert re.search(word, str(error))  # noqa: PT017  # both outcomes are fine
    else:
        assert ConvSpec.from_key(spec.key) == spec
