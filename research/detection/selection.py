"""What flags say to every detector alike: which boxes are told, which maps are worked on."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from research.detection.config import DetectionConfig
from research.errors import UserError
from research.geometry.nms import detect

# Pairs of a box and a class that enter suppression, for each detection that may be told: cells
# around an object all find it, and may say several classes.
CANDIDATES = 40


def select(
    config: DetectionConfig, boxes: jax.Array, scores: jax.Array, image_size: tuple[int, int]
) -> dict[str, jax.Array]:
    """`research.geometry.nms.detect` as the flags say."""
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
    """`Detector.predict`'s "objectness" and "evidence", from regions whose class 0 is background.

    Log-odds against background: what softmax makes of them does not change.

    Args:
      real: regions that count.
    """
    odds = logits[..., 1:] - logits[..., :1]
    if real is not None:
        odds = jnp.where(real, odds, -jnp.inf)
    return {"objectness": jax.nn.logsumexp(odds, axis=-1).max(1), "evidence": odds.max(1)}


def strides_of(config: DetectionConfig, own: tuple[int, ...]) -> tuple[int, ...]:
    """--strides as numbers, or the detector's own. Raises UserError for what are none."""
    if not all(text.isdigit() and int(text) for text in config.strides):
        raise UserError(
            f"--strides={','.join(config.strides)}: are pixels a cell, such as 8,16,32."
        )
    return tuple(map(int, config.strides)) or own
