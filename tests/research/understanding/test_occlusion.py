"""Occlusion against the loop it is defined by."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.understanding.occlusion import occlude, positions


def score(images):
    """Something that is not linear in the pixels."""
    weights = jnp.arange(images[0].size, dtype=jnp.float32).reshape(images.shape[1:]) / 100
    return jnp.tanh((images * weights).sum((1, 2, 3)) / 10) + images.max((1, 2, 3))


@pytest.mark.parametrize("chunk", [1, 5, 1000])
@pytest.mark.parametrize(
    ("patch", "stride"), [((3, 2), (2, 3)), ((9, 7), (1, 1)), ((1, 1), (1, 1))]
)
def test_equals_the_naive_loop(patch, stride, chunk):
    images = np.random.default_rng(0).normal(size=(2, 9, 7, 2)).astype("f")
    value = np.array([0.5, -1.0], "f")
    found = jax.jit(lambda x: occlude(score, x, patch, stride, jnp.asarray(value), chunk))(images)
    for n, image in enumerate(images):
        fall, times = np.zeros((9, 7)), np.zeros((9, 7))
        for i, top in enumerate(positions(9, patch[0], stride[0])):
            for j, left in enumerate(positions(7, patch[1], stride[1])):
                covered = image.copy()
                covered[top : top + patch[0], left : left + patch[1]] = value
                s = float(score(covered[None])[0])
                np.testing.assert_allclose(found.scores[n, i, j], s, rtol=1e-5, atol=1e-5)
                fall[top : top + patch[0], left : left + patch[1]] += (
                    float(score(image[None])[0]) - s
                )
                times[top : top + patch[0], left : left + patch[1]] += 1
        expected = fall / np.maximum(times, 1)
        np.testing.assert_allclose(found.drop[n], expected, rtol=1e-4, atol=1e-5)


def test_every_pixel_is_covered_by_some_patch():
    for size, patch, stride in [(10, 3, 3), (10, 4, 3), (5, 5, 2), (7, 2, 2)]:
        starts = positions(size, patch, stride)
        assert starts[-1] + patch >= size and starts[-1] < size
