"""YOLO: with and without anchors, on one stride or several; and its first version."""

from functools import partial
from typing import Any

import jax
import numpy as np

from research import models
from research.detection.config import DetectionConfig
from research.detection.detector import Batch, Detector, ForwardPass, Outputs, Setting
from research.detection.selection import select, strides_of
from research.errors import UserError
from research.losses.detection import responsible, yolo_loss, yolo_v1_loss
from research.models import yolo


def make(config: DetectionConfig, setting: Setting) -> Detector:
    """Makes a YOLO; see research/models/yolo.py."""
    first = config.model == "yolo_v1"
    strides = strides_of(config, (8,))
    if not first and len(setting.sizes) % len(strides):
        raise UserError(
            f"--anchors={len(setting.sizes)}: must be a multiple of the {len(strides)} --strides."
        )
    if setting.sizes and not first:
        # Sorted from small to large, they are shared out from the finest stride to the coarsest.
        priors = np.array_split(np.array(setting.sizes, np.float32), len(strides))
    else:
        side = [2.5 * stride for stride in strides]
        priors = [np.full((2 if first else 1, 2), x, np.float32) for x in side]
    predictors = yolo.make_predictors(
        setting.image_size, strides, priors, 0.5 if first else config.reach
    )
    model = models.create(
        "yolo",
        num_classes=setting.num_classes,
        backbone=config.backbone,
        strides=strides,
        boxes=len(priors[0]),
        width=config.head_width,
        depth=config.head_depth,
    )

    def loss(
        forward: ForwardPass, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        raw = forward()
        decoded = yolo.decode(raw, predictors)
        assigned = jax.vmap(partial(yolo.assign, predictors))(
            batch["boxes"], batch["valid"], batch["crowd"]
        )
        truth: Any = (batch["boxes"], batch["classes"])
        if first:
            assigned = responsible(assigned, decoded, batch["boxes"], 2)
            return yolo_v1_loss(raw, decoded, assigned, *truth, image_size=setting.image_size)
        return yolo_loss(
            raw, decoded, assigned, *truth, box_loss=config.box_loss, box_weight=config.box_weight
        )

    def predict(forward: ForwardPass, batch: Batch) -> Outputs:
        raw = forward()
        found = select(
            config, yolo.decode(raw, predictors), yolo.scores_of(raw), setting.image_size
        )
        objectness, classes = raw[..., 4:5], raw[..., 5:]
        anywhere = {"objectness": objectness[..., 0], "evidence": objectness + classes}
        return found | {name: logits.max(1) for name, logits in anywhere.items()}

    return Detector(model, loss, predict)
