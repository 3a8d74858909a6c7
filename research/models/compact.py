"""A small residual network for small pictures of several things: backbone of the default runs."""

from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array, Float

from research.models import Entry
from research.nn.activations import ACTIVATIONS, Activation
from research.nn.convolution import Conv
from research.nn.initialisers import INITIALISERS, Initialiser
from research.nn.normalisation import batch_norm
from research.nn.pooling import global_average_pool
from research.nn.residual import ResidualBlock


class CompactNet(nn.Module):
    """Stages of a strided 3x3 convolution and residual blocks; each halves the map.

    As Darknet's (Redmon and Farhadi, "YOLOv3", 2018, table 1) but few channels, with two 3x3
    convolutions a block. No stage works at the full resolution, where a CPU would spend its time.

    Attributes:
      widths: channels of each stage.
      blocks: residual blocks of each stage.
      axis: the pmap axis that the batch is split over.
    """

    num_classes: int = 10
    activation: Activation = ACTIVATIONS["relu"]
    kernel_init: Initialiser = INITIALISERS["he"]
    axis: str | None = None
    widths: Sequence[int] = (32, 64, 128)
    blocks: Sequence[int] = (0, 1, 1)

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channel"],
        train: bool = False,
        features: bool = False,
    ) -> Float[Array, "batch classes"] | dict[str, Array]:
        """Returns logits of standardised images, or the maps at stride 2, 4, 8, ..."""
        norm = batch_norm(train, self.axis)
        maps = {}
        x = images
        for stage, (width, blocks) in enumerate(zip(self.widths, self.blocks, strict=True), 1):
            x = Conv(
                width,
                3,
                2,
                use_bias=False,
                kernel_init=self.kernel_init,
                name=f"stage{stage}_conv",
            )(x)
            x = self.activation(norm(name=f"stage{stage}_bn")(x))
            for block in range(blocks):
                x = ResidualBlock(
                    width=width,
                    activation=self.activation,
                    kernel_init=self.kernel_init,
                    norm=norm,
                    name=f"stage{stage}_{block}",
                )(x)
            maps[f"stage{stage}"] = x  # [B, H / 2^stage, W / 2^stage, width]
        if features:
            return maps
        x = global_average_pool(x)
        return nn.Dense(self.num_classes, kernel_init=self.kernel_init, name="fc")(x)


MODELS = {"compact": Entry(CompactNet, image_size=64, min_size=8)}
