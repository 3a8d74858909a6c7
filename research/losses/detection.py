"""Losses of detection: one value an image, never a mean over images."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from research.geometry.assignment import IGNORED, NEGATIVE, POSITIVE, Assignment
from research.geometry.boxes import ciou, giou, iou

NEAR = 0.01  # of an image's side: smaller differences of points are squared
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def relative_moves(boxes: Float[Array, "*n 4"], target: Float[Array, "*n 4"]) -> Array:
    """Returns how boxes differ from their targets: centre in the target's sides, log of sides.

    The parameters of Girshick et al. 2014, appendix C, here relative to the target and not to the
    region that a box was moved from; the differences of the sides are the same.
    """
    true = jnp.maximum(target[..., 2:] - target[..., :2], 0.01)
    size = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0.01)
    middle = (boxes[..., :2] + boxes[..., 2:] - target[..., :2] - target[..., 2:]) / 2
    return jnp.concatenate([middle / true, jnp.log(size / true)], axis=-1)


# (boxes, their targets) -> the loss of each.
BOX_LOSSES: dict[str, Callable[[Array, Array], Array]] = {
    "giou": lambda boxes, target: 1 - giou(boxes, target),
    "ciou": lambda boxes, target: 1 - ciou(boxes, target),
    # Girshick 2015, equation 3
    "smooth_l1": lambda boxes, target: optax.huber_loss(relative_moves(boxes, target)).sum(-1),
    "squared": lambda boxes, target: (relative_moves(boxes, target) ** 2).sum(-1),
}


def mean_where(
    values: Float[Array, "batch n"], chosen: Bool[Array, "batch n"]
) -> Float[Array, " batch"]:
    """Returns each row's mean over chosen values, 0 if there are none; the others may be NaN."""
    count = jnp.maximum(chosen.sum(-1), 1)
    return jnp.where(chosen, values, 0.0).sum(-1) / count


def yolo_loss(
    raw: Float[Array, "batch predictor outputs"],
    decoded: Float[Array, "batch predictor 4"],
    assigned: Assignment,
    boxes: Float[Array, "batch object 4"],
    classes: Int[Array, "batch object"],
    *,
    box_loss: str = "giou",
    box_weight: float = 2.0,
) -> tuple[Float[Array, " batch"], dict[str, Float[Array, " batch"]]]:
    """Computes objectness loss of all predictors, box and class loss of those with an object.

    Objectness is cross-entropy with the present IoU of the predictor's box (0 without an object),
    summed and divided by the number of predictors with an object, so that a score measures a box's
    quality; "Confidence is Pr(Object) * IoU" (Redmon et al. 2016, section 2). The box loss is one
    of BOX_LOSSES, the class loss softmax cross-entropy.

    Args:
      raw: x, y, width, height, objectness, classes; see research/models/yolo.py.
      assigned: [batch, predictor] each.
      boxes: of the objects; padding may hold anything, NaN too.

    Returns:
      The loss of each image, and its parts: {"box", "objectness", "class"}.
    """
    positive = assigned.kind == POSITIVE
    target = _targets(boxes, assigned, positive, decoded)
    label = jnp.take_along_axis(classes, assigned.target, axis=1)
    label = jnp.where(positive, label, 0)

    quality = jax.lax.stop_gradient(jnp.where(positive, iou(decoded, target), 0.0))
    objectness = optax.sigmoid_binary_cross_entropy(raw[..., 4], quality)
    objectness = jnp.where(assigned.kind == IGNORED, 0.0, objectness).sum(1)
    parts = {
        "objectness": objectness / jnp.maximum(positive.sum(1), 1),
        "box": mean_where(BOX_LOSSES[box_loss](decoded, target), positive),
        "class": mean_where(
            optax.softmax_cross_entropy_with_integer_labels(raw[..., 5:], label), positive
        ),
    }
    return parts["objectness"] + box_weight * parts["box"] + parts["class"], parts


