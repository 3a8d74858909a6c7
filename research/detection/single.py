"""Detectors of one object: localisation (presence, class, box) and landmarks (presence, points).

Batches hold one object at most; landmarks also "points" [B, K, 2], pixels.
"""

import jax
import jax.numpy as jnp

from research import models
from research.detection.config import DetectionConfig
from research.detection.detector import Batch, Detector, ForwardPass, Outputs, Setting
from research.errors import UserError
from research.geometry.boxes import convert
from research.losses.detection import (
    landmark_loss,
    localisation_loss,
    squared_localisation_loss,
)
from research.metrics import localisation as metrics


def make(config: DetectionConfig, setting: Setting) -> Detector:
    """Makes a detector of one object; see research/models/localisation.py."""
    points = config.landmarks if config.model == "landmarks" else 0
    if (
        config.box_loss == "squared"
        and not points
        and config.box_weight != DetectionConfig.box_weight
    ):
        raise UserError(
            f"--box_weight={config.box_weight:g}: --box_loss=squared sums all squares alike; leave "
            "one of them out."
        )
    model = models.create(
        config.model,
        num_classes=setting.num_classes,
        backbone=config.backbone,
        points=points,
    )
    height, width = setting.image_size
    sides = jnp.array([width, height], jnp.float32)

    def corners(box: jax.Array) -> jax.Array:
        """Converts boxes to (x0, y0, x1, y1) in pixels."""
        return convert(box * jnp.tile(sides, 2), "cxcywh", "xyxy")

    def said(outputs: Outputs) -> jax.Array:
        """Returns p_c, the classes' probabilities and the box, as shares of the image."""
        presence = jax.nn.sigmoid(outputs["presence"])[:, None]
        return jnp.concatenate([presence, jax.nn.softmax(outputs["logits"]), outputs["box"]], 1)

    def wanted(present: jax.Array, batch: Batch) -> jax.Array:
        """Returns the same of the object, if there is one."""
        box = convert(batch["boxes"][:, 0], "xyxy", "cxcywh") / jnp.tile(sides, 2)
        classes = jax.nn.one_hot(batch["classes"][:, 0], setting.num_classes)
        return jnp.concatenate([present[:, None].astype(jnp.float32), classes, box], 1)

    def loss(
        forward: ForwardPass, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        outputs = forward()
        present, known = metrics.presence(batch)
        if points:
            total, parts = landmark_loss(
                outputs["presence"], outputs["points"], present, batch["points"] / sides
            )
        elif config.box_loss == "squared":
            total = squared_localisation_loss(said(outputs), wanted(present, batch))
            parts = {"squared": total}
        else:
            total, parts = localisation_loss(
                outputs["presence"],
                corners(outputs["box"]),
                outputs["logits"],
                present,
                batch["boxes"][:, 0],
                batch["classes"][:, 0],
                box_loss=config.box_loss,
                box_weight=config.box_weight,
            )
        return total * known, {name: part * known for name, part in parts.items()}

    def predict(forward: ForwardPass, batch: Batch) -> Outputs:
        outputs = forward()
        presence = jax.nn.sigmoid(outputs["presence"])
        if points:
            found = outputs["points"] * sides
            box = jnp.concatenate([found.min(1), found.max(1)], axis=-1)
            label, score = jnp.zeros(len(box), jnp.int32), presence
            extra = {"points": found}
        else:
            box = corners(outputs["box"])
            label = outputs["logits"].argmax(-1).astype(jnp.int32)
            score = presence * jax.nn.softmax(outputs["logits"]).max(-1)
            evidence = outputs["presence"][:, None] + outputs["logits"]
            extra = {"box": box, "label": label, "evidence": evidence}
        return {
            "boxes": box[:, None],
            "scores": score[:, None],
            "classes": label[:, None],
            "valid": (presence > 0.5)[:, None],
            "presence": presence,
            "objectness": outputs["presence"],
            **extra,
        }

    measure = metrics.measure_points if points else metrics.measure_box
    names = ["point_distance"] if points else ["iou", "class_accuracy"]
    protocol = {name: metrics.PROTOCOL[name] for name in (*names, "presence_accuracy")}
    best = ("point_distance", "min") if points else ("iou", "max")
    return Detector(model, loss, predict, measure, protocol, best, classifies=not points)
