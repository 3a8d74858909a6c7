"""Losses against one learned vector for each training class; examples are not compared."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def normalise(x: Float[Array, "*shape d"]) -> Float[Array, "*shape d"]:
    """Scales vectors to length 1; zeros stay zero, with a finite gradient."""
    return x * jax.lax.rsqrt(jnp.maximum((x**2).sum(-1, keepdims=True), 1e-12))


def cosines_of(a: Float[Array, "n d"], b: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Returns the cosines of all rows of a with all of b, with all digits of float32.

    Rounded to a GPU's TF32, the cosine of a small angle no longer falls as the angle grows.
    """
    return jnp.matmul(normalise(a), normalise(b).T, precision="highest")


def softmax_logits(
    embeddings: Float[Array, "batch d"], weights: Float[Array, "classes d"], scale: float
) -> Float[Array, "batch classes"]:
    """Returns scale cos(embedding, weight): Wang et al., "NormFace", 2017, equation 5."""
    return scale * cosines_of(embeddings, weights)


def arcface_logits(
    embeddings: Float[Array, "batch d"],
    weights: Float[Array, "classes d"],
    labels: Int[Array, " batch"],
    scale: float,
    margin: float,
) -> Float[Array, "batch classes"]:
    """Returns scale cos(θ + margin) for the true class, else scale cos θ: Deng et al. 2019, eq. 3.

    Beyond θ = π - margin, where cos(θ + margin) would rise again, cos θ - sin(margin) margin takes
    over, as in the authors' code.

    Args:
      margin: radians.
    """
    cosines = cosines_of(embeddings, weights)
    # The gradient of the sine is infinite at cosines of ±1.
    sines = jnp.sqrt(jnp.maximum(1.0 - cosines**2, 1e-7))
    shifted = cosines * jnp.cos(margin) - sines * jnp.sin(margin)
    beyond = cosines <= -jnp.cos(margin)
    shifted = jnp.where(beyond, cosines - margin * jnp.sin(margin), shifted)
    true = jax.nn.one_hot(labels, len(weights), dtype=bool)
    return scale * jnp.where(true, shifted, cosines)


def proxy_nca_loss(
    embeddings: Float[Array, "batch d"],
    proxies: Float[Array, "classes d"],
    labels: Int[Array, " batch"],
    scale: float,
) -> Float[Array, " batch"]:
    """Returns -log exp(-d(x, p_y)) / Σ_{z ≠ y} exp(-d(x, p_z)): Movshovitz-Attias 2017, eq. 5.

    d is scale times the squared distance of embeddings and proxies of length 1. The sum leaves the
    true class out, so the loss may be negative.
    """
    cosines = cosines_of(embeddings, proxies)
    distance = scale * (2.0 - 2.0 * cosines)
    true = jax.nn.one_hot(labels, len(proxies), dtype=bool)
    others = jax.nn.logsumexp(jnp.where(true, -jnp.inf, -distance), axis=1)
    return jnp.where(true, distance, 0.0).sum(1) + others
