"""U-Net: Ronneberger et al., "U-Net: convolutional networks for biomedical image segmentation",
2015. The network of the paper, a lean one for small images, and one on any classifier's maps.
"""

from functools import partial
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.models import Entry
from research.models.backbone import backbone, by_resolution
from research.nn.activations import ACTIVATIONS, Activation
from research.nn.convolution import Conv
from research.nn.initialisers import INITIALISERS, Initialiser
from research.nn.normalisation import batch_norm
from research.nn.pooling import max_pool
from research.nn.regularisation import Dropout
from research.nn.rematerialisation import Block
from research.nn.resampling import (
    Upsample,
    Upsampling,
    crop_centre,
    pad_to_multiple,
    resize,
    space_to_depth,
)
from research.nn.transposed_convolution import TransposedConv


class TwoConvolutions(Block):
    """Two 3x3 convolutions, each with its activation: one level of a U-Net, down or up."""

    features: int
    activation: Activation
    kernel_init: Initialiser
    normalise: bool
    padding: int
    axis: str | None

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channel"], train: bool
    ) -> Float[Array, "batch rows columns {self.features}"]:
        norm = batch_norm(train, self.axis)
        for i in (1, 2):
            conv = partial(Conv, self.features, 3, padding=self.padding)
            x = conv(use_bias=not self.normalise, kernel_init=self.kernel_init, name=f"conv{i}")(x)
            if self.normalise:
                x = norm(name=f"bn{i}")(x)
            x = self.activation(x)
        return x


class UNet(nn.Module):
    """A contracting path, an expanding path, and skip connections between their levels.

    As it stands the network of the paper's figure 1: 31,030,658 parameters for one channel and two
    classes. (The paper does not say at which rate it drops out.)

    Attributes:
      width: channels of the first level; they double from level to level.
      depth: levels below the first.
      padding: "valid" convolutions shorten each side; the image is then mirrored at its borders by
        the lost pixels, so that every pixel is predicted from real context (figure 2). "same" pads
        every map with zeros.
      upsampling: how maps are enlarged on the way up; see `Upsample`.
      normalise: batch normalisation after each convolution.
      skips: how the level's maps join those from below: "concatenate", or "add" for half the work.
      stem: side of the blocks of pixels that one cell of the first level stands for (space to
        depth); the head then predicts each cell's block (depth to space).
      dropout: rate at the end of the contracting path.
      axis: the pmap axis that the batch is split over.
    """

    num_classes: int = 2
    activation: Activation = ACTIVATIONS["relu"]
    kernel_init: Initialiser = INITIALISERS["he"]
    axis: str | None = None
    width: int = 64
    depth: int = 4
    padding: Literal["same", "valid"] = "valid"
    upsampling: Upsampling = "transposed"
    normalise: bool = False
    skips: Literal["concatenate", "add"] = "concatenate"
    stem: int = 1
    dropout: float = 0.5

    @property
    def multiple(self) -> int:
        """Returns the pixels that one cell of the lowest level spans."""
        return self.stem * 2**self.depth

    @property
    def lost(self) -> int:
        """Returns the pixels on each side that valid convolutions lose: 92 for the paper's network.

        Two 3x3 convolutions reach 2 cells; level i is passed twice, the lowest once.
        """
        return self.stem * (2 * sum(2 * 2**i for i in range(self.depth)) + 2 * 2**self.depth)

    @property
    def margin(self) -> int:
        """Returns the pixels on each side that a prediction depends on.

        They are the reach of the convolutions; and where maps are enlarged by bilinear
        interpolation, a cell of each level but the lowest reaches half a cell of the next further.
        """
        beside = self.stem * sum(2**i for i in range(self.depth))
        return self.lost + (beside if self.upsampling == "bilinear" else 0)

    def __call__(
        self, images: Float[Array, "batch height width channel"], train: bool = False
    ) -> Float[Array, "batch height width {self.num_classes}"]:
        """Returns the logits of every pixel of standardised images of any size."""
        height, width = images.shape[1:3]
        if self.padding == "same":
            padded = pad_to_multiple(images, self.multiple)
        else:
            sides = [self.mirrored(n) for n in (height, width)]
            padded = jnp.pad(images, ((0, 0), *sides, (0, 0)), mode="reflect")
        return self.trunk(padded, train)[:, :height, :width]

    def mirrored(self, side: int) -> tuple[int, int]:
        """Returns the pixels to mirror before and after a side, so that its whole is predicted.

        The output is 2 lost shorter than the input, and pooling must always meet even sides: the
        lowest level's map, of n cells, is as in the paper made from n 2^depth + 2 lost' pixels.
        """
        reach = sum(4 * 2**i for i in range(self.depth))  # lost on the way down, without the stem
        least = side + 2 * self.lost
        after = self.lost + (self.stem * reach - least) % self.multiple
        return self.lost, after

    @nn.compact
    def trunk(
        self, x: Float[Array, "batch height width channel"], train: bool
    ) -> Float[Array, "batch rows columns {self.num_classes}"]:
        """Runs the network of the paper, without mirroring and cropping: 572 pixels give 388."""
        level = partial(
            TwoConvolutions,
            activation=self.activation,
            kernel_init=self.kernel_init,
            normalise=self.normalise,
            padding=1 if self.padding == "same" else 0,
            axis=self.axis,
        )
        x = space_to_depth(x, self.stem)
        maps = []
        for i in range(self.depth):
            x = level(self.width * 2**i, name=f"down{i}")(x, train)
            maps.append(x)
            x = max_pool(x, 2, 2)
        x = level(self.width * 2**self.depth, name="bottom")(x, train)
        x = Dropout(self.dropout, self.axis)(x, train)
        for i in reversed(range(self.depth)):
            up = Upsample(self.width * 2**i, self.upsampling, self.kernel_init, name=f"up{i}")
            x = up(x)
            skip = crop_centre(maps[i], x.shape[1:3])
            x = skip + x if self.skips == "add" else jnp.concatenate([skip, x], axis=-1)
            x = level(self.width * 2**i, name=f"merge{i}")(x, train)
        if self.stem == 1:
            return Conv(self.num_classes, 1, kernel_init=self.kernel_init, name="head")(x)
        head = partial(TransposedConv, self.num_classes, self.stem, self.stem)
        return head(kernel_init=self.kernel_init, name="head")(x)


