"""Kernel initialisers by the name that a flag gives; biases always start at zero.

A kernel is [..., in, out]: fan-in is the product of all its sides but the last, fan-out of all but
the last but one.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import initializers
from jax.typing import DTypeLike

Initialiser = Callable[..., Array]  # (key, shape, dtype) -> kernel


def normal(deviation: Callable[[Sequence[int]], float], truncated: bool = True) -> Initialiser:
    """Makes an initialiser of normal values, whose deviation depends on the kernel's shape.

    Args:
      truncated: draws values beyond two standard deviations again, before the scaling.
    """

    def initialise(key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
        # Drawn flat: the numbers are the same, but XLA on CPU takes 3 to 100 times as long to
        # compile a draw of four dimensions.
        count = math.prod(shape)
        if truncated:
            unit = jax.random.truncated_normal(key, -2.0, 2.0, (count,), dtype) / 0.87962566
        else:
            unit = jax.random.normal(key, (count,), dtype)
        return (unit * deviation(shape)).astype(dtype).reshape(shape)

    return initialise


def fan_in(shape: Sequence[int]) -> int:
    """Returns the number of inputs that one output sums."""
    return math.prod(shape[:-1])


def fan_out(shape: Sequence[int]) -> int:
    """Returns the number of outputs that one input reaches at stride 1."""
    return math.prod(shape[:-2]) * shape[-1]


INITIALISERS: dict[str, Initialiser] = {
    "zeros": initializers.zeros,  # every unit of a layer stays equal to its neighbours
    "normal": normal(lambda shape: 0.01, truncated=False),  # whatever the fan-in
    "unit": normal(lambda shape: 1.0, truncated=False),  # N(0, 1): saturates tanh and sigmoid
    # 1/n, which some lectures call Xavier's; LeCun et al. 1998
    "lecun": normal(lambda shape: math.sqrt(1 / fan_in(shape))),
    "xavier": normal(  # Glorot and Bengio 2010
        lambda shape: math.sqrt(2 / (fan_in(shape) + fan_out(shape)))
    ),
    "he": normal(lambda shape: math.sqrt(2 / fan_in(shape))),  # 2/n, for ReLU; He et al. 2015
    "orthogonal": initializers.orthogonal(),  # Saxe et al. 2013
}
