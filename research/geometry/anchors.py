"""Cells of a grid and the anchor boxes that stand on them."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def centres(height: int, width: int, stride: int) -> Float[Array, "{height}*{width} 2"]:
    """Returns (x, y) in pixels of the middle of each cell of a map, row by row."""
    x = (jnp.arange(width) + 0.5) * stride
    y = (jnp.arange(height) + 0.5) * stride
    return jnp.stack(jnp.meshgrid(x, y), axis=-1).reshape(-1, 2)


def anchor_boxes(
    points: Float[Array, "cell 2"], sizes: Float[Array, "anchor 2"]
) -> Float[Array, "cell anchor 4"]:
    """Makes a box of each size (width, height) around each point, as (x0, y0, x1, y1)."""
    half = sizes[None] / 2
    return jnp.concatenate([points[:, None] - half, points[:, None] + half], axis=-1)


def shape_iou(a: Float[np.ndarray, "n 2"], b: Float[np.ndarray, "m 2"]) -> Float[np.ndarray, "n m"]:
    """Computes the IoU of boxes of these sizes (width, height) that share their centre."""
    both = np.minimum(a[:, None], b[None]).prod(-1)
    union = a.prod(-1)[:, None] + b.prod(-1)[None] - both
    return both / np.maximum(union, np.finfo(np.float64).tiny)


def k_means(
    sizes: Float[np.ndarray, "n 2"], count: int, seed: int = 0, rounds: int = 10
) -> tuple[Float[np.ndarray, "{count} 2"], float]:
    """Learns anchor sizes by k-means with distance 1 - IoU: Redmon and Farhadi, "YOLO9000", 2016.

    Every round starts from sizes that are drawn far from each other (k-means++). The mean of a
    cluster does not minimise 1 - IoU, so the best result of all rounds is returned.

    Args:
      sizes: (width, height) of the training boxes; those without area are left out.

    Returns:
      The anchors from small to large, and the mean IoU of each box with its best anchor.

    Raises:
      ValueError: if no box has an area.
    """
    sizes = np.asarray(sizes, np.float64)
    sizes = sizes[(sizes > 0).all(1)]
    if not len(sizes):
        raise ValueError("anchors need boxes with an area")
    rng = np.random.default_rng(seed)
    best, best_iou = sizes[:1].repeat(count, 0), -1.0
    for _ in range(rounds):
        anchors = sizes[rng.integers(len(sizes))][None]
        while len(anchors) < count:
            distance = 1 - shape_iou(sizes, anchors).max(1)
            total = distance.sum()
            chance = distance / total if total > 0 else np.full(len(sizes), 1 / len(sizes))
            anchors = np.concatenate([anchors, sizes[rng.choice(len(sizes), p=chance)][None]])
        previous = None
        for _ in range(100):
            overlap = shape_iou(sizes, anchors)
            mean_iou = float(overlap.max(1).mean())
            if mean_iou > best_iou:
                best, best_iou = anchors, mean_iou
            nearest = overlap.argmax(1)
            if previous is not None and (nearest == previous).all():
                break
            previous = nearest
            anchors = np.stack(
                [
                    sizes[nearest == k].mean(0) if (nearest == k).any() else anchors[k]
                    for k in range(count)
                ]
            )
    return best[np.argsort(best.prod(1), kind="stable")], best_iou


def moved(boxes: Float[Array, "*#n 4"], moves: Float[Array, "*#n 4"]) -> Float[Array, "*#n 4"]:
    """Moves boxes by (x, y) shares of their sides and scales them by exp(w, h), from `moves`.

    Girshick et al. 2014, appendix C. Scales are bounded, so that the exponential stays finite.
    """
    size = boxes[..., 2:] - boxes[..., :2]
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2 + moves[..., :2] * size
    half = size * jnp.exp(jnp.clip(moves[..., 2:], -4.0, 4.0)) / 2
    return jnp.concatenate([centre - half, centre + half], axis=-1)
