"""Assigns objects to anchors, cells and proposals. One image at a time; use jax.vmap."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from research.geometry.boxes import area, coverage, iou

IGNORED, NEGATIVE, POSITIVE = -1, 0, 1


class Assignment(NamedTuple):
    """Each anchor's kind, POSITIVE, NEGATIVE or IGNORED, and its object (0 if it has none)."""

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
    """Assigns anchors by overlap with objects: Ren et al., "Faster R-CNN", 2015, section 3.1.2.

    Args:
      boxes: where `valid` is False, padding: it may hold anything, NaN too.
      crowd: objects to ignore, such as regions of many. Anchors that lie mostly in one, or that
        would not be background if it were a normal object, are ignored, never positive.
      positive, negative: at least this IoU, below this IoU; between them anchors are ignored.
      keep_best: the anchors that overlap an object the most are positive whatever the IoU.
    """
    real, crowd = _kinds(valid, crowd)
    boxes = jnp.where(valid[:, None], boxes, 0.0)  # without area: overlaps nothing
    every = iou(anchors[:, None], boxes[None])  # [anchor, object]
    best = (every == every.max(0)[None]) & (every > 0) & keep_best
    overlap = jnp.where(real[None], every, 0.0)
    target, most = overlap.argmax(1), overlap.max(1)
    kind = jnp.where(most >= positive, POSITIVE, jnp.where(most < negative, NEGATIVE, IGNORED))
    # The best anchor of an object is assigned to it, or the object might have none.
    of_object = best & real[None]
    kind = jnp.where(of_object.any(1), POSITIVE, kind)
    answered = jnp.where(of_object, overlap, -1.0).argmax(1)
    target = jnp.where(of_object.any(1), answered, target)

    inside = coverage(anchors[:, None], boxes[None]) > 0.5
    ignored = ((inside | (every >= negative) | best) & crowd[None]).any(1)
    kind = jnp.where((kind == NEGATIVE) & ignored, IGNORED, kind)
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
    """Assigns cells whose middle lies within `radius` cells of an object's centre.

    A radius of 0.5 is YOLO's "the cell that the centre falls into"; of 1.5, that cell and its eight
    neighbours where they lie in the box (Ge et al., "YOLOX", 2021, section 2.1). A cell near
    several objects is assigned to the smallest: Tian et al., "FCOS", 2019, section 3.1.

    Args:
      points: the middle (x, y) of each cell, pixels.
      stride: side of each cell, pixels.
      boxes: where `valid` is False, padding: it may hold anything, NaN too.
      crowd: objects to ignore. Cells whose middle lies in one, and the cell that its centre falls
        into, are ignored, never positive.
      allowed: which cells may be assigned to which objects; None: all.
    """
    real, crowd = _kinds(valid, crowd)
    boxes = jnp.where(valid[:, None], boxes, 0.0)
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
    ignored = ((within | own) & crowd[None]).any(1)
    kind = jnp.where((kind == NEGATIVE) & ignored, IGNORED, kind)
    return Assignment(kind.astype(jnp.int32), rank.argmin(1).astype(jnp.int32))


def _kinds(valid: Array, crowd: Array | None) -> tuple[Array, Array]:
    """Returns [object] each: whether it is to be found; whether it is to be ignored."""
    if crowd is None:
        return valid, jnp.zeros_like(valid)
    return valid & ~crowd, valid & crowd


def _inside(points: Array, boxes: Array) -> Array:
    """Returns [cell, object]: whether the point lies in the box."""
    x, y = points[:, None, 0], points[:, None, 1]
    return (x >= boxes[:, 0]) & (x < boxes[:, 2]) & (y >= boxes[:, 1]) & (y < boxes[:, 3])


def sample(
    key: Key[Array, ""], kind: Int[Array, " anchor"], count: int, share: float = 0.5
) -> Bool[Array, " anchor"]:
    """Marks `count` anchors at random, at most `share` of them positive, the others negative.

    The share keeps the many negatives from outweighing the few positives: Ren et al. 2015, section
    3.1.3. Fewer are marked if there are not enough.
    """
    order = jax.random.uniform(key, kind.shape)

    def first(chosen: Array, most: Array | int) -> Array:
        rank = jnp.where(chosen, order, jnp.inf).argsort().argsort()
        return chosen & (rank < most)

    positives = first(kind == POSITIVE, round(count * share))
    return positives | first(kind == NEGATIVE, count - positives.sum())
