"""Boxes in named formats, and measures of their overlap.

Everywhere else in this project a box is "xyxy": (x0, y0, x1, y1), the left, top, right and bottom
edge in pixels, where pixel (row i, column j) covers [j, j + 1] x [i, i + 1]. The other formats are
"cxcywh" (centre, width, height: YOLO's) and "xywh" (left, top, width, height: COCO's).
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Format = Literal["xyxy", "cxcywh", "xywh"]


def convert(boxes: Float[Array, "*n 4"], source: Format, target: Format) -> Float[Array, "*n 4"]:
    """Writes boxes in another format; the way back gives the same boxes, to rounding."""
    if source == target:
        return boxes
    a, b = boxes[..., :2], boxes[..., 2:]
    if source == "xyxy":
        low, size = a, b - a
    elif source == "cxcywh":
        low, size = a - b / 2, b
    else:
        low, size = a, b
    first = low + size / 2 if target == "cxcywh" else low
    second = low + size if target == "xyxy" else size
    return jnp.concatenate([first, second], axis=-1)


def clip(boxes: Float[Array, "*n 4"], height: int, width: int) -> Float[Array, "*n 4"]:
    """Clips boxes to the image; a box outside it becomes one without area."""
    return jnp.clip(boxes, 0.0, jnp.array([width, height, width, height], boxes.dtype))


def sides(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n 2"]:
    """Returns width and height, never negative: 0 for an inverted box."""
    return jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)


def area(boxes: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """Returns the area in square pixels; 0 for an inverted box."""
    return sides(boxes).prod(-1)


def _divide(a: Array, b: Array) -> Array:
    """Returns a / b, and 0 where b is 0, with a finite gradient there too."""
    positive = b > 0
    return jnp.where(positive, a / jnp.where(positive, b, 1.0), 0.0)


def _overlap(a: Array, b: Array) -> tuple[Array, Array]:
    """Returns the areas of the intersection and of the union."""
    low = jnp.maximum(a[..., :2], b[..., :2])
    high = jnp.minimum(a[..., 2:], b[..., 2:])
    both = jnp.maximum(high - low, 0.0).prod(-1)
    return both, area(a) + area(b) - both


def _enclosing(a: Array, b: Array) -> Array:
    """Returns width and height of the smallest box around both."""
    low = jnp.minimum(a[..., :2], b[..., :2])
    return jnp.maximum(a[..., 2:], b[..., 2:]) - low


def iou(a: Float[Array, "*#n 4"], b: Float[Array, "*#n 4"]) -> Float[Array, "*#n"]:
    """Returns the intersection over union, in [0, 1]; 0 where the union has no area."""
    return _divide(*_overlap(a, b))


def coverage(a: Float[Array, "*#n 4"], b: Float[Array, "*#n 4"]) -> Float[Array, "*#n"]:
    """Returns the share of box a that lies in box b, which COCO uses for crowds instead of IoU."""
    return _divide(_overlap(a, b)[0], area(a))


def giou(a: Float[Array, "*#n 4"], b: Float[Array, "*#n 4"]) -> Float[Array, "*#n"]:
    """Returns IoU - |C minus union| / |C| with C the smallest box around both; in (-1, 1].

    Rezatofighi et al., "Generalized intersection over union", 2019, algorithm 1. Boxes that do not
    touch still have a gradient towards each other.
    """
    both, union = _overlap(a, b)
    hull = jnp.maximum(_enclosing(a, b), 0.0).prod(-1)
    return _divide(both, union) - _divide(hull - union, hull)


def ciou(a: Float[Array, "*#n 4"], b: Float[Array, "*#n 4"]) -> Float[Array, "*#n"]:
    """Returns IoU - d² / c² - α v: d between the centres, c the diagonal of the box around both.

    v = (4 / π²) (atan(w_b / h_b) - atan(w_a / h_a))² and α = v / (1 - IoU + v), which is held fixed
    in the gradient: Zheng et al., "Distance-IoU loss", 2020, equations 8 to 11.
    """
    overlap = iou(a, b)
    between = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    distance = _divide((between**2).sum(-1), (_enclosing(a, b) ** 2).sum(-1))
    (wa, ha), (wb, hb) = (jnp.moveaxis(sides(x), -1, 0) for x in (a, b))
    # A hundredth of a pixel keeps the gradient of boxes without height finite, and small.
    ha, hb = jnp.maximum(ha, 0.01), jnp.maximum(hb, 0.01)
    v = 4 / math.pi**2 * (jnp.arctan(wb / hb) - jnp.arctan(wa / ha)) ** 2
    alpha = _divide(v, 1 - overlap + v)
    return overlap - distance - jax.lax.stop_gradient(alpha) * v
