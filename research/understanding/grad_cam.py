"""Grad-CAM: Selvaraju et al., "Grad-CAM: Visual explanations from deep networks", 2016."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.understanding.network import ImageNetwork, Images, layers_of
from research.understanding.target import Target


def grad_cam(
    network: ImageNetwork, target: Target, layer: str, images: Images, signed: bool = False
) -> Float[Array, "batch rows columns"]:
    """Computes ReLU(sum_k a_k A_k): maps A of a layer, each weighted by its mean gradient a_k.

    Equations 1 and 2.

    Args:
      target: whose score is differentiated.
      layer: gives maps [B, rows, columns, C].
      signed: without the ReLU.
    """
    shape = jax.eval_shape(lambda x: layers_of(network, x)[layer], images).shape

    def score(offset: Array) -> tuple[Array, Array]:
        layers = layers_of(network, images, changes={layer: lambda x: x + offset})
        return target.value(layers).sum(), layers[layer]

    gradient, maps = jax.grad(score, has_aux=True)(jnp.zeros(shape))
    weights = gradient.mean((1, 2), keepdims=True)  # [B, 1, 1, C]
    heat = (weights * maps).sum(-1)
    return heat if signed else jnp.maximum(heat, 0)
