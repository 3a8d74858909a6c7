"""MobileNet-v1, -v2 and -v3, networks of depthwise convolutions for small devices.

Howard et al., "MobileNets", 2017; Sandler et al., "MobileNetV2", 2018; Howard et al., "Searching
for MobileNetV3", 2019. Layers and names are torchvision's, and timm's for version 1.
"""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
from jaxtyping import Array, Float

from research.models import Entry
from research.nn.activations import ACTIVATIONS, Activation
from research.nn.convolution import Conv, Padding
from research.nn.initialisers import INITIALISERS, Initialiser
from research.nn.mobile import DepthwiseSeparable, InvertedResidual, divisible
from research.nn.normalisation import batch_norm
from research.nn.pooling import global_average_pool
from research.nn.regularisation import Dropout

# Table 1 of the first paper: (channels, blocks).
V1_STAGES = ((64, 1), (128, 2), (256, 2), (512, 6), (1024, 2))

# Table 2 of the second paper.
V2_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

# Tables 1 and 2 of the third paper.
V3_LARGE = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)
V3_SMALL = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)


class MobileNetV1(nn.Module):
    """A strided convolution, 13 depthwise-separable blocks, global pooling and a linear head.

    Attributes:
      stages: (channels, blocks) of each stage; all but the first halve the map.
      width: multiplies every number of channels (section 3.3).
      dropout: rate before the linear head.
      axis: the pmap axis that the batch is split over.
    """

    num_classes: int = 1000
    activation: Activation = ACTIVATIONS["relu6"]
    kernel_init: Initialiser = INITIALISERS["he"]
    axis: str | None = None
    stages: Sequence[tuple[int, int]] = V1_STAGES
    width: float = 1.0
    dropout: float = 0.001

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channel"],
        train: bool = False,
        features: bool = False,
    ) -> Float[Array, "batch classes"] | dict[str, Array]:
        """Returns logits of standardised images, or the maps at stride 2, 4, 8, 16 and 32."""
        init = self.kernel_init
        x = Conv(
            divisible(32 * self.width), 3, 2, use_bias=False, kernel_init=init, name="conv_stem"
        )(images)
        x = self.activation(batch_norm(train, self.axis)(name="bn1")(x))
        maps = {}
        for stage, (channels, blocks) in enumerate(self.stages):
            for block in range(blocks):
                x = DepthwiseSeparable(
                    divisible(channels * self.width),
                    stride=2 if stage > 0 and block == 0 else 1,
                    activation=self.activation,
                    kernel_init=init,
                    axis=self.axis,
                    name=f"blocks_{stage}_{block}",
                )(x, train)
            maps[f"stage{stage + 1}"] = x
        if features:
            return maps
        x = Dropout(self.dropout, self.axis)(global_average_pool(x), train)
        return nn.Dense(self.num_classes, kernel_init=init, name="classifier")(x)


class MobileNetV2(nn.Module):
    """A strided convolution, 17 inverted residual blocks, a 1x1 convolution and a linear head.

    Attributes:
      stages: (expansion, channels, blocks, stride of the first block) of each stage.
      width: multiplies every number of channels; the last convolution's only when above 1.
      dropout: rate before the linear head.
      axis: the pmap axis that the batch is split over.
    """

    num_classes: int = 1000
    activation: Activation = ACTIVATIONS["relu6"]
    kernel_init: Initialiser = INITIALISERS["he"]
    axis: str | None = None
    stages: Sequence[tuple[int, int, int, int]] = V2_STAGES
    width: float = 1.0
    dropout: float = 0.2

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channel"],
        train: bool = False,
        features: bool = False,
    ) -> Float[Array, "batch classes"] | dict[str, Array]:
        """Returns logits of standardised images, or the maps at stride 2, 4, 8, 16 and 32."""
        conv = partial(Conv, use_bias=False, kernel_init=self.kernel_init)
        norm = batch_norm(train, self.axis)
        x = conv(divisible(32 * self.width), 3, 2, name="features_0_0")(images)
        x = self.activation(norm(name="features_0_1")(x))
        maps, level, layer = {}, 1, 1
        for expansion, channels, blocks, first_stride in self.stages:
            level += first_stride == 2
            for block in range(blocks):
                x = InvertedResidual(
                    expanded=expansion * x.shape[-1],
                    channels=divisible(channels * self.width),
                    stride=first_stride if block == 0 else 1,
                    activation=self.activation,
                    names="conv",
                    kernel_init=self.kernel_init,
                    axis=self.axis,
                    name=f"features_{layer}",
                )(x, train)
                layer += 1
            maps[f"stage{level}"] = x  # the last map of each size stays
        if features:
            return maps
        x = conv(divisible(1280 * max(1.0, self.width)), 1, name=f"features_{layer}_0")(x)
        x = self.activation(norm(name=f"features_{layer}_1")(x))
        x = Dropout(self.dropout, self.axis)(global_average_pool(x), train)
        return nn.Dense(self.num_classes, kernel_init=self.kernel_init, name="classifier_1")(x)


