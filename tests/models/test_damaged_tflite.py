"""A damaged .tflite file is a ModelError: no crash, no hang, no gigabytes."""

from __future__ import annotations

import numpy as np
import pytest
import tflite
from model_files import FACES, model_files
from mutated_models import mutate

from tvmconv.errors import ModelError
from tvmconv.models.reading import read
from tvmconv.models.tflite import file
from tvmconv.models.tflite.sparse import densify


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("name", "count"), [("face_detection_front", 200), ("face_detection_full_range_sparse", 50)]
)
def test_mutated_files_are_read_or_refused(name, count):
    content = model_files(FACES)[name].read_bytes()
    refused = 0
    for seed in range(count):
        try:
            read(mutate(content, seed))
        except ModelError:
            refused += 1
    assert refused > count / 4


@pytest.mark.parametrize("length", [0, 3, 8, 40, 1000, 100_000, -1])
def test_truncated_files_are_refused(length):
    content = model_files(FACES)["face_detection_front"].read_bytes()[:length]

    if length == -1:
        content = content[: len(content) // 2]
    with pytest.raises(ModelError, match="TFL3"):
        read(content)


def test_other_files_and_missing_ones_are_refused(tmp_path):
    with pytest.raises(ModelError, match="Check the path"):
        read(tmp_path / "nothing.tflite")
    other = tmp_path / "text.tflite"
    other.write_text("no model at all")
    with pytest.raises(ModelError, match=r"text\.tflite: not a model"):
        read(other)


def test_tables_that_share_what_they_point_at_cannot_unfold_without_end():
    parser = file._Parser.__new__(file._Parser)
    parser.left = 100
    parser._spend(60)
    with pytest.raises(ValueError, match="more than its size"):
        parser._spend(60)


def test_a_constant_of_another_length_than_its_shape_is_refused():
    content = model_files(FACES)["face_detection_front"].read_bytes()
    # A vector of four extents, its length in front: of the first convolution's filters.
    shape, wrong = (np.asarray((4, 24, 5, 5, depth), "<i4").tobytes() for depth in (3, 4))

    with pytest.raises(ModelError, match=r"of shape \(24, 5, 5, 4\) has 1800 values"):
        read(content.replace(shape, wrong))


def test_a_count_of_levels_that_no_memory_holds_is_refused():
    """A list was made of as many numbers as the damaged count says."""
    content = model_files(FACES)["face_detection_full_range_sparse"].read_bytes()

    class Sparsity:
        """With the count of a mutated file, which depends on all of its bytes."""

        def __init__(self, sound):
            self._sound = sound

        def __getattr__(self, name):
            return getattr(self._sound, name)

        def DimMetadataLength(self):  # noqa: N802
            return 2**32 - 1

    model = tflite.Model.GetRootAsModel(content, 0)
    tensors = map(model.Subgraphs(0).Tensors, range(model.Subgraphs(0).TensorsLength()))
    tensor = next(each for each in tensors if each.Sparsity() is not None)
    with pytest.raises(ValueError, match="traversal order"):
        densify(Sparsity(tensor.Sparsity()), np.zeros(1), tuple(tensor.ShapeAsNumpy()))
