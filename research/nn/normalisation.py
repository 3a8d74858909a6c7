"""Normalisation over the batch and over neighbouring channels."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn


def batch_norm(
    train: bool, axis: str | None, momentum: float = 0.9, epsilon: float = 1e-5
) -> Callable[..., nn.BatchNorm]:
    """Returns the class of a model's batch-normalisation layers: Ioffe and Szegedy 2015.

    In training the statistics are those of the whole batch, also where pmap splits it, and the
    running statistics move by 1 - momentum; in evaluation the running statistics are used.
    They are float32 whatever the images are.

    Args:
      axis: the pmap axis that the batch is split over; None for one device or a mesh.
      momentum: the share of the old running statistics kept each step (PyTorch's is 1 minus ours).
    """
    return partial(
        nn.BatchNorm,
        use_running_average=not train,
        momentum=momentum,
        epsilon=epsilon,
        axis_name=axis if train else None,
    )
