"""Detectors: the meaning of a network's outputs, their loss, and the prediction of boxes.

A detector combines a model, a loss and a way to predict; experiments/detection.py does the rest
for all of them. `make` takes the name that --model gives.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax

from research.detection.config import DETECTORS, DetectionConfig

Batch = Mapping[str, Any]
Outputs = dict[str, jax.Array]


@runtime_checkable
class ForwardPass(Protocol):
    """The model on the batch's images; made anew for each batch.

    Attributes:
      images: standardised.
    """

    images: jax.Array

    def __call__(self, images: jax.Array | None = None, **options: Any) -> Any:
        """Returns the outputs for these images, or for the batch's; options are the model's."""
        ...


def nothing_more(outputs: Mapping[str, jax.Array], batch: Batch) -> Mapping[str, Any]:
    """Adds no measures to those of every detector."""
    return {}


class Detector(NamedTuple):
    """A model, and the meaning of its outputs.

    Attributes:
      loss: (forward, batch, key) -> the loss of each image, and its parts.
      predict: (forward, batch) -> "boxes" [B, n, 4] in pixels of the model's image, "scores",
        "classes" and "valid" [B, n], and perhaps more; and of the whole image, for methods that
        look into the network, the highest logit anywhere: "objectness" [B] of an object, and
        "evidence" [B, classes] of an object of each class.
      measure: (outputs, batch) -> {name: (value, weight)} beside those of every detector.
    """

    model: nn.Module
    loss: Callable[[ForwardPass, Batch, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]
    predict: Callable[[ForwardPass, Batch], Outputs]
    measure: Callable[[Mapping[str, jax.Array], Batch], Mapping[str, Any]] = nothing_more
    protocol: Mapping[str, str] = {}
    best: tuple[str, str] = ("mAP", "max")  # the metric that names the best checkpoint
    classifies: bool = True  # whether it predicts classes
    model_size: tuple[int, int] | None = None  # of the input, if not the image's


class Setting(NamedTuple):
    """Facts of the data that a detector needs; plain values, which a checkpoint keeps.

    Attributes:
      image_size: height and width of the model's image, pixels.
      sizes: (width, height) in pixels of typical boxes, from small to large.
    """

    image_size: tuple[int, int]
    num_classes: int
    sizes: tuple[tuple[float, float], ...]


def make(config: DetectionConfig, setting: Setting) -> Detector:
    """Makes the detector of a configuration. Raises UserError for options that do not fit it."""
    module = importlib.import_module(f"{__package__}.{DETECTORS[config.model].file}")
    detector: Detector = module.make(config, setting)
    return detector
