"""Pooling over windows and over whole maps; none has parameters."""

import flax.linen as nn
from jaxtyping import Array, Float


def max_pool(
    maps: Float[Array, "batch height width channel"], size: int, stride: int, padding: int = 0
) -> Float[Array, "batch rows columns channel"]:
    """The largest value of each size x size window; padding counts as minus infinity."""
    return nn.max_pool(maps, (size, size), (stride, stride), [(padding, padding)] * 2)


def average_pool(
    maps: Float[Array, "batch height width channel"], size: int, stride: int, padding: int = 0
) -> Float[Array, "batch rows columns channel"]:
    """The mean of each size x size window; padding counts as zeros, as PyTorch's default does."""
    return nn.avg_pool(maps, (size, size), (stride, stride), [(padding, padding)] * 2)


def global_average_pool(
    maps: Float[Array, "batch height width channel"],
) -> Float[Array, "batch channel"]:
    """The mean of each channel: Lin et al., "Network in network", 2013."""
    return maps.mean((1, 2))
