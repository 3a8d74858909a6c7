"""Pairs of examples of the global batch, for losses that compare examples."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from research.experiment import gather

_TINY = 1e-12  # squared distances below it have no gradient: that of the root is infinite at 0


def squared_distances(a: Float[Array, "n d"], b: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Returns |aᵢ - bⱼ|² = |aᵢ|² - 2 aᵢ·bⱼ + |bⱼ|², at least 0, in memory of n m numbers.

    The products keep all digits of float32: a GPU's TF32 or a TPU's bfloat16 would leave neighbours
    0.03 and more apart that are one point.
    """
    products = jnp.matmul(a, b.T, precision="highest")
    squares = (a**2).sum(1)[:, None] - 2.0 * products + (b**2).sum(1)[None]
    return jnp.maximum(squares, 0.0)


def root(squared: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns the square root, with gradient 0 instead of infinity at 0."""
    positive = squared > _TINY
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)


class BatchPairs(NamedTuple):
    """This device's examples (rows) against the global batch (columns).

    Attributes:
      others: embeddings of the global batch.
      positive: pairs of one class, of two different examples.
      negative: pairs of different classes. Padding is in neither.
      first: position of this device's first row in the global batch.
    """

    others: Float[Array, "all d"]
    positive: Bool[Array, "row all"]
    negative: Bool[Array, "row all"]
    first: int | Int[Array, ""]


def pairs(
    embeddings: Float[Array, "row d"],
    labels: Int[Array, " row"],
    mask: Bool[Array, " row"],
    axis: str | None = None,
) -> BatchPairs:
    """Makes pairs with the global batch, so that results do not depend on its split over devices.

    Args:
      mask: False marks padding.
      axis: the pmap axis to gather over; None where the arrays are the global batch already.
    """
    others, other_labels, other_mask = (gather(x, axis) for x in (embeddings, labels, mask))
    first = 0 if axis is None else jax.lax.axis_index(axis) * len(labels)
    itself = (first + jnp.arange(len(labels)))[:, None] == jnp.arange(len(other_labels))
    same = labels[:, None] == other_labels
    real = mask[:, None] & other_mask & ~itself
    return BatchPairs(others, real & same, real & ~same, first)


def total(values: Array, axis: str | None) -> Array:
    """Returns the sum over the global batch."""
    return values.sum() if axis is None else jax.lax.psum(values.sum(), axis)


def row_keys(key: Array, found: BatchPairs) -> Array:
    """Returns a random key for each row, by its place in the global batch."""
    rows = found.first + jnp.arange(len(found.positive))
    return jax.vmap(jax.random.fold_in, (None, 0))(key, rows)


def draw(key: Array, found: BatchPairs) -> tuple[Int[Array, " row"], Int[Array, " row"]]:
    """Draws a positive and a negative for each row, uniformly; 0 for a row without any."""
    keys = row_keys(key, found)
    # One draw serves both: no example is positive and negative.
    noise = jax.vmap(lambda k: jax.random.uniform(k, (found.positive.shape[1],)))(keys)
    return tuple(  # type: ignore[return-value]
        jnp.where(which, noise, -1.0).argmax(1) for which in (found.positive, found.negative)
    )


def spread(
    embeddings: Float[Array, "row d"], mask: Bool[Array, " row"], axis: str | None = None
) -> Float[Array, " row"]:
    """Returns each example's squared distance from the mean of the global batch.

    For unit vectors its mean is in 0..1, and half their mean squared distance from each other:
    0 if all have collapsed into one point, near 1 if they are spread over the sphere.
    """
    real = mask[:, None]
    sums = jnp.where(real, embeddings, 0.0).sum(0)
    sums = sums if axis is None else jax.lax.psum(sums, axis)
    mean = sums / jnp.maximum(total(mask.astype(jnp.float32), axis), 1.0)
    return ((embeddings - mean) ** 2).sum(1)
