"""Kernel initialisers by the name that a flag gives; biases always start at zero.

A kernel is [..., in, out]; fan-in is the product of all its sides but the last.
"""

from collections.abc import Callable

from jax import Array
from jax.nn import initializers

Initialiser = Callable[..., Array]  # (key, shape, dtype) -> kernel

INITIALISERS: dict[str, Initialiser] = {
    "zeros": initializers.zeros,  # every unit of a layer stays equal to its neighbours
    "normal": initializers.normal(0.01),  # standard deviation 0.01, whatever the fan-in
    "lecun": initializers.lecun_normal(),  # variance 1 / fan-in; LeCun et al. 1998
    "xavier": initializers.xavier_normal(),  # 2 / (fan-in + fan-out); Glorot and Bengio 2010
    "he": initializers.he_normal(),  # 2 / fan-in, for ReLU; He et al. 2015
    "orthogonal": initializers.orthogonal(),  # Saxe et al. 2013
}
