"""YOLO: every cell of a grid predicts whether an object is centred there, its class and its box.

Redmon et al., "You only look once", 2016 (no anchors); Redmon and Farhadi, "YOLO9000", 2017
(anchors); "YOLOv3", 2018 (several scales); Ge et al., "YOLOX", 2021 (without anchors again).
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from research.geometry import anchors as anchors_lib
from research.geometry.assignment import Assignment, by_centre
from research.models import Entry
from research.models.backbone import at_strides, backbone
from research.nn.activations import ACTIVATIONS, Activation
from research.nn.convolution import Conv
from research.nn.initialisers import INITIALISERS, Initialiser, normal
from research.nn.normalisation import batch_norm
from research.nn.pyramid import FeaturePyramid


class Yolo(nn.Module):
    """A backbone, a pyramid if it has several strides, and one head that all strides share.

    The head's convolutions are shared; its batch normalisation is one for each stride. A shared one
    would be trained on each map's own statistics, but evaluated with a mixture of all maps'.

    Attributes:
      activation: None keeps the backbone's own, and is ReLU in the head.
      backbone: a classifier's name; its variables lie under "backbone".
      strides: of the maps that predict, pixels a cell, from fine to coarse.
      boxes: boxes a cell.
      width: channels of the head.
      depth: 3x3 convolutions of the head.
      axis: the pmap axis that the batch is split over.
    """

    num_classes: int = 10
    activation: Activation | None = None
    kernel_init: Initialiser = INITIALISERS["he"]
    axis: str | None = None
    backbone: str = "compact"
    strides: Sequence[int] = (8,)
    boxes: int = 1
    width: int = 128
    depth: int = 1

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channel"], train: bool = False
    ) -> Float[Array, "batch predictor 5+{self.num_classes}"]:
        """Returns for each predictor x, y, width, height, objectness, and logits of the classes.

        All of them are raw: `decode` makes boxes of them. Predictors are ordered by stride, row,
        column and box, as in `make_predictors`.
        """
        norm = batch_norm(train, self.axis)
        activation = self.activation or ACTIVATIONS["relu"]
        network = backbone(self.backbone, self.activation, self.kernel_init, self.axis)
        maps = at_strides(network(images, train, features=True), images.shape[1], self.strides)
        if len(maps) > 1:
            maps = FeaturePyramid(self.width, name="pyramid")(maps)
        convolutions = [
            Conv(self.width, 3, use_bias=False, kernel_init=self.kernel_init, name=f"head{i}_conv")
            for i in range(self.depth)
        ]
        outputs = 5 + self.num_classes
        # Small, so that training starts from the prior box in the middle of the cell.
        last = Conv(self.boxes * outputs, 1, kernel_init=normal(lambda shape: 0.01), name="predict")
        predictions = []
        for stride, x in zip(self.strides, maps, strict=True):
            own = f"_stride{stride}" if len(maps) > 1 else ""
            for i, convolution in enumerate(convolutions):
                x = activation(norm(name=f"head{i}_bn{own}")(convolution(x)))
            # In float32 whatever the precision: bfloat16 has steps of a hundredth of a box.
            predictions.append(last(x.astype(jnp.float32)).reshape(len(x), -1, outputs))
        raw = jnp.concatenate(predictions, axis=1)
        # Training starts with low objectness, or the many empty cells would dominate the loss.
        return raw.at[..., 4].add(-4.0)


class Predictors(NamedTuple):
    """The place and the prior box of each predictor.

    Attributes:
      points: the middle (x, y) of its cell, pixels.
      stride: the side of its cell, pixels.
      prior: (width, height) of its anchor, pixels.
      reach: the largest distance of a box's centre from its cell's middle, cells.
    """

    points: Float[Array, "predictor 2"]
    stride: Float[Array, " predictor"]
    prior: Float[Array, "predictor 2"]
    reach: float


def make_predictors(
    image_size: tuple[int, int],
    strides: Sequence[int],
    priors: Sequence[Float[np.ndarray, "box 2"]],
    reach: float = 0.5,
) -> Predictors:
    """Makes the predictors of maps at these strides, from fine to coarse.

    Args:
      image_size: height and width in pixels; a map has a cell for each stride that has begun.
      priors: for each stride, the (width, height) of its boxes in pixels.
      reach: 0.5 if an object is assigned only to the cell that holds its centre.
    """
    points, cells, sizes = [], [], []
    for stride, prior in zip(strides, priors, strict=True):
        height, width = (-(-side // stride) for side in image_size)
        middle = anchors_lib.centres(height, width, stride)
        points.append(jnp.repeat(middle, len(prior), axis=0))
        cells.append(jnp.full(len(points[-1]), float(stride)))
        sizes.append(jnp.tile(jnp.asarray(prior, jnp.float32), (height * width, 1)))
    return Predictors(
        jnp.concatenate(points), jnp.concatenate(cells), jnp.concatenate(sizes), reach
    )


def decode(
    raw: Float[Array, "batch predictor outputs"], predictors: Predictors
) -> Float[Array, "batch predictor 4"]:
    """Returns boxes (x0, y0, x1, y1) in pixels.

    The centre is the cell's middle plus 2 r (sigmoid(t) - 1/2) cells, which for a reach r of 1/2 is
    YOLO9000's "corner plus sigmoid"; the size is the prior's times exp(t).
    """
    offset = 2 * predictors.reach * (jax.nn.sigmoid(raw[..., :2]) - 0.5)
    centre = predictors.points + offset * predictors.stride[:, None]
    # Bounded: an exponential that ran away would be infinite, and its gradient NaN.
    half = predictors.prior * jnp.exp(jnp.clip(raw[..., 2:4], -6.0, 6.0)) / 2
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def scores_of(raw: Float[Array, "batch predictor outputs"]) -> Float[Array, "batch predictor _"]:
    """Returns P(object) P(class | object) of each predictor."""
    return jax.nn.sigmoid(raw[..., 4:5]) * jax.nn.softmax(raw[..., 5:])


def assign(
    predictors: Predictors,
    boxes: Float[Array, "object 4"],
    valid: Bool[Array, " object"],
    crowd: Bool[Array, " object"],
) -> Assignment:
    """Assigns an image's objects to cells near their centre, there to the most similar prior.

    Similar in shape, by IoU as if they shared their centre; so priors of several sizes or strides
    share the objects out among them.
    """
    size = jnp.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)  # [object, 2]
    both = jnp.minimum(predictors.prior[:, None], size[None]).prod(-1)
    either = predictors.prior.prod(-1)[:, None] + size.prod(-1)[None] - both
    similar = both / jnp.maximum(either, 1e-6)  # [predictor, object]
    return by_centre(
        predictors.points,
        predictors.stride,
        boxes,
        valid,
        crowd,
        radius=predictors.reach,
        allowed=similar >= similar.max(0),
    )


MODELS = {"yolo": Entry(Yolo, image_size=64, min_size=8, task="detection")}
