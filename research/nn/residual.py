"""The residual block: He et al., "Deep residual learning for image recognition", 2015."""

from functools import partial
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.nn.activations import Activation
from research.nn.convolution import Conv
from research.nn.initialisers import Initialiser
from research.nn.normalisation import Norm
from research.nn.pooling import blur_pool
from research.nn.rematerialisation import Block


class ResidualBlock(Block):
    """The sum activation(F(x) + x), F two 3x3 convolutions, or 1x1, a narrow 3x3 and 1x1.

    Where F changes the shape, a strided 1x1 convolution projects the shortcut (equation 2), or it
    takes every stride-th place, and new channels are 0: options B and A of section 3.3.

    Attributes:
      width: channels of the 3x3 convolutions; a bottleneck's output has 4 times as many.
      stride: of the first 3x3 convolution.
      blur: the stride is taken by `blur_pool`, after the activation of the convolution that had it.
      shortcut: "padding" for new channels of 0, which has no parameters; False leaves F alone, a
        block of the plain network (section 3.3).
    """

    width: int
    activation: Activation
    kernel_init: Initialiser
    norm: Norm
    stride: int = 1
    dilation: int = 1
    bottleneck: bool = False
    shortcut: bool | Literal["padding"] = True
    blur: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch out_height out_width out_channel"]:
        conv = partial(Conv, use_bias=False, kernel_init=self.kernel_init)
        stride = 1 if self.blur else self.stride
        strided = partial(conv, self.width, 3, stride, dilation=self.dilation)

        def smoothed(
            maps: Float[Array, "batch height width channel"],
        ) -> Float[Array, "batch out_height out_width channel"]:
            return blur_pool(maps, self.stride) if self.blur else maps

        if self.bottleneck:
            out_channels = 4 * self.width
            y = self.activation(self.norm(name="bn1")(conv(self.width, 1, name="conv1")(x)))
            y = smoothed(self.activation(self.norm(name="bn2")(strided(name="conv2")(y))))
            y = self.norm(name="bn3")(conv(out_channels, 1, name="conv3")(y))
        else:
            out_channels = self.width
            y = smoothed(self.activation(self.norm(name="bn1")(strided(name="conv1")(x))))
            y = self.norm(name="bn2")(conv(out_channels, 3, name="conv2")(y))
        if self.shortcut:
            if self.shortcut == "padding":
                x = x[:, :: self.stride, :: self.stride]
                x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, out_channels - x.shape[-1])))
            elif self.stride > 1 or x.shape[-1] != out_channels:
                x = conv(out_channels, 1, self.stride, name="downsample_0")(x)
                x = self.norm(name="downsample_1")(x)
            y = y + x
        return self.activation(y)
