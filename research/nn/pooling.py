"""Pooling over windows, over whole maps and over pyramids of bins; none has parameters."""

from collections.abc import Callable, Sequence
from functools import reduce

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import Precision
from jaxtyping import Array, Float

from research.hardware.target import on_cpu


def max_pool(
    maps: Float[Array, "batch height width channel"],
    size: int,
    stride: int,
    padding: int = 0,
    ceil: bool = False,
) -> Float[Array, "batch rows columns channel"]:
    """Returns each size x size window's largest value; padding counts as minus infinity.

    Args:
      ceil: also pool the last window where it only partly lies on the map (GoogLeNet).
    """
    sides = [
        (padding, padding + (_overhang(n + 2 * padding, size, stride) if ceil else 0))
        for n in maps.shape[1:3]
    ]
    if on_cpu():
        padded = jnp.pad(maps, ((0, 0), *sides, (0, 0)), constant_values=-jnp.inf)
        return _combine_shifted(padded, size, stride, _larger)
    return nn.max_pool(maps, (size, size), (stride, stride), sides)


def _larger(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns the larger of each pair; the gradient goes to `a` in ties; NaN is largest."""
    return jnp.where((b > a) | jnp.isnan(b), b, a)


def _combine_shifted(
    maps: Float[Array, "batch height width channel"],
    size: int,
    stride: int,
    combine: Callable[[Array, Array], Array],
) -> Float[Array, "batch rows columns channel"]:
    """Combines the values of each window, along rows and then along columns, by shifting maps.

    XLA's own operators on windows, with their gradients, take 3 to 20 times as long on CPU.
    """
    for dimension in (2, 1):
        reach = maps.shape[dimension] - size + 1
        shifted = [jax.lax.slice_in_dim(maps, i, i + reach, stride, dimension) for i in range(size)]
        maps = reduce(combine, shifted)
    return maps


def _overhang(size: int, window: int, stride: int) -> int:
    """Returns the cells that the last window needs beyond the map, so that no cell is left out."""
    return -(size - window) % stride


def average_pool(
    maps: Float[Array, "batch height width channel"], size: int, stride: int, padding: int = 0
) -> Float[Array, "batch rows columns channel"]:
    """Returns each size x size window's mean; padding counts as zeros, as in PyTorch's default."""
    if on_cpu():
        padded = jnp.pad(maps, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
        return _combine_shifted(padded, size, stride, jnp.add) / size**2
    return nn.avg_pool(maps, (size, size), (stride, stride), [(padding, padding)] * 2)


def blur_pool(
    maps: Float[Array, "batch height width channel"], stride: int
) -> Float[Array, "batch rows columns channel"]:
    """Returns every `stride`-th place of maps smoothed by 1/4, 1/2, 1/4 along both sides.

    So the values of a place change little when the image moves by a pixel: Zhang, "Making
    convolutional networks shift-invariant again", 2019. Maps are reflected at their borders.
    """
    for dimension in (2, 1):
        beside = [(1, 1) if axis == dimension else (0, 0) for axis in range(4)]
        padded, reach = jnp.pad(maps, beside, mode="reflect"), maps.shape[dimension]
        before, here, after = (
            jax.lax.slice_in_dim(padded, i, i + reach, stride, dimension) for i in range(3)
        )
        maps = (before + after) / 4 + here / 2
    return maps


def global_average_pool(
    maps: Float[Array, "batch height width channel"],
) -> Float[Array, "batch channel"]:
    """Returns the mean of each channel: Lin et al., "Network in network", 2013."""
    return maps.mean((1, 2))


def global_max_pool(
    maps: Float[Array, "batch height width channel"],
) -> Float[Array, "batch channel"]:
    """Returns the largest value of each channel."""
    return maps.max((1, 2))


def bins(size: int, count: int) -> list[tuple[int, int]]:
    """Splits `size` cells into `count` bins [start, end) that may overlap and are never empty."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def adaptive_average_pool(
    maps: Float[Array, "batch height width channel"], rows: int, columns: int
) -> Float[Array, "batch {rows} {columns} channel"]:
    """Returns means over rows x columns bins: a fixed size for maps of any size.

    torchvision has this before the dense layers of AlexNet and VGG.
    """
    if maps.shape[1:3] == (rows, columns):
        return maps

    def means(size: int, count: int) -> Float[Array, "count size"]:
        weights = np.zeros((count, size))
        for i, (start, end) in enumerate(bins(size, count)):
            weights[i, start:end] = 1 / (end - start)
        return jnp.asarray(weights, maps.dtype)

    by_row, by_column = means(maps.shape[1], rows), means(maps.shape[2], columns)
    return jnp.einsum("bhwc,rh,sw->brsc", maps, by_row, by_column, precision=Precision.HIGHEST)


def adaptive_max_pool(
    maps: Float[Array, "batch height width channel"], rows: int, columns: int
) -> Float[Array, "batch {rows} {columns} channel"]:
    """Returns maxima over rows x columns bins: a fixed size for maps of any size."""
    _, height, width, _ = maps.shape
    maps = jnp.stack([maps[:, i:j].max(1) for i, j in bins(height, rows)], 1)
    return jnp.stack([maps[:, :, i:j].max(2) for i, j in bins(width, columns)], 2)


def spatial_pyramid_pool(
    maps: Float[Array, "batch height width channel"], levels: Sequence[int] = (1, 2, 4)
) -> Float[Array, "batch vector"]:
    """Returns maxima over n x n bins for each n of `levels`, flattened: sum(n^2) channels.

    He et al., "Spatial pyramid pooling in deep convolutional networks", 2014.
    """
    return jnp.concatenate(
        [adaptive_max_pool(maps, n, n).reshape(len(maps), -1) for n in levels], axis=1
    )