def proposal_loss(
    objectness: Float[Array, "batch anchor"],
    proposed: Float[Array, "batch anchor 4"],
    assigned: Assignment,
    sampled: Bool[Array, "batch anchor"],
    boxes: Float[Array, "batch object 4"],
    *,
    box_loss: str = "giou",
) -> tuple[Float[Array, " batch"], dict[str, Float[Array, " batch"]]]:
    """Computes a region proposal network's losses, objectness and box: Ren et al. 2015, equation 1.

    With 1 - GIoU in the place of smooth L1 by default. Only sampled anchors take part; in the box
    loss, those of them with an object.
    """
    positive = sampled & (assigned.kind == POSITIVE)
    target = _targets(boxes, assigned, positive, proposed)
    parts = {
        "proposal_object": mean_where(
            optax.sigmoid_binary_cross_entropy(objectness, positive.astype(jnp.float32)), sampled
        ),
        "proposal_box": mean_where(BOX_LOSSES[box_loss](proposed, target), positive),
    }
    return parts["proposal_object"] + parts["proposal_box"], parts


def region_loss(
    logits: Float[Array, "batch region outputs"],
    moved: Float[Array, "batch region 4"],
    assigned: Assignment,
    boxes: Float[Array, "batch object 4"],
    classes: Int[Array, "batch object"],
    *,
    box_loss: str = "giou",
) -> tuple[Float[Array, " batch"], dict[str, Float[Array, " batch"]]]:
    """Computes class loss (0 is background) of regions that count, box loss of those with objects.

    Girshick 2015, equation 1, by default with 1 - GIoU in the place of smooth L1.
    """
    positive = assigned.kind == POSITIVE
    label = jnp.take_along_axis(classes, assigned.target, axis=1) + 1
    label = jnp.where(positive, label, 0)
    target = _targets(boxes, assigned, positive, moved)
    parts = {
        "class": mean_where(
            optax.softmax_cross_entropy_with_integer_labels(logits, label), assigned.kind != IGNORED
        ),
        "box": mean_where(BOX_LOSSES[box_loss](moved, target), positive),
    }
    return parts["class"] + parts["box"], parts


def _targets(boxes: Array, assigned: Assignment, positive: Array, own: Array) -> Array:
    """Returns each prediction's true box; if there is none, its own, so gradients are finite."""
    target = jnp.take_along_axis(boxes, assigned.target[..., None], axis=1)
    return jnp.where(positive[..., None], target, jax.lax.stop_gradient(own))


def localisation_loss(
    presence: Float[Array, " batch"],
    box: Float[Array, "batch 4"],
    logits: Float[Array, "batch classes"],
    present: Bool[Array, " batch"],
    true_box: Float[Array, "batch 4"],
    label: Int[Array, " batch"],
    *,
    box_loss: str = "giou",
    box_weight: float = 2.0,
) -> tuple[Float[Array, " batch"], dict[str, Float[Array, " batch"]]]:
    """Computes losses of an object's presence, and of its box and class if it is there.

    The target of Redmon et al. 2016 for one object: (p_c, b_x, b_y, b_h, b_w, c_1, ..., c_n).
    Without an object, boxes and classes are ignored, even NaN.

    Args:
      presence: logit of p_c.
    """
    there = present[:, None]
    true_box = jnp.where(there, true_box, jax.lax.stop_gradient(box))
    label = jnp.where(present, label, 0)
    parts = {
        "presence": optax.sigmoid_binary_cross_entropy(presence, present.astype(jnp.float32)),
        "box": mean_where(BOX_LOSSES[box_loss](box, true_box)[:, None], there),
        "class": mean_where(
            optax.softmax_cross_entropy_with_integer_labels(logits, label)[:, None], there
        ),
    }
    return parts["presence"] + box_weight * parts["box"] + parts["class"], parts


def squared_localisation_loss(
    outputs: Float[Array, "batch entry"], target: Float[Array, "batch entry"]
) -> Float[Array, " batch"]:
    """Sums squared errors of (p_c, c_1, ..., c_n, b_x, b_y, b_h, b_w), where p_c is 1; else p_c's.

    The first loss of courses on detection: what the others are where nothing is does not count,
    even NaN.
    """
    there = target[:, :1] > 0.5
    counts = there | (jnp.arange(target.shape[1]) == 0)
    said, wanted = jnp.where(counts, outputs, 0.0), jnp.where(counts, target, 0.0)
    return ((said - wanted) ** 2).sum(1)


