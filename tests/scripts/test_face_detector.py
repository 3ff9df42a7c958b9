"""examples/face_detector.py: anchors, decoding, suppression, drawing; and a model that finds a face."""

from __future__ import annotations

import face_detector
import numpy as np
import pytest
from face_detector import Face
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from model_files import FACES, model_files


def face(score: float, *box: float) -> Face:
    return Face(score, np.array(box, float), np.zeros((6, 2)))


def outputs(count: int, *found: tuple[int, float]) -> tuple[np.ndarray, np.ndarray]:
    """What a model gives that is sure of nothing but ``found``, (anchor, logit): boxes 20 x 40 pixels."""
    regressors = np.zeros((1, count, 16), np.float32)
    regressors[..., 2:4] = 20, 40
    logits = np.full((1, count, 1), -100, np.float32)
    for anchor, logit in found:
        logits[0, anchor] = logit
    return regressors, logits


def test_anchors_of_128_pixels_are_those_of_strides_8_16_16_16():
    pixels = face_detector.anchors(896) * 128

    assert pixels.shape == (896, 2)
    # As ssd_anchors_calculator.cc makes them: two a cell and stride, equal strides together, x first.
    assert pixels[:5].tolist() == [[4, 4], [4, 4], [12, 4], [12, 4], [20, 4]]
    assert pixels[32].tolist() == [4, 12]
    assert pixels[511].tolist() == [124, 124]
    assert pixels[512:519].tolist() == [[8, 8]] * 6 + [[24, 8]]
    assert pixels[-1].tolist() == [120, 120]


def test_anchors_of_the_full_range_are_those_of_stride_4():
    pixels = face_detector.anchors(2304) * 192

    assert pixels[[0, 1, 48, -1]].tolist() == [[2, 2], [6, 2], [2, 6], [190, 190]]


def test_another_number_of_anchors_is_refused_by_name():
    with pytest.raises(ValueError, match="with 100 anchors is not known, those with 896, 2304 are"):
        face_detector.anchors(100)


def test_boxes_are_around_their_anchors_and_the_surest_is_first():
    regressors, logits = outputs(896, (3, 1.0), (520, 3.0), (700, -1.0))
    regressors[0, 3, :2] = 8, -4  # the centre, from the anchor at (12, 4)
    regressors[0, 3, 4:6] = 2, 6  # the first point

    surest, other = face_detector.decoded(regressors, logits, 128)

    assert surest.score == pytest.approx(1 / (1 + np.exp(-3)))
    assert surest.box * 128 == pytest.approx([24 - 10, 8 - 20, 24 + 10, 8 + 20])
    assert other.box * 128 == pytest.approx([20 - 10, 0 - 20, 20 + 10, 0 + 20])
    assert other.points[0] * 128 == pytest.approx([14, 10])
    assert other.points[1] * 128 == pytest.approx([12, 4])


@pytest.mark.filterwarnings("error")
def test_logits_of_any_size_overflow_nothing():
    regressors, logits = outputs(896, (0, 3e38), (9, -3e38))

    (found,) = face_detector.decoded(regressors, logits, 128)

    assert found.score == 1.0


def test_boxes_without_an_area_are_no_faces():
    regressors, logits = outputs(896, (3, 1.0))
    regressors[0, 3, 2] = -20

    assert face_detector.decoded(regressors, logits, 128) == []


def test_overlap_is_intersection_over_union():
    one = np.array([0.0, 0, 2, 2])

    assert face_detector.overlap(one, one) == 1
    assert face_detector.overlap(one, np.array([1.0, 0, 3, 2])) == pytest.approx(2 / 6)
    assert face_detector.overlap(one, np.array([2.0, 0, 4, 2])) == 0
    assert face_detector.overlap(one, np.array([3.0, 3, 4, 4])) == 0


def test_boxes_of_one_face_become_their_weighted_mean_and_others_stay():
    faces = [face(0.9, 0, 0, 10, 10), face(0.8, 20, 20, 30, 30), face(0.6, 1, 0, 11, 10)]

    first, second = face_detector.suppressed(faces)

    assert first.score == 0.9
    assert first.box == pytest.approx([0.4, 0, 10.4, 10])  # 1 * 0.6 / (0.9 + 0.6)
    assert second.box.tolist() == [20, 20, 30, 30]


@given(
    arrays.arrays(np.float64, st.tuples(st.integers(0, 12), st.just(4)), elements=st.floats(0, 1)),
    st.integers(0, 100),
)
def test_suppression_keeps_the_surest_and_no_more_than_there_were(corners, seed):
    low, size = corners[:, :2], corners[:, 2:] + 0.01
    scores = np.sort(np.random.default_rng(seed).uniform(0.5, 1, len(corners)))[::-1]
    faces = [
        face(score, *a, *(a + b)) for score, a, b in zip(scores, low, size, strict=True)
    ]  # fmt: skip

    kept = face_detector.suppressed(faces)

    assert len(kept) <= len(faces)
    assert [each.score for each in kept] == sorted((each.score for each in kept), reverse=True)
    if faces:
        assert kept[0].score == faces[0].score


def test_a_wide_photograph_keeps_its_proportions():
    pytest.importorskip("skimage")
    photograph = np.full((64, 128, 3), 255, np.uint8)
    seen = []

    def model(image):
        seen.append(image)
        regressors, logits = outputs(896, (0, 2.0))
        regressors[0, 0, :4] = 60, 60, 32, 32  # the centre of the square, from the anchor at (4, 4)
        return regressors, logits

    (found,) = face_detector.detect(model, photograph, 128)

    assert seen[0].shape == (1, 128, 128, 3)
    assert seen[0].dtype == np.float32
    assert seen[0][0, 64].min() == pytest.approx(1)
    assert seen[0][0, 4].max() == -1
    assert found.box == pytest.approx([48, 16, 80, 48])


def test_boxes_are_drawn_and_cut_off_at_the_edge():
    photograph = np.zeros((100, 100, 3), np.uint8)

    picture = face_detector.drawn(photograph, [face(1, 20, 30, 60, 70), face(1, -50, 80, 50, 150)])

    assert not photograph.any()
    assert picture[30, 20:60].any(axis=1).all()
    assert picture[30:70, 59].any(axis=1).all()
    assert not picture[32:68, 22:58].any()
    assert picture[80, :50].any(axis=1).all()
    assert not picture[80:, 51:].any()


@pytest.mark.slow
def test_a_compiled_model_finds_the_astronaut(tmp_path):
    import tvmconv

    data = pytest.importorskip("skimage.data")
    file = model_files(FACES)["face_detection_back"]
    model = tvmconv.load(tvmconv.compile(file, output=tmp_path / "face.tvmconv"), threads=1)

    (found,) = face_detector.detect(model, data.astronaut(), 256)

    eyes, nose, mouth = found.points[:2], found.points[2], found.points[3]
    assert found.score > 0.8
    assert found.box == pytest.approx([173, 74, 277, 178], abs=3)  # seen on the picture
    assert (eyes[:, 1] < nose[1]).all()
    assert nose[1] < mouth[1]
