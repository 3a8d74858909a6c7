"""AlexNet: Krizhevsky et al., "ImageNet classification with deep convolutional networks", 2012.

Layers and names are torchvision's: the one-tower version of Krizhevsky, "One weird trick for
parallelizing convolutional neural networks", 2014. `alexnet_2012` has the first paper's widths.
"""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
from jaxtyping import Array, Float

from research.models import Entry
from research.nn.activations import ACTIVATIONS, Activation
from research.nn.convolution import Conv
from research.nn.flatten import flatten
from research.nn.initialisers import INITIALISERS, Initialiser
from research.nn.normalisation import local_response_normalisation
from research.nn.pooling import adaptive_average_pool, max_pool
from research.nn.regularisation import Dropout


class AlexNet(nn.Module):
    """Five convolutions, three of them followed by overlapping max pooling; three dense layers.

    Attributes:
      widths: channels of the convolutions.
      groups: of channels that the second, fourth and fifth keep apart: two in 2012, where each of
        two devices held a half.
      normalise: local response normalisation after the first two layers, as in 2012.
      hidden: units of the two hidden dense layers.
      dropout: rate before each of them.
      axis: the pmap axis that the batch is split over.
    """

    num_classes: int = 1000
    activation: Activation = ACTIVATIONS["relu"]
    kernel_init: Initialiser = INITIALISERS["he"]
    axis: str | None = None
    widths: Sequence[int] = (64, 192, 384, 256, 256)
    groups: int = 1
    normalise: bool = False
    hidden: int = 4096
    dropout: float = 0.5

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channel"],
        train: bool = False,
        features: bool = False,
    ) -> Float[Array, "batch classes"] | dict[str, Array]:
        """Returns logits of standardised images, or the maps before each max pooling.

        Sides at 224 pixels: conv1 55, conv2 27, conv5 13.
        """
        conv = partial(Conv, kernel_init=self.kernel_init)
        dense = partial(nn.Dense, kernel_init=self.kernel_init)
        x = self.activation(
            conv(self.widths[0], 11, stride=4, padding=2, name="features_0")(images)
        )
        if self.normalise:
            x = local_response_normalisation(x)
        maps = {"conv1": x}
        x = self.activation(
            conv(self.widths[1], 5, groups=self.groups, name="features_3")(max_pool(x, 3, 2))
        )
        if self.normalise:
            x = local_response_normalisation(x)
        maps["conv2"] = x
        x = self.activation(conv(self.widths[2], 3, name="features_6")(max_pool(x, 3, 2)))
        x = self.activation(conv(self.widths[3], 3, groups=self.groups, name="features_8")(x))
        x = self.activation(conv(self.widths[4], 3, groups=self.groups, name="features_10")(x))
        maps["conv5"] = x
        if features:
            return maps
        x = flatten(adaptive_average_pool(max_pool(x, 3, 2), 6, 6))  # [B, 9216]
        x = Dropout(self.dropout, self.axis)(x, train)
        x = self.activation(dense(self.hidden, name="classifier_1")(x))
        x = Dropout(self.dropout, self.axis)(x, train)
        x = self.activation(dense(self.hidden, name="classifier_4")(x))
        return dense(self.num_classes, name="classifier_6")(x)


MODELS = {
    "alexnet": Entry(AlexNet, image_size=224, min_size=63),
    "alexnet_lrn": Entry(partial(AlexNet, normalise=True), image_size=224, min_size=63),
    # Section 3.5: 60,965,224 parameters; 62,378,344 with groups=1.
    "alexnet_2012": Entry(
        partial(AlexNet, widths=(96, 256, 384, 384, 256), groups=2, normalise=True),
        image_size=224,
        min_size=63,
    ),
}
