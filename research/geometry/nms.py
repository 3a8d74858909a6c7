"""Non-maximum suppression with fixed shapes, so that it runs inside jit."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from research.geometry.boxes import clip, iou


class Kept(NamedTuple):
    """The boxes that suppression keeps, best first; rows that are not valid are padding.

    Attributes:
      box: which of the given boxes.
      score: its score, which soft suppression may have lowered.
    """

    box: Int[Array, " count"]
    score: Float[Array, " count"]
    valid: Bool[Array, " count"]


def nms(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, " n"],
    count: int,
    threshold: float = 0.5,
    *,
    classes: Int[Array, " n"] | None = None,
    sigma: float = 0.0,
    least: float = 0.0,
) -> Kept:
    """Keeps the best box and lowers the scores of those that overlap it, `count` times.

    Hard suppression removes boxes whose IoU with a kept one is above `threshold`: what torchvision
    computes, and what published detectors were scored with (`research/course/boxes.py` has the rule
    "at least" of lectures). Soft suppression multiplies their scores by exp(-IoU² / sigma) instead:
    Bodla et al., "Soft-NMS", 2017, equation 3. Of equal scores the first box wins. A box without
    area overlaps nothing, so it neither removes nor is removed.

    Args:
      boxes: (x0, y0, x1, y1).
      scores: above `least` for boxes that take part; padding has -inf.
      count: boxes to keep, at most.
      classes: only boxes of one class suppress each other; None: all do (class-agnostic).
      sigma: of soft suppression, such as 0.5; 0 for hard suppression.
      least: boxes whose score is not above it are dropped.
    """
    if boxes.shape[0] == 0:  # a maximum needs at least one candidate
        nothing = jnp.zeros(count, jnp.int32)
        return Kept(nothing, jnp.zeros(count, scores.dtype), nothing.astype(bool))

    def keep_one(rest: Array, _: None) -> tuple[Array, Kept]:
        best = rest.argmax()
        score = rest[best]
        overlap = iou(boxes[best], boxes)
        if classes is not None:
            overlap = jnp.where(classes == classes[best], overlap, 0.0)
        if sigma > 0:
            rest = rest * jnp.exp(-(overlap**2) / sigma)
        else:
            rest = jnp.where(overlap > threshold, -jnp.inf, rest)
        rest = rest.at[best].set(-jnp.inf)
        rest = jnp.where(rest > least, rest, -jnp.inf)
        return rest, Kept(best.astype(jnp.int32), score, score > least)

    rest = jnp.where(scores > least, scores, -jnp.inf)
    _, kept = jax.lax.scan(keep_one, rest, None, length=count)
    return kept


def detect(
    boxes: Float[Array, "batch predictor 4"],
    scores: Float[Array, "batch predictor classes"],
    image_size: tuple[int, int],
    *,
    count: int = 100,
    candidates: int = 4000,
    least: float = 0.01,
    threshold: float = 0.5,
    sigma: float = 0.0,
    agnostic: bool = False,
) -> dict[str, Array]:
    """Returns the boxes that are left after suppression, best first, in fixed shapes.

    Every pair of a box and a class is a candidate of its own, as COCO's average precision counts.

    Args:
      count: detections an image, at most; `valid` is False for padding.
      candidates: the best pairs that take part in suppression.
      least: scores below are dropped.
      threshold, sigma: see `nms`.
      agnostic: whether boxes suppress each other across classes.
    """
    classes = scores.shape[-1]

    def one(boxes: Array, scores: Array) -> dict[str, Array]:
        flat = scores.reshape(-1)
        best, pair = jax.lax.top_k(flat, min(candidates, flat.size))
        place, label = pair // classes, pair % classes
        kept = nms(
            boxes[place],
            best,
            count,
            threshold,
            classes=None if agnostic else label,
            sigma=sigma,
            least=least,
        )
        found = clip(boxes[place[kept.box]], *image_size)
        return {
            "boxes": jnp.where(kept.valid[:, None], found, 0.0),
            "scores": jnp.where(kept.valid, kept.score, 0.0),
            "classes": jnp.where(kept.valid, label[kept.box], 0).astype(jnp.int32),
            "valid": kept.valid,
        }

    return jax.vmap(one)(boxes, scores)
