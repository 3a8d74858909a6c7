"""The common part of the builders of scenes of digits."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from research.data.stored.builtin.digits import read_digits
from research.data.stored.scenes import textures
from research.data.stored.scenes.drawing import SIDE, DigitCutouts, Thing, cut_out


def info(builder: Any, description: str, features: Mapping[str, Any]) -> tfds.core.DatasetInfo:
    """Returns the description of a set of scenes, with the sources of digits and photographs."""
    return tfds.core.DatasetInfo(
        builder=builder,
        description=description,
        features=tfds.features.FeaturesDict(dict(features)),
        supervised_keys=("image", "objects"),
        homepage="http://yann.lecun.com/exdb/mnist/",
        license="digits CC BY-SA 3.0, photographs CC0",
        citation="LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document "
        "recognition, 1998; photographs: scikit-image",
    )


def splits(
    sizes: Mapping[str, int], generate: Callable[[int, int, DigitCutouts, list[np.ndarray]], Any]
) -> dict[str, Any]:
    """Returns {split: generate(number of the split, its size, its digits, its photographs)}."""
    images, labels, rows = read_digits()
    photographs = textures.load()
    generators = {}
    for number, (split, count) in enumerate(sizes.items()):
        part = rows[split]
        digits = cut_out(images[part, :, :, 0], labels[part].tolist(), part.tolist())
        generators[split] = generate(number, count, digits, getattr(photographs, split))
    return generators


def box(thing: Thing) -> tfds.features.BBox:
    """Returns the thing's box in shares of the image, as TFDS keeps boxes."""
    x0, y0, x1, y1 = (value / SIDE for value in thing.box)
    return tfds.features.BBox(ymin=y0, xmin=x0, ymax=y1, xmax=x1)
