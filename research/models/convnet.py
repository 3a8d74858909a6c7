"""A small convolutional network for digits and other small images; the default."""

import functools

import flax.linen as nn
from jaxtyping import Array, Float

from research.models import Entry
from research.nn.activations import ACTIVATIONS, Activation
from research.nn.convolution import Conv
from research.nn.initialisers import INITIALISERS, Initialiser
from research.nn.normalisation import batch_norm
from research.nn.pooling import global_average_pool, max_pool, spatial_pyramid_pool
from research.nn.regularisation import Dropout


class ConvNet(nn.Module):
    """Stages of 3x3 convolutions; max pooling, or a stride, halves the side between stages.

    Attributes:
      widths: channels of each stage. Few at the finest, where most of the time goes.
      layers: convolutions of each stage.
      normalise: whether batch normalisation follows each convolution; without, it has a bias.
      pooled: False halves by the stride of a stage's first convolution: nothing but convolutions
        before the head (Springenberg et al., "Striving for simplicity", 2014).
      pyramid: sides of the grids of bins that the last map is pooled over, such as 1+2+4, in the
        place of its mean (He et al., "Spatial pyramid pooling", 2014): a length for every size of
        image, so that one network may be trained on several sizes, one after the other.
      dropout: rate before the linear head.
      axis: the pmap axis that the batch is split over.
    """

    num_classes: int = 10
    activation: Activation = ACTIVATIONS["relu"]
    kernel_init: Initialiser = INITIALISERS["he"]
    axis: str | None = None
    widths: tuple[int, ...] = (8, 24, 48)
    layers: int = 2
    normalise: bool = True
    pooled: bool = True
    pyramid: tuple[int, ...] = ()
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channel"],
        train: bool = False,
        features: bool = False,
    ) -> Float[Array, "batch classes"] | dict[str, Array]:
        """Returns logits of standardised images, or the map of each stage."""
        norm = batch_norm(train, self.axis)
        maps = {}
        x = images
        for stage, width in enumerate(self.widths):
            if stage > 0 and self.pooled:
                x = max_pool(x, 2, 2)
            for layer in range(self.layers):
                stride = 2 if stage > 0 and layer == 0 and not self.pooled else 1
                name = f"stage{stage}_{layer}"
                x = Conv(
                    width,
                    3,
                    stride,
                    use_bias=not self.normalise,
                    kernel_init=self.kernel_init,
                    name=f"{name}_conv",
                )(x)
                if self.normalise:
                    x = norm(name=f"{name}_bn")(x)
                x = self.activation(x)
            maps[f"stage{stage}"] = x  # [B, H / 2^stage, W / 2^stage, width]
        if features:
            return maps
        x = spatial_pyramid_pool(x, self.pyramid) if self.pyramid else global_average_pool(x)
        x = Dropout(self.dropout, self.axis)(x, train)
        return nn.Dense(self.num_classes, kernel_init=self.kernel_init, name="fc")(x)


MODELS = {
    "convnet": Entry(ConvNet, image_size=28, channels=1, min_size=4),
    # Few-shot learning's four blocks (Vinyals et al. 2016, section 4.1.1), wider where it is cheap.
    "conv4": Entry(
        functools.partial(ConvNet, widths=(32, 64, 128, 128), layers=1),
        image_size=28,
        channels=1,
        min_size=8,
    ),
}
