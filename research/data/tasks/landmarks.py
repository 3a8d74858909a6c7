"""Landmarks: the fields of detection for one object at most, and points float32 [K, 2] of it."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from research.data.images.objects import fit_objects, matrix
from research.data.images.preprocessing import Preprocessing
from research.data.sources.examples import Example
from research.data.tasks import Stored, Task
from research.data.tasks.detection import ImageWithObjects
from research.data.tasks.detection import find as find_objects

_KEY = "landmarks"


@dataclasses.dataclass(frozen=True)
class ImageWithLandmarks(ImageWithObjects):
    """An encoded image, its object, and the object's landmarks (x, y), pixels."""

    def example(self, features: Mapping[str, Any], where: str) -> Example:
        points = np.array(features[_KEY].float_list.value, np.float32).reshape(-1, 2)
        return {**super().example(features, where), "points": points}


def find(info: Any, drop_bad_boxes: bool = False) -> Stored | None:
    """Finds the fields of detection in a set that also has landmarks."""
    import tensorflow_datasets as tfds

    points = dict(info.features).get(_KEY)
    found = find_objects(info, drop_bad_boxes)
    if found is None or not isinstance(points, tfds.features.Tensor):
        return None
    record = ImageWithLandmarks(**vars(found.record))
    return Stored(record, found.class_names, found.image_shape)


def fit_landmarks(
    example: Example, preprocessing: Preprocessing, *, max_objects: int, points: int
) -> Example:
    """Adds "points" float32 [points, 2], evenly chosen, in the model's pixels, to `fit_objects`.

    Raises:
      UserError: for fewer points than are asked for.
    """
    from research.errors import UserError

    known = example["points"]
    if len(known) < points:
        raise UserError(f"--landmarks={points}: the data set has {len(known)} of each object.")
    chosen = known[np.arange(points) * len(known) // points]
    height, width = example["image"].shape[:2]
    (a, _, left), (_, d, top) = matrix(height, width, preprocessing)
    fitted = fit_objects(example, preprocessing, max_objects=max_objects)
    return {**fitted, "points": (chosen * [a, d] + [left, top]).astype(np.float32)}


def task(drop_bad_boxes: bool = False) -> Task:
    """Makes the task; see `research.data.tasks.detection.task`."""
    return Task("set with landmarks", functools.partial(find, drop_bad_boxes=drop_bad_boxes), {})


TASK = task()
