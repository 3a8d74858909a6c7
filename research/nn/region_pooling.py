"""Fixed-size maps of regions of interest (RoI), whatever the regions' sizes.

Boxes are (left, top, right, bottom) in pixels of the image; `scale` is map cells a pixel. A
function takes one image's map; use jax.vmap for a batch.
"""

import jax
import jax.numpy as jnp
from jax.lax import Precision
from jaxtyping import Array, Bool, Float


def roi_pool(
    maps: Float[Array, "height width channel"],
    boxes: Float[Array, "box 4"],
    size: int,
    scale: float = 1.0,
) -> Float[Array, "box {size} {size} channel"]:
    """Returns maxima over size x size bins of each box, in whole cells; 0 for bins off the map.

    Girshick, "Fast R-CNN", 2015, section 2.1. The rounding passes no gradient to the boxes.
    """
    height, width, channels = maps.shape
    fixed = jax.lax.stop_gradient(maps)  # searched for maxima; the gradient takes the gather below

    def members(
        start: Float[Array, ""], end: Float[Array, ""], limit: int
    ) -> Bool[Array, "bin {limit}"]:
        """Returns which cells belong to which bin, along one side."""
        # Halves round away from zero, as C's round does (jnp.round would go to even).
        first, last = (
            (jnp.sign(x) * jnp.floor(jnp.abs(x) + 0.5)).astype(int) for x in (start, end)
        )
        length = jnp.maximum(last - first + 1, 1)
        i, cell = jnp.arange(size)[:, None], jnp.arange(limit)[None]
        low = first + i * length // size
        high = first - (-(i + 1) * length // size)  # rounded up
        return (cell >= low) & (cell < high)

    def one(box: Float[Array, "4"]) -> Float[Array, "bin bin channel"]:
        left, top, right, bottom = box * scale
        in_row = members(top, bottom, height)[:, :, None, None]
        in_column = members(left, right, width)[None, :, :, None]
        by_row = jnp.where(in_row, fixed, -jnp.inf)  # [size, H, W, C]
        row, best = by_row.argmax(1), by_row.max(1)  # [size, W, C]
        column = jnp.where(in_column, best[:, None], -jnp.inf).argmax(2)  # [size, size, C]
        row = jnp.take_along_axis(row, column, axis=1)
        pooled = maps[row, column, jnp.arange(channels)]
        filled = in_row.any((1, 2, 3))[:, None] & in_column.any((0, 2, 3))[None]
        return jnp.where(filled[..., None], pooled, 0.0)

    # One box after another: the masked maps of all boxes at once would not fit.
    return jax.lax.map(one, boxes)


def roi_align(
    maps: Float[Array, "height width channel"],
    boxes: Float[Array, "box 4"],
    size: int,
    scale: float = 1.0,
    samples: int = 2,
    aligned: bool = True,
) -> Float[Array, "box {size} {size} channel"]:
    """Returns means of samples x samples bilinear samples in size x size bins, without rounding.

    He et al., "Mask R-CNN", 2017, section 3. Bilinear sampling and the mean are both separable,
    so a box is one product with a matrix of row weights and one of column weights.

    Args:
      aligned: pixel centres lie at halves (a cell's centre is index + 0.5); False as in 2017,
        where boxes are also at least one cell wide.
    """
    height, width, _ = maps.shape

    def weights(
        start: Float[Array, " box"], end: Float[Array, " box"], limit: int
    ) -> Float[Array, "box bin {limit}"]:
        offset = 0.5 if aligned else 0.0
        start, length = start - offset, end - start
        if not aligned:
            length = jnp.maximum(length, 1.0)
        fraction = (jnp.arange(size * samples) + 0.5) / (size * samples)
        at = start[:, None] + length[:, None] * fraction  # [box, size * samples]
        inside = (at >= -1) & (at <= limit)
        at = jnp.clip(at, 0, limit - 1)
        # The hat function around each cell is its weight in bilinear sampling.
        hat = jnp.maximum(1 - jnp.abs(at[..., None] - jnp.arange(limit)), 0.0)
        hat = jnp.where(inside[..., None], hat, 0.0)
        return hat.reshape(len(at), size, samples, limit).mean(2)

    left, top, right, bottom = boxes.T * scale
    rows = weights(top, bottom, height).astype(maps.dtype)
    columns = weights(left, right, width).astype(maps.dtype)
    return jnp.einsum("nih,njw,hwc->nijc", rows, columns, maps, precision=Precision.HIGHEST)


def crop_and_resize(
    image: Float[Array, "height width channel"],
    boxes: Float[Array, "box 4"],
    size: tuple[int, int],
) -> Float[Array, "box {size[0]} {size[1]} channel"]:
    """Cuts out each box, resized to `size` (rows, columns) by linear interpolation.

    Where that shrinks it, the filter widens as much, so that nothing is left out between samples
    (antialiasing). Outside of the image there are zeros, which are the mean of standardised images:
    Girshick et al. 2014, appendix A.
    """

    def one(box: Float[Array, "4"]) -> Float[Array, "rows columns channel"]:
        start = jnp.flip(box[:2])  # rows before columns
        sides = jnp.maximum(jnp.flip(box[2:]) - start, 1e-3)  # padding has no area to show
        scale = jnp.array(size, jnp.float32) / sides
        return jax.image.scale_and_translate(
            image, (*size, image.shape[-1]), (0, 1), scale, -start * scale, "linear"
        )

    return jax.vmap(one)(boxes)
