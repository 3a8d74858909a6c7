"""Losses of segmentation: one value for each example, over its pixels that have a class."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Integer

from research.errors import UserError, choose

Logits = Float[Array, "batch height width classes"]
Labels = Integer[Array, "batch height width"]
Valid = Bool[Array, "batch height width"]
Weight = Float[Array, "batch height width"]
PerExample = Float[Array, " batch"]
Loss = Callable[[Logits, Labels, Valid, Weight], PerExample]


def log_probability(logits: Logits, labels: Labels) -> Float[Array, "batch height width"]:
    """Returns log p of each pixel's class; a label beyond the classes gives -log Z."""
    # A product with one-hot labels fuses; a gather's gradient is a scatter, slow on CPU.
    chosen = (jax.nn.one_hot(labels, logits.shape[-1]) * logits).sum(-1)
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def pixel_mean(values: Float[Array, "batch height width"], valid: Valid) -> PerExample:
    """Returns the mean over each example's valid pixels; 0 if it has none."""
    return jnp.where(valid, values, 0.0).sum((1, 2)) / jnp.maximum(valid.sum((1, 2)), 1)


def _real(weight: Weight, valid: Valid) -> Weight:
    """Returns the weights, 0 at invalid pixels: NaN there would give 0 x NaN in the gradient."""
    return jnp.where(valid, weight, 0.0)


def cross_entropy(logits: Logits, labels: Labels, valid: Valid, weight: Weight) -> PerExample:
    """Returns -w(x) log p(x): Ronneberger et al. 2015, equation 1, as a mean over valid pixels."""
    return pixel_mean(-_real(weight, valid) * log_probability(logits, labels), valid)


def focal(
    logits: Logits, labels: Labels, valid: Valid, weight: Weight, gamma: float = 2.0
) -> PerExample:
    """Returns -w(x) (1 - p(x))^gamma log p(x): Lin et al., "Focal loss", 2017, a mean over pixels.

    Pixels that are nearly right count for little; gamma 0 is cross-entropy.
    """
    log_p = log_probability(logits, labels)
    # 1 - p, exact where p is nearly 1; the power's gradient stays finite there.
    wrong = jnp.maximum(-jnp.expm1(log_p), jnp.finfo(jnp.float32).tiny)
    return pixel_mean(-_real(weight, valid) * wrong**gamma * log_p, valid)


def dice(logits: Logits, labels: Labels, valid: Valid, weight: Weight) -> PerExample:
    """Returns 1 - mean over classes of 2 sum p g / (sum p + sum g), with g the one-hot truth.

    Soft Dice of Milletari et al., "V-Net", 2016, without their squares. The mean is over the
    classes that the example's valid pixels have; weights have no part in it.
    """
    inside = valid[..., None]
    p = jnp.where(inside, jax.nn.softmax(logits), 0.0)
    g = jnp.where(inside, jax.nn.one_hot(labels, logits.shape[-1]), 0.0)
    overlap, predicted, true = (x.sum((1, 2)) for x in (p * g, p, g))  # [B, C]
    occurs = true > 0
    score = jnp.where(occurs, 2 * overlap / jnp.where(occurs, predicted + true, 1.0), 0.0)
    count = occurs.sum(-1)
    return jnp.where(count > 0, 1 - score.sum(-1) / jnp.maximum(count, 1), 0.0)


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "dice": dice, "focal": focal}


def parse(text: str) -> Loss:
    """Parses the sum of losses in a flag: "cross_entropy+dice", "focal+0.5*dice".

    Raises:
      UserError: for an unknown name, or a factor that is no positive number.
    """
    terms: list[tuple[float, Loss]] = []
    for term in text.split("+"):
        factor, times, name = term.strip().rpartition("*")
        try:
            value = float(factor) if times else 1.0
        except ValueError:
            value = 0.0
        if not value > 0:
            raise UserError(f"--loss={text}: the factor {factor!r} is no positive number.")
        terms.append((value, choose(name.strip(), LOSSES, "loss")))

    def total(logits: Logits, labels: Labels, valid: Valid, weight: Weight) -> PerExample:
        values = [factor * loss(logits, labels, valid, weight) for factor, loss in terms]
        return functools.reduce(jnp.add, values)

    return total


def balanced_weights(pixels: Int[np.ndarray, " classes"]) -> Float32[np.ndarray, " classes"]:
    """Returns class weights proportional to 1 / sqrt(pixels), of mean 1 over all pixels.

    The root keeps a rare class from drowning the others: with 1 / pixels, a class of one pixel in
    ten thousand weighs as much as the background. A class that never occurs gets 0.
    """
    weights = np.where(pixels > 0, 1 / np.sqrt(np.maximum(pixels, 1)), 0.0)
    return (weights * pixels.sum() / (weights * pixels).sum()).astype(np.float32)
