"""Responses of units over a data set: functions of layers' values and of images."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num


class Strongest(NamedTuple):
    """The largest value of each unit in each image, and the place on the map where it is."""

    value: Float[Array, "batch channel"]
    row: Int[Array, "batch channel"]
    column: Int[Array, "batch channel"]


def strongest(maps: Float[Array, "batch *places channel"]) -> Strongest:
    """Finds the place where each unit is strongest; a dense layer has one place."""
    batch, channels = maps.shape[0], maps.shape[-1]
    columns = maps.shape[2] if maps.ndim == 4 else 1
    flat = maps.reshape(batch, -1, channels)
    place = flat.argmax(1)
    return Strongest(flat.max(1), place // columns, place % columns)


def dead_units(largest: Float[np.ndarray, "examples channel"]) -> Int[np.ndarray, " dead"]:
    """Finds the units that are above 0 for no example: after a ReLU they say and learn nothing.

    Zeiler and Fergus 2013, section 4.1, found many in AlexNet's first layer.
    """
    return np.flatnonzero(largest.max(0) <= 0)


def top_examples(values: Float[np.ndarray, " examples"], count: int) -> Int[np.ndarray, " count"]:
    """Finds the examples with the largest values, largest first; of equal ones the earlier."""
    return np.argsort(-values, kind="stable")[:count]


def cut(
    image: Num[np.ndarray, "height width channel"], box: Sequence[int] | Int[np.ndarray, " 4"]
) -> Num[np.ndarray, "rows columns channel"]:
    """Cuts an image to a box (top, left, bottom, right), as receptive fields are."""
    top, left, bottom, right = (int(x) for x in box)
    return image[top:bottom, left:right]


def filter_tiles(
    kernel: Float[np.ndarray, "rows columns in_channel out_channel"], most: int = 64
) -> list[Num[np.ndarray, "rows columns channel"]]:
    """Filters as images 0..255, grey 127 for a weight of 0.

    Filters on three channels are in colour, each scaled by its own largest weight. Of filters on
    more channels, each slice is an image in grey: the first filter's slices, then the second's.
    """
    inner, outer = kernel.shape[2:]
    if inner == 3:
        tiles = [kernel[..., i] for i in range(outer)]
    else:
        tiles = [kernel[:, :, i, j, None] for j in range(outer) for i in range(inner)]
    scaled = [127.5 * (1 + tile / max(float(np.abs(tile).max()), 1e-12)) for tile in tiles[:most]]
    return [tile.astype(np.uint8) for tile in scaled]


def activation_tiles(
    maps: Float[np.ndarray, "rows columns channel"], most: int = 64
) -> list[Num[np.ndarray, "rows columns 1"]]:
    """Scales maps of the units that are strongest somewhere to 0..255; the strongest is first."""
    order = np.argsort(-maps.max((0, 1)), kind="stable")[:most]
    low, high = maps.min((0, 1)), maps.max((0, 1))
    scaled = 255 * (maps - low) / np.maximum(high - low, 1e-12)
    return [scaled[:, :, [i]].astype(np.uint8) for i in order]


def area_under(
    curve: Float[Array, "... shares"], shares: Float[np.ndarray, " shares"]
) -> Float[Array, "..."]:
    """Computes the area under curves over shares in [0, 1], by trapezoids."""
    return jnp.trapezoid(curve, jnp.asarray(shares), axis=-1)
