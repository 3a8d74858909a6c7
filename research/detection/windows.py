"""Sliding windows: a classifier trained on crops, run over an image of several sizes at once.

The image is searched once for each typical size of objects (--anchors): their longer sides.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from research import models
from research.data.images.augment import example_keys
from research.detection.config import DetectionConfig
from research.detection.detector import Batch, Detector, ForwardPass, Outputs, Setting
from research.detection.selection import evidence, select
from research.errors import UserError
from research.geometry.anchors import anchor_boxes
from research.geometry.boxes import coverage, iou
from research.losses.detection import mean_where
from research.models.windows import STRIDE, WINDOW
from research.nn.region_pooling import crop_and_resize
from research.random import stream

AROUND = 1.35  # side of an object's window, over the longer side of its box
RANDOM = 6  # windows anywhere, at least, beside one for each object


def make(config: DetectionConfig, setting: Setting) -> Detector:
    """Makes the detector of sliding windows; see research/models/windows.py."""
    model = models.create("sliding_windows", num_classes=setting.num_classes)
    if not setting.sizes:
        raise UserError("--anchors=0: sliding_windows is of their sizes; at least 1 is needed.")
    sizes = [AROUND * max(size) for size in setting.sizes]
    low, high = min(sizes), max(sizes)

    def loss(
        forward: ForwardPass, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        keys = example_keys(stream(key, "windows"), batch["index"], batch["occurrence"])
        windows, label, counted = jax.vmap(
            partial(training_windows, image_size=setting.image_size, low=low, high=high)
        )(keys, batch["boxes"], batch["classes"], batch["valid"], batch["crowd"])
        crops = jax.vmap(partial(crop_and_resize, size=(WINDOW, WINDOW)))(forward.images, windows)
        logits = forward(crops.reshape(-1, *crops.shape[2:]))
        logits = logits.reshape(*label.shape, -1)
        value = mean_where(optax.softmax_cross_entropy_with_integer_labels(logits, label), counted)
        return value, {"class": value}

    def predict(forward: ForwardPass, batch: Batch) -> Outputs:
        boxes, found_logits = [], []
        for size in sizes:
            whole, shape, windows = searched(size, setting.image_size)
            cut = partial(crop_and_resize, boxes=whole[None], size=shape)
            seen = jax.vmap(cut)(forward.images)[:, 0]
            # [B, rows, columns, 1 + classes]
            if config.windows == "naive":
                logits = one_by_one(forward, seen)
            else:
                logits = forward(seen, convolutional=True)
            middle = (windows[..., :2] + windows[..., 2:]).reshape(-1, 2) / 2
            found = anchor_boxes(middle, jnp.full((1, 2), size / AROUND))[:, 0]
            boxes.append(jnp.broadcast_to(found, (len(logits), *found.shape)))
            found_logits.append(logits.reshape(len(logits), len(found), -1))
        logits = jnp.concatenate(found_logits, axis=1)
        scores = jax.nn.softmax(logits)[..., 1:]
        chosen = select(config, jnp.concatenate(boxes, axis=1), scores, setting.image_size)
        return {**chosen, **evidence(logits)}

    return Detector(model, loss, predict, model_size=(WINDOW, WINDOW))


def one_by_one(
    forward: ForwardPass, images: Float[Array, "batch height width channel"]
) -> Float[Array, "batch rows columns outputs"]:
    """Cuts every window out of the images and classifies it by itself: what the other way saves."""
    rows, columns = ((side - WINDOW) // STRIDE + 1 for side in images.shape[1:3])

    def one(number: Array) -> Array:
        top, left = STRIDE * (number // columns), STRIDE * (number % columns)
        sides = (len(images), WINDOW, WINDOW, images.shape[-1])
        window = jax.lax.dynamic_slice(images, (0, top, left, 0), sides)
        logits: Array = forward(window)[:, 0, 0]
        return logits

    logits = jax.lax.map(one, jnp.arange(rows * columns))  # [rows columns, B, outputs]
    return jnp.moveaxis(logits, 0, 1).reshape(len(images), rows, columns, -1)


def searched(
    size: float, image_size: tuple[int, int]
) -> tuple[Float[Array, "4"], tuple[int, int], Float[Array, "rows columns 4"]]:
    """Computes how an image is searched by windows of side `size` pixels.

    Returns:
      The box that is cut out of the image, pixels; the rows and columns it is resized to; and every
      window that the classifier then sees, pixels of the image: up to a quarter of a window, and
      the rest of the last one, lies outside. Each window is scaled as in training.
    """
    margin, scale = size / 4, WINDOW / size
    rows, columns = (max(math.ceil((n + 2 * margin) * scale), WINDOW) for n in image_size)
    whole = jnp.array([0, 0, columns, rows]) / scale - margin
    top, left = (
        jnp.arange((n - WINDOW) // STRIDE + 1) * STRIDE / scale - margin for n in (rows, columns)
    )
    corner = jnp.stack(jnp.meshgrid(left, top), axis=-1)
    return whole, (rows, columns), jnp.concatenate([corner, corner + size], axis=-1)


def training_windows(
    key: Array,
    boxes: Array,
    classes: Array,
    valid: Array,
    crowd: Array,
    image_size: tuple[int, int],
    low: float,
    high: float,
) -> tuple[Array, Array, Array]:
    """Draws an image's windows [n, 4], their class (0 is background), and whether they count.

    One window lies around each object to find, a little off; others lie anywhere. These are
    background if they neither overlap an object's window much nor lie mostly in a crowd; otherwise
    they do not count. Slots without an object get windows anywhere, as batch statistics must see no
    padding.
    """
    keys = jax.random.split(key, 4)
    objects = len(boxes)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    side = AROUND * (boxes[:, 2:] - boxes[:, :2]).max(1)
    ideal = jnp.concatenate([centre - side[:, None] / 2, centre + side[:, None] / 2], axis=1)
    # As far off as the best window of a grid of places and sizes is.
    grow = jax.random.uniform(keys[0], (objects, 1), minval=0.85, maxval=1.18)
    off = jax.random.uniform(keys[1], (objects, 2), minval=-0.1, maxval=0.1) * side[:, None]
    half = side[:, None] * grow / 2
    near = jnp.concatenate([centre + off - half, centre + off + half], axis=1)

    count = objects + RANDOM
    sides = jnp.array([image_size[1], image_size[0]], jnp.float32)
    middle = jax.random.uniform(keys[2], (count, 2)) * sides
    size = jax.random.uniform(keys[3], (count, 1), minval=low, maxval=high) / 2
    anywhere = jnp.concatenate([middle - size, middle + size], axis=1)
    shows = iou(anywhere[:, None], ideal[None]) >= 0.4  # [window, object]
    shows |= crowd & (coverage(anywhere[:, None], boxes[None]) > 0.5)
    real = valid & ~crowd
    around = jnp.concatenate([real, jnp.zeros(RANDOM, bool)])  # windows of objects
    pad = ((0, RANDOM), (0, 0))
    windows = jnp.where(around[:, None], jnp.pad(near, pad), anywhere)
    label = jnp.where(around, jnp.pad(classes, pad[0]) + 1, 0)
    return windows, label, around | ~(shows & valid).any(1)
