"""Three ways to send a gradient back through a ReLU, as one custom gradient.

    plain      g f'(x)              the derivative
    deconvnet  max(g, 0)            Zeiler and Fergus, "Visualizing and understanding convolutional
                                    networks", 2013: the rectifier again, on the way back
    guided     max(g, 0) f'(x)      Springenberg et al., "Striving for simplicity", 2014: both

The rule takes the place of the activation function that a model has as an argument, so uses that
are repeated, shared or functional change with all others.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from research.nn.activations import Activation

Rule = Literal["plain", "deconvnet", "guided"]
# What the rules are about; the papers know no other activation functions.
RECTIFIERS: tuple[Activation, ...] = (nn.relu, nn.relu6)


def with_rule(activation: Activation, rule: Rule) -> Activation:
    """Returns the same function, whose gradient follows a rule."""

    @jax.custom_vjp
    def ruled(x: Array) -> Array:
        return activation(x)

    def forward(x: Array) -> tuple[Array, Array]:
        return activation(x), x

    def backward(x: Array, gradient: Array) -> tuple[Array]:
        if rule != "plain":
            gradient = jnp.maximum(gradient, 0)
        if rule == "deconvnet":
            return (gradient,)
        return jax.vjp(activation, x)[1](gradient)

    ruled.defvjp(forward, backward)
    return ruled
