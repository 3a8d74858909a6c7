"""VGG: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image
recognition", 2014. Layers and names are torchvision's.
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
from research.nn.normalisation import batch_norm
from research.nn.pooling import adaptive_average_pool, max_pool
from research.nn.regularisation import Dropout


class VGG(nn.Module):
    """Stages of 3x3 convolutions, each ended by 2x2 max pooling; three dense layers.

    Attributes:
      stages: convolutions of each stage; width doubles from stage to stage up to 8 times.
      normalise: batch normalisation after each convolution, which keeps its bias as in torchvision.
      width: channels of the first stage.
      hidden: units of the two hidden dense layers.
      dropout: rate after each of them.
      axis: the pmap axis that the batch is split over.
    """

    num_classes: int = 1000
    activation: Activation = ACTIVATIONS["relu"]
    kernel_init: Initialiser = INITIALISERS["he"]
    axis: str | None = None
    stages: Sequence[int] = (2, 2, 3, 3, 3)
    normalise: bool = False
    width: int = 64
    hidden: int = 4096
    dropout: float = 0.5

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channel"],
        train: bool = False,
        features: bool = False,
    ) -> Float[Array, "batch classes"] | dict[str, Array]:
        """Returns logits of standardised images, or the map of each stage before its pooling."""
        norm = batch_norm(train, self.axis)
        maps = {}
        x = images
        layer = 0  # counts convolutions, normalisations, activations and poolings
        for stage, convolutions in enumerate(self.stages):
            width = self.width * min(2**stage, 8)
            for _ in range(convolutions):
                x = Conv(width, 3, kernel_init=self.kernel_init, name=f"features_{layer}")(x)
                layer += 1
                if self.normalise:
                    x = norm(name=f"features_{layer}")(x)
                    layer += 1
                x = self.activation(x)
                layer += 1
            maps[f"stage{stage + 1}"] = x
            x = max_pool(x, 2, 2)
            layer += 1
        if features:
            return maps
        x = flatten(adaptive_average_pool(x, 7, 7))  # [B, 25088]
        for name in ("classifier_0", "classifier_3"):
            x = nn.Dense(self.hidden, kernel_init=self.kernel_init, name=name)(x)
            x = Dropout(self.dropout, self.axis)(self.activation(x), train)
        return nn.Dense(self.num_classes, kernel_init=self.kernel_init, name="classifier_6")(x)


VGG16 = partial(VGG, stages=(2, 2, 3, 3, 3))
VGG19 = partial(VGG, stages=(2, 2, 4, 4, 4))

MODELS = {
    "vgg16": Entry(VGG16, image_size=224, min_size=32),
    "vgg16_bn": Entry(partial(VGG16, normalise=True), image_size=224, min_size=32),
    "vgg19": Entry(VGG19, image_size=224, min_size=32),
    "vgg19_bn": Entry(partial(VGG19, normalise=True), image_size=224, min_size=32),
}
