"""Blocks of the networks for small devices: depthwise-separable, inverted residual, squeeze."""

from functools import partial

import flax.linen as nn
from jaxtyping import Array, Float

from research.nn.activations import ACTIVATIONS, Activation
from research.nn.convolution import Conv, Padding
from research.nn.initialisers import INITIALISERS, Initialiser
from research.nn.normalisation import batch_norm
from research.nn.regularisation import Dropout
from research.nn.rematerialisation import Block


def divisible(channels: int | float, divisor: int = 8) -> int:
    """Returns the multiple of `divisor` nearest to `channels`, at most 10 % below it.

    Every width-scaled network here rounds so: Sandler et al. 2018, in the code with the paper.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


class SqueezeExcitation(nn.Module):
    """A weight for each channel from all of them: x gate(W2 act(W1 mean(x))).

    Hu et al., "Squeeze-and-excitation networks", 2017, equations 2 to 4.

    Attributes:
      squeezed: channels between the two layers.
      gate: maps the weights to [0, 1].
    """

    squeezed: int
    activation: Activation = ACTIVATIONS["relu"]
    gate: Activation = ACTIVATIONS["sigmoid"]
    kernel_init: Initialiser = INITIALISERS["he"]

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch height width channel"]:
        layer = partial(Conv, size=1, kernel_init=self.kernel_init)
        weight = x.mean((1, 2), keepdims=True)  # [B, 1, 1, C]
        weight = self.activation(layer(self.squeezed, name="fc1")(weight))
        return x * self.gate(layer(x.shape[-1], name="fc2")(weight))


class DepthwiseSeparable(Block):
    """A 3x3 filter for each channel, then a 1x1 mix of channels, an activation after each.

    Howard et al., "MobileNets", 2017, figure 3. It costs 1 / channels + 1 / 9 of a dense 3x3.
    """

    channels: int
    stride: int = 1
    activation: Activation = ACTIVATIONS["relu"]
    kernel_init: Initialiser = INITIALISERS["he"]
    axis: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"], train: bool
    ) -> Float[Array, "batch rows columns out_channel"]:
        conv = partial(Conv, use_bias=False, kernel_init=self.kernel_init)
        norm = batch_norm(train, self.axis)
        x = conv(x.shape[-1], 3, self.stride, groups=x.shape[-1], name="conv_dw")(x)
        x = conv(self.channels, 1, name="conv_pw")(self.activation(norm(name="bn1")(x)))
        return self.activation(norm(name="bn2")(x))


class InvertedResidual(Block):
    """A block: widen by 1x1, filter each channel, narrow by linear 1x1; add the input if alike.

    Sandler et al., "MobileNetV2: Inverted residuals and linear bottlenecks", 2018, figure 3; with
    squeeze and excitation as in MnasNet, MobileNet-v3 and EfficientNet.

    Attributes:
      expanded: channels between the 1x1 convolutions; where x has as many, the first is left out.
      channels: of the output.
      squeezed: channels inside squeeze and excitation; 0 for none.
      squeeze_activation: after its first layer.
      gate: after its second layer.
      drop_path: probability of leaving out the residual branch of an example in training, if
        it has a shortcut (stochastic depth: Huang et al. 2016).
      padding: of the depthwise convolution.
      momentum, epsilon: of batch normalisation.
      names: "block" or "conv" as torchvision calls the layers; "conv" numbers the last two singly.
    """

    expanded: int
    channels: int
    size: int = 3
    stride: int = 1
    squeezed: int = 0
    activation: Activation = ACTIVATIONS["relu6"]
    squeeze_activation: Activation = ACTIVATIONS["relu"]
    gate: Activation = ACTIVATIONS["sigmoid"]
    drop_path: float = 0.0
    padding: Padding | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5
    names: str = "block"
    kernel_init: Initialiser = INITIALISERS["he"]
    axis: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"], train: bool
    ) -> Float[Array, "batch rows columns out_channel"]:
        conv = partial(Conv, use_bias=False, kernel_init=self.kernel_init)
        norm = batch_norm(train, self.axis, self.momentum, self.epsilon)
        layer, y = 0, x
        if self.expanded != x.shape[-1]:
            y = conv(self.expanded, 1, name=f"{self.names}_0_0")(y)
            y = self.activation(norm(name=f"{self.names}_0_1")(y))
            layer = 1
        y = conv(
            self.expanded,
            self.size,
            self.stride,
            self.padding,
            groups=self.expanded,
            name=f"{self.names}_{layer}_0",
        )(y)
        y = self.activation(norm(name=f"{self.names}_{layer}_1")(y))
        layer += 1
        if self.squeezed:
            y = SqueezeExcitation(
                self.squeezed,
                self.squeeze_activation,
                self.gate,
                self.kernel_init,
                name=f"{self.names}_{layer}",
            )(y)
            layer += 1
        single = self.names == "conv"
        last = (f"{layer}", f"{layer + 1}") if single else (f"{layer}_0", f"{layer}_1")
        y = conv(self.channels, 1, name=f"{self.names}_{last[0]}")(y)
        y = norm(name=f"{self.names}_{last[1]}")(y)
        if self.stride > 1 or x.shape[-1] != self.channels:
            return y
        return x + Dropout(self.drop_path, self.axis, shared_axes=(1, 2, 3))(y, train)
