"""Segmentation: {"image": uint8 [h, w, c], "segmentation": uint8 [h, w]}, IGNORE where no class."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.data.images.masks import (
    IGNORE,
    Classes,
    count_split,
    decode_mask,
    ignoring,
    plain_classes,
    to_classes,
)
from research.data.images.reading import decode_image, with_channels
from research.data.own import masks as own_masks
from research.data.sources.examples import Example
from research.data.sources.splits import Dataset, looked_at
from research.data.tasks import Own, Stored, Task
from research.data.tasks.classification import unreadable
from research.errors import UserError
from research.record.progress import console

# The 19 classes that are evaluated, by their number among the 34 of the files.
_CITYSCAPES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole",
    19: "traffic light", 20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky",
    24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train", 32: "motorcycle",
    33: "bicycle",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Layout:
    """The features of a TFDS set's images and masks, and the meaning of mask values."""

    image: str
    mask: str
    classes: Classes


def _numbered(names: Mapping[int, str], most: int) -> Classes:
    """Returns classes at some values of a mask; all others up to `most` are ignored."""
    numbers = {value: number for number, value in enumerate(names)}
    keys = {value: numbers.get(value, IGNORE) for value in range(most + 1)}
    return Classes(tuple(names.values()), keys)


# A set is recognised by its name; another joins with one line.
LAYOUTS: dict[str, Layout] = {
    "digit_scenes": Layout(
        "image", "segmentation_mask", plain_classes(["background", *map(str, range(10))])
    ),
    "oxford_iiit_pet": Layout(
        "image", "segmentation_mask", _numbered({1: "pet", 2: "background", 3: "outline"}, 3)
    ),
    "cityscapes": Layout("image_left", "segmentation_label", _numbered(_CITYSCAPES, 255)),
    # The 150 classes of the challenge by number: 1 is wall, 2 building, ...; 0 is anything else.
    "scene_parse150": Layout(
        "image", "annotation", _numbered({k: f"class {k}" for k in range(1, 151)}, 255)
    ),
}


@dataclasses.dataclass(frozen=True)
class MaskedImage:
    """An encoded image and its encoded mask."""

    layout: Layout
    channels: int | None

    def example(self, features: Mapping[str, Any], where: str) -> Example:
        image = decode_image(features[self.layout.image].bytes_list.value[0], where)
        values = decode_mask(features[self.layout.mask].bytes_list.value[0], where)
        mask = to_classes(values, self.layout.classes, where)
        if mask.shape != image.shape[:2]:
            raise UserError(
                f"{where}: the mask is {mask.shape[1]} x {mask.shape[0]} pixels, the image "
                f"{image.shape[1]} x {image.shape[0]}"
            )
        return {"image": with_channels(image, self.channels), "segmentation": mask}

    def label(self, features: Mapping[str, Any]) -> int:
        return 0


def find(info: Any, ignore_label: int = -1) -> Stored | None:
    """Finds image and mask of the sets in LAYOUTS."""
    layout = LAYOUTS.get(info.name)
    features = dict(info.features)
    if layout is None or not {layout.image, layout.mask} <= features.keys():
        return None
    layout = dataclasses.replace(layout, classes=ignoring(layout.classes, ignore_label))
    shape = tuple(features[layout.image].shape)
    return Stored(MaskedImage(layout, shape[-1]), layout.classes.names, shape)


def task(ignore_label: int = -1) -> Task:
    """Makes the task, with one more ignored value of masks; see `masks.ignoring`."""
    return Task(
        noun=f"segmentation set that is known here ({', '.join(LAYOUTS)})",
        find=functools.partial(find, ignore_label=ignore_label),
        own={
            "masks": Own(
                functools.partial(own_masks.load, ignore_label=ignore_label),
                "IMAGES_DIR:MASKS_DIR[:CLASSES]",
                "images and masks of the same names; a class table for colours",
            )
        },
    )


TASK = task()


SHRINKS_MUCH = 0.5  # factor of a side below which a person is warned


def warn_of_shrinking(scale: Sequence[float], size: tuple[int, int]) -> None:
    """Warns where resizing to the model loses much detail, which no mask can restore.

    Args:
      scale: factors of height and width.
      size: of the model's images.
    """
    least = min(scale)
    if least < SHRINKS_MUCH:
        console().print(
            f"images are shrunk to {100 * least:.0f} % of their sides, to {size[0]} x {size[1]} "
            "pixels: masks are scored at the images' own size, where what is finer than "
            f"{1 / least:.0f} pixels is lost; --image_size keeps more of it",
            markup=False,
        )


def inspect(dataset: Dataset) -> list[str]:
    """Lists a data set's faults, one line each; reads every example once or twice.

    Faults are unreadable examples, classes that never occur, and classes that train lacks.
    """
    problems: list[str] = []
    trained: np.ndarray | None = None
    for split, examples in sorted(dataset.splits.items(), key=lambda item: item[0] != "train"):
        where = f"{dataset.name}, {split}:"
        seen = looked_at(examples, dataset.sample)
        damaged = [f"{where} {message}" for message in unreadable(seen)]
        problems += damaged
        if damaged or len(seen) < len(examples):  # a rare class may be in the others
            continue
        pixels = count_split(examples, len(dataset.class_names))
        trained = pixels if split == "train" else trained
        for number, name in enumerate(dataset.class_names):
            if not pixels[number]:
                problems.append(f"{where} class {name!r} never occurs")
            elif trained is not None and not trained[number]:
                problems.append(f"{where} class {name!r} is not in train")
    return problems