def landmark_loss(
    presence: Float[Array, " batch"],
    points: Float[Array, "batch point 2"],
    present: Bool[Array, " batch"],
    true_points: Float[Array, "batch point 2"],
    *,
    point_weight: float = 10.0,
) -> tuple[Float[Array, " batch"], dict[str, Float[Array, " batch"]]]:
    """Computes losses of an object's presence, and smooth L1 of its points if it is there.

    Args:
      presence: logit of p_c.
      points: as shares of the image's sides; differences below a hundredth count as squares.
      true_points: those outside the image do not count.
    """
    seen = present[:, None] & ((true_points >= 0) & (true_points <= 1)).all(-1)
    true_points = jnp.where(seen[..., None], true_points, jax.lax.stop_gradient(points))
    # Smooth L1, x² / (2 width) within `width` of 0 (Girshick 2015, equation 3), is Huber's / width.
    away = optax.huber_loss(points, true_points, delta=NEAR) / NEAR
    parts = {
        "presence": optax.sigmoid_binary_cross_entropy(presence, present.astype(jnp.float32)),
        "points": mean_where(away.sum(-1), seen),
    }
    return parts["presence"] + point_weight * parts["points"], parts


def responsible(
    assigned: Assignment,
    decoded: Float[Array, "batch predictor 4"],
    boxes: Float[Array, "batch object 4"],
    count: int,
) -> Assignment:
    """Assigns a cell's object to the one of its `count` boxes that overlaps it most now.

    Redmon et al. 2016, section 2.2. The others of the cell are negative. Of equals, the first.
    """
    positive = assigned.kind == POSITIVE
    target = _targets(boxes, assigned, positive, decoded)
    overlap = jax.lax.stop_gradient(jnp.where(positive, iou(decoded, target), -1.0))
    by_cell = overlap.reshape(len(overlap), -1, count)
    best = jnp.arange(count) == by_cell.argmax(-1, keepdims=True)
    kind = jnp.where(positive & ~best.reshape(positive.shape), NEGATIVE, assigned.kind)
    return Assignment(kind, assigned.target)


def yolo_v1_loss(
    raw: Float[Array, "batch predictor outputs"],
    decoded: Float[Array, "batch predictor 4"],
    assigned: Assignment,
    boxes: Float[Array, "batch object 4"],
    classes: Int[Array, "batch object"],
    *,
    image_size: tuple[int, int],
) -> tuple[Float[Array, " batch"], dict[str, Float[Array, " batch"]]]:
    """Computes sums of squared errors: Redmon et al. 2016, equation 3.

    5 x the error of centre and root of the sides, as shares of the image's; the error of the
    confidence against IoU, x 0.5 without an object; the error of class probabilities, here
    those of the responsible box. Centres are counted in shares of the image, not of the cell.
    """
    positive = assigned.kind == POSITIVE
    target = _targets(boxes, assigned, positive, decoded)
    height, width = image_size
    sides = jnp.array([width, height], jnp.float32)

    def parameters(x: Array) -> Array:
        middle = (x[..., :2] + x[..., 2:]) / 2 / sides
        size = jnp.maximum((x[..., 2:] - x[..., :2]) / sides, 1e-4)
        return jnp.concatenate([middle, jnp.sqrt(size)], axis=-1)

    quality = jax.lax.stop_gradient(jnp.where(positive, iou(decoded, target), 0.0))
    confidence = (jax.nn.sigmoid(raw[..., 4]) - quality) ** 2
    confidence = jnp.where(positive, confidence, 0.5 * confidence)
    one_hot = jax.nn.one_hot(
        jnp.take_along_axis(classes, assigned.target, axis=1), raw.shape[-1] - 5
    )
    wrong = ((jax.nn.softmax(raw[..., 5:]) - one_hot) ** 2).sum(-1)
    off = ((parameters(decoded) - parameters(target)) ** 2).sum(-1)
    parts = {
        "objectness": jnp.where(assigned.kind == IGNORED, 0.0, confidence).sum(1),
        "box": jnp.where(positive, off, 0.0).sum(1),
        "class": jnp.where(positive, wrong, 0.0).sum(1),
    }
    return parts["objectness"] + 5.0 * parts["box"] + parts["class"], parts
