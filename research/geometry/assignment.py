"""Which object each anchor, cell or proposal answers for. One image at a time; use jax.vmap."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from research.geometry.boxes import area, coverage, iou

IGNORED, NEGATIVE, POSITIVE = -1, 0, 1


class Assignment(NamedTuple):
    """For each anchor: POSITIVE, NEGATIVE or IGNORED, and the object (0 where there is none)."""

    kind: Int[Array, " anchor"]
    target: Int[Array, " anchor"]


def by_iou(
    anchors: Float[Array, "anchor 4"],
    boxes: Float[Array, "object 4"],
    valid: Bool[Array, " object"],
    crowd: Bool[Array, " object"] | None = None,
    *,
    positive: float = 0.7,
    negative: float = 0.3,
    keep_best: bool = True,
) -> Assignment:
    """Anchors that overlap an object enough are positive: Ren et al., "Faster R-CNN", 2015, 3.1.2.

    Args:
      valid: False marks padding.
      crowd: regions of many objects; anchors that mostly lie in one are ignored, never positive.
      positive, negative: at least this IoU, below this IoU; between them anchors are ignored.
      keep_best: the anchors that overlap an object the most are positive whatever the IoU.
    """
    real = valid if crowd is None else valid & ~crowd
    overlap = jnp.where(real[None], iou(anchors[:, None], boxes[None]), 0.0)  # [anchor, object]
    target, most = overlap.argmax(1), overlap.max(1)
    kind = jnp.where(most >= positive, POSITIVE, jnp.where(most < negative, NEGATIVE, IGNORED))
    if keep_best:
        best = (overlap == overlap.max(0)[None]) & (overlap > 0)
        kind = jnp.where(best.any(1), POSITIVE, kind)
        # An anchor that is the best for an object answers for it, or the object may have none.
        target = jnp.where(best.any(1), jnp.where(best, overlap, -1.0).argmax(1), target)
    if crowd is not None:
        inside = coverage(anchors[:, None], boxes[None])
        inside = jnp.where((valid & crowd)[None], inside, 0.0).max(1, initial=0.0)
        kind = jnp.where((kind == NEGATIVE) & (inside > 0.5), IGNORED, kind)
    return Assignment(kind.astype(jnp.int32), target.astype(jnp.int32))


def by_centre(
    points: Float[Array, "cell 2"],
    stride: Float[Array, " cell"],
    boxes: Float[Array, "object 4"],
    valid: Bool[Array, " object"],
    crowd: Bool[Array, " object"] | None = None,
    *,
    radius: float = 0.5,
    allowed: Bool[Array, "cell object"] | None = None,
) -> Assignment:
    """Cells whose middle lies within `radius` cells of an object's centre are positive.

    A radius of 0.5 is YOLO's "the cell that the centre falls into"; of 1.5, that cell and its eight
    neighbours where they lie in the box (Ge et al., "YOLOX", 2021, section 2.1). A cell claimed by
    several objects answers for the smallest, as in Tian et al., "FCOS", 2019, section 3.1.

    Args:
      points: the middle (x, y) of each cell, pixels.
      stride: side of each cell, pixels.
      crowd: cells whose middle lies in one of these are ignored, never positive.
      allowed: which cells may answer for which objects; None: all.
    """
    real = valid if crowd is None else valid & ~crowd
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    offset = points[:, None] - middle[None]  # [cell, object, 2]
    reach = stride[:, None, None]
    # Half open, so that a centre on the border of two cells belongs to one of them.
    own = ((offset >= -0.5 * reach) & (offset < 0.5 * reach)).all(-1)
    within = _inside(points, boxes)
    near = (jnp.abs(offset) < radius * reach).all(-1) & within
    claims = (own | near if radius > 0.5 else own) & real[None]
    claims = claims if allowed is None else claims & allowed
    # The cell of the centre comes before neighbours of other objects, then the smaller object.
    relative = area(boxes) / jnp.maximum(area(boxes).max(initial=0.0), 1e-6)  # [object], to 1
    rank = jnp.where(claims, relative[None] + 2.0 * ~own, jnp.inf)
    kind = jnp.where(claims.any(1), POSITIVE, NEGATIVE)
    if crowd is not None:
        ignored = (within & (valid & crowd)[None]).any(1)
        kind = jnp.where((kind == NEGATIVE) & ignored, IGNORED, kind)
    return Assignment(kind.astype(jnp.int32), rank.argmin(1).astype(jnp.int32))


def _inside(points: Array, boxes: Array) -> Array:
    """[cell, object]: whether the point lies in the box."""
    x, y = points[:, None, 0], points[:, None, 1]
    return (x >= boxes[:, 0]) & (x < boxes[:, 2]) & (y >= boxes[:, 1]) & (y < boxes[:, 3])


def sample(
    key: Key[Array, ""], kind: Int[Array, " anchor"], count: int, share: float = 0.5
) -> Bool[Array, " anchor"]:
    """Marks `count` anchors at random, at most `share` of them positive, the others negative.

    So that the many negatives do not outweigh the few positives: Ren et al. 2015, section 3.1.3.
    Fewer are marked where there are not enough.
    """
    order = jax.random.uniform(key, kind.shape)

    def first(chosen: Array, most: Array | int) -> Array:
        rank = jnp.where(chosen, order, jnp.inf).argsort().argsort()
        return chosen & (rank < most)

    positives = first(kind == POSITIVE, round(count * share))
    return positives | first(kind == NEGATIVE, count - positives.sum())
