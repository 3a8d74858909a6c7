"""Crops of an image at test time, over which a classifier's probabilities are averaged."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Num

SHARE = 7 / 8  # of a side: 224 of 256 pixels


def crops(
    images: Num[Array, "batch height width channel"], count: int
) -> Num[Array, "{count} batch height width channel"]:
    """Returns the four corners and the middle of each image, at its size again; then their mirrors.

    Krizhevsky et al. 2012, section 4.1: 10 crops of 7/8 of each side. Their network takes crops of
    that size; here they are enlarged linearly, so that every network takes them.

    Args:
      count: 1, the image itself; 5, without mirrors; 10.
    """
    if count == 1:
        return images[None]
    batch, height, width, channels = images.shape
    rows, columns = round(SHARE * height), round(SHARE * width)
    down, across = height - rows, width - columns
    places = [(0, 0), (0, across), (down, 0), (down, across), (down // 2, across // 2)]
    cut = jnp.stack([images[:, i : i + rows, j : j + columns] for i, j in places])
    sides = (5, batch, height, width, channels)
    cut = jax.image.resize(cut.astype(jnp.float32), sides, "linear")
    return cut if count == 5 else jnp.concatenate([cut, cut[:, :, :, ::-1]])