class MobileNetV3(nn.Module):
    """Inverted residuals with squeeze and excitation, found by search; hard swish in deep layers.

    Attributes:
      activation: of the layers that the paper gives hard swish.
      early_activation: of the others: the first blocks, and inside squeeze and excitation.
      blocks: (filter side, expanded channels, channels, squeeze and excitation, hard swish, stride)
        of each block.
      hidden: units of the dense layer before the head.
      width: multiplies every number of channels.
      dropout: rate before the linear head.
      padding: of the convolutions larger than 1x1: None is PyTorch's, "SAME" is TensorFlow's.
      momentum, epsilon: of batch normalisation; as torchvision trained it, timm's are 0.9 and 1e-5.
      axis: the pmap axis that the batch is split over.
    """

    num_classes: int = 1000
    activation: Activation = ACTIVATIONS["hard_swish"]
    early_activation: Activation = ACTIVATIONS["relu"]
    kernel_init: Initialiser = INITIALISERS["he"]
    axis: str | None = None
    blocks: Sequence[tuple[int, int, int, bool, bool, int]] = V3_SMALL
    hidden: int = 1024
    width: float = 1.0
    dropout: float = 0.2
    padding: Padding | None = None
    momentum: float = 0.99
    epsilon: float = 1e-3

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channel"],
        train: bool = False,
        features: bool = False,
    ) -> Float[Array, "batch classes"] | dict[str, Array]:
        """Returns logits of standardised images, or the maps at stride 2, 4, 8, 16 and 32."""
        conv = partial(Conv, use_bias=False, kernel_init=self.kernel_init)
        norm = batch_norm(train, self.axis, self.momentum, self.epsilon)
        x = conv(divisible(16 * self.width), 3, 2, self.padding, name="features_0_0")(images)
        x = self.activation(norm(name="features_0_1")(x))
        maps, level = {"stage1": x}, 1
        for i, (size, expanded, channels, squeeze, hard_swish, stride) in enumerate(self.blocks):
            level += stride == 2
            expanded = divisible(expanded * self.width)
            x = InvertedResidual(
                expanded=expanded,
                channels=divisible(channels * self.width),
                size=size,
                stride=stride,
                squeezed=divisible(expanded // 4) if squeeze else 0,
                activation=self.activation if hard_swish else self.early_activation,
                squeeze_activation=self.early_activation,
                gate=nn.hard_sigmoid,
                padding=self.padding,
                momentum=self.momentum,
                epsilon=self.epsilon,
                kernel_init=self.kernel_init,
                axis=self.axis,
                name=f"features_{i + 1}",
            )(x, train)
            maps[f"stage{level}"] = x
        if features:
            return maps
        last = len(self.blocks) + 1
        x = conv(6 * x.shape[-1], 1, name=f"features_{last}_0")(x)
        x = global_average_pool(self.activation(norm(name=f"features_{last}_1")(x)))
        dense = partial(nn.Dense, kernel_init=self.kernel_init)
        x = self.activation(dense(divisible(self.hidden * self.width), name="classifier_0")(x))
        x = Dropout(self.dropout, self.axis)(x, train)
        return dense(self.num_classes, name="classifier_3")(x)


MODELS = {
    "mobilenet_v1": Entry(MobileNetV1, image_size=224),
    "mobilenet_v2": Entry(MobileNetV2, image_size=224),
    "mobilenet_v3_small": Entry(MobileNetV3, image_size=224),
    "mobilenet_v3_large": Entry(partial(MobileNetV3, blocks=V3_LARGE, hidden=1280), 224),
    # As TensorFlow's authors trained them: timm's tf_ networks.
    "tf_mobilenet_v3_small": Entry(
        partial(MobileNetV3, padding="SAME"), 224, twin="mobilenet_v3_small"
    ),
    "tf_mobilenet_v3_large": Entry(
        partial(MobileNetV3, blocks=V3_LARGE, hidden=1280, padding="SAME"),
        224,
        twin="mobilenet_v3_large",
    ),
}
