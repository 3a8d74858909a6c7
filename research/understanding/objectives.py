"""Objectives that an image is optimised for: functions of the values of a network's layers.

Each returns one number for each image.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from research.understanding.network import Scores

Maps = Float[Array, "batch *places channel"]


def inversion_loss(maps: Maps, wanted: Maps) -> Scores:
    """Computes |F - P|^2 / |P|^2: 0 where the layer sees in the image what it saw in the other.

    Mahendran and Vedaldi, "Understanding deep image representations by inverting them", 2014,
    equation 4.
    """
    axes = tuple(range(1, maps.ndim))
    return ((maps - wanted) ** 2).sum(axes) / jnp.maximum((wanted**2).sum(axes), 1e-12)


def content_loss(maps: Maps, wanted: Maps) -> Scores:
    """Averages (F - P)^2 / 2 over units and places.

    Gatys et al., "A neural algorithm of artistic style", 2015, equation 1, where it is a sum.
    """
    return 0.5 * ((maps - wanted) ** 2).mean(tuple(range(1, maps.ndim)))


def gram_matrix(
    maps: Float[Array, "batch rows columns channel"],
) -> Float[Array, "batch channel channel"]:
    """Averages the products of each two channels over places: style without places.

    Gatys et al. 2015, equation 3, divided by the number of places, so that images may differ in
    size.
    """
    flat = maps.reshape(len(maps), -1, maps.shape[-1])
    return jnp.einsum("bpi,bpj->bij", flat, flat) / flat.shape[1]


def style_loss(
    maps: Float[Array, "batch rows columns channel"],
    wanted: Float[Array, "#batch channel channel"] | Float[np.ndarray, "#batch channel channel"],
) -> Scores:
    """Sums (G - A)^2 / (4 N^2) over two Gram matrices of N channels: Gatys 2015, equation 4."""
    difference = gram_matrix(maps) - wanted
    return (difference**2).sum((1, 2)) / (4 * maps.shape[-1] ** 2)


def dream_objective(maps: Maps) -> Scores:
    """Averages the squares of a layer's values: more of all that it sees.

    Mordvintsev et al., "Inceptionism", 2015.
    """
    return (maps**2).mean(tuple(range(1, maps.ndim)))


def total_variation(
    images: Float[Array, "batch height width channel"], power: float = 1.0
) -> Scores:
    """Averages (dx^2 + dy^2)^(power / 2) over pixels, differences to the right and below.

    Mahendran and Vedaldi 2014, equation 6, where it is a sum. Power 1 keeps edges, 2 is smooth.
    """
    right = jnp.diff(images, axis=2)[:, :-1]
    below = jnp.diff(images, axis=1)[:, :, :-1]
    # The small number keeps the root's slope finite where the image is flat.
    return ((right**2 + below**2 + 1e-8) ** (power / 2)).mean((1, 2, 3))
