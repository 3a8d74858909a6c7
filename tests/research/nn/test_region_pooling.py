"""Region pooling against plain loops that follow the papers."""

import math
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from research.nn.region_pooling import crop_and_resize, roi_align, roi_pool

BOXES = np.array(
    [[0, 0, 15, 11], [3.2, 2.7, 9.9, 8.1], [6, 6, 6.4, 6.2], [-4, 5, 30, 9], [40, 40, 50, 50]], "f"
)


def maps_of(seed=0, shape=(12, 16, 3)):
    return np.random.default_rng(seed).normal(size=shape).astype("f")


def roi_pool_loop(maps, boxes, size, scale):
    """Fast R-CNN's layer as first published: round, divide into bins, take maxima."""
    out = np.zeros((len(boxes), size, size, maps.shape[-1]), "f")
    for n, box in enumerate(boxes):
        left, top, right, bottom = (math.floor(x * scale + 0.5) for x in box)
        rows, columns = (Fraction(max(n, 1), size) for n in (bottom - top + 1, right - left + 1))
        for i in range(size):
            for j in range(size):
                y0, y1 = top + math.floor(i * rows), top + math.ceil((i + 1) * rows)
                x0, x1 = left + math.floor(j * columns), left + math.ceil((j + 1) * columns)
                window = maps[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
                if window.size:
                    out[n, i, j] = window.max((0, 1))
    return out


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_roi_pooling_against_a_loop(scale):
    maps = maps_of()
    pooled = jax.jit(lambda m, b: roi_pool(m, b, 3, scale))(maps, BOXES)
    np.testing.assert_array_equal(pooled, roi_pool_loop(maps, BOXES, 3, scale))


def test_the_gradient_of_roi_pooling_goes_to_the_maximum_of_each_bin():
    maps = maps_of()
    boxes = jnp.array([[0, 0, 15, 11]], jnp.float32)
    gradient = jax.jit(jax.grad(lambda x: roi_pool(x, boxes, 2).sum()))(maps)
    expected = np.zeros_like(maps)
    for rows in (slice(0, 6), slice(6, 12)):
        for columns in (slice(0, 8), slice(8, 16)):
            part = maps[rows, columns]
            expected[rows, columns] = part == part.max((0, 1))
    np.testing.assert_array_equal(gradient, expected)


def bilinear(maps, y, x):
    """One sample; zero beyond one cell outside the map, clamped to its border inside that."""
    height, width, _ = maps.shape
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(maps.shape[-1])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    top = maps[y0, x0] * (1 - (x - x0)) + maps[y0, x1] * (x - x0)
    bottom = maps[y1, x0] * (1 - (x - x0)) + maps[y1, x1] * (x - x0)
    return top * (1 - (y - y0)) + bottom * (y - y0)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_roi_align_against_a_loop_over_samples(aligned, scale):
    maps, size, samples = maps_of(), 3, 2
    expected = np.zeros((len(BOXES), size, size, 3))
    for n, box in enumerate(BOXES):
        left, top, right, bottom = box * scale - (0.5 if aligned else 0)
        height, width = bottom - top, right - left
        if not aligned:
            height, width = max(height, 1), max(width, 1)
        for i in range(size * samples):
            for j in range(size * samples):
                y = top + (i + 0.5) * height / (size * samples)
                x = left + (j + 0.5) * width / (size * samples)
                expected[n, i // samples, j // samples] += bilinear(maps, y, x) / samples**2
    pooled = jax.jit(lambda m, b: roi_align(m, b, size, scale, samples, aligned))(maps, BOXES)
    np.testing.assert_allclose(pooled, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", [roi_pool, roi_align])
@pytest.mark.parametrize("shape", [(5, 9, 2), (20, 3, 2), (1, 1, 2)])
def test_regions_have_one_size_for_maps_of_any_size(pool, shape):
    pooled = jax.eval_shape(lambda m, b: pool(m, b, 7), jnp.zeros(shape), jnp.array(BOXES))
    assert pooled.shape == (5, 7, 7, 2)


def test_a_batch_of_images_through_vmap():
    maps = np.stack([maps_of(0), maps_of(1)])
    boxes = np.stack([BOXES, BOXES[::-1]])
    for pool in (roi_pool, roi_align):
        run = jax.jit(partial(pool, size=3))
        both = jax.vmap(run)(maps, boxes)
        one = run(maps[1], boxes[1])
        np.testing.assert_allclose(both[1], one, rtol=1e-5, atol=1e-6)


def test_boxes_cut_out_and_resized_are_pillow_s():
    """Which widens its filter where it shrinks, and takes boxes of any place inside."""
    image = maps_of(1, (40, 56, 3))
    boxes = np.array([[0, 0, 56, 40], [3.2, 2.7, 9.9, 8.1], [5.5, 1, 50.25, 39]], "f")
    found = jax.jit(crop_and_resize, static_argnums=2)(image, boxes, (12, 16))
    for box, ours in zip(boxes.tolist(), found, strict=True):
        for channel in range(3):
            plane = Image.fromarray(image[..., channel])
            theirs = plane.resize((16, 12), Image.Resampling.BILINEAR, box=box)
            np.testing.assert_allclose(ours[..., channel], np.asarray(theirs), atol=2e-5)


def test_outside_of_an_image_a_box_shows_zeros():
    image = np.ones((8, 8, 1), "f")
    boxes = np.array([[-4, 0, 4, 8], [20, 20, 30, 30], [3, 3, 3, 3]], "f")
    found = np.asarray(jax.jit(crop_and_resize, static_argnums=2)(image, boxes, (8, 8)))
    np.testing.assert_array_equal(found[0, :, :, 0], np.tile(np.arange(8) >= 4, (8, 1)))
    assert not found[1].any() and np.isfinite(found).all()
