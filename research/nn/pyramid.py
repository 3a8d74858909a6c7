"""Feature pyramid: Lin et al., "Feature pyramid networks for object detection", 2017."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.nn.convolution import Conv
from research.nn.initialisers import INITIALISERS, Initialiser


class FeaturePyramid(nn.Module):
    """Maps of several sizes, brought to one width, where fine maps get the content of coarse ones.

    From coarse to fine: the coarser result, enlarged to the nearest cell, plus a 1x1 convolution
    of the finer map; a 3x3 convolution smooths the sum (section 3, figure 3). One map alone becomes
    its 1x1 convolution.

    Attributes:
      width: channels of every result.
      results: the number of the finest maps to return; None: all.
    """

    width: int
    results: int | None = None
    kernel_init: Initialiser = INITIALISERS["xavier"]

    @nn.compact
    def __call__(
        self, maps: Sequence[Float[Array, "batch _ _ _"]]
    ) -> list[Float[Array, "batch _ _ {self.width}"]]:
        """Takes maps from fine to coarse, and returns the finest of them so."""
        lateral = [
            Conv(self.width, 1, kernel_init=self.kernel_init, name=f"lateral{i}")(x)
            for i, x in enumerate(maps)
        ]
        for i in reversed(range(len(maps) - 1)):
            height, width = lateral[i].shape[1:3]
            coarse = lateral[i + 1]
            coarse = jnp.repeat(jnp.repeat(coarse, 2, axis=1), 2, axis=2)
            # A map of odd side was rounded up when it was halved.
            lateral[i] = lateral[i] + coarse[:, :height, :width]
        if len(maps) == 1:
            return lateral
        return [
            Conv(self.width, 3, kernel_init=self.kernel_init, name=f"smooth{i}")(x)
            for i, x in enumerate(lateral[: self.results])
        ]
