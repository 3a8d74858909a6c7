"""Random keys as functions of the seed, a stream's name and the step; none is stored.

As kauldron's named streams (kd.train.RngStreams): resuming needs no generator state, and a stream
that is added or removed leaves the others as they were.
"""

import zlib

import jax


def stream(key: jax.Array, name: str) -> jax.Array:
    """Returns the key of a named stream ("init", "augment", "dropout") below `key`."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def step_key(seed: int | jax.Array, step: int | jax.Array) -> jax.Array:
    """Returns the key from which a training step derives all its streams."""
    return jax.random.fold_in(stream(jax.random.key(seed), "train"), step)
