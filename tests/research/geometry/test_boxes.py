"""Formats and overlaps of boxes, against torchvision's operators, loops and counted pixels."""

import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.geometry import boxes as lib

FIXTURE = json.loads(
    (Path(__file__).parents[2] / "fixtures" / "torchvision_boxes.json").read_text()
)["overlap"]
FORMATS = ("xyxy", "cxcywh", "xywh")


def random_boxes(count, seed=0, side=20):
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, side, (count, 2, 2))
    return np.concatenate([corners.min(1), corners.max(1) + 1], 1).astype("f")


@pytest.mark.parametrize(("source", "target"), [*itertools.product(FORMATS, FORMATS)])
def test_one_box_in_every_format_and_back(source, target):
    same = {"xyxy": [2, 3, 8, 7], "cxcywh": [5, 5, 6, 4], "xywh": [2, 3, 6, 4]}
    box = jnp.array(same[source], jnp.float32)
    np.testing.assert_array_equal(lib.convert(box, source, target), same[target])
    many = jnp.array(random_boxes(50))
    back = lib.convert(lib.convert(many, source, target), target, source)
    np.testing.assert_allclose(back, many, atol=1e-5)


@pytest.mark.parametrize("name", ["iou", "giou", "ciou"])
def test_overlaps_equal_torchvision(name):
    a, b = (jnp.array(FIXTURE[key], jnp.float32) for key in "ab")
    ours = getattr(lib, name)(a[:, None], b[None])
    np.testing.assert_allclose(ours, FIXTURE[name], atol=1e-5)


def test_iou_and_coverage_by_counting_pixels():
    boxes = jnp.array(random_boxes(30))
    masks = np.zeros((30, 20, 20), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, np.asarray(boxes, int), strict=True):
        mask[y0:y1, x0:x1] = True
    both = (masks[:, None] & masks[None]).sum((2, 3))
    either = (masks[:, None] | masks[None]).sum((2, 3))
    np.testing.assert_allclose(lib.iou(boxes[:, None], boxes[None]), both / either, rtol=1e-6)
    covered = both / masks.sum((1, 2))[:, None]
    np.testing.assert_allclose(lib.coverage(boxes[:, None], boxes[None]), covered, rtol=1e-6)
    np.testing.assert_array_equal(lib.area(boxes), masks.sum((1, 2)))


DEGENERATE = [
    ([3, 3, 3, 3], [3, 3, 3, 3]),  # two points in one place
    ([3, 3, 3, 3], [1, 1, 5, 5]),
    ([3, 3, 3, 9], [1, 1, 5, 5]),  # no width
    ([3, 3, 9, 3], [1, 1, 5, 5]),  # no height
    ([1, 1, 5, 5], [3, 3, 3, 3]),
    ([5, 5, 1, 1], [1, 1, 5, 5]),  # inverted
    ([1, 1, 5, 5], [1, 1, 5, 5]),
]


@pytest.mark.parametrize("name", ["iou", "giou", "ciou"])
@pytest.mark.parametrize(("a", "b"), DEGENERATE)
def test_boxes_without_area_give_finite_values_and_gradients(name, a, b):
    value, gradient = jax.value_and_grad(getattr(lib, name), argnums=(0, 1))(
        jnp.array(a, jnp.float32), jnp.array(b, jnp.float32)
    )
    assert np.isfinite(value) and -2 <= value <= 1
    assert np.isfinite(gradient).all() and np.abs(gradient).max() < 1e3


def test_giou_and_ciou_pull_boxes_that_do_not_touch_together():
    a, b = jnp.array([0.0, 0, 4, 4]), jnp.array([10.0, 0, 14, 4])
    assert not jax.grad(lib.iou)(a, b).any()
    for overlap in (lib.giou, lib.ciou):
        gradient = jax.grad(overlap)(a, b)
        assert gradient[2] > 0  # the near edge moves towards the other box


def test_clipping_to_the_image():
    boxes = jnp.array([[-3, 2, 5, 30], [40, 40, 50, 50]], jnp.float32)
    np.testing.assert_array_equal(lib.clip(boxes, 20, 10), [[0, 2, 5, 20], [10, 20, 10, 20]])
    assert lib.area(lib.clip(boxes, 20, 10))[1] == 0
