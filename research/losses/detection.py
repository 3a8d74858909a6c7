"""Losses of detection: one value an image, never a mean over images."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from research.geometry.assignment import IGNORED, POSITIVE, Assignment
from research.geometry.boxes import ciou, giou, iou

OVERLAPS = {"giou": giou, "ciou": ciou, "iou": iou}


def binary_cross_entropy(
    logits: Float[Array, "*n"], targets: Float[Array, "*n"]
) -> Float[Array, "*n"]:
    """-t log p - (1 - t) log(1 - p) with p = sigmoid(logit), nats."""
    return jnp.maximum(logits, 0) - logits * targets + jnp.log1p(jnp.exp(-jnp.abs(logits)))


def cross_entropy(
    logits: Float[Array, "*n classes"], labels: Int[Array, "*n"]
) -> Float[Array, "*n"]:
    """-log softmax(logits) of the label, nats."""
    true = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - true


def smooth_l1(x: Float[Array, "*n"], width: float = 1.0) -> Float[Array, "*n"]:
    """x² / (2 width) within `width` of 0, |x| - width / 2 outside: Girshick 2015, equation 3."""
    size = jnp.abs(x)
    return jnp.where(size < width, x**2 / (2 * width), size - width / 2)


def mean_where(
    values: Float[Array, "batch n"], chosen: Bool[Array, "batch n"]
) -> Float[Array, " batch"]:
    """Each row's mean over what is chosen, 0 where nothing is; the others may be NaN."""
    count = jnp.maximum(chosen.sum(-1), 1)
    return jnp.where(chosen, values, 0.0).sum(-1) / count


def yolo_loss(
    raw: Float[Array, "batch predictor outputs"],
    decoded: Float[Array, "batch predictor 4"],
    assigned: Assignment,
    boxes: Float[Array, "batch object 4"],
    classes: Int[Array, "batch object"],
    *,
    overlap: str = "giou",
    box_weight: float = 2.0,
) -> tuple[Float[Array, " batch"], dict[str, Float[Array, " batch"]]]:
    """Objectness of all predictors, box and class of those that answer for an object.

    Objectness is cross-entropy with the IoU that the predictor's box has now (0 where it answers
    for nothing), summed and divided by the objects' predictors, so that a score says how good a box
    is; "Confidence is Pr(Object) * IoU" (Redmon et al. 2016, section 2). The box loss is 1 - GIoU
    or 1 - CIoU, the class loss softmax cross-entropy.

    Args:
      raw: x, y, width, height, objectness, classes; see research/models/yolo.py.
      assigned: [batch, predictor] each.
      boxes: of the objects; padding may hold anything, NaN too.

    Returns:
      The loss of each image, and its parts: {"box", "objectness", "class"}.
    """
    positive = assigned.kind == POSITIVE
    target = jnp.take_along_axis(boxes, assigned.target[..., None], axis=1)
    # What answers for nothing gets its own box as target, lest padding spoil the gradient.
    target = jnp.where(positive[..., None], target, jax.lax.stop_gradient(decoded))
    label = jnp.take_along_axis(classes, assigned.target, axis=1)
    label = jnp.where(positive, label, 0)

    quality = jax.lax.stop_gradient(jnp.where(positive, iou(decoded, target), 0.0))
    objectness = binary_cross_entropy(raw[..., 4], quality)
    objectness = jnp.where(assigned.kind == IGNORED, 0.0, objectness).sum(1)
    parts = {
        "objectness": objectness / jnp.maximum(positive.sum(1), 1),
        "box": mean_where(1 - OVERLAPS[overlap](decoded, target), positive),
        "class": mean_where(cross_entropy(raw[..., 5:], label), positive),
    }
    return parts["objectness"] + box_weight * parts["box"] + parts["class"], parts
