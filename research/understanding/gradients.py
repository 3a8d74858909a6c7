"""Attributions from gradients of a score: which pixels would change it, and which made it.

`score` is a function of images [B, H, W, C] that gives a number for each: before softmax, because
a probability also rises when other classes fall.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Images = Float[Array, "batch height width channel"]
Maps = Float[Array, "batch height width"]
Score = Callable[[Images], Float[Array, " batch"]]


def gradient(score: Score, images: Images) -> Images:
    """Computes the gradient of each image's score in that image's pixels."""
    return jax.grad(lambda x: score(x).sum())(images)


def saliency(score: Score, images: Images) -> Maps:
    """Computes the largest |gradient| over a pixel's channels.

    Simonyan et al., "Deep inside convolutional networks", 2013, section 3.1.
    """
    return jnp.abs(gradient(score, images)).max(-1)


def smooth_grad(
    score: Score, images: Images, key: Array, samples: int = 16, noise: float = 0.15
) -> Images:
    """Averages the gradients of noisy copies, with their signs: Smilkov et al., "SmoothGrad", 2017.

    Args:
      noise: standard deviation, as a share of each image's range of values.
    """
    return _mean_of_noisy(partial(gradient, score), images, key, samples, noise)


def smooth_saliency(
    score: Score, images: Images, key: Array, samples: int = 16, noise: float = 0.15
) -> Maps:
    """Averages the saliency of noisy copies: where the sign changes, nothing cancels.

    Args:
      noise: as of `smooth_grad`.
    """
    return _mean_of_noisy(partial(saliency, score), images, key, samples, noise)


def _mean_of_noisy(
    function: Callable[[Images], Array], images: Images, key: Array, samples: int, noise: float
) -> Array:
    spread = images.max((1, 2, 3), keepdims=True) - images.min((1, 2, 3), keepdims=True)

    def add(total: Array, key: Array) -> tuple[Array, None]:
        drawn = jax.random.normal(key, (images.size,)).reshape(images.shape)
        return total + function(images + noise * spread * drawn), None

    blank = jnp.zeros(jax.eval_shape(function, images).shape)
    return jax.lax.scan(add, blank, jax.random.split(key, samples))[0] / samples


def gradient_times_input(score: Score, images: Images, baseline: Images | float = 0.0) -> Images:
    """Computes gradient (x - baseline): the first-order part of what x adds to the score.

    Shrikumar et al., "Not just a black box", 2016.
    """
    return gradient(score, images) * (images - baseline)


def integrated_gradients(
    score: Score, images: Images, baseline: Images | float = 0.0, steps: int = 50
) -> Images:
    """Multiplies (x - b) by the mean gradient on the straight line from the baseline b to x.

    Sundararajan et al., "Axiomatic attribution for deep networks", 2017, equation 1. Attributions
    sum to score(x) - score(b) ("completeness"), to the error of the integral: Gauss-Legendre with
    `steps` points.
    """
    points, weights = np.polynomial.legendre.leggauss(steps)  # on [-1, 1], weights sum to 2
    along = jnp.asarray(np.stack([(points + 1) / 2, weights / 2], axis=1), jnp.float32)
    start = jnp.broadcast_to(jnp.asarray(baseline, images.dtype), images.shape)

    def add(total: Images, point: Array) -> tuple[Images, None]:
        share, weight = point
        return total + weight * gradient(score, start + share * (images - start)), None

    total, _ = jax.lax.scan(add, jnp.zeros_like(images), along)
    return total * (images - start)


def refined_integrated_gradients(
    score: Score,
    images: Images,
    baseline: Images | float = 0.0,
    tolerance: float = 0.01,
    points: int = 32,
    refinements: int = 3,
) -> tuple[Images, Int[Array, ""]]:
    """Integrates gradients by the midpoint rule, with as many points as completeness needs.

    Deep networks of ReLUs have kinks all along the line, and no rule is exact with few points.
    While the gap is above the tolerance the points are tripled: the middles of thirds, of which the
    middle one was there before.

    Returns:
      The attributions, and the number of points: `points` times 3 to the power of `refinements` at
      most.
    """
    start = jnp.broadcast_to(jnp.asarray(baseline, images.dtype), images.shape)

    def at(share: Array) -> Images:
        return gradient(score, start + share * (images - start))

    def refine(state: tuple[Array, Images, Array]) -> tuple[Array, Images, Array]:
        n, total, _ = state

        def add(i: Array, total: Images) -> Images:
            outer = jnp.stack([i + 1 / 6, i + 5 / 6]) / n
            return total + jax.lax.map(at, outer).sum(0)

        total = jax.lax.fori_loop(0, n, add, total)
        return 3 * n, total, gap(3 * n, total)

    def gap(n: Array | int, total: Images) -> Array:
        found = total / n * (images - start)
        return completeness_gap(score, images, found, start).max()

    total = jax.lax.fori_loop(
        0, points, lambda i, total: total + at((i + 0.5) / points), jnp.zeros_like(images)
    )
    most = points * 3**refinements
    n, total, _ = jax.lax.while_loop(
        lambda state: (state[2] > tolerance) & (state[0] < most),
        refine,
        (jnp.int32(points), total, gap(points, total)),
    )
    return total / n * (images - start), n


def completeness_gap(
    score: Score, images: Images, attributions: Images, baseline: Images | float = 0.0
) -> Float[Array, " batch"]:
    """Computes |sum of attributions - c| / |c| of c = score(x) - score(b); 0 where complete."""
    start = jnp.broadcast_to(jnp.asarray(baseline, images.dtype), images.shape)
    difference = score(images) - score(start)
    gap = jnp.abs(attributions.sum((1, 2, 3)) - difference)
    return gap / jnp.maximum(jnp.abs(difference), 1e-12)
