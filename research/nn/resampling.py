"""Maps made larger and smaller: up-convolution, resizing, space to depth, padding, cropping."""

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.nn.convolution import Conv
from research.nn.initialisers import INITIALISERS, Initialiser
from research.nn.transposed_convolution import TransposedConv

Upsampling = Literal["transposed", "nearest", "bilinear"]
Maps = Float[Array, "batch height width channel"]


def resize(
    maps: Maps, size: Sequence[int], method: str = "bilinear"
) -> Float[Array, "batch {size[0]} {size[1]} channel"]:
    """Interpolates between the centres of cells; outside, the border's values go on."""
    if maps.shape[1:3] == tuple(size):
        return maps
    rows, columns = size[0] / maps.shape[1], size[1] / maps.shape[2]
    if method == "nearest" and rows.is_integer() and columns.is_integer():
        # Repeating is quicker than gathering, and its gradient adds instead of scattering.
        return maps.repeat(int(rows), axis=1).repeat(int(columns), axis=2)
    return jax.image.resize(maps, (maps.shape[0], *size, maps.shape[3]), method, antialias=False)


class Upsample(nn.Module):
    """Maps of twice the side.

    Attributes:
      features: channels of the result; None keeps them without any weights (not for "transposed").
      method: "transposed", the 2x2 up-convolution of U-Net; "nearest" or "bilinear", a 1x1
        convolution and then resizing, which leaves no checkerboard: Odena et al. 2016. (The two
        commute; in this order the convolution runs on a quarter of the cells.)
    """

    features: int | None
    method: Upsampling = "transposed"
    kernel_init: Initialiser = INITIALISERS["he"]

    @nn.compact
    def __call__(self, maps: Maps) -> Float[Array, "batch out_height out_width out_channel"]:
        if self.method == "transposed":
            features = self.features or maps.shape[-1]
            return TransposedConv(features, 2, 2, kernel_init=self.kernel_init, name="up")(maps)
        if self.features is not None:
            maps = Conv(self.features, 1, kernel_init=self.kernel_init, name="up")(maps)
        return resize(maps, (2 * maps.shape[1], 2 * maps.shape[2]), self.method)


def space_to_depth(
    maps: Maps, side: int
) -> Float[Array, "batch height//{side} width//{side} channel*{side**2}"]:
    """Moves each side x side block's values into the channels, without loss."""
    batch, height, width, channels = maps.shape
    blocks = maps.reshape(batch, height // side, side, width // side, side, channels)
    blocks = blocks.transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(batch, height // side, width // side, side**2 * channels)


def pad_to_multiple(maps: Maps, multiple: int) -> Float[Array, "batch rows columns channel"]:
    """Adds zeros below and to the right, until both sides are multiples of `multiple`."""
    below, beside = (-n % multiple for n in maps.shape[1:3])
    return jnp.pad(maps, ((0, 0), (0, below), (0, beside), (0, 0))) if below or beside else maps


def crop_centre(
    maps: Maps, size: Sequence[int]
) -> Float[Array, "batch {size[0]} {size[1]} channel"]:
    """Returns the middle of maps; if the margin is odd, its larger part goes last."""
    top, left = ((n - wanted) // 2 for n, wanted in zip(maps.shape[1:3], size, strict=True))
    return maps[:, top : top + size[0], left : left + size[1]]
