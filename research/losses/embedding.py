"""The losses of --experiment=embedding, by name, each with its measures."""

from collections.abc import Mapping

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from research.errors import UserError
from research.losses.config import LossConfig
from research.losses.metric_pairs import (
    contrastive_loss,
    siamese_loss,
    supervised_contrastive_loss,
)
from research.losses.pairwise import spread
from research.losses.proxies import arcface_logits, proxy_nca_loss, softmax_logits
from research.losses.triplet import triplet_loss

COLLAPSED = 1e-3  # spread of unit vectors, below which all are as good as one
PROXY_LOSSES = ("softmax", "arcface", "proxy_nca")


def embedding_loss(
    options: LossConfig,
    outputs: Mapping[str, Array],
    classes: Int[Array, " row"],
    mask: Bool[Array, " row"],
    key: Array,
    axis: str | None = None,
) -> tuple[Float[Array, " row"], dict[str, Float[Array, " row"]]]:
    """Computes the loss of each example, and measures of it.

    Args:
      options: loss, mining, distance, margin and logit_scale, as `losses/config.py` has them.
      outputs: of research.nn.embedder.Embedder.
      classes: from 0; of the rows of proxies, if the loss has any.

    Returns:
      Beside the loss "spread", and "active" (share of triplets, or of negative pairs, that the
      loss still acts on) or "accuracy" (of pairs, of nearest others or of proxies).
    """
    x = outputs["embedding"]
    measures = {"spread": spread(x, mask, axis)}
    if options.loss == "triplet":
        loss, measures["active"] = triplet_loss(
            x,
            classes,
            mask,
            key,
            mining=options.mining,
            margin=options.margin,
            squared=options.distance == "squared",
            axis=axis,
        )
    elif options.loss == "contrastive":
        loss, measures["active"] = contrastive_loss(
            x, classes, mask, margin=options.margin, axis=axis
        )
    elif options.loss == "supcon":
        loss, measures["accuracy"] = supervised_contrastive_loss(
            x, classes, mask, scale=options.logit_scale, axis=axis
        )
    elif options.loss == "siamese":
        loss, measures["accuracy"] = siamese_loss(
            x, classes, mask, key, outputs["weights"], outputs["bias"], axis=axis
        )
    else:
        proxies, scale = outputs["proxies"], options.logit_scale
        plain = softmax_logits(x, proxies, scale)
        measures["accuracy"] = (plain.argmax(1) == classes).astype(jnp.float32)
        if options.loss == "proxy_nca":
            loss = proxy_nca_loss(x, proxies, classes, scale)
        elif options.loss == "arcface":
            logits = arcface_logits(x, proxies, classes, scale, options.margin)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, classes)
        else:
            loss = optax.softmax_cross_entropy_with_integer_labels(plain, classes)
    return loss, measures


def watch_for_collapse(options: LossConfig, means: Mapping[str, float]) -> str | None:
    """Returns a warning where all embeddings have become one point; None where they have not.

    Args:
      options: margin and stop_on_collapse.
      means: of the steps since the last log line, "train/spread" and "train/loss" among them.

    Raises:
      UserError: with the same words, under --stop_on_collapse.
    """
    if means["train/spread"] >= COLLAPSED:
        return None
    spread, value = means["train/spread"], means["train/loss"]
    message = (
        f"the embeddings have collapsed into one point: their spread is {spread:.1e}, the loss "
        f"{value:.3f} (--margin={options.margin:g}). Lower --learning_rate, raise --warmup, or "
        "mine easier triplets (--mining=semi_hard, batch_all)."
    )
    if options.stop_on_collapse:
        raise UserError(message)
    return message
