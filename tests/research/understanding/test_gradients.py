"""Integrated gradients with as many points as they need; gradients of noisy copies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.understanding.gradients import (
    completeness_gap,
    integrated_gradients,
    refined_integrated_gradients,
    smooth_grad,
    smooth_saliency,
)

IMAGE = jnp.linspace(0.5, 1.0, 12).reshape(1, 2, 2, 3)


def smooth(x):
    return (x**2).sum((1, 2, 3))


def steps(x):
    """Rises steeply in five short pieces of the way from 0 to the image, which few points miss."""
    t = x.mean((1, 2, 3)) / IMAGE.mean()
    return sum(jnp.clip(500 * (t - place), 0, 1) for place in (0.137, 0.291, 0.443, 0.671, 0.913))


@pytest.mark.parametrize(("score", "points"), [(smooth, 32), (steps, 864)])
def test_points_are_tripled_until_attributions_are_complete(score, points):
    found, used = jax.jit(lambda x: refined_integrated_gradients(score, x, 0.0))(IMAGE)
    assert used == points
    if score is smooth:  # the gradient 2 x t is linear in t: its mean is x, and the midpoints' too
        np.testing.assert_allclose(found, IMAGE**2, rtol=1e-5)
    else:
        assert completeness_gap(score, IMAGE, found)[0] < 0.25
        few = integrated_gradients(score, IMAGE, 0.0, 32)
        assert completeness_gap(score, IMAGE, few)[0] > 0.5
    # The middles of thirds, those of before among them: as if all had been there at once.
    share = (jnp.arange(points) + 0.5) / points
    at = jax.vmap(lambda s: jax.grad(lambda x: score(x).sum())(s * IMAGE))(share)
    np.testing.assert_allclose(found, at.mean(0) * IMAGE, rtol=1e-4, atol=1e-6)


def test_smooth_grad_is_the_mean_of_signed_gradients():
    """Smilkov et al. 2017, section 2.1; `smooth_saliency` is the mean of their sizes."""
    images = jax.random.uniform(jax.random.key(1), (2, 3, 4, 3), maxval=255.0)
    score = lambda x: jnp.sin(x / 9).sum((1, 2, 3)) + 0.01 * (x[:, ::-1] * x).sum((1, 2, 3))
    signed, sizes = np.zeros(images.shape), np.zeros(images.shape[:3])
    slope = jax.jit(jax.grad(lambda x: score(x).sum()))
    spread = np.ptp(images, (1, 2, 3), keepdims=True)
    for key in jax.random.split(jax.random.key(0), 24):
        noise = jax.random.normal(key, (images.size,)).reshape(images.shape)
        found = np.asarray(slope(images + 0.2 * spread * noise))
        signed += found / 24
        sizes += np.abs(found).max(-1) / 24
    both = lambda x, key: [f(score, x, key, 24, 0.2) for f in (smooth_grad, smooth_saliency)]
    found = jax.jit(both)(images, jax.random.key(0))
    np.testing.assert_allclose(found[0], signed, atol=1e-4)
    np.testing.assert_allclose(found[1], sizes, atol=1e-4)
    assert (signed < -0.01).any() and (signed > 0.01).any()
