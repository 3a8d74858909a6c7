"""Options that all detectors share: the choice of boxes to report and of maps to use."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from research.detection.config import DetectionConfig
from research.errors import UserError
from research.geometry.nms import detect

# Pairs of a box and a class that enter suppression, for each detection that may be reported: all
# cells around an object find it, perhaps with several classes.
CANDIDATES = 40


def select(
    config: DetectionConfig, boxes: jax.Array, scores: jax.Array, image_size: tuple[int, int]
) -> dict[str, jax.Array]:
    """Calls `research.geometry.nms.detect` with the options of the flags."""
    return detect(
        boxes,
        scores,
        image_size,
        count=config.max_detections,
        candidates=CANDIDATES * config.max_detections,
        least=config.score_threshold,
        threshold=config.nms_threshold,
        sigma=config.soft_nms,
        agnostic=config.class_agnostic,
    )


def evidence(
    logits: Float[Array, "batch region _"],
    real: Bool[Array, "batch region 1"] | None = None,
) -> dict[str, Array]:
    """Returns "objectness" and "evidence" of `Detector.predict`, where class 0 is background.

    They are log-odds against background, which leaves the softmax unchanged.

    Args:
      real: regions that count.
    """
    odds = logits[..., 1:] - logits[..., :1]
    if real is not None:
        odds = jnp.where(real, odds, -jnp.inf)
    return {"objectness": jax.nn.logsumexp(odds, axis=-1).max(1), "evidence": odds.max(1)}


def strides_of(config: DetectionConfig, own: tuple[int, ...]) -> tuple[int, ...]:
    """Returns --strides as numbers, or the detector's own. Raises UserError for other texts."""
    if not all(text.isdigit() and int(text) for text in config.strides):
        raise UserError(
            f"--strides={','.join(config.strides)}: are pixels a cell, such as 8,16,32."
        )
    return tuple(map(int, config.strides)) or own
