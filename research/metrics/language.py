"""Metrics of a model of the next character."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from research.experiment import Batch, Measures


def compared(
    log_p: Float[Array, "batch time characters"], batch: Batch
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """Returns the mean -log p of the characters that follow, nats, and the share guessed right.

    Args:
      log_p: log-probabilities of the character after each.
      batch: "tokens" [batch, time + 1], and "counted" [batch, time]: which of them count.
    """
    follows = batch["tokens"][:, 1:]
    right = (log_p.argmax(-1) == follows).astype(jnp.float32)
    nats = -jnp.take_along_axis(log_p, follows[..., None], -1)[..., 0]
    counted = jnp.asarray(batch["counted"])
    return nats.mean(1, where=counted), right.mean(1, where=counted)


def measure(log_p: Float[Array, "batch time characters"], batch: Batch) -> Measures:
    """Returns the value and weight of each metric; each character counts the same."""
    nats, right = compared(log_p, batch)
    counted = jnp.asarray(batch["counted"]).sum(1).astype(jnp.float32)
    return {
        "cross_entropy": (nats, counted),
        "bits_per_character": (nats / jnp.log(2.0), counted),
        "accuracy": (right, counted),
    }


def protocol(length: int, held_out: float) -> dict[str, str]:
    """Returns how each metric is computed.

    Args:
      length: characters of a window.
      held_out: share of the text, its end, that is only evaluated on.
    """
    where = "the text that was learned"
    if held_out:
        where = f"the last {100 * held_out:g} % of the text, never trained on"
    how = f"windows of {length} characters of {where}, each from a blank state"
    return {
        "cross_entropy": f"mean -log probability of the next character, nats; {how}",
        "bits_per_character": f"the same in bits; {how}",
        "accuracy": f"share of characters that were the most probable; {how}",
    }
