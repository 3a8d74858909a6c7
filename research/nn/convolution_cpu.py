"""The same convolutions, in formulations that XLA runs fast on CPU.

XLA's own gradients of 1x1, grouped and depthwise convolutions take 2 to 50 times as long there, and
its products of bfloat16 twice as long; benchmarks/README.md has the figures. Images are padded
already.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.nn.trilinear import trilinear

LARGE_MAP = 256  # places; from here on a product for each example gains
DEEP = 128  # channels; from here on products in bfloat16 gain


def pointwise(
    images: Float[Array, "batch height width in_channel"],
    kernel: Float[Array, "1 1 in_channel out_channel"],
    stride: int,
) -> Float[Array, "batch out_height out_width out_channel"]:
    """Computes a 1x1 convolution as a matrix product."""
    images, matrix = images[:, ::stride, ::stride], kernel[0, 0]
    batch, height, width, channels = images.shape
    if images.dtype == matrix.dtype == jnp.bfloat16:
        maps = low_product(images.reshape(batch, height * width, channels), matrix)
        return maps.reshape(batch, height, width, -1)
    if height * width < LARGE_MAP:
        return images @ matrix
    # With a matrix for each example the kernel's gradient, too, is a product for each example,
    # which stays in the cache, and then a sum.
    matrices = jnp.broadcast_to(matrix, (batch, *matrix.shape))
    maps = images.reshape(batch, height * width, channels) @ matrices
    return maps.reshape(batch, height, width, -1)


def _low(equation: str, a: Array, b: Array) -> Array:
    """Multiplies bfloat16 numbers, and adds in float32.

    XLA turns bfloat16 operands of a product into float32 unless its result is asked for in
    float32: then they meet as they are, twice as fast where the processor knows them.
    """
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)


def _low_by_matrix(places: Array, gradient: Array) -> Array:
    """Multiplies for each example and then sums, as above, where maps are large."""
    if places.shape[1] < LARGE_MAP:
        matrix = _low("bpi,bpo->io", places, gradient)
    else:
        matrix = _low("bpi,bpo->bio", places, gradient).sum(0)
    return matrix.astype(places.dtype)


# [B, places, in] times [in, out], in bfloat16; every sum is in float32 and rounded once.
low_product = trilinear(
    "low_product",
    lambda places, matrix: _low("bpi,io->bpo", places, matrix).astype(places.dtype),
    lambda matrix, gradient: _low("io,bpo->bpi", matrix, gradient).astype(matrix.dtype),
    _low_by_matrix,
    static=(),
)


def _low_dense(images: Array, kernel: Array) -> Array:
    """Multiplies the patches that filters see, side by side, by the filters."""
    seen = [part for row in taps(images, kernel.shape[:2], 1, 1) for part in row]
    matrix = kernel.reshape(-1, kernel.shape[-1])
    return _low("bhwi,io->bhwo", jnp.concatenate(seen, -1), matrix).astype(images.dtype)


def _low_dense_by_images(kernel: Array, gradient: Array) -> Array:
    """Convolves the gradient fully with the rotated filters."""
    rows, columns = (side - 1 for side in kernel.shape[:2])
    padded = jnp.pad(gradient, ((0, 0), (rows, rows), (columns, columns), (0, 0)))
    return _low_dense(padded, kernel[::-1, ::-1].swapaxes(2, 3))


def _low_dense_by_kernel(images: Array, gradient: Array) -> Array:
    """Correlates the images with the gradient."""
    rows, columns = (
        n - out + 1 for n, out in zip(images.shape[1:3], gradient.shape[1:3], strict=True)
    )
    seen = [part for row in taps(images, (rows, columns), 1, 1) for part in row]
    matrix = _low("bhwi,bhwo->io", jnp.concatenate(seen, -1), gradient)
    return matrix.reshape(rows, columns, images.shape[-1], -1).astype(images.dtype)


# Dense, stride 1, in bfloat16. All patches together are rows x columns times as large as the
# images: a gain where maps are small and deep.
low_dense = trilinear(
    "low_convolution", _low_dense, _low_dense_by_images, _low_dense_by_kernel, static=()
)


def gains_low(
    images: Float[Array, "batch height width in_channel"],
    kernel: Float[Array, "rows columns in_channel out_channel"],
) -> bool:
    """Returns whether `low_dense` is faster than XLA's own, for padded images at stride 1."""
    height, width = (n - k + 1 for n, k in zip(images.shape[1:3], kernel.shape[:2], strict=True))
    low = images.dtype == kernel.dtype == jnp.bfloat16
    return low and height * width < LARGE_MAP and min(kernel.shape[2:]) >= DEEP


