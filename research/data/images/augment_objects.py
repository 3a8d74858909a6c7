"""Random changes of training images that move boxes with the pixels; see `augment`.

A box that is cut by the image's border ends there, and is an object as long as enough of its area
is left: a digit of which one pixel is left teaches nothing. A smaller rest is no longer valid; its
slot stays, so that shapes are fixed. A crowd stays while any part of it is visible, because that
part is not background.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from research.data.config import ObjectAugmentation
from research.data.images import warps
from research.data.images.augment import Components, augment, draw_warp, draws, next_valid
from research.errors import UserError
from research.experiment import gather

SMALLEST = 1.0  # pixels: the shorter side of an object's visible part


class ObjectBatch(NamedTuple):
    """Images in 0..1 and their objects; see `research.data.images.objects.fit_objects`."""

    image: Float[Array, "batch height width channel"]
    boxes: Float[Array, "batch n 4"]
    classes: Int[Array, "batch n"]
    crowd: Bool[Array, "batch n"]
    valid: Bool[Array, "batch n"]


def augment_objects(
    options: ObjectAugmentation,
    keys: Key[Array, " batch"],
    batch: ObjectBatch,
    mask: Bool[Array, " batch"],
    components: Components | None = None,
    axis: str | None = None,
) -> ObjectBatch:
    """Returns the changed batch: mosaic first, then geometry and colour, an example at a time.

    Args:
      keys: from `augment.example_keys`.
      mask: False marks padding, which is in no mosaic.
      components: of colour; see `augment`.
      axis: the pmap axis the batch is split over; None where the arrays are the global batch.

    Returns:
      As many slots for objects as before; four times as many where options.mosaic is not 0.

    Raises:
      UserError: for elastic warps, which boxes do not follow, and mixup.
    """
    if options.elastic_alpha:
        raise UserError("--elastic_alpha: boxes cannot follow a local warp; leave it 0")
    if options.mixup:
        raise UserError("--mixup: is for classification; with boxes, use --mosaic")
    height, width = batch.image.shape[1:3]
    # Boxes may reach beyond images that were cropped.
    cut = functools.partial(
        move_boxes, matrix=jnp.eye(2, 3), height=height, width=width, visible=options.visible
    )
    boxes, valid = jax.vmap(cut)(batch.boxes, batch.valid, batch.crowd)
    batch = batch._replace(boxes=boxes, valid=valid)
    if options.mosaic:
        batch = mosaic(options, keys, batch, mask, axis)

    def move(key: Key[Array, ""], boxes: Array, valid: Array, crowd: Array) -> tuple[Array, Array]:
        matrix, _ = draw_warp(options, key, height, width)
        return move_boxes(boxes, valid, crowd, matrix, height, width, options.visible)

    boxes, valid = jax.vmap(move)(keys, batch.boxes, batch.valid, batch.crowd)
    image = augment(options, keys, batch.image, components)
    return batch._replace(image=image, boxes=boxes, valid=valid)


def move_boxes(
    boxes: Float[Array, "n 4"],
    valid: Bool[Array, " n"],
    crowd: Bool[Array, " n"],
    matrix: Float[Array, "2 3"],
    height: int,
    width: int,
    visible: float,
) -> tuple[Float[Array, "n 4"], Bool[Array, " n"]]:
    """Moves one image's boxes, ends them at its border, and drops those with too little left.

    Args:
      matrix: maps points to their new places; see `warps`.
      height, width: of the image after the move.
      visible: the share of a moved box's area that must lie in the image, unless it is a crowd.

    Returns:
      The boxes, zeros in unused slots, and which are valid.
    """
    around = warps.boxes_around(boxes, matrix)
    clipped = warps.clip_boxes(around, height, width)
    sides = clipped[:, 2:] - clipped[:, :2]
    whole = around[:, 2:] - around[:, :2]
    # Rounding must not decide over a box that is wholly inside.
    kept = sides.prod(1) >= visible * (1 - 1e-4) * whole.prod(1)
    valid = valid & (kept | crowd) & (sides.min(1) >= SMALLEST)
    return jnp.where(valid[:, None], clipped, 0.0), valid


def move_regions(
    options: ObjectAugmentation,
    keys: Key[Array, " batch"],
    regions: Float[Array, "batch n 4"],
    height: int,
    width: int,
) -> Float[Array, "batch n 4"]:
    """Moves regions as `augment_objects` moves boxes under the same keys; zeros if none is left."""
    there = (regions[..., 2:] > regions[..., :2]).all(-1)

    def one(key: Key[Array, ""], regions: Array, there: Array) -> Array:
        matrix, _ = draw_warp(options, key, height, width)
        no_crowds = jnp.zeros_like(there)
        return move_boxes(regions, there, no_crowds, matrix, height, width, options.visible)[0]

    return jax.vmap(one)(keys, regions, there)


def mosaic(
    options: ObjectAugmentation,
    keys: Key[Array, " batch"],
    batch: ObjectBatch,
    mask: Bool[Array, " batch"],
    axis: str | None = None,
) -> ObjectBatch:
    """Puts a share of examples together from four: Bochkovskiy et al., "YOLOv4", 2020, section 3.3.

    The example and the next three of the global batch that are no padding lie in two rows and two
    columns; of these, all at a scale of 0.5 to 1, the image shows a part with the point where they
    meet: at scale 0.5 it shows all four whole. The meeting point is anywhere that leaves no gap.

    Returns:
      The batch with four times as many slots for objects; the first quarter is the example's own.
    """
    height, width = batch.image.shape[1:3]
    first = 0 if axis is None else jax.lax.axis_index(axis) * len(mask)
    following = next_valid(gather(mask, axis))
    members = [first + jnp.arange(len(mask))]
    for _ in range(3):
        members.append(following[members[-1]])
    four = jnp.stack(members, axis=1)  # [B, 4]
    tiles = jax.tree.map(lambda x: gather(x, axis)[four], batch)  # [B, 4, ...]
    slots = batch.valid.shape[1]
    # Where each tile lies, in pixels: upper left, upper right, lower left, lower right.
    corner = jnp.array([[0, 0], [width, 0], [0, height], [width, height]], jnp.float32)

    def one(key: Key[Array, ""], tiles: ObjectBatch) -> ObjectBatch:
        chance, size, across, down = (draws(key)["mosaic"] + 1) / 2
        scale = 0.5 + size / 2
        own = chance >= options.mosaic
        # Scaled by s, the tiles leave no gap when they meet between (1 - s) and s of the side.
        x, y = ((1 - scale + t * (2 * scale - 1)) * n for t, n in ((across, width), (down, height)))
        matrix = jnp.array(
            [[scale, 0.0, x - scale * width], [0.0, scale, y - scale * height]], jnp.float32
        )
        matrix = jnp.where(own, jnp.eye(2, 3), matrix)
        rows = (jnp.concatenate([tiles.image[k], tiles.image[k + 1]], axis=1) for k in (0, 2))
        image = warps.warp_part(jnp.concatenate(list(rows)), matrix, (height, width))
        boxes = (tiles.boxes + jnp.tile(corner, 2)[:, None]).reshape(-1, 4)
        valid, crowd = tiles.valid.reshape(-1), tiles.crowd.reshape(-1)
        boxes, valid = move_boxes(boxes, valid, crowd, matrix, height, width, options.visible)
        valid = valid & ~(own & (jnp.arange(4 * slots) >= slots))
        return ObjectBatch(image, boxes, tiles.classes.reshape(-1), crowd, valid)

    return jax.vmap(one)(keys, tiles)
