"""R-CNN, Fast R-CNN and Faster R-CNN: the choice of regions in training and in prediction.

Faster R-CNN proposes regions itself. The other two get them with the batch, as "proposals"
[B, R, 4] (research/data/images/proposals.py).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from research import models
from research.data.images.augment import example_keys
from research.detection.config import DetectionConfig
from research.detection.detector import Batch, Detector, ForwardPass, Outputs, Setting
from research.detection.selection import evidence, select, strides_of
from research.errors import UserError
from research.geometry.assignment import IGNORED, by_iou, sample
from research.geometry.boxes import clip
from research.geometry.nms import nms
from research.losses.detection import proposal_loss, region_loss
from research.random import stream

BEFORE = 6000  # anchors, the best, that take part in suppression: as in the code of Ren et al.
SAMPLED = 16  # regions an image that take part in training, a quarter of them objects at most
DRAWN = 60  # regions an image that --draw_proposals shows, the surest
ANCHORS = 64  # anchors an image that take part in training, half of them objects at most


def make(config: DetectionConfig, setting: Setting) -> Detector:
    """Makes a detector of the R-CNN family; see research/models/rcnn.py."""
    learned = config.model == "faster_rcnn"
    if learned and not setting.sizes:
        raise UserError("--anchors=0: faster_rcnn proposes from anchors; at least 1 is needed.")
    options: dict[str, Any] = {"num_classes": setting.num_classes, "backbone": config.backbone}
    if config.model != "rcnn":
        options["anchors"] = setting.sizes if learned else ()
        options["width"] = config.head_width
        options["strides"] = strides_of(config, (4, 8))
        options["pooling"] = config.region_pooling
    model = models.create(config.model, **options)
    proposed = partial(propose, image_size=setting.image_size, count=config.regions)

    def loss(
        forward: ForwardPass, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        keys = example_keys(stream(key, "regions"), batch["index"], batch["occurrence"])
        truth = (batch["boxes"], batch["valid"], batch["crowd"])

        def choose(objectness: Array, boxes: Array) -> Array:
            regions = proposed(objectness, boxes) if learned else batch["proposals"]
            return jax.vmap(partial(training_regions, image_size=setting.image_size))(
                keys, regions, *truth
            )

        outputs = forward(choose=choose)
        assigned = jax.vmap(partial(by_iou, positive=0.5, negative=0.5, keep_best=False))(
            outputs["regions"], *truth
        )
        total, parts = region_loss(
            outputs["logits"],
            outputs["boxes"],
            assigned,
            batch["boxes"],
            batch["classes"],
            box_loss=config.box_loss,
        )
        if not learned:
            return total, parts
        anchors = jax.vmap(partial(by_iou, positive=0.6, negative=0.3))(outputs["anchors"], *truth)
        anchor_keys = jax.vmap(lambda key: stream(key, "anchors"))(keys)
        sampled = jax.vmap(partial(sample, count=ANCHORS))(anchor_keys, anchors.kind)
        more, others = proposal_loss(
            outputs["objectness"],
            outputs["proposed"],
            anchors,
            sampled,
            batch["boxes"],
            box_loss=config.box_loss,
        )
        return total + more, parts | others

    def predict(forward: ForwardPass, batch: Batch) -> Outputs:
        if not learned and "proposals" not in batch:
            raise UserError(
                f"--model={config.model}: is told with each image where to look, and sees nothing "
                "in an image alone; take a run of another detector."
            )

        def choose(objectness: Array, boxes: Array) -> Array:
            return proposed(objectness, boxes) if learned else batch["proposals"]

        outputs = forward(choose=choose)
        regions = outputs["regions"]
        filled = (regions[..., 2:] > regions[..., :2]).all(-1, keepdims=True)
        scores = jax.nn.softmax(outputs["logits"])[..., 1:] * filled
        found = select(config, outputs["boxes"], scores, setting.image_size)
        looked_at = {"regions": regions[:, :DRAWN]} if config.draw_proposals else {}
        return {**found, **evidence(outputs["logits"], filled), **looked_at}

    return Detector(model, loss, predict)


def propose(objectness: Array, boxes: Array, image_size: tuple[int, int], count: int) -> Array:
    """Returns [B, count, 4]: the best boxes after suppression at IoU 0.7, clipped to the image.

    Ren et al. 2015, section 3.3; the best `BEFORE` boxes take part in suppression. If fewer are
    left, boxes without area fill up.
    """

    def one(objectness: Array, boxes: Array) -> Array:
        score, chosen = jax.lax.top_k(objectness, min(BEFORE, len(objectness)))
        inside = clip(boxes[chosen], *image_size)
        kept = nms(inside, score, count, 0.7, least=-jnp.inf)
        return jnp.where(kept.valid[:, None], inside[kept.box], 0.0)

    return jax.vmap(one)(objectness, boxes)


def training_regions(
    key: Array,
    regions: Array,
    boxes: Array,
    valid: Array,
    crowd: Array,
    image_size: tuple[int, int],
    count: int = SAMPLED,
) -> Array:
    """Samples proposals and true boxes, [n, 4], a quarter of them objects.

    For one image; n is `count`, or all if there are fewer. If one kind has too few regions, they
    are repeated; if it has none, the whole image takes their place. So batch statistics see no
    padding.
    """
    real = valid & ~crowd
    # The objects themselves, so that there is something to learn from before proposals are good.
    everything = jnp.concatenate([jnp.where(real[:, None], boxes, 0.0), regions])
    found = by_iou(everything, boxes, valid, crowd, positive=0.5, negative=0.5, keep_best=False)
    usable = (everything[:, 2:] > everything[:, :2]).all(-1)
    kind = jnp.where(usable, found.kind, IGNORED)
    count = min(count, len(everything))
    drawn = sample(key, kind, count, share=0.25)
    _, first = jax.lax.top_k(drawn.astype(jnp.float32), count)
    again = everything[first[jnp.arange(count) % jnp.maximum(drawn.sum(), 1)]]
    height, width = image_size
    return jnp.where(drawn.any(), again, jnp.array([0.0, 0.0, width, height]))