class UNetOnBackbone(nn.Module):
    """U-Net whose contracting path is a classifier's: its maps at stride 2, 4, 8, ... are skips.

    With resnet34 the network, and the number of parameters, of segmentation_models.pytorch's Unet
    (Yakubovskiy 2019): 24,436,369 for one class.

    Attributes:
      backbone: a classifier's name; its variables lie under "backbone".
      activation: None keeps the backbone's own, and is ReLU on the way up.
      widths: channels on the way up, from coarse to fine; the last is the full size's.
    """

    num_classes: int = 21
    activation: Activation | None = None
    kernel_init: Initialiser = INITIALISERS["he"]
    axis: str | None = None
    backbone: str = "resnet34"
    widths: tuple[int, ...] = (256, 128, 64, 32, 16)
    upsampling: Upsampling = "nearest"

    @property
    def multiple(self) -> int:
        """Returns the pixels that one cell of the coarsest map spans, at most."""
        return 32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channel"], train: bool = False
    ) -> Float[Array, "batch height width {self.num_classes}"]:
        """Returns the logits of every pixel of standardised images of any size."""
        height, width = images.shape[1:3]
        padded = pad_to_multiple(images, self.multiple)
        network = backbone(self.backbone, self.activation, self.kernel_init, self.axis)
        *skips, x = by_resolution(network(padded, train, features=True))
        full = padded.shape[1:3]
        steps: list[Array | None] = list(reversed(skips))  # from coarse to fine
        if (skips or [x])[0].shape[1:3] != full:
            steps.append(None)
        widths = (*self.widths[-len(steps) :], *[self.widths[-1]] * (len(steps) - len(self.widths)))
        merge = partial(
            TwoConvolutions,
            activation=self.activation or ACTIVATIONS["relu"],
            kernel_init=self.kernel_init,
            normalise=True,
            padding=1,
            axis=self.axis,
        )
        for i, (skip, features) in enumerate(zip(steps, widths, strict=True)):
            kept = features if self.upsampling == "transposed" else None
            x = Upsample(kept, self.upsampling, self.kernel_init, name=f"up{i}")(x)
            # Classifiers without padding have maps whose sides are no doubles.
            x = resize(x, full if skip is None else skip.shape[1:3])
            if skip is not None:
                x = jnp.concatenate([x, skip], axis=-1)
            x = merge(features, name=f"merge{i}")(x, train)
        x = Conv(self.num_classes, 3, kernel_init=self.kernel_init, name="head")(x)
        return x[:, :height, :width]


UNetSame = partial(UNet, padding="same", normalise=True, dropout=0.0)
# For two CPU cores: the finest convolutions, which cost most, run on a quarter of the pixels.
LeanUNet = partial(UNetSame, width=32, depth=2, stem=2, skips="add")

MODELS = {
    "unet": Entry(UNet, image_size=572, channels=1, task="segmentation"),
    "unet_same": Entry(UNetSame, image_size=256, task="segmentation"),
    "unet_lean": Entry(LeanUNet, image_size=64, task="segmentation"),
    "unet_backbone": Entry(UNetOnBackbone, image_size=224, task="segmentation"),
}
