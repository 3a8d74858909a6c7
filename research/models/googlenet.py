"""GoogLeNet: Szegedy et al., "Going deeper with convolutions", 2014, table 1.

Layers and names are torchvision's: batch normalisation everywhere, and 3x3 in place of 5x5 filters,
which `googlenet_5x5` has.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from research.models import Entry
from research.nn.activations import ACTIVATIONS, Activation
from research.nn.flatten import flatten
from research.nn.inception import Branch, ConvNorm, InceptionModule, Layer
from research.nn.initialisers import INITIALISERS, Initialiser
from research.nn.pooling import adaptive_average_pool, global_average_pool, max_pool
from research.nn.regularisation import Dropout

# Columns of table 1: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
AUXILIARY = {"4a": "1", "4d": "2"}  # modules whose output a head of this number looks at
halve = partial(max_pool, size=3, stride=2, ceil=True)


def branches(
    one: int,
    three_in: int,
    three: int,
    five_in: int,
    five: int,
    pooled: int,
    five_size: int = 3,
    bottleneck: bool = True,
) -> Sequence[Branch]:
    """Returns the branches of the module of figure 2b, or without bottlenecks of figure 2a.

    Args:
      five_size: side of the third branch's filters, 5 as published.
    """
    pool = partial(max_pool, size=3, stride=1, padding=1)
    if not bottleneck:
        larger = (Layer("branch2_0", three, 3),), (Layer("branch3_0", five, five_size),)
        return ((Layer("branch1", one),), *larger, (pool,))
    return (
        (Layer("branch1", one),),
        (Layer("branch2_0", three_in), Layer("branch2_1", three, 3)),
        (Layer("branch3_0", five_in), Layer("branch3_1", five, five_size)),
        (pool, Layer("branch4_1", pooled)),
    )


class AuxiliaryHead(nn.Module):
    """A classifier on an inner map, which brings gradients to the layers below it (section 5)."""

    num_classes: int
    activation: Activation
    kernel_init: Initialiser
    axis: str | None

    @nn.compact
    def __call__(
        self, maps: Float[Array, "batch height width channel"], train: bool
    ) -> Float[Array, "batch {self.num_classes}"]:
        dense = partial(nn.Dense, kernel_init=self.kernel_init)
        conv = ConvNorm(
            128,
            activation=self.activation,
            kernel_init=self.kernel_init,
            axis=self.axis,
            name="conv",
        )
        x = flatten(conv(adaptive_average_pool(maps, 4, 4), train))  # [B, 2048]
        x = Dropout(0.7, self.axis)(self.activation(dense(1024, name="fc1")(x)), train)
        return dense(self.num_classes, name="fc2")(x)


class GoogLeNet(nn.Module):
    """A stem, nine inception modules, global average pooling and a linear head.

    In training the logits of the auxiliary heads are sown into the collection "auxiliary", for
    their losses to be added at weight 0.3 (apply with mutable=["batch_stats", "auxiliary"]).

    Attributes:
      auxiliary: whether there are auxiliary heads, after modules 4a and 4d.
      modules: the inception modules that are there, of MODULES.
      five: side of the filters of the modules' third branch: 3 is torchvision's, 5 the paper's.
      bottleneck: False leaves the 1x1 convolutions before the larger ones out (figure 2a).
      dropout: rate before the head.
      axis: the pmap axis that the batch is split over.
    """

    num_classes: int = 1000
    activation: Activation = ACTIVATIONS["relu"]
    kernel_init: Initialiser = INITIALISERS["he"]
    axis: str | None = None
    auxiliary: bool = True
    modules: Sequence[str] = tuple(MODULES)
    five: int = 3
    bottleneck: bool = True
    dropout: float = 0.2

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channel"],
        train: bool = False,
        features: bool = False,
    ) -> Float[Array, "batch classes"] | dict[str, Array]:
        """Returns logits of standardised images, or the maps at stride 2, 4, 8, 16 and 32."""
        common: dict[str, Any] = {
            "activation": self.activation,
            "kernel_init": self.kernel_init,
            "axis": self.axis,
        }

        x = ConvNorm(64, 7, 2, **common, name="conv1")(images, train)
        maps = {"conv1": x}
        x = ConvNorm(64, **common, name="conv2")(halve(x), train)
        x = ConvNorm(192, 3, **common, name="conv3")(x, train)
        maps["conv3"] = x
        stage = "2"
        for module in self.modules:
            if module[0] != stage:
                stage = module[0]
                x = max_pool(x, 2, 2, ceil=True) if stage == "5" else halve(x)
            columns = branches(*MODULES[module], self.five, self.bottleneck)
            x = InceptionModule(columns, **common, name=f"inception{module}")(x, train)
            maps[f"inception{stage}"] = x
            asked = self.auxiliary and not features and (train or self.is_initializing())
            if asked and module in AUXILIARY:
                head = AuxiliaryHead(self.num_classes, **common, name=f"aux{AUXILIARY[module]}")
                logits = head(x, train)
                if not self.is_initializing():
                    self.sow("auxiliary", f"logits{AUXILIARY[module]}", logits)
        if features:
            return maps
        x = Dropout(self.dropout, self.axis)(global_average_pool(x), train)
        return nn.Dense(self.num_classes, kernel_init=self.kernel_init, name="fc")(x)


MODELS = {
    "googlenet": Entry(GoogLeNet, image_size=224, min_size=15),
    "googlenet_5x5": Entry(partial(GoogLeNet, five=5), image_size=224, min_size=15),
}
