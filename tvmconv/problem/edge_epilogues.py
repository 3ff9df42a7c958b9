"""Edge cases of the epilogue: every activation, slopes, and residuals of fewer channels."""

from __future__ import annotations

from typing import Any, Final

from tvmconv.problem.edge_rows import EdgeCase, conv, depthwise
from tvmconv.problem.rules import ACTIVATIONS, PRELU

EACH_ACTIVATION: Final[tuple[EdgeCase, ...]] = (
    *(
        conv(
            f"conv2d_{activation}",
            "epilogue",
            (1, 5, 6, 8),
            (3, 3, 8, 10),
            bias=True,
            activation=activation,
        )
        for activation in (*ACTIVATIONS, PRELU)
    ),
    *(
        depthwise(
            f"depthwise_{activation}",
            "epilogue",
            (1, 5, 6, 10),
            (3, 3, 10, 1),
            bias=True,
            activation=activation,
        )
        for activation in (*ACTIVATIONS, PRELU)
    ),
)

_NARROW: Final[dict[str, Any]] = {"bias": True, "residual": True}
NARROW_RESIDUALS: Final[tuple[EdgeCase, ...]] = (
    conv("residual9of12", "epilogue", (2, 5, 7, 8), (1, 1, 8, 12), residual_channels=9, **_NARROW),
    conv(
        "residual20of80",
        "epilogue",
        (1, 5, 7, 6),
        (3, 3, 6, 80),
        strides=2,
        residual_channels=20,
        activation=PRELU,
        **_NARROW,
    ),
    conv(
        "nchw_residual5of8",
        "nchw epilogue",
        (1, 6, 4, 5),
        (1, 1, 6, 8),
        data_format="NCHW",
        residual_channels=5,
        activation=PRELU,
        **_NARROW,
    ),
    conv(
        "3x3_residual16of40",
        "winograd epilogue",
        (1, 10, 9, 16),
        (3, 3, 16, 40),
        residual_channels=16,
        activation=PRELU,
        **_NARROW,
    ),
    depthwise(
        "depthwise_residual10of20",
        "epilogue",
        (1, 5, 6, 10),
        (3, 3, 10, 2),
        residual_channels=10,
        activation="relu",
        **_NARROW,
    ),
    conv(
        "bfloat16_residual8of24",
        "dtype epilogue",
        (1, 5, 7, 16),
        (1, 1, 16, 24),
        dtype="bfloat16",
        residual_channels=8,
        activation=PRELU,
        **_NARROW,
    ),
    conv(
        "uint8_residual8of16",
        "dtype epilogue",
        (1, 6, 9, 32),
        (1, 1, 32, 16),
        dtype="uint8",
        residual_channels=8,
        **_NARROW,
    ),
)
