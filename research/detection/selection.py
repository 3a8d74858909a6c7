"""Which of many boxes are told: the flags of suppression, for every detector alike."""

import jax

from research.detection.config import DetectionConfig
from research.geometry.nms import detect


def select(
    config: DetectionConfig, boxes: jax.Array, scores: jax.Array, image_size: tuple[int, int]
) -> dict[str, jax.Array]:
    """`research.geometry.nms.detect` as the flags say."""
    return detect(
        boxes,
        scores,
        image_size,
        count=config.max_detections,
        candidates=3 * config.max_detections,
        least=config.score_threshold,
        threshold=config.nms_threshold,
        sigma=config.soft_nms,
        agnostic=config.class_agnostic,
    )
