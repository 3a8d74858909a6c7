"""Convolution, which in this field means cross-correlation: the filter is not mirrored."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jaxtyping import Array, Float

from research.hardware.target import on_cpu
from research.nn import convolution_cpu
from research.nn.initialisers import INITIALISERS, Initialiser

# "VALID"; "SAME" (TensorFlow's: output ceil(n / stride), the odd cell of padding goes last); rows
# and columns on each side; or ((top, bottom), (left, right)).
Padding = str | int | tuple[tuple[int, int], tuple[int, int]]


def output_size(
    size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1
) -> int:
    """Returns floor((n + 2p - f) / s) + 1; dilation makes a filter f = d (f - 1) + 1 cells wide."""
    return (size + 2 * padding - (dilation * (kernel - 1) + 1)) // stride + 1


def convolution(
    images: Float[Array, "batch height width in_channel"],
    kernel: Float[Array, "rows columns group_channel out_channel"],
    stride: int = 1,
    padding: Padding = "VALID",
    dilation: int = 1,
    groups: int = 1,
) -> Float[Array, "batch out_height out_width out_channel"]:
    """Cross-correlates images with every filter.

    Args:
      kernel: group_channel is in_channel / groups; with groups = in_channel it is depthwise.
      dilation: distance between neighbouring filter cells (atrous convolution when above 1).
      groups: channels are split into this many groups that do not see each other.
    """
    pads = explicit_padding(padding, images.shape[1:3], kernel.shape[:2], stride, dilation)
    if on_cpu():
        padded = jnp.pad(images, ((0, 0), *pads, (0, 0)))
        if groups == images.shape[-1] > 1:
            return convolution_cpu.depthwise(padded, kernel, stride, dilation)
        if groups > 1:
            return convolution_cpu.grouped(padded, kernel, stride, dilation, groups)
        if kernel.shape[:2] == (1, 1):
            return convolution_cpu.pointwise(padded, kernel, stride)
        if stride == dilation == 1 and convolution_cpu.gains_low(padded, kernel):
            return convolution_cpu.low_dense(padded, kernel)
    return jax.lax.conv_general_dilated(
        images,
        kernel,
        (stride, stride),
        pads,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def explicit_padding(
    padding: Padding, size: Sequence[int], sides: Sequence[int], stride: int, dilation: int
) -> Sequence[tuple[int, int]]:
    """Returns the cells to add before and after the rows and the columns."""
    if isinstance(padding, int):
        return [(padding, padding)] * 2
    if isinstance(padding, str):
        reach = [dilation * (side - 1) + 1 for side in sides]
        return jax.lax.padtype_to_pads(size, reach, (stride, stride), padding)
    return padding


class Conv(nn.Module):
    """A learned convolution; parameters are `kernel` [rows, columns, in / groups, out] and `bias`.

    Attributes:
      size: side of the filter, or (rows, columns).
      padding: None pads every side by dilation (size - 1) / 2, as PyTorch models do: the output
        keeps the size at stride 1 for odd filters.
    """

    features: int
    size: int | tuple[int, int]
    stride: int = 1
    padding: Padding | None = None
    dilation: int = 1
    groups: int = 1
    use_bias: bool = True
    kernel_init: Initialiser = INITIALISERS["he"]

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width in_channel"]
    ) -> Float[Array, "batch out_height out_width out_channel"]:
        sides = (self.size, self.size) if isinstance(self.size, int) else self.size
        kernel_shape = (*sides, images.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, kernel_shape)
        images, kernel = promote_dtype(images, kernel)
        padding = same_padding(sides, self.dilation) if self.padding is None else self.padding
        maps = convolution(images, kernel, self.stride, padding, self.dilation, self.groups)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            maps = maps + bias.astype(maps.dtype)
        return maps


def same_padding(
    sides: Sequence[int], dilation: int = 1
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns symmetric padding that keeps the size at stride 1 if the filter's sides are odd."""
    rows, columns = (dilation * (side - 1) // 2 for side in sides)
    return (rows, rows), (columns, columns)
