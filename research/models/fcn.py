"""FCN: Long et al., "Fully convolutional networks for semantic segmentation", 2015."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from research.models import Entry
from research.models.backbone import backbone, pooled
from research.nn.activations import ACTIVATIONS, Activation
from research.nn.convolution import Conv
from research.nn.initialisers import INITIALISERS, Initialiser
from research.nn.regularisation import Dropout
from research.nn.resampling import pad_to_multiple, resize
from research.nn.transposed_convolution import TransposedConv


def bilinear_kernel(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
    """Initialises a transposed convolution as bilinear interpolation of channels (section 3.3).

    Its filters of side f enlarge by ceil(f / 2).
    """
    side, _, inputs, outputs = shape
    factor = (side + 1) // 2
    centre = factor - 1 if side % 2 else factor - 0.5
    ramp = 1 - np.abs(np.arange(side) - centre) / factor
    return jnp.asarray(np.einsum("i,j,ab->ijab", ramp, ramp, np.eye(inputs, outputs)), dtype)


class FCN(nn.Module):
    """A classifier made convolutional; its scores at stride 32 are refined by finer maps' scores.

    With vgg16 the paper's networks: FCN-32s has 134,346,581 parameters for 21 classes (its last,
    fixed interpolation has none here). Maps are padded to keep their size, where the paper pads the
    image by 100 pixels and crops.

    Attributes:
      stride: of the finest scores: 32, 16 or 8 (figure 3).
      backbone: a classifier's name; its variables lie under "backbone".
      hidden: channels of the two convolutions that were VGG's dense layers.
      dropout: rate after each of them.
      axis: the pmap axis that the batch is split over.
    """

    num_classes: int = 21
    activation: Activation | None = None
    kernel_init: Initialiser = INITIALISERS["he"]
    axis: str | None = None
    stride: int = 8
    backbone: str = "vgg16"
    hidden: int = 4096
    dropout: float = 0.5

    @property
    def multiple(self) -> int:
        """Returns the pixels that one cell of the coarsest map spans."""
        return 32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channel"], train: bool = False
    ) -> Float[Array, "batch height width {self.num_classes}"]:
        """Returns the logits of every pixel of standardised images of any size."""
        height, width = images.shape[1:3]
        padded = pad_to_multiple(images, self.multiple)
        network = backbone(self.backbone, self.activation, self.kernel_init, self.axis)
        maps = pooled(network(padded, train, features=True), padded.shape[1])
        activation = self.activation or ACTIVATIONS["relu"]
        x = maps[32]
        for name, side in (("fc6", 7), ("fc7", 1)):
            x = activation(Conv(self.hidden, side, kernel_init=self.kernel_init, name=name)(x))
            x = Dropout(self.dropout, self.axis)(x, train)
        # Scores start at zero, as in the paper: nothing is unlearned before it is learned.
        score = partial(Conv, self.num_classes, 1, kernel_init=INITIALISERS["zeros"])
        x = score(kernel_init=self.kernel_init, name="score32")(x)
        for stride in (16, 8):
            if self.stride <= stride:
                x = TransposedConv(
                    self.num_classes,
                    4,
                    2,
                    padding=1,
                    use_bias=False,
                    kernel_init=bilinear_kernel,
                    name=f"up{stride}",
                )(x)
                x = x + score(name=f"score{stride}")(maps[stride])
        return resize(x, padded.shape[1:3])[:, :height, :width]


MODELS = {
    f"fcn{stride}s": Entry(
        partial(FCN, stride=stride), image_size=224, min_size=1, task="segmentation"
    )
    for stride in (32, 16, 8)
}
