"""Losses of classification: one value for each example, never a mean."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float


def softmax_cross_entropy(
    logits: Float[Array, "batch classes"],
    targets: Float[Array, "batch classes"],
    smoothing: float = 0.0,
) -> Float[Array, " batch"]:
    """Returns -Σ_k q_k log p_k with p = softmax(logits) and q = (1 - s) target + s / classes.

    Label smoothing as in Szegedy et al., "Rethinking the Inception architecture", 2016, section 7.

    Args:
      targets: probabilities of the classes, rows that sum to one: one-hot, or soft after mixup.
      smoothing: s, in [0, 1).

    Returns:
      The loss of each example in nats, computed in float32.
    """
    q = optax.smooth_labels(targets, smoothing)
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), q)
