"""Landmarks lie on the hull of a digit's ink, and move with the image."""

import numpy as np
import pytest

from research.data.images.preprocessing import Preprocessing
from research.data.stored.builtin.digits import read_digits
from research.data.stored.builtin.single_digits import POINTS, landmarks
from research.data.stored.scenes import textures
from research.data.stored.scenes.drawing import cut_out, draw
from research.data.tasks.landmarks import fit_landmarks
from research.errors import UserError


def test_landmarks_of_a_rectangle_by_hand():
    ink = np.zeros((64, 64), bool)
    ink[10:30, 20:40] = True
    points = landmarks(ink, (20, 10, 40, 30))
    assert points.shape == (POINTS, 2)
    # Clockwise from the right: right, lower right corner, below, ...
    expected = [[40, 20], [40, 30], [30, 30], [20, 30], [20, 20], [20, 10], [30, 10], [40, 10]]
    np.testing.assert_allclose(points[::8], expected, atol=0.01)


def test_landmarks_of_digits_are_convex_and_as_large_as_their_box():
    images, labels, rows = read_digits()
    part = rows["test"][:200]
    digits = cut_out(images[part, :, :, 0], labels[part].tolist(), part.tolist())
    random, photographs = np.random.RandomState(1), textures.load().test
    assert not draw(random, digits, photographs, 0, 0).things
    for _ in range(20):
        scene = draw(random, digits, photographs, 1, 1)
        (thing,) = scene.things
        x0, y0, x1, y1 = thing.box
        points = landmarks(scene.instances > 0, thing.box)
        low, high = points.min(0), points.max(0)
        assert (low >= [x0 - 0.01, y0 - 0.01]).all() and (high <= [x1 + 0.01, y1 + 0.01]).all()
        # 64 rays pass near the outermost points.
        assert (low - [x0, y0]).max() < 2 and ([x1, y1] - high).max() < 2
        along = np.roll(points, -1, axis=0) - points
        following = np.roll(along, -1, axis=0)
        turn = along[:, 0] * following[:, 1] - along[:, 1] * following[:, 0]
        assert turn.min() > -0.1  # always the same way round, up to rounding


def test_points_are_chosen_evenly_and_move_with_the_image():
    example = {
        "image": np.zeros((40, 80, 3), np.uint8),
        "boxes": np.array([[8, 4, 16, 20]], np.float32),
        "classes": np.zeros(1, np.int32),
        "crowd": np.zeros(1, bool),
        "points": np.stack([np.arange(8), np.arange(8)], 1).astype(np.float32),
    }
    preprocessing = Preprocessing((40, 40), 3, "letterbox")
    fitted = fit_landmarks(example, preprocessing, max_objects=1, points=4)
    # Half as large, centred between black bars of 10 pixels.
    np.testing.assert_allclose(fitted["points"], [[0, 10], [1, 11], [2, 12], [3, 13]])
    np.testing.assert_allclose(fitted["boxes"], [[4, 12, 8, 20]])
    with pytest.raises(UserError, match="--landmarks=9: the data set has 8"):
        fit_landmarks(example, preprocessing, max_objects=1, points=9)
