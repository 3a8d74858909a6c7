"""Occlusion: cover a patch, see how far the score falls; then the next patch.

Zeiler and Fergus, "Visualizing and understanding convolutional networks", 2013, section 4.2.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from research.understanding.gradients import Images, Score


class Occluded(NamedTuple):
    """The scores of images of which patches were covered.

    Attributes:
      scores: of each image with the patch at each position.
      drop: of each pixel, the mean over the patches that cover it of how far the score fell.
    """

    scores: Float[Array, "batch rows columns"]
    drop: Float[Array, "batch height width"]


def positions(size: int, patch: int, stride: int) -> Int[np.ndarray, " n"]:
    """Returns the starts of patches along one side; the last may cross the border, and is cut."""
    return np.arange(max(math.ceil((size - patch) / stride), 0) + 1) * stride


def occlude(
    score: Score,
    images: Images,
    patch: tuple[int, int],
    stride: tuple[int, int],
    value: float | Array = 0.0,
    chunk: int = 32,
) -> Occluded:
    """Computes the score with each patch covered, a fixed number of covered copies at a time.

    Args:
      patch, stride: rows and columns, pixels.
      value: what covers the patch: a number, or one for each channel.
      chunk: copies of one image in memory at once; the result does not depend on it.
    """
    batch, height, width, _ = images.shape
    tops, lefts = (
        positions(n, p, s) for n, p, s in zip((height, width), patch, stride, strict=True)
    )
    corners = np.stack(np.meshgrid(tops, lefts, indexing="ij"), -1).reshape(-1, 2)
    count = len(corners)
    chunk = min(chunk, count)
    padded = np.resize(corners, (math.ceil(count / chunk) * chunk, 2))  # repeats from the start
    parts = jnp.asarray(padded.reshape(-1, chunk, 2))
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None]

    def covered(corner: Array) -> Array:
        top, left = corner
        inside_rows = (rows >= top) & (rows < top + patch[0])
        return inside_rows & (columns >= left) & (columns < left + patch[1])

    def of_image(image: Array) -> Array:
        def of_part(part: Array) -> Array:
            masks = jax.vmap(covered)(part)[..., None]  # [chunk, H, W, 1]
            return score(jnp.where(masks, jnp.asarray(value, image.dtype), image[None]))

        return jax.lax.map(of_part, parts).reshape(-1)[:count]

    scores = jax.lax.map(of_image, images)  # [B, positions]
    falls = score(images)[:, None] - scores

    def spread(
        total: tuple[Array, Array], item: tuple[Array, Array]
    ) -> tuple[tuple[Array, Array], None]:
        corner, fall = item
        mask = covered(corner)
        return (total[0] + mask * fall[:, None, None], total[1] + mask), None

    zeros = (jnp.zeros((batch, height, width)), jnp.zeros((height, width)))
    (summed, times), _ = jax.lax.scan(spread, zeros, (jnp.asarray(corners), falls.T))
    return Occluded(scores.reshape(batch, len(tops), len(lefts)), summed / jnp.maximum(times, 1))