def grouped(
    images: Float[Array, "batch height width in_channel"],
    kernel: Float[Array, "rows columns group_channel out_channel"],
    stride: int,
    dilation: int,
    groups: int,
) -> Float[Array, "batch out_height out_width out_channel"]:
    """Runs a dense convolution for each group, side by side."""
    maps = [
        jax.lax.conv_general_dilated(
            group,
            filters,
            (stride, stride),
            "VALID",
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        for group, filters in zip(
            jnp.split(images, groups, axis=-1), jnp.split(kernel, groups, axis=-1), strict=True
        )
    ]
    return jnp.concatenate(maps, axis=-1)


def depthwise(
    images: Float[Array, "batch height width in_channel"],
    kernel: Float[Array, "rows columns 1 out_channel"],
    stride: int,
    dilation: int,
) -> Float[Array, "batch out_height out_width out_channel"]:
    """Runs shifted multiply-adds; sums are in float32 at least."""
    dtype, high = images.dtype, jnp.promote_types(images.dtype, jnp.float32)
    images = jnp.repeat(images, kernel.shape[-1] // images.shape[-1], axis=-1)
    maps = filter_each(
        images.astype(high),
        kernel[:, :, 0].astype(high),
        size=images.shape[1:3],
        sides=kernel.shape[:2],
        stride=stride,
        dilation=dilation,
    )
    return maps.astype(dtype)


def taps(images: Array, sides: Sequence[int], stride: int, dilation: int) -> list[list[Array]]:
    """Returns the values that each cell of a filter sees: [rows][columns] of [B, h, w, C]."""
    reach = [n - dilation * (side - 1) for n, side in zip(images.shape[1:3], sides, strict=True)]

    def seen(row: int, column: int) -> Array:
        top, left = row * dilation, column * dilation
        return images[:, top : top + reach[0] : stride, left : left + reach[1] : stride]

    return [[seen(i, j) for j in range(sides[1])] for i in range(sides[0])]


def multiply_add(images: Array, kernel: Array, stride: int, dilation: int) -> Array:
    """Computes the forward pass, which XLA fuses into one loop."""
    seen = taps(images, kernel.shape[:2], stride, dilation)
    cells = [(i, j) for i in range(kernel.shape[0]) for j in range(kernel.shape[1])]
    return sum((seen[i][j] * kernel[i, j] for i, j in cells[1:]), seen[0][0] * kernel[0, 0])


def image_gradient(
    kernel: Array, gradient: Array, size: tuple[int, int], stride: int, dilation: int
) -> Array:
    """Convolves the gradient, spread by the stride, fully with the rotated filter."""
    pads = []
    for n, side, out in zip(size, kernel.shape[:2], gradient.shape[1:3], strict=True):
        # `low` cells before let the filter's last cell meet the first; after, as many as bring n.
        low = dilation * (side - 1)
        pads.append((low, n - (out - 1) * stride - 1, stride - 1))
    zero = jnp.zeros((), gradient.dtype)
    spread = jax.lax.pad(gradient, zero, ((0, 0, 0), *pads, (0, 0, 0)))
    return multiply_add(spread, kernel[::-1, ::-1], 1, dilation)


def kernel_gradient(
    images: Array, gradient: Array, sides: tuple[int, int], stride: int, dilation: int
) -> Array:
    """Correlates the images with the gradient, all cells of the filter in one pass.

    One reduction of many operands: separate sums take up to 8 times as long.
    """
    images = jax.lax.optimization_barrier(images)  # else every cell pads the images anew
    seen = taps(images, sides, stride, dilation)
    products = [part * gradient for row in seen for part in row]
    zeros = [jnp.zeros((), gradient.dtype)] * len(products)
    # Over each example's places, then over examples: a batch split over devices stays split.
    sums = jax.lax.reduce(
        products, zeros, lambda a, b: [x + y for x, y in zip(a, b, strict=True)], (1, 2)
    )
    return jnp.stack(sums).sum(1).reshape(*sides, -1)


# Depthwise: images [B, h, w, C] (h, w: `size`) and kernel [rows, columns, C] (`sides`).
filter_each = trilinear(
    "depthwise_convolution",
    lambda images, kernel, size, sides, stride, dilation: multiply_add(
        images, kernel, stride, dilation
    ),
    lambda kernel, gradient, size, sides, stride, dilation: image_gradient(
        kernel, gradient, size, stride, dilation
    ),
    lambda images, gradient, size, sides, stride, dilation: kernel_gradient(
        images, gradient, sides, stride, dilation
    ),
    static=("size", "sides", "stride", "dilation"),
)
