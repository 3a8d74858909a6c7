"""Detectors: what a network's outputs mean, how they are trained, what is found with them.

A detector puts a model, a loss and a way to predict together; experiments/detection.py does the
rest for all of them. `make` takes the name that --model gives.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax

from research.detection.config import DetectionConfig

Batch = Mapping[str, Any]
Outputs = dict[str, jax.Array]


@runtime_checkable
class Run(Protocol):
    """The model on the batch's images; made anew for each batch.

    Attributes:
      images: standardised.
    """

    images: jax.Array

    def __call__(self, images: jax.Array | None = None, **options: Any) -> Any:
        """The model's outputs for these images, or for the batch's; options are the model's."""
        ...


def nothing_more(outputs: Mapping[str, jax.Array], batch: Batch) -> Mapping[str, Any]:
    """No measures beside those of every detector."""
    return {}


class Detector(NamedTuple):
    """A model, and what its outputs mean.

    Attributes:
      loss: (run, batch, key) -> the loss of each image, and its parts.
      predict: (run, batch) -> "boxes" [B, n, 4] in pixels of the model's image, "scores",
        "classes" and "valid" [B, n], and whatever else it finds; and of the whole image, for those
        who look into the network, the highest logit anywhere: "objectness" [B] of an object, and
        "evidence" [B, classes] of an object of each class.
      measure: (outputs, batch) -> {name: (value, weight)} beside those of every detector.
    """

    model: nn.Module
    loss: Callable[[Run, Batch, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]
    predict: Callable[[Run, Batch], Outputs]
    measure: Callable[[Mapping[str, jax.Array], Batch], Mapping[str, Any]] = nothing_more
    protocol: Mapping[str, str] = {}
    best: tuple[str, str] = ("mAP", "max")  # the metric that names the best checkpoint
    classifies: bool = True  # whether it tells classes apart
    model_size: tuple[int, int] | None = None  # of what the model sees, where that is no image


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
