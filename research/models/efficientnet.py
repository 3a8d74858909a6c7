"""EfficientNet: Tan and Le, "EfficientNet: Rethinking model scaling for CNNs", 2019.

B1 to B7 are B0 made wider, deeper and sharper together (compound scaling, section 3.3). Layers and
names are torchvision's. EfficientNet-Lite0 (Liu, TensorFlow blog, 2020) leaves out squeeze and
excitation and takes ReLU6, which integers can compute.
"""

import math
from collections.abc import Sequence
from functools import partial

import flax.linen as nn
from jaxtyping import Array, Float

from research.models import Entry
from research.nn.activations import ACTIVATIONS, Activation
from research.nn.convolution import Conv, Padding
from research.nn.initialisers import INITIALISERS, Initialiser
from research.nn.mobile import InvertedResidual, divisible
from research.nn.normalisation import batch_norm
from research.nn.pooling import global_average_pool
from research.nn.regularisation import Dropout

# Table 1.
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


class EfficientNet(nn.Module):
    """A strided convolution, stages of inverted residuals, a 1x1 convolution, a linear head.

    Attributes:
      stages: (expansion, filter side, stride of the first block, channels, blocks) of each stage.
      width: multiplies every number of channels.
      depth: multiplies the number of blocks of every stage, rounded up.
      squeeze: whether blocks have squeeze and excitation, to a quarter of a block's input channels.
      dropout: rate before the linear head.
      drop_path: rate of stochastic depth in the last block; it grows from 0 in the first.
      padding: of the convolutions larger than 1x1: None is PyTorch's, "SAME" is TensorFlow's.
      momentum, epsilon: of batch normalisation.
      axis: the pmap axis that the batch is split over.
    """

    num_classes: int = 1000
    activation: Activation = ACTIVATIONS["silu"]
    kernel_init: Initialiser = INITIALISERS["he"]
    axis: str | None = None
    stages: Sequence[tuple[int, int, int, int, int]] = STAGES
    width: float = 1.0
    depth: float = 1.0
    squeeze: bool = True
    dropout: float = 0.2
    drop_path: float = 0.2
    padding: Padding | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channel"],
        train: bool = False,
        features: bool = False,
    ) -> Float[Array, "batch classes"] | dict[str, Array]:
        """Returns logits of standardised images, or the maps at stride 2, 4, 8, 16 and 32."""
        conv = partial(Conv, use_bias=False, kernel_init=self.kernel_init)
        norm = batch_norm(train, self.axis, self.momentum, self.epsilon)
        x = conv(divisible(32 * self.width), 3, 2, self.padding, name="features_0_0")(images)
        x = self.activation(norm(name="features_0_1")(x))

        repeats = [math.ceil(stage[-1] * self.depth) for stage in self.stages]
        maps, level, done = {}, 1, 0
        for stage, (expansion, size, first_stride, channels, _) in enumerate(self.stages):
            level += first_stride == 2
            for block in range(repeats[stage]):
                x = InvertedResidual(
                    expanded=divisible(expansion * x.shape[-1]),
                    channels=divisible(channels * self.width),
                    size=size,
                    stride=first_stride if block == 0 else 1,
                    squeezed=max(1, x.shape[-1] // 4) if self.squeeze else 0,
                    activation=self.activation,
                    squeeze_activation=self.activation,
                    drop_path=self.drop_path * done / sum(repeats),
                    padding=self.padding,
                    momentum=self.momentum,
                    epsilon=self.epsilon,
                    kernel_init=self.kernel_init,
                    axis=self.axis,
                    name=f"features_{stage + 1}_{block}",
                )(x, train)
                done += 1
            maps[f"stage{level}"] = x  # the last map of each size stays
        if features:
            return maps
        last = len(self.stages) + 1
        x = conv(4 * x.shape[-1], 1, name=f"features_{last}_0")(x)
        x = global_average_pool(self.activation(norm(name=f"features_{last}_1")(x)))
        x = Dropout(self.dropout, self.axis)(x, train)
        return nn.Dense(self.num_classes, kernel_init=self.kernel_init, name="classifier_1")(x)


# The first row of each model: width, depth, native image side, dropout.
SCALES = {
    "efficientnet_b0": (1.0, 1.0, 224, 0.2),
    "efficientnet_b1": (1.0, 1.1, 240, 0.2),
    "efficientnet_b2": (1.1, 1.2, 260, 0.3),
    "efficientnet_b3": (1.2, 1.4, 300, 0.3),
    "efficientnet_b4": (1.4, 1.8, 380, 0.4),
    "efficientnet_b5": (1.6, 2.2, 456, 0.4),
    "efficientnet_b6": (1.8, 2.6, 528, 0.5),
    "efficientnet_b7": (2.0, 3.1, 600, 0.5),
}

MODELS = {
    name: Entry(
        partial(
            EfficientNet,
            width=width,
            depth=depth,
            dropout=dropout,
            # torchvision's B5 to B7 keep TensorFlow's constants, B0 to B4 PyTorch's.
            momentum=0.99 if width >= 1.6 else 0.9,
            epsilon=1e-3 if width >= 1.6 else 1e-5,
        ),
        image_size,
    )
    for name, (width, depth, image_size, dropout) in SCALES.items()
}
# As TensorFlow's authors trained them: timm's tf_ networks.
MODELS |= {
    f"tf_{name}": Entry(
        partial(
            EfficientNet,
            width=width,
            depth=depth,
            dropout=dropout,
            padding="SAME",
            momentum=0.99,
            epsilon=1e-3,
        ),
        image_size,
        twin=name,
    )
    for name, (width, depth, image_size, dropout) in SCALES.items()
}
MODELS["efficientnet_lite0"] = Entry(
    partial(
        EfficientNet,
        activation=ACTIVATIONS["relu6"],
        squeeze=False,
        padding="SAME",
        momentum=0.99,
        epsilon=1e-3,
    ),
    image_size=224,
)
# As timm trained it anew, with PyTorch's padding.
MODELS["timm_efficientnet_lite0"] = Entry(
    partial(EfficientNet, activation=ACTIVATIONS["relu6"], squeeze=False),
    image_size=224,
    twin="efficientnet_lite0",
)
