"""Dropout whose mask does not depend on how the batch is split over devices."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Dropout(nn.Module):
    """Zeros in place of values with probability `rate`; the rest are scaled by 1 / (1 - rate).

    Srivastava et al. 2014, in the inverted form, so that evaluation does nothing. The mask comes
    from the stream "dropout", whose key must be the same on every device: under pmap the mask of
    the whole batch is drawn and this device takes its rows.

    Attributes:
      rate: in [0, 1).
      axis: the pmap axis that the batch is split over; None for one device or a mesh.
      shared_axes: dimensions along which one draw is shared; (1, 2) drops whole channels.
    """

    rate: float
    axis: str | None = None
    shared_axes: tuple[int, ...] = ()

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *shape"], train: bool
    ) -> Float[Array, "batch *shape"]:
        if not train or self.rate == 0.0:
            return x
        shape = [1 if i in self.shared_axes else n for i, n in enumerate(x.shape)]
        kept = batch_bernoulli(self.make_rng("dropout"), 1.0 - self.rate, tuple(shape), self.axis)
        return jnp.where(kept, x / (1.0 - self.rate), jnp.zeros_like(x))


def batch_bernoulli(
    key: Array, probability: float, shape: tuple[int, ...], axis: str | None
) -> Bool[Array, "..."]:
    """Draws bool[shape], the rows of one draw for the whole batch that belong to this device."""
    # Drawn flat: the same numbers, but XLA on CPU compiles draws of four dimensions slowly.
    count = math.prod(shape)
    if axis is None:
        return jax.random.bernoulli(key, probability, (count,)).reshape(shape)
    drawn = jax.random.bernoulli(key, probability, (count * jax.lax.axis_size(axis),))
    first = jax.lax.axis_index(axis) * count
    return jax.lax.dynamic_slice_in_dim(drawn, first, count).reshape(shape)
