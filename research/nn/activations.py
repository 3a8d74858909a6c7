"""Activation functions by the name that a flag gives; every model takes one as an argument."""

from collections.abc import Callable

import flax.linen as nn
from jax import Array

Activation = Callable[[Array], Array]


def scaled_tanh(x: Array) -> Array:
    """Computes 1.7159 tanh(2 x / 3): f(1) = 1 and f(-1) = -1; LeCun et al. 1998, appendix A."""
    return 1.7159 * nn.tanh(2 / 3 * x)


ACTIVATIONS: dict[str, Activation] = {
    "sigmoid": nn.sigmoid,
    "tanh": nn.tanh,
    "scaled_tanh": scaled_tanh,  # LeNet-5
    "relu": nn.relu,  # Nair and Hinton 2010
    "relu6": nn.relu6,  # min(max(x, 0), 6); MobileNet
    "leaky_relu": nn.leaky_relu,  # slope 0.01 below zero; Maas et al. 2013
    "elu": nn.elu,  # Clevert et al. 2015
    "selu": nn.selu,  # Klambauer et al. 2017
    "gelu": nn.gelu,  # the tanh approximation; Hendrycks and Gimpel 2016
    "silu": nn.silu,  # x sigmoid(x), also "swish"; EfficientNet
    "hard_sigmoid": nn.hard_sigmoid,  # relu6(x + 3) / 6; MobileNet-v3
    "hard_swish": nn.hard_swish,  # x relu6(x + 3) / 6; MobileNet-v3
}
