"""Metrics of one object's box or points, on the device."""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array

from research.geometry.boxes import iou

PROTOCOL = {
    "iou": "mean IoU of true and regressed box, over images with an object, whatever p_c says",
    "class_accuracy": "share of images with an object whose class has the highest probability",
    "presence_accuracy": "share of images for which p_c > 0.5 says rightly whether there is an "
    "object; those of a crowd or a difficult object alone do not count, here and above",
    "point_distance": "mean distance of true and regressed points in pixels of the model's image, "
    "over images with an object, whatever p_c says",
}
Measures = dict[str, tuple[Array, Array]]


def presence(batch: Mapping[str, Array]) -> tuple[Array, Array]:
    """Returns [B] each: whether the image holds an object to find, and whether that is known.

    It is unknown where the image holds only a crowd or a difficult object.
    """
    present = (batch["valid"] & ~batch["crowd"]).any(1)
    return present, present | ~batch["valid"].any(1)


def _presence(
    outputs: Mapping[str, Array], batch: Mapping[str, Array]
) -> tuple[Array, tuple[Array, Array]]:
    """Returns weight 1 for images with an object; whether p_c is right, and the weight of that."""
    present, known = presence(batch)
    right = (outputs["presence"] > 0.5) == present
    return present.astype(jnp.float32), (right.astype(jnp.float32), known.astype(jnp.float32))


def measure_box(outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> Measures:
    """Computes iou, class_accuracy, presence_accuracy of each image.

    Args:
      outputs: "presence" [B], a probability; "box" [B, 4], pixels; "label" [B].
    """
    present, right = _presence(outputs, batch)
    overlap = jnp.where(present > 0, iou(outputs["box"], batch["boxes"][:, 0]), 0.0)
    same = (outputs["label"] == batch["classes"][:, 0]).astype(jnp.float32)
    return {
        "iou": (overlap, present),
        "class_accuracy": (same, present),
        "presence_accuracy": right,
    }


def measure_points(outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> Measures:
    """Computes point_distance, presence_accuracy of each image.

    Args:
      outputs: "presence" [B], a probability; "points" [B, K, 2], pixels.
    """
    present, right = _presence(outputs, batch)
    apart = jnp.linalg.norm(outputs["points"] - batch["points"], axis=-1).mean(1)
    return {
        "point_distance": (jnp.where(present > 0, apart, 0.0), present),
        "presence_accuracy": right,
    }
