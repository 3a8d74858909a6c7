"""Detectors: what a network's outputs mean, how they are trained, what is found with them.

A detector puts a model, a loss and a way to predict together; experiments/detection.py does the
rest for all of them. `make` takes the name that --model gives.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from research.detection.config import DetectionConfig

# Runs the model on the batch's images; takes the model's further arguments.
Run = Callable[..., Any]
Batch = Mapping[str, Any]
Outputs = dict[str, jax.Array]


class Detector(NamedTuple):
    """A model, and what its outputs mean.

    Attributes:
      loss: (run, batch, key) -> the loss of each image, and its parts.
      predict: run -> "boxes" [B, n, 4] in pixels of the model's image, "scores", "classes" and
        "valid" [B, n], and whatever else it finds.
    """

    model: nn.Module
    loss: Callable[[Run, Batch, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]
    predict: Callable[[Run, Batch], Outputs]


class Setting(NamedTuple):
    """What a detector must know of the data; plain values, which travel in a checkpoint.

    Attributes:
      image_size: height and width of the model's image, pixels.
      sizes: (width, height) in pixels of typical boxes, from small to large.
    """

    image_size: tuple[int, int]
    num_classes: int
    sizes: tuple[tuple[float, float], ...]


# --model -> the file of this folder that makes it.
FILES = {
    "yolo": "yolo",
    "yolo_v1": "yolo",
    "localisation": "single",
    "landmarks": "single",
    "sliding_windows": "windows",
    "rcnn": "regions",
    "fast_rcnn": "regions",
    "faster_rcnn": "regions",
}


def make(config: DetectionConfig, setting: Setting) -> Detector:
    """The detector that a configuration describes. Raises UserError for what does not fit."""
    module = importlib.import_module(f"{__name__}.{FILES[config.model]}")
    detector: Detector = module.make(config, setting)
    return detector
