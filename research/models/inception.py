"""Inception-v3: Szegedy et al., "Rethinking the inception architecture for computer vision", 2015.

Layers and names are torchvision's.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from research.models import Entry
from research.nn.activations import ACTIVATIONS, Activation
from research.nn.inception import Branch, ConvNorm, InceptionModule, Layer
from research.nn.initialisers import INITIALISERS, Initialiser
from research.nn.pooling import (
    adaptive_average_pool,
    average_pool,
    global_average_pool,
    max_pool,
)
from research.nn.regularisation import Dropout

ROW, COLUMN = (1, 7), (7, 1)  # a 7x7 filter as the product of two
halve = partial(max_pool, size=3, stride=2)
smooth = partial(average_pool, size=3, stride=1, padding=1)


def module_a(pooled: int) -> Sequence[Branch]:
    """Returns branches with two 3x3 in place of a 5x5 (figure 5)."""
    return (
        (Layer("branch1x1", 64),),
        (Layer("branch5x5_1", 48), Layer("branch5x5_2", 64, 5)),
        (
            Layer("branch3x3dbl_1", 64),
            Layer("branch3x3dbl_2", 96, 3),
            Layer("branch3x3dbl_3", 96, 3),
        ),
        (smooth, Layer("branch_pool", pooled)),
    )


MODULE_B: Sequence[Branch] = (  # to half the side, without a narrow place (figure 10)
    (Layer("branch3x3", 384, 3, 2, 0),),
    (
        Layer("branch3x3dbl_1", 64),
        Layer("branch3x3dbl_2", 96, 3),
        Layer("branch3x3dbl_3", 96, 3, 2, 0),
    ),
    (halve,),
)


def module_c(width: int) -> Sequence[Branch]:
    """Returns branches with 1x7 and 7x1 in place of 7x7 (figure 6)."""
    return (
        (Layer("branch1x1", 192),),
        (
            Layer("branch7x7_1", width),
            Layer("branch7x7_2", width, ROW),
            Layer("branch7x7_3", 192, COLUMN),
        ),
        (
            Layer("branch7x7dbl_1", width),
            Layer("branch7x7dbl_2", width, COLUMN),
            Layer("branch7x7dbl_3", width, ROW),
            Layer("branch7x7dbl_4", width, COLUMN),
            Layer("branch7x7dbl_5", 192, ROW),
        ),
        (smooth, Layer("branch_pool", 192)),
    )


MODULE_D: Sequence[Branch] = (
    (Layer("branch3x3_1", 192), Layer("branch3x3_2", 320, 3, 2, 0)),
    (
        Layer("branch7x7x3_1", 192),
        Layer("branch7x7x3_2", 192, ROW),
        Layer("branch7x7x3_3", 192, COLUMN),
        Layer("branch7x7x3_4", 192, 3, 2, 0),
    ),
    (halve,),
)
MODULE_E: Sequence[Branch] = (  # wide on the coarsest map (figure 7)
    (Layer("branch1x1", 320),),
    (
        Layer("branch3x3_1", 384),
        (Layer("branch3x3_2a", 384, (1, 3)), Layer("branch3x3_2b", 384, (3, 1))),
    ),
    (
        Layer("branch3x3dbl_1", 448),
        Layer("branch3x3dbl_2", 384, 3),
        (Layer("branch3x3dbl_3a", 384, (1, 3)), Layer("branch3x3dbl_3b", 384, (3, 1))),
    ),
    (smooth, Layer("branch_pool", 192)),
)
MODULES: dict[str, Sequence[Branch]] = {
    "Mixed_5b": module_a(32),
    "Mixed_5c": module_a(64),
    "Mixed_5d": module_a(64),
    "Mixed_6a": MODULE_B,
    "Mixed_6b": module_c(128),
    "Mixed_6c": module_c(160),
    "Mixed_6d": module_c(160),
    "Mixed_6e": module_c(192),
    "Mixed_7a": MODULE_D,
    "Mixed_7b": MODULE_E,
    "Mixed_7c": MODULE_E,
}


class AuxiliaryHead(nn.Module):
    """A classifier on the last 17x17 map, which acts as a regulariser (section 4)."""

    num_classes: int
    activation: Activation
    kernel_init: Initialiser
    axis: str | None

    @nn.compact
    def __call__(
        self, maps: Float[Array, "batch height width channel"], train: bool
    ) -> Float[Array, "batch {self.num_classes}"]:
        conv = partial(
            ConvNorm, activation=self.activation, kernel_init=self.kernel_init, axis=self.axis
        )
        # 5x5 at stride 3 takes 17x17 to 5x5; images smaller than 299 pixels get there by bins.
        native = min(maps.shape[1:3]) >= 17
        x = average_pool(maps, 5, 3) if native else adaptive_average_pool(maps, 5, 5)
        x = conv(128, name="conv0")(x, train)
        x = conv(768, 5, padding=0, name="conv1")(x, train)
        x = global_average_pool(x)
        return nn.Dense(self.num_classes, kernel_init=self.kernel_init, name="fc")(x)


class InceptionV3(nn.Module):
    """A stem, eleven inception modules, global average pooling and a linear head.

    In training the logits of the auxiliary head are sown into the collection "auxiliary", for its
    loss to be added at weight 0.3 (apply with mutable=["batch_stats", "auxiliary"]).

    Attributes:
      auxiliary: whether there is an auxiliary head, after Mixed_6e.
      modules: the inception modules that are there, of MODULES.
      dropout: rate before the head.
      axis: the pmap axis that the batch is split over.
    """

    num_classes: int = 1000
    activation: Activation = ACTIVATIONS["relu"]
    kernel_init: Initialiser = INITIALISERS["he"]
    axis: str | None = None
    auxiliary: bool = True
    modules: Sequence[str] = tuple(MODULES)
    dropout: float = 0.5

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channel"],
        train: bool = False,
        features: bool = False,
    ) -> Float[Array, "batch classes"] | dict[str, Array]:
        """Returns logits of standardised images, or the last map of each side.

        Sides at 299 pixels: stem 147, conv4 71, mixed5 35, mixed6 17, mixed7 8.
        """
        common: dict[str, Any] = {
            "activation": self.activation,
            "kernel_init": self.kernel_init,
            "axis": self.axis,
        }
        maps = {}
        x = ConvNorm(32, 3, 2, 0, **common, name="Conv2d_1a_3x3")(images, train)
        x = ConvNorm(32, 3, 1, 0, **common, name="Conv2d_2a_3x3")(x, train)
        x = ConvNorm(64, 3, **common, name="Conv2d_2b_3x3")(x, train)
        maps["stem"] = x
        x = ConvNorm(80, **common, name="Conv2d_3b_1x1")(halve(x), train)
        x = ConvNorm(192, 3, 1, 0, **common, name="Conv2d_4a_3x3")(x, train)
        maps["conv4"] = x
        x = halve(x)
        for name in self.modules:
            x = InceptionModule(MODULES[name], **common, name=name)(x, train)
            maps[f"mixed{name[6]}"] = x
            asked = self.auxiliary and not features and (train or self.is_initializing())
            if asked and name == "Mixed_6e":
                logits = AuxiliaryHead(self.num_classes, **common, name="AuxLogits")(x, train)
                if not self.is_initializing():
                    self.sow("auxiliary", "logits", logits)
        if features:
            return maps
        x = Dropout(self.dropout, self.axis)(global_average_pool(x), train)
        return nn.Dense(self.num_classes, kernel_init=self.kernel_init, name="fc")(x)


MODELS = {"inception_v3": Entry(InceptionV3, image_size=299, min_size=75)}
