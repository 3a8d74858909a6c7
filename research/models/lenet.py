"""LeNet-5: LeCun et al., "Gradient-based learning applied to document recognition", 1998."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.models import Entry
from research.nn.activations import ACTIVATIONS, Activation
from research.nn.convolution import Conv
from research.nn.flatten import flatten
from research.nn.initialisers import INITIALISERS, Initialiser
from research.nn.pooling import average_pool

# Each digit as a picture of 7x12 pixels, after figure 3; an output compares F6 with one of them.
DIGITS = """
..###.. ...##.. .#####. .#####. .....## ####### ..####. ####### .#####. .#####.
.##.##. ..###.. ##...## ##...## ....### ##..... .##.... .....## ##...## ##...##
##...## .####.. .....## .....## ...#### ##..... ##..... .....## ##...## ##...##
##...## ...##.. .....## .....## ..##.## ##..... ##..... ....##. ##...## ##...##
##...## ...##.. ....##. ....##. .##..## ##..... ##..... ....##. .##.##. ##...##
##...## ...##.. ...##.. ..###.. ##...## ######. ######. ...##.. ..###.. .######
##...## ...##.. ..##... ....##. ##...## .....## ##...## ...##.. .##.##. .....##
##...## ...##.. .##.... .....## ####### .....## ##...## ..##... ##...## .....##
##...## ...##.. ##..... .....## .....## .....## ##...## ..##... ##...## .....##
##...## ...##.. ##..... .....## .....## .....## ##...## .##.... ##...## .....##
.##.##. ...##.. ##..... ##...## .....## ##...## .##.##. .##.... ##...## ....##.
..###.. .###### ####### .#####. .....## .#####. ..###.. ##..... .#####. .####..
"""


def codes(num_classes: int) -> Float[Array, "{num_classes} 84"]:
    """Returns the centre of each class: +1 where its picture is dark and -1 elsewhere.

    Pictures exist of the ten digits; any other number of classes gets random signs, always the
    same (section II-C names both ways).
    """
    if num_classes != 10:
        return jax.random.rademacher(jax.random.key(0), (num_classes, 84), jnp.float32)
    rows = [line.split() for line in DIGITS.split("\n") if line]
    pictures = ["".join(row[digit] for row in rows) for digit in range(10)]
    return jnp.array([[1.0 if cell == "#" else -1.0 for cell in digit] for digit in pictures])


class LeNet5(nn.Module):
    """Two convolution-and-pooling stages, then three dense layers.

    61,706 parameters for 10 classes on 32x32x1 images: every C3 map sees all S2 maps, pooling has
    no parameters, and a softmax loss replaces the radial-basis output layer of 1998 (figure 2).

    Attributes:
      radial: the output layer of 1998, without parameters: a logit is minus the squared distance
        between F6 and the class's code, so the softmax loss is the paper's equation 9 but for its
        constant. Takes the activation "scaled_tanh".
      axis: as all models have; no layer of this one looks across the batch.
    """

    num_classes: int = 10
    activation: Activation = ACTIVATIONS["tanh"]
    kernel_init: Initialiser = INITIALISERS["xavier"]
    axis: str | None = None
    radial: bool = False

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
        x = self.activation(nn.Dense(120, kernel_init=init, name="c5")(flatten(s4)))
        x = self.activation(nn.Dense(84, kernel_init=init, name="f6")(x))
        if self.radial:
            centres = codes(self.num_classes).astype(x.dtype)
            return -((x[:, None] - centres) ** 2).sum(-1)  # equation 7
        return nn.Dense(self.num_classes, kernel_init=init, name="logits")(x)


MODELS = {
    "lenet5": Entry(LeNet5, image_size=32, channels=1, fixed_size=True, min_size=16),
    "lenet5_rbf": Entry(
        partial(LeNet5, radial=True, activation=ACTIVATIONS["scaled_tanh"]),
        image_size=32,
        channels=1,
        fixed_size=True,
        min_size=16,
    ),
}
