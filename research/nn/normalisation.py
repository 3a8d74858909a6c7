"""Normalisation over the batch and over neighbouring channels."""

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from research.hardware.target import target
from research.nn.regularisation import Dropout

Norm = Callable[..., nn.Module]  # takes the layer's name


class BatchNorm(nn.Module):
    """Normalisation of each channel to mean 0 and variance 1, then a scale and a shift.

    y = scale (x - mean) / sqrt(variance + epsilon) + bias, algorithm 1 of Ioffe and Szegedy,
    "Batch normalization", 2015. In training mean and variance are those of the whole batch, also
    where pmap splits it, and the running statistics move towards them; in evaluation the running
    statistics are used. Statistics are float32 for images of any type.

    The variance is biased (divided by n) in the running statistics too: so evaluation under one
    batch's statistics equals training on that batch. It is computed in two passes: the difference
    of two large means loses its digits where the mean is hundreds of deviations.

    Attributes:
      train: whether to use, and to follow, the batch's own statistics.
      momentum: the share of the old running statistics kept each step (PyTorch's is 1 minus ours).
      axis: the pmap axis that the batch is split over; None for one device or a mesh.
    """

    train: bool = False
    momentum: float = 0.9
    epsilon: float = 1e-5
    axis: str | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch *rest"],
        train: bool | None = None,
        momentum: float | None = None,
    ) -> Float[Array, "batch *rest"]:
        """Normalises x over all but its last dimension.

        Args:
          train, momentum: in the place of the attributes. Interceptors set them, for passes that
            the model does not know of: see `own_statistics` and `research.nn.forward`.
        """
        train = self.train if train is None else train
        momentum = self.momentum if momentum is None else momentum
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_variance = self.variable("batch_stats", "var", jnp.ones, shape)
        mean, variance = running_mean.value, running_variance.value
        if train:
            both = self.moments(x)
            mean, variance = both[0], both[1]
            if not self.is_initializing():
                running_mean.value = momentum * running_mean.value + (1 - momentum) * mean
                running_variance.value = (
                    momentum * running_variance.value + (1 - momentum) * variance
                )
        factor = jax.lax.rsqrt(variance + self.epsilon) * scale
        if train and groups_of(x) > 1:
            return scaled_in_groups(x, jnp.stack([mean, factor, bias]))
        return ((x - mean) * factor + bias).astype(x.dtype)

    def moments(self, x: Float[Array, "batch *rest"]) -> Float[Array, "2 channel"]:
        """Returns the batch's mean and variance of each channel, in float32, over all devices.

        Devices exchange one message, the moments of the rows of each.
        """
        groups, x = groups_of(x), x.astype(jnp.float32)
        if groups > 1:
            of_each = jax.vmap(own_moments)(x.reshape(groups, -1, *x.shape[1:]))
            return pooled(jax.lax.with_sharding_constraint(of_each, target().everywhere))
        if self.axis is None or target().by_device:
            return own_moments(x)
        return pooled(jax.lax.all_gather(own_moments(x), self.axis))


def own_moments(x: Float[Array, "row *rest channel"]) -> Float[Array, "2 channel"]:
    """Returns mean and biased variance of each channel of these rows, in two passes."""
    dimensions = tuple(range(x.ndim - 1))
    mean = x.mean(dimensions)
    return jnp.stack([mean, jnp.square(x - mean).mean(dimensions)])


def groups_of(x: Float[Array, "batch *rest"]) -> int:
    """Returns in how many parts, a device's each, a function sees rows; 1 if they are uneven."""
    devices = target().devices
    return devices if len(x) % devices == 0 else 1


def pooled(of_each: Float[Array, "group 2 channel"]) -> Float[Array, "2 channel"]:
    """Returns mean and variance of all values from those of groups of one size.

    The variance of the means is added, around their own mean: nothing large is subtracted from
    something large (Chan, Golub and LeVeque 1979).
    """
    mean, variance = of_each.mean(0)
    return jnp.stack([mean, variance + jnp.square(of_each[:, 0] - mean).mean(0)])


def scaled_in_groups(
    x: Float[Array, "batch *rest"], scaling: Float[Array, "3 channel"]
) -> Float[Array, "batch *rest"]:
    """Returns (x - mean) factor + shift, where each device has its rows.

    Each device has a copy of the three, so that their gradient is one message: the sum over copies.

    Args:
      scaling: mean, factor and shift.
    """
    groups = groups_of(x)
    copies = jnp.broadcast_to(scaling, (groups, *scaling.shape))
    copies = jax.lax.with_sharding_constraint(copies, target().split)
    copies = copies.reshape(groups, 3, *(1,) * (x.ndim - 1), x.shape[-1])
    split = x.reshape(groups, -1, *x.shape[1:])
    y = (split - copies[:, 0]) * copies[:, 1] + copies[:, 2]
    return y.astype(x.dtype).reshape(x.shape)


def batch_norm(train: bool, axis: str | None, momentum: float = 0.9, epsilon: float = 1e-5) -> Norm:
    """Returns the class of a model's batch-normalisation layers; see `BatchNorm`."""
    return partial(
        BatchNorm, train=train, momentum=momentum, epsilon=epsilon, axis=axis if train else None
    )


@contextlib.contextmanager
def own_statistics() -> Iterator[None]:
    """Makes a pass in training mode leave the statistics of its batch, as evaluation needs them.

    Batch normalisation forgets all batches but this one: momentum 0, whatever a model says. Dropout
    and stochastic depth are off, as in evaluation: they would add to the variance of what follows
    them (Li et al., "Understanding the disharmony between dropout and batch normalization", 2019).
    """

    def interceptor(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name == "__call__" and isinstance(context.module, BatchNorm):
            kwargs = {**kwargs, "momentum": 0.0}
        if context.method_name == "__call__" and isinstance(context.module, Dropout):
            return call(args[0], train=False)
        return call(*args, **kwargs)

    with nn.intercept_methods(interceptor):
        yield


@contextlib.contextmanager
def counting_values() -> Iterator[dict[str, int]]:
    """Counts, while a training step is traced, the values of a channel that each layer averages.

    Yields a dictionary that fills with {path of a layer: values}, over all devices. Layers that use
    their running statistics, as frozen ones do, are not in it.
    """
    counts: dict[str, int] = {}

    def interceptor(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        layer = context.module
        if isinstance(layer, BatchNorm) and context.method_name == "moments":
            alone = layer.axis is None or target().by_device
            devices = 1 if alone else jax.lax.axis_size(layer.axis)
            counts["/".join(layer.path)] = math.prod(args[0].shape[:-1]) * devices
        return call(*args, **kwargs)

    with nn.intercept_methods(interceptor):
        yield counts


def local_response_normalisation(
    maps: Float[Array, "batch height width channel"],
    size: int = 5,
    k: float = 2.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
) -> Float[Array, "batch height width channel"]:
    """Returns a / (k + alpha sum a^2)^beta, the sum over `size` neighbouring channels.

    Krizhevsky et al., "ImageNet classification with deep convolutional neural networks", 2012,
    section 3.3. PyTorch divides alpha by size.
    """
    energy = jax.lax.reduce_window(
        maps * maps,
        np.zeros((), maps.dtype),  # a constant: JAX differentiates only sums it recognises
        jax.lax.add,
        window_dimensions=(1, 1, 1, size),
        window_strides=(1, 1, 1, 1),
        padding=((0, 0), (0, 0), (0, 0), (size // 2, (size - 1) // 2)),
    )
    return maps * (k + alpha * energy) ** -beta
