"""The one-line spelling of a convolution: how a key is written and taken apart.

A key has only lower-case letters, digits and underscores and begins with the operator's name, so it
is at once a C identifier (the kernel's symbol), a test id, a file name and a log key.
"""

from __future__ import annotations

import re
from typing import Any, Final

from tvmconv.problem.fields import Fields
from tvmconv.problem.rules import ACTIVATIONS, BYTE_DTYPES, ITEM_BYTES, OP_DTYPES, PRELU, TF32

KEY_FORM: Final = (
    "OP_INPUT_FILTER_sHxW_pTOPxBOTTOMxLEFTxRIGHT_dHxW_FORMAT_DTYPE[_bias][_residual[CHANNELS]][_ACTIVATION]"
    "[_to_BYTE_DTYPE], "
    "for example conv2d_1x56x56x64_3x3x64x64_s1x1_p1x1x1x1_d1x1_nhwc_float32_bias_relu6; "
    f"DTYPE {TF32} is float32 with tf32=True"
)

# At most 18 digits: every such number fits in int64, and int() cannot refuse it as too long.
# No leading zeros, so that a spec has one key.
_N = "(?:0|[1-9][0-9]{0,17})"
_KEY = re.compile(
    f"(?P<op>{'|'.join(OP_DTYPES)})"
    f"_(?P<input_shape>{_N}(?:x{_N}){{3,}})_(?P<filter_shape>{_N}(?:x{_N}){{3}})"
    f"_s(?P<strides>{_N}x{_N})_p(?P<pads>{_N}(?:x{_N}){{3}})_d(?P<dilations>{_N}x{_N})"
    f"_(?P<data_format>nhwc|nchw)_(?P<dtype>{'|'.join((*ITEM_BYTES, TF32))})"
    f"(?P<bias>_bias)?"
    f"(?P<residual>_residual(?P<residual_channels>[1-9][0-9]{{0,17}})?)?"
    f"(?:_(?P<activation>{'|'.join((*ACTIVATIONS, PRELU))}))?"
    f"(?:_to_(?P<quantized>{'|'.join(BYTE_DTYPES)}))?"
)
_PREFIXES = {"input_shape": "", "filter_shape": "", "strides": "s", "pads": "p", "dilations": "d"}


def spell_key(spec: Fields) -> str:
    """Return the key of ``spec``; the parts of the epilogue stand in the order applied."""
    parts = [
        prefix + "x".join(map(str, getattr(spec, field))) for field, prefix in _PREFIXES.items()
    ]
    epilogue = ["bias"] * spec.bias + [f"residual{spec.residual_channels or ''}"] * spec.residual
    if spec.activation is not None:
        epilogue.append(spec.activation)
    if spec.quantized is not None:
        epilogue.append(f"to_{spec.quantized}")
    return "_".join([spec.op, *parts, spec.data_format.lower(), spec.precision, *epilogue])


def parse_key(key: str) -> dict[str, Any]:
    """Return the fields of `ConvSpec` that ``key`` spells, not yet checked against each other.

    Raises ``ValueError`` naming the key and the form expected when it is not spelled like one.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        raise ValueError(f"{key!r} is not the key of a convolution. Its form is {KEY_FORM}.")
    fields: dict[str, Any] = match.groupdict()
    for field in _PREFIXES:
        fields[field] = tuple(map(int, fields[field].split("x")))
    for field in ("bias", "residual"):
        fields[field] = fields[field] is not None
    if fields["residual_channels"] is not None:
        fields["residual_channels"] = int(fields["residual_channels"])
    fields["data_format"] = fields["data_format"].upper()
    if fields["dtype"] == TF32:
        fields |= {"dtype": "float32", "tf32": True}
    return fields
