"""Regularisers of images, each against what its paper says it does."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.ndimage import gaussian_filter

from research.understanding import regularisers


def optimise(optimizer, image, steps=1, gradient=lambda x: 0 * x):
    params = {"image": jnp.asarray(image)}
    state = optimizer.init(params)
    for _ in range(steps):
        updates, state = optimizer.update(jax.tree.map(gradient, params), state, params)
        params = optax.apply_updates(params, updates)
    return np.asarray(params["image"])


@pytest.fixture
def image():
    return np.random.default_rng(0).normal(size=(2, 9, 8, 3)).astype("f")


def test_l2_is_the_gradient_of_the_squared_norm(image):
    optimizer = optax.chain(regularisers.l2_penalty(0.05), optax.sgd(1.0))
    expected = jax.grad(lambda x: 0.05 * (x**2).sum())(image)
    np.testing.assert_allclose(optimise(optimizer, image), image - expected, rtol=1e-6)


def test_l2_bounds_the_norm_of_an_image_that_would_grow_for_ever(image):
    def norm(strength):
        optimizer = optax.chain(regularisers.l2_penalty(strength), optax.sgd(0.1))
        return np.linalg.norm(optimise(optimizer, image, 200, lambda x: -jnp.ones_like(x)))

    # At the optimum of s - λ|I|² with slope 1 everywhere each value is 1 / (2 λ).
    np.testing.assert_allclose(norm(0.25), 2 * np.sqrt(image.size), rtol=1e-3)
    assert norm(0.0) > 5 * norm(0.25)


@pytest.mark.parametrize("sigma", [0.7, 2.0])
def test_blur_is_scipys_and_comes_every_so_many_steps(image, sigma):
    expected = gaussian_filter(image, (0, sigma, sigma, 0), mode="nearest", truncate=3.0)
    np.testing.assert_allclose(regularisers.blur(jnp.asarray(image), sigma), expected, atol=2e-3)
    optimizer = regularisers.projected(optax.sgd(1.0), [regularisers.blur_every(3, sigma)])
    np.testing.assert_allclose(optimise(optimizer, image, 2), image, atol=1e-6)
    np.testing.assert_allclose(optimise(optimizer, image, 3), expected, atol=2e-3)


def test_pixels_of_small_norm_become_zero(image):
    optimizer = regularisers.projected(optax.sgd(1.0), [regularisers.clip_small_norms(0.25)])
    found = optimise(optimizer, image)
    for before, after in zip(image, found, strict=True):
        gone = ~after.any(-1)
        norms = np.linalg.norm(before, axis=-1)
        assert gone.sum() == 18 and norms[gone].max() < norms[~gone].min()  # of 72
        np.testing.assert_allclose(after[~gone], before[~gone], atol=1e-6)


def test_pixels_of_small_gradient_become_zero(image):
    weights = jnp.asarray(np.random.default_rng(1).normal(size=image.shape), jnp.float32)
    optimizer = regularisers.projected(optax.sgd(0.1), [regularisers.clip_small_gradients(0.5)])
    found = optimise(optimizer, image, 1, lambda x: weights)
    moved = image - 0.1 * np.asarray(weights)
    for i, after in enumerate(found):
        gone, sizes = ~after.any(-1), np.linalg.norm(weights[i], axis=-1)
        assert gone.sum() == 36 and sizes[gone].max() < sizes[~gone].min()
        np.testing.assert_allclose(after[~gone], moved[i][~gone], atol=1e-6)


def test_pixels_of_small_contribution_become_zero_every_so_many_steps(image):
    """Contribution is the product of pixel and gradient, summed over channels: Yosinski 2015."""
    weights = jnp.asarray(np.random.default_rng(1).normal(size=image.shape), jnp.float32)
    clip = regularisers.every(2, regularisers.clip_small_contributions(0.5))
    optimizer = regularisers.projected(optax.sgd(0.1), [clip])
    once, twice = (optimise(optimizer, image, n, lambda x: weights) for n in (1, 2))
    np.testing.assert_allclose(once, image - 0.1 * np.asarray(weights), atol=1e-6)
    moved = image - 0.2 * np.asarray(weights)
    for i, after in enumerate(twice):
        gone, sizes = ~after.any(-1), np.abs((moved[i] * np.asarray(weights[i])).sum(-1))
        assert gone.sum() == 36 and sizes[gone].max() < sizes[~gone].min()
        np.testing.assert_allclose(after[~gone], moved[i][~gone], atol=1e-5)


@pytest.mark.parametrize("order", ["linf", "l2"])
def test_steps_stay_in_the_ball_and_are_no_longer_than_asked(image, order):
    optimizer = regularisers.projected(
        optax.chain(regularisers.by_norm(order), optax.sgd(0.5)),
        [regularisers.keep_near(jnp.asarray(image), 1.2, order)],
    )
    gradient = lambda x: jnp.cos(17 * x) + 2
    for steps, length in ((1, 0.5), (2, 1.0), (9, 1.2)):
        change = optimise(optimizer, image, steps, gradient) - image
        norms = abs(change) if order == "linf" else np.sqrt((change**2).sum((1, 2, 3)))
        assert norms.max() <= length + 1e-5
    assert norms.max() > 1.19


def test_jitter_rolls_all_images_alike_and_nothing_else(image):
    found = np.asarray(regularisers.jitter(jnp.asarray(image), jax.random.key(3), 2))
    shifts = [
        (dy, dx)
        for dy in range(-2, 3)
        for dx in range(-2, 3)
        if np.array_equal(np.roll(image, (dy, dx), (1, 2)), found)
    ]
    assert len(shifts) == 1
    drawn = {
        tuple(np.asarray(regularisers.jitter(jnp.asarray(image), jax.random.key(i), 2))[0, 0, 0])
        for i in range(20)
    }
    assert len(drawn) > 5
