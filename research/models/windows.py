"""A classifier of windows, and the same classifier run over a whole image at once.

Sermanet et al., "OverFeat", 2014, section 3.3: a dense layer is a convolution whose filter is as
large as its map, so windows that overlap share all their work.
"""

import flax.linen as nn
from flax.linen.dtypes import promote_dtype
from jaxtyping import Array, Float

from research.models import Entry
from research.nn.activations import ACTIVATIONS, Activation
from research.nn.convolution import Conv, convolution
from research.nn.initialisers import INITIALISERS, Initialiser
from research.nn.normalisation import batch_norm
from research.nn.pooling import max_pool

WINDOW = 32  # side of the classifier's window, pixels
STRIDE = 4  # pixels between windows, as pooling halves twice
_MAP = 5  # side of the last map of one window


class WindowDense(nn.Module):
    """A dense layer on a map of side x side cells, or the same layer everywhere on a larger one.

    One kernel, [side side channels, features], serves both ways.
    """

    features: int
    side: int
    kernel_init: Initialiser

    @nn.compact
    def __call__(
        self, maps: Float[Array, "batch height width channel"], convolutional: bool
    ) -> Float[Array, "batch rows columns {self.features}"]:
        channels = maps.shape[-1]
        shape = (self.side * self.side * channels, self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        maps, kernel, bias = promote_dtype(maps, kernel, bias)
        if convolutional:
            return convolution(maps, kernel.reshape(self.side, self.side, channels, -1)) + bias
        return (maps.reshape(len(maps), -1) @ kernel + bias)[:, None, None]


class WindowClassifier(nn.Module):
    """Two convolutions without padding, each pooled, and two dense layers; 0 is background.

    Padding would let a window see its border, which it has not inside a larger image.

    Attributes:
      width: units of the hidden dense layer.
    """

    num_classes: int = 10
    activation: Activation = ACTIVATIONS["relu"]
    kernel_init: Initialiser = INITIALISERS["he"]
    axis: str | None = None
    width: int = 128

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channel"],
        train: bool = False,
        convolutional: bool = False,
    ) -> Float[Array, "batch rows columns 1+{self.num_classes}"]:
        """Returns the logits of each window.

        Args:
          images: windows of 32 x 32, or with `convolutional` images of any size.
          convolutional: run dense layers as convolutions, over all windows of the image at once.
        """
        norm = batch_norm(train, self.axis)
        x = images
        for i, features in enumerate((16, 32)):
            conv = Conv(
                features, 5, 1, "VALID", use_bias=False, kernel_init=self.kernel_init,
                name=f"conv{i}",
            )  # fmt: skip
            x = max_pool(self.activation(norm(name=f"bn{i}")(conv(x))), 2, 2)
        x = WindowDense(self.width, _MAP, self.kernel_init, name="hidden")(x, convolutional)
        logits = WindowDense(1 + self.num_classes, 1, self.kernel_init, name="logits")
        return logits(self.activation(x), convolutional)


MODELS = {"sliding_windows": Entry(WindowClassifier, image_size=WINDOW, task="detection")}
