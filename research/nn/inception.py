"""The inception module: Szegedy et al., "Going deeper with convolutions", 2014, figure 2b."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.nn.activations import ACTIVATIONS, Activation
from research.nn.convolution import Conv, Padding
from research.nn.initialisers import INITIALISERS, Initialiser
from research.nn.normalisation import batch_norm
from research.nn.rematerialisation import Block


class ConvNorm(nn.Module):
    """Convolution, batch normalisation (epsilon 1e-3, as in all inception networks), activation."""

    features: int
    size: int | tuple[int, int] = 1
    stride: int = 1
    padding: Padding | None = None
    activation: Activation = ACTIVATIONS["relu"]
    kernel_init: Initialiser = INITIALISERS["he"]
    axis: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"], train: bool
    ) -> Float[Array, "batch out_height out_width {self.features}"]:
        x = Conv(
            self.features,
            self.size,
            self.stride,
            self.padding,
            use_bias=False,
            kernel_init=self.kernel_init,
            name="conv",
        )(x)
        return self.activation(batch_norm(train, self.axis, epsilon=1e-3)(name="bn")(x))


class Layer(NamedTuple):
    """One ConvNorm of a branch."""

    name: str
    features: int
    size: int | tuple[int, int] = 1
    stride: int = 1
    padding: Padding | None = None


Pool = Callable[[Array], Array]
Fork = tuple[Layer, ...]  # layers side by side on the same input
Branch = Sequence[Layer | Pool | Fork]


class InceptionModule(Block):
    """Branches side by side, concatenated by channel.

    1x1 convolutions before the larger ones are bottlenecks: they keep the multiplications few.
    """

    branches: Sequence[Branch]
    activation: Activation = ACTIVATIONS["relu"]
    kernel_init: Initialiser = INITIALISERS["he"]
    axis: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"], train: bool
    ) -> Float[Array, "batch out_height out_width out_channel"]:
        def convolve(layer: Layer, x: Array) -> Array:
            return ConvNorm(
                layer.features,
                layer.size,
                layer.stride,
                layer.padding,
                self.activation,
                self.kernel_init,
                self.axis,
                name=layer.name,
            )(x, train)

        outputs = []
        for branch in self.branches:
            y = x
            for step in branch:
                if isinstance(step, Layer):
                    y = convolve(step, y)
                elif callable(step):
                    y = step(y)
                else:
                    y = jnp.concatenate([convolve(layer, y) for layer in step], axis=-1)
            outputs.append(y)
        return jnp.concatenate(outputs, axis=-1)
