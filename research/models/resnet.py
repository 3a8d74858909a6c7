"""ResNet: He et al., "Deep residual learning for image recognition", 2015.

Layers and names are torchvision's; a bottleneck strides in its 3x3 convolution ("v1.5").
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import flax.linen as nn
from jaxtyping import Array, Float

from research.models import Entry
from research.nn.activations import ACTIVATIONS, Activation
from research.nn.convolution import Conv
from research.nn.initialisers import INITIALISERS, Initialiser
from research.nn.normalisation import batch_norm
from research.nn.pooling import blur_pool, global_average_pool, max_pool
from research.nn.residual import ResidualBlock


class ResNet(nn.Module):
    """A stem, four stages of residual blocks, global average pooling and a linear head.

    Attributes:
      stages: blocks of each stage; width doubles and the map halves from stage to stage.
      bottleneck: blocks of 1x1, 3x3, 1x1 convolutions (from 50 layers on).
      shortcut: "padding" for shortcuts without parameters; False gives the plain network of the
        same depth.
      width: channels of the stem and of the first stage's 3x3 convolutions.
      small_images: a 3x3 stem at stride 1 without max pooling, as for CIFAR.
      blur: maps are smoothed wherever they are halved, but on shortcuts (Zhang 2019).
      output_stride: 8 or 16 dilates the last stages instead of striding (DeepLab's backbone).
      axis: the pmap axis that the batch is split over.
    """

    num_classes: int = 1000
    activation: Activation = ACTIVATIONS["relu"]
    kernel_init: Initialiser = INITIALISERS["he"]
    axis: str | None = None
    stages: Sequence[int] = (2, 2, 2, 2)
    bottleneck: bool = False
    shortcut: bool | Literal["padding"] = True
    width: int = 64
    small_images: bool = False
    blur: bool = False
    output_stride: int = 32

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channel"],
        train: bool = False,
        features: bool = False,
    ) -> Float[Array, "batch classes"] | dict[str, Array]:
        """Returns logits of standardised images, or the maps of the stem and of each stage.

        At stride 2, 4, 8, 16, 32 of the image; with small_images 1, 1, 2, 4, 8.
        """
        norm = batch_norm(train, self.axis)
        size, stride = (3, 1) if self.small_images else (7, 2)
        x = Conv(
            self.width, size, stride, use_bias=False, kernel_init=self.kernel_init, name="conv1"
        )(images)
        x = self.activation(norm(name="bn1")(x))
        maps = {"stem": x}
        if not self.small_images:
            pooled = max_pool(x, 3, 1 if self.blur else 2, padding=1)
            x = blur_pool(pooled, 2) if self.blur else pooled

        reached, dilation = 4, 1  # as counted with the large stem
        for stage, blocks in enumerate(self.stages):
            stride, first_dilation = (1 if stage == 0 else 2), dilation
            if stride == 2 and reached == self.output_stride:
                stride, dilation = 1, 2 * dilation
            reached *= stride
            for block in range(blocks):
                x = ResidualBlock(
                    width=self.width * 2**stage,
                    stride=stride if block == 0 else 1,
                    dilation=first_dilation if block == 0 else dilation,
                    bottleneck=self.bottleneck,
                    shortcut=self.shortcut,
                    # Dilation in place of a stride smooths as well.
                    blur=self.blur and block == 0 and (stride == 2 or first_dilation != dilation),
                    activation=self.activation,
                    kernel_init=self.kernel_init,
                    norm=norm,
                    name=f"layer{stage + 1}_{block}",
                )(x)
            maps[f"layer{stage + 1}"] = x
        if features:
            return maps
        x = global_average_pool(x)
        return nn.Dense(self.num_classes, kernel_init=self.kernel_init, name="fc")(x)


ResNet18 = partial(ResNet, stages=(2, 2, 2, 2))
ResNet34 = partial(ResNet, stages=(3, 4, 6, 3))
ResNet50 = partial(ResNet, stages=(3, 4, 6, 3), bottleneck=True)
ResNet101 = partial(ResNet, stages=(3, 4, 23, 3), bottleneck=True)

MODELS = {
    "resnet18": Entry(ResNet18, image_size=224),
    "resnet34": Entry(ResNet34, image_size=224),
    "resnet50": Entry(ResNet50, image_size=224),
    "resnet101": Entry(ResNet101, image_size=224),
    "plain18": Entry(partial(ResNet18, shortcut=False), image_size=224),
    "plain34": Entry(partial(ResNet34, shortcut=False), image_size=224),
    "resnetblur18": Entry(partial(ResNet18, blur=True), image_size=224, twin="resnet18"),
    "resnetblur50": Entry(partial(ResNet50, blur=True), image_size=224, twin="resnet50"),
    "resnet18_cifar": Entry(partial(ResNet18, small_images=True), image_size=32),
    "resnet34_cifar": Entry(partial(ResNet34, small_images=True), image_size=32),
    "resnet50_cifar": Entry(partial(ResNet50, small_images=True), image_size=32),
}
