"""The R-CNN family: regions of interest are proposed first, then classified and moved.

R-CNN (Girshick et al., "Rich feature hierarchies", 2014) runs a network on every warped region;
Fast R-CNN (Girshick 2015) runs it once and pools regions from its maps; Faster R-CNN (Ren et al.
2015) also learns to propose them. Each takes `choose`, which returns the regions to classify.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.geometry import anchors as anchors_lib
from research.models import Entry
from research.models.backbone import at_strides, backbone, by_resolution
from research.nn.activations import ACTIVATIONS, Activation
from research.nn.convolution import Conv
from research.nn.initialisers import INITIALISERS, Initialiser, normal
from research.nn.pooling import global_average_pool
from research.nn.pyramid import FeaturePyramid
from research.nn.region_pooling import crop_and_resize, roi_align, roi_pool

Boxes = Float[Array, "batch box 4"]
# (objectness logits, boxes) of the region proposal network, or of nothing -> regions to classify.
Choose = Callable[[Float[Array, "batch box"], Boxes], Float[Array, "batch region 4"]]

SMALL = normal(lambda shape: 0.01)


class RegionHead(nn.Module):
    """Two dense layers on a pooled region, then logits of background and classes, and a move.

    Attributes:
      width: units of the dense layers.
    """

    num_classes: int
    width: int
    activation: Activation
    kernel_init: Initialiser

    @nn.compact
    def __call__(
        self, features: Float[Array, "batch region feature"], regions: Boxes
    ) -> dict[str, Array]:
        """Returns "regions", "logits" [B, R, 1 + classes] (0 is background) and "boxes"."""
        x = features
        for i in range(2):
            x = self.activation(
                nn.Dense(self.width, kernel_init=self.kernel_init, name=f"dense{i}")(x)
            )
        logits = nn.Dense(self.num_classes + 1, kernel_init=SMALL, name="class")(x)
        # In float32 whatever the precision, as bfloat16 is too coarse for boxes.
        moves = nn.Dense(4, kernel_init=SMALL, name="box")(x.astype(jnp.float32))
        return {
            "regions": regions,
            "logits": logits,
            "boxes": anchors_lib.moved(regions, moves),
        }


class FasterRCNN(nn.Module):
    """One network that proposes, pools, classifies and moves regions; trained jointly.

    Attributes:
      anchors: (width, height) in pixels of the boxes that proposals start from; none for Fast
        R-CNN, where `choose` brings regions from elsewhere.
      strides: of the maps that are combined, pixels a cell; regions are pooled from the finest.
      width: channels of that map.
      head: units of the dense layers.
      size: cells of a pooled region's side.
      pooling: "align" samples between cells (He et al. 2017), "pool" rounds to cells as in 2015.
    """

    num_classes: int = 10
    activation: Activation | None = None
    kernel_init: Initialiser = INITIALISERS["he"]
    axis: str | None = None
    backbone: str = "compact"
    anchors: Sequence[tuple[float, float]] = ((14.0, 14.0), (20.0, 20.0), (28.0, 28.0))
    strides: Sequence[int] = (4, 8)
    width: int = 64
    head: int = 256
    size: int = 5
    pooling: Literal["align", "pool"] = "align"

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channel"],
        train: bool = False,
        choose: Choose | None = None,
    ) -> dict[str, Array]:
        """Returns the head's outputs and, with anchors, these, "proposed" boxes, "objectness".

        Args:
          choose: None takes every proposal, or the whole image if there are none.
        """
        activation = self.activation or ACTIVATIONS["relu"]
        network = backbone(self.backbone, self.activation, self.kernel_init, self.axis)
        height, width = images.shape[1:3]
        maps = at_strides(network(images, train, features=True), height, self.strides)
        x = FeaturePyramid(self.width, results=1, name="pyramid")(maps)[
            0
        ]  # [B, H / s, W / s, width]
        x = activation(x)
        stride = self.strides[0]

        outputs = {}
        objectness = jnp.zeros((len(x), 1))
        proposed = jnp.tile(jnp.array([0.0, 0.0, width, height]), (len(x), 1, 1))
        if self.anchors:
            conv = partial(Conv, kernel_init=SMALL)
            shared = Conv(self.width, 3, kernel_init=self.kernel_init, name="proposal_conv")(x)
            shared = activation(shared)
            boxes = len(self.anchors)
            objectness = conv(boxes, 1, name="proposal_object")(shared).reshape(len(x), -1) - 2.0
            moves = conv(4 * boxes, 1, name="proposal_box")(shared.astype(jnp.float32))
            moves = moves.reshape(len(x), -1, 4)
            cells = anchors_lib.centres(x.shape[1], x.shape[2], stride)
            anchors = anchors_lib.anchor_boxes(cells, jnp.array(self.anchors)).reshape(-1, 4)
            proposed = anchors_lib.moved(anchors[None], moves)
            anchors = jnp.broadcast_to(anchors, proposed.shape)
            outputs = {"objectness": objectness, "proposed": proposed, "anchors": anchors}
        # Proposals are learned from their own loss, not through the regions' (section 3.2).
        objectness, proposed = jax.lax.stop_gradient((objectness, proposed))
        regions = proposed if choose is None else choose(objectness, proposed)
        pool = {"align": roi_align, "pool": roi_pool}[self.pooling]
        pooled = jax.vmap(partial(pool, size=self.size, scale=1 / stride))(x, regions)
        features = pooled.reshape(*regions.shape[:2], -1)
        head = RegionHead(self.num_classes, self.head, activation, self.kernel_init, name="head")
        return outputs | head(features, regions)


class RCNN(nn.Module):
    """A network that each region, cut out and warped to a square, goes through by itself.

    Attributes:
      size: side of the square, pixels.
      context: share of a region's sides that is added on each side before it is cut out.
      head: units of the dense layers.
    """

    num_classes: int = 10
    activation: Activation | None = None
    kernel_init: Initialiser = INITIALISERS["he"]
    axis: str | None = None
    backbone: str = "compact"
    size: int = 24
    context: float = 0.1
    head: int = 128

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channel"],
        train: bool = False,
        choose: Choose | None = None,
    ) -> dict[str, Array]:
        """Returns the head's outputs; `choose` brings the regions, None: the whole image."""
        batch, height, width, channels = images.shape
        whole = jnp.tile(jnp.array([0.0, 0.0, width, height]), (batch, 1, 1))
        regions = whole if choose is None else choose(jnp.zeros((batch, 1)), whole)
        margin = self.context * jnp.tile(regions[..., 2:] - regions[..., :2], 2)
        around = regions + margin * jnp.array([-1.0, -1.0, 1.0, 1.0])
        warped = jax.vmap(partial(crop_and_resize, size=(self.size, self.size)))(images, around)
        crops = warped.reshape(-1, self.size, self.size, channels)
        network = backbone(self.backbone, self.activation, self.kernel_init, self.axis)
        x = global_average_pool(by_resolution(network(crops, train, features=True))[-1])
        head = RegionHead(
            self.num_classes,
            self.head,
            self.activation or ACTIVATIONS["relu"],
            self.kernel_init,
            name="head",
        )
        return head(x.reshape(*regions.shape[:2], -1), regions)


MODELS = {
    "rcnn": Entry(RCNN, image_size=64, min_size=8, task="detection"),
    "fast_rcnn": Entry(
        partial(FasterRCNN, anchors=()), image_size=64, min_size=8, task="detection"
    ),
    "faster_rcnn": Entry(FasterRCNN, image_size=64, min_size=8, task="detection"),
}
