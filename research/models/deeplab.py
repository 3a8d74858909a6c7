"""DeepLab-v3: Chen et al., "Rethinking atrous convolution for semantic image segmentation",
2017.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.models import Entry
from research.models.backbone import backbone
from research.nn.activations import ACTIVATIONS, Activation
from research.nn.convolution import Conv
from research.nn.initialisers import INITIALISERS, Initialiser
from research.nn.normalisation import batch_norm
from research.nn.regularisation import Dropout
from research.nn.resampling import pad_to_multiple, resize


class DeepLab(nn.Module):
    """A dilated ResNet, a pyramid of dilated convolutions over its last map, bilinear enlargement.

    With resnet50 and output stride 8 torchvision's deeplabv3_resnet50 without its auxiliary
    classifier: 39,638,869 parameters for 21 classes.

    Attributes:
      backbone: a ResNet's name; its variables lie under "backbone".
      output_stride: 16 or 8: where the ResNet dilates instead of striding.
      rates: dilations of the pyramid's 3x3 convolutions, at output stride 16; at 8 they double.
      width: channels of the pyramid's branches.
      dropout: rate after the pyramid.
      axis: the pmap axis that the batch is split over.
    """

    num_classes: int = 21
    activation: Activation | None = None
    kernel_init: Initialiser = INITIALISERS["he"]
    axis: str | None = None
    backbone: str = "resnet50"
    output_stride: int = 16
    rates: tuple[int, ...] = (6, 12, 18)
    width: int = 256
    dropout: float = 0.5

    @property
    def multiple(self) -> int:
        """Returns the pixels that one cell of the last map spans."""
        return self.output_stride

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channel"], train: bool = False
    ) -> Float[Array, "batch height width {self.num_classes}"]:
        """Returns the logits of every pixel of standardised images of any size."""
        height, width = images.shape[1:3]
        padded = pad_to_multiple(images, self.multiple)
        network = backbone(
            self.backbone,
            self.activation,
            self.kernel_init,
            self.axis,
            output_stride=self.output_stride,
        )
        maps = network(padded, train, features=True)["layer4"]  # [B, H / stride, W / stride, C]
        activation, norm = self.activation or ACTIVATIONS["relu"], batch_norm(train, self.axis)

        def branch(x: Array, side: int, dilation: int, name: str) -> Array:
            conv = partial(Conv, self.width, side, dilation=dilation, use_bias=False)
            x = conv(kernel_init=self.kernel_init, name=f"{name}_conv")(x)
            return activation(norm(name=f"{name}_bn")(x))

        pyramid = [branch(maps, 1, 1, "pyramid0")]
        for i, rate in enumerate(self.rates, 1):
            dilation = rate * 16 // self.output_stride
            pyramid.append(branch(maps, 3, dilation, f"pyramid{i}"))
        whole = branch(maps.mean((1, 2), keepdims=True), 1, 1, "pyramid_image")
        pyramid.append(jnp.broadcast_to(whole, pyramid[0].shape))
        x = branch(jnp.concatenate(pyramid, axis=-1), 1, 1, "project")
        x = branch(Dropout(self.dropout, self.axis)(x, train), 3, 1, "refine")
        x = Conv(self.num_classes, 1, kernel_init=self.kernel_init, name="head")(x)
        return resize(x, padded.shape[1:3])[:, :height, :width]


MODELS = {"deeplab": Entry(DeepLab, image_size=224, task="segmentation")}
