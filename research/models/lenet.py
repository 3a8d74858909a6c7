"""LeNet-5: LeCun et al., "Gradient-based learning applied to document recognition", 1998."""

import flax.linen as nn
from jaxtyping import Array, Float

from research.models import Entry
from research.nn.activations import ACTIVATIONS, Activation
from research.nn.convolution import Conv
from research.nn.initialisers import INITIALISERS, Initialiser
from research.nn.pooling import average_pool


class LeNet5(nn.Module):
    """Two convolution-and-pooling stages, then three dense layers.

    61,706 parameters for 10 classes on 32x32x1 images: every C3 map sees all S2 maps, pooling has
    no parameters, and a softmax loss replaces the radial-basis output layer of 1998 (figure 2).
    """

    num_classes: int = 10
    activation: Activation = ACTIVATIONS["tanh"]
    kernel_init: Initialiser = INITIALISERS["xavier"]
    axis: str | None = None  # no layer of this model looks across the batch

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channel"],
        train: bool = False,
        features: bool = False,
    ) -> Float[Array, "batch classes"] | dict[str, Array]:
        """Returns logits of standardised images, or the maps S2 and S4."""
        init = self.kernel_init
        x = Conv(6, 5, padding="VALID", kernel_init=init, name="c1")(images)  # [B, 28, 28, 6]
        s2 = average_pool(self.activation(x), 2, 2)  # [B, 14, 14, 6]
        x = Conv(16, 5, padding="VALID", kernel_init=init, name="c3")(s2)  # [B, 10, 10, 16]
        s4 = average_pool(self.activation(x), 2, 2)  # [B, 5, 5, 16]
        if features:
            return {"s2": s2, "s4": s4}
        x = s4.reshape(len(s4), -1)
        x = self.activation(nn.Dense(120, kernel_init=init, name="c5")(x))
        x = self.activation(nn.Dense(84, kernel_init=init, name="f6")(x))
        return nn.Dense(self.num_classes, kernel_init=init, name="logits")(x)


MODELS = {"lenet5": Entry(LeNet5, image_size=32, channels=1, fixed_size=True, min_size=16)}
