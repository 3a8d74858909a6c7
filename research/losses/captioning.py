"""Losses of captioners, one value an image."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from research.data.text.tokens import PADDING
from research.losses.classification import softmax_cross_entropy


def caption_cross_entropy(
    logits: Float[Array, "batch captions length vocabulary"],
    tokens: Int[Array, "batch captions length"],
    label_smoothing: float = 0.0,
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """Returns mean -log p of an image's words, nats, and the share of words predicted correctly.

    Each word is predicted from the true words before it. Padding does not count.
    """
    weight = (tokens != PADDING).astype(jnp.float32)
    targets = jax.nn.one_hot(tokens, logits.shape[-1])
    losses = softmax_cross_entropy(
        logits.reshape(-1, logits.shape[-1]),
        targets.reshape(-1, logits.shape[-1]),
        label_smoothing,
    ).reshape(tokens.shape)
    right = (logits.argmax(-1) == tokens).astype(jnp.float32)
    count = jnp.maximum(weight.sum((1, 2)), 1.0)
    return (losses * weight).sum((1, 2)) / count, (right * weight).sum((1, 2)) / count


def attention_penalty(
    attention: Float[Array, "batch captions length place"],
    tokens: Int[Array, "batch captions length"],
) -> Float[Array, " batch"]:
    """Returns the sum over places of (1 - their attention over words)^2, the mean over captions.

    Every place should get attention in the course of a caption: Xu et al. 2015, equation 14.
    """
    weight = (tokens != PADDING).astype(attention.dtype)  # [B, K, L]
    looked = (attention * weight[..., None]).sum(2)  # [B, K, P]
    said = weight.any(-1)  # [B, K]
    penalty = ((1 - looked) ** 2).sum(-1) * said
    return penalty.sum(1) / jnp.maximum(said.sum(1), 1)
