"""Prediction in overlapping tiles, for images that are too large for memory.

The overlap-tile strategy of Ronneberger et al. 2015 (figure 2): a tile is as large as memory
allows, and only pixels far enough from its cut edges are used.
"""

import functools
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.errors import UserError
from research.models.unet import UNet

Maps = Float[Array, "batch height width channel"]


@runtime_checkable
class Segmenter(Protocol):
    """A model whose maps are as large as its images."""

    @property
    def multiple(self) -> int:
        """Returns the number whose multiples whole images' sides must be."""
        ...


def starts(length: int, tile: int, overlap: int, multiple: int) -> list[int]:
    """Returns the starts of tiles along one side; neighbours share at least `overlap` pixels.

    The first begins at 0 and the last ends at `length`; all begin at a multiple of `multiple`, so
    that pooling cuts a tile as it cuts the whole.
    """
    if length <= tile:
        return [0]
    step = (tile - overlap) // multiple * multiple
    last = length - tile
    return [*range(0, last, step), last]


def predict_tiled(
    network: Callable[[Maps], Maps],
    images: Maps,
    tile: int,
    margin: int,
    multiple: int = 1,
    lost: int = 0,
) -> Float[Array, "batch rows columns classes"]:
    """Predicts whole images from their tiles, one after another.

    Equal to network(images) but for rounding, if a pixel depends on no other farther away than
    `margin`. Sides that are no multiple are padded with zeros below and to the right, as our
    networks do.

    Args:
      network: from images to maps of the same size, less `lost` pixels on each side.
      tile: side of the tiles, pixels; a smaller image side is taken whole.
      margin: pixels at a cut edge that are not used.
      multiple: the number whose multiples whole images' sides must be for the network.
      lost: part of the margin that the network takes off itself (valid convolutions). The images
        then come with their margin, and tiles are measured with theirs.

    Raises:
      UserError: a tile of which the margins leave nothing, or whose side is no such multiple.
    """
    height, width = images.shape[1:3]
    if not lost:
        below, beside = (-n % multiple for n in (height, width))
        images = jnp.pad(images, ((0, 0), (0, below), (0, beside), (0, 0)))
    sides = images.shape[1:3]
    for side in sides:
        if side > tile and (tile - 2 * margin < multiple or (side - tile) % multiple):
            raise UserError(
                f"--tile={tile}: tiles of this network are multiples of {multiple} pixels above "
                f"{2 * margin}, such as {-(-(4 * margin + multiple) // multiple) * multiple}."
            )
    rows, columns = (starts(side, tile, 2 * margin, multiple) for side in sides)
    if len(rows) == len(columns) == 1:
        return network(images)[:, :height, :width]
    window = min(tile, sides[0]), min(tile, sides[1])

    def one(corner: Array) -> Array:
        return network(
            jax.lax.dynamic_slice_in_dim(
                jax.lax.dynamic_slice_in_dim(images, corner[0], window[0], 1),
                corner[1],
                window[1],
                2,
            )
        )

    corners = jnp.array([(i, j) for i in rows for j in columns])
    tiles = jax.lax.map(one, corners)  # [tile, B, h, w, classes]; one at a time in memory
    halo = margin - lost

    def pieces(begin: list[int], side: int, length: int) -> list[tuple[int, int]]:
        """Returns the used part of each tile's map, which ends where the next tile's begins."""
        ends = [start + halo for start in begin[1:]] + [length - 2 * lost]
        return [
            (0 if k == 0 else ends[k - 1] - begin[k], end - begin[k]) for k, end in enumerate(ends)
        ]

    across = pieces(columns, window[1], sides[1])
    down = pieces(rows, window[0], sides[0])
    lines = []
    for i, (top, bottom) in enumerate(down):
        line = [
            tiles[i * len(columns) + j][:, top:bottom, left:right]
            for j, (left, right) in enumerate(across)
        ]
        lines.append(jnp.concatenate(line, axis=2))
    return jnp.concatenate(lines, axis=1)[:, :height, :width]


def in_tiles(
    evaluate: Callable[..., Maps], model: Segmenter, images: Maps, tile: int
) -> Float[Array, "batch rows columns classes"]:
    """Returns the network's map of whole images, in tiles if a side is above `tile` pixels.

    With U-Net the tiles give the whole image's map. Other networks see farther than a tile, so
    their maps differ: a quarter of each tile is left out at its cut edges.

    Args:
      evaluate: (images, **options) -> maps, options such as method="trunk".
      model: the evaluated model.
      tile: pixels; 0: images are taken whole.

    Raises:
      UserError: as `predict_tiled` does.
    """
    height, width = images.shape[1:3]
    if not tile or max(height, width) <= tile:
        return evaluate(images)
    if not isinstance(model, UNet):
        return predict_tiled(evaluate, images, tile, tile // 4, model.multiple)
    if model.padding != "valid":
        margin = model.margin + model.multiple - 1  # cells of the lowest level are whole
        return predict_tiled(evaluate, images, tile, margin, model.multiple)
    # The image is mirrored once; tiles are cut from it (figure 2 of the paper).
    sides = [model.mirrored(n) for n in (height, width)]
    maps = predict_tiled(
        functools.partial(evaluate, method="trunk"),
        jnp.pad(images, ((0, 0), *sides, (0, 0)), mode="reflect"),
        tile + sum(model.mirrored(tile)),
        model.margin,
        model.multiple,
        model.lost,
    )
    return maps[:, :height, :width]
