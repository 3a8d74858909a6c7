"""Normalisation over the batch and over neighbouring channels."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, Float

Norm = Callable[..., nn.Module]  # takes the layer's name


class BatchNorm(nn.BatchNorm):
    """nn.BatchNorm that says in its call which statistics it uses.

    So `research.forward` can step in between and keep frozen layers at their running statistics.

    Attributes:
      train: whether to use, and to follow, the batch's own statistics.
    """

    train: bool = False

    def __call__(  # type: ignore[override]
        self, x: Float[Array, "batch *rest"]
    ) -> Float[Array, "batch *rest"]:
        return super().__call__(x, use_running_average=not self.train)


def batch_norm(train: bool, axis: str | None, momentum: float = 0.9, epsilon: float = 1e-5) -> Norm:
    """Returns the class of a model's batch-normalisation layers: Ioffe and Szegedy 2015.

    In training the statistics are those of the whole batch, also where pmap splits it, and the
    running statistics move by 1 - momentum; in evaluation the running statistics are used.
    They are float32 whatever the images are.

    Args:
      axis: the pmap axis that the batch is split over; None for one device or a mesh.
      momentum: the share of the old running statistics kept each step (PyTorch's is 1 minus ours).
    """
    return partial(
        BatchNorm,
        train=train,
        momentum=momentum,
        epsilon=epsilon,
        axis_name=axis if train else None,
    )


def local_response_normalisation(
    maps: Float[Array, "batch height width channel"],
    size: int = 5,
    k: float = 2.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
) -> Float[Array, "batch height width channel"]:
    """a / (k + alpha sum a^2)^beta, the sum over `size` neighbouring channels at the same place.

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
