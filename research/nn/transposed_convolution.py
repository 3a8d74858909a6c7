"""Transposed convolution, which enlarges maps by learned filters.

Zeiler et al., "Deconvolutional networks", 2010; Long et al., "Fully convolutional networks for
semantic segmentation", 2015, section 3.3.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jaxtyping import Array, Float

from research.hardware.target import on_cpu
from research.nn.initialisers import INITIALISERS, Initialiser


def transposed_convolution(
    maps: Float[Array, "batch height width in_channel"],
    kernel: Float[Array, "rows columns in_channel out_channel"],
    stride: int,
    padding: int = 0,
) -> Float[Array, "batch out_height out_width out_channel"]:
    """Stamps each value times the filter onto a larger map, `stride` cells apart.

    The gradient of a convolution with respect to its images; PyTorch's ConvTranspose2d. (Flax and
    lax.conv_transpose rotate the filter by 180 degrees.)

    Args:
      padding: rows and columns to cut off each side; an output side is (n - 1) stride + f - 2 p.
    """
    if on_cpu():
        return stamped(maps, kernel, stride, padding)
    rows, columns = (side - 1 - padding for side in kernel.shape[:2])
    return jax.lax.conv_transpose(
        maps,
        kernel[::-1, ::-1],
        (stride, stride),
        [(rows, rows), (columns, columns)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def stamped(
    maps: Float[Array, "batch height width in_channel"],
    kernel: Float[Array, "rows columns in_channel out_channel"],
    stride: int,
    padding: int,
) -> Float[Array, "batch out_height out_width out_channel"]:
    """Computes one dense product for all stamps, then depth to space.

    On CPU XLA's own operator takes 3 to 14 times as long with its gradient. A filter larger than
    the stride is made of several stamps of stride x stride cells, which overlap and are added.
    """
    batch, height, width, channels = maps.shape
    rows, columns, _, features = kernel.shape
    down, across = -(-rows // stride), -(-columns // stride)  # stamps a filter
    missing = (down * stride - rows, across * stride - columns)
    kernel = jnp.pad(kernel, ((0, missing[0]), (0, missing[1]), (0, 0), (0, 0)))
    stamps = maps.reshape(-1, channels) @ kernel.transpose(2, 0, 1, 3).reshape(channels, -1)
    stamps = stamps.reshape(batch, height, width, down, stride, across, stride, features)

    large: Array | float = 0.0  # [B, height + down - 1, width + across - 1, stride, stride, C]
    for i in range(down):
        for j in range(across):
            beside = ((0, 0), (i, down - 1 - i), (j, across - 1 - j), (0, 0), (0, 0), (0, 0))
            large += jnp.pad(stamps[:, :, :, i, :, j], beside)
    large = jnp.asarray(large).transpose(0, 1, 3, 2, 4, 5)  # [B, h, stride, w, stride, C]
    large = large.reshape(batch, (height + down - 1) * stride, -1, features)
    bottom, right = (
        (n - 1) * stride + side - padding for n, side in ((height, rows), (width, columns))
    )
    return large[:, padding:bottom, padding:right]


class TransposedConv(nn.Module):
    """A learned transposed convolution; with size = stride it enlarges by stride, without overlap.

    Attributes:
      size: side of the filter.
    """

    features: int
    size: int
    stride: int
    padding: int = 0
    use_bias: bool = True
    kernel_init: Initialiser = INITIALISERS["he"]

    @nn.compact
    def __call__(
        self, maps: Float[Array, "batch height width in_channel"]
    ) -> Float[Array, "batch out_height out_width {self.features}"]:
        shape = (self.size, self.size, maps.shape[-1], self.features)
        maps, kernel = promote_dtype(maps, self.param("kernel", self.kernel_init, shape))
        maps = transposed_convolution(maps, kernel, self.stride, self.padding)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            maps = maps + bias.astype(maps.dtype)
        return maps
