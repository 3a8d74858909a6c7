"""Detection: image uint8 [h, w, c], boxes float32 [n, 4] in its pixels, classes int32, crowd bool.

n differs from image to image; `research.data.images.objects.fit_objects` makes fixed shapes.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from research.data.images.objects import Objects, usable
from research.data.images.reading import decode_image, with_channels
from research.data.own import boxes as own_boxes
from research.data.own.annotations import Annotations, coco, labelme, voc, yolo
from research.data.sources.examples import Example, Examples, read_many
from research.data.sources.splits import Dataset, Labelled, Subset, looked_at
from research.data.stored.sets import PreparedSplit
from research.data.tasks import Own, Stored, Task
from research.data.tasks.classification import unreadable
from research.errors import UserError
from research.record.progress import console

# Names in TFDS sets of an object's class, and of flags of crowds and difficult objects.
_LABELS = ("label", "type")
_CROWDS = ("is_crowd", "is_difficult", "is_group_of", "invalid")
_UPSIDE_DOWN = ("kitti",)  # its builder counts y from the image's bottom
_MOST_COUNTED = 50_000  # examples that are read to see whether --max_objects is enough


@dataclasses.dataclass(frozen=True)
class ImageWithObjects:
    """An encoded image, and a sequence of boxes with a class each.

    Attributes:
      sequence: the key of the sequence.
      kind: the key of the class within it; None where all objects are of one class.
      crowds: keys of flags within it.
      upside_down: y is counted from the bottom.
    """

    sequence: str
    kind: str | None
    crowds: tuple[str, ...]
    classes: int
    channels: int | None
    upside_down: bool
    drop_bad_boxes: bool

    def example(self, features: Mapping[str, Any], where: str) -> Example:
        image = decode_image(features["image"].bytes_list.value[0], where)
        height, width = image.shape[:2]
        # Shares of the image: (y0, x0, y1, x1).
        shares = np.array(features[f"{self.sequence}/bbox"].float_list.value, np.float32)
        y0, x0, y1, x1 = shares.reshape(-1, 4).T
        if self.upside_down:
            y0, y1 = 1 - y1, 1 - y0
        boxes = np.stack([x0, y0, x1, y1], axis=1) * np.array([width, height] * 2, np.float32)
        classes = np.zeros(len(boxes), np.int32)
        if self.kind is not None:
            classes[:] = features[f"{self.sequence}/{self.kind}"].int64_list.value
        objects = Objects(boxes, classes, self.crowd(features))
        objects = usable(objects, height, width, self.classes, where, self.drop_bad_boxes)
        return {"image": with_channels(image, self.channels), **objects.example()}

    def label(self, features: Mapping[str, Any]) -> int:
        return 0

    def crowd(self, features: Mapping[str, Any]) -> np.ndarray:
        """Returns bool [n]: which objects are crowds or difficult, and ignored in evaluation."""
        crowd = np.zeros(len(features[f"{self.sequence}/bbox"].float_list.value) // 4, bool)
        for key in self.crowds:
            crowd |= np.array(features[f"{self.sequence}/{key}"].int64_list.value, bool)
        return crowd


def find(info: Any, drop_bad_boxes: bool = False) -> Stored | None:
    """Finds the image, and the first sequence of objects with a box each."""
    import tensorflow_datasets as tfds

    image = dict(info.features).get("image")
    if not isinstance(image, tfds.features.Image):
        return None
    for name, sequence in info.features.items():
        inner = getattr(sequence, "feature", None)
        parts = dict(inner) if isinstance(inner, tfds.features.FeaturesDict) else {}
        if not isinstance(parts.get("bbox"), tfds.features.BBoxFeature):
            continue
        labels = [k for k in _LABELS if isinstance(parts.get(k), tfds.features.ClassLabel)]
        # Sets of one class, such as faces, do not repeat it for each object.
        names = parts[labels[0]].names if labels else [name.removesuffix("s")]
        record = ImageWithObjects(
            sequence=name,
            kind=labels[0] if labels else None,
            crowds=tuple(key for key in _CROWDS if key in parts),
            classes=len(names),
            channels=image.shape[-1],
            upside_down=info.name in _UPSIDE_DOWN,
            drop_bad_boxes=drop_bad_boxes,
        )
        return Stored(record, tuple(names), tuple(image.shape))
    return None


def task(drop_bad_boxes: bool = False) -> Task:
    """Makes the task.

    Args:
      drop_bad_boxes: leave boxes out that cannot be used, instead of stopping at the first.
    """

    def own(read: Callable[[str], Annotations], prefix: str, usage: str, content: str) -> Own:
        load = functools.partial(own_boxes.load, read, prefix, drop_bad_boxes=drop_bad_boxes)
        return Own(load, usage, content)

    return Task(
        noun="detection set",
        find=functools.partial(find, drop_bad_boxes=drop_bad_boxes),
        own={
            "coco": own(
                coco.read,
                "coco",
                "IMAGES_DIR:TRAIN.json[:TEST.json]",
                "COCO annotations; DIR alone as Roboflow has it",
            ),
            "voc": own(voc.read, "voc", "DIR", "Annotations/, JPEGImages/ and ImageSets/Main/"),
            "labelme": own(labelme.read, "labelme", "DIR", "labelme's JSON files beside images"),
            "yolo": own(
                yolo.read,
                "yolo",
                "DIR or FILE.yaml",
                "images/, labels/ and data.yaml or classes.txt",
            ),
        },
    )


TASK = task()


def counts(examples: Examples, crowds: bool = True) -> np.ndarray:
    """Counts the objects of each example of a split, int [n]; no image is decoded.

    Args:
      crowds: whether to count crowds and difficult objects.
    """
    if isinstance(examples, Subset):
        return counts(examples.examples, crowds)[examples.positions]
    if isinstance(examples, own_boxes.AnnotatedSplit):
        found = [image.objects.crowd for image in examples.images]
    elif isinstance(examples, PreparedSplit) and isinstance(examples.record, ImageWithObjects):
        found = _scanned(examples, examples.record)
    else:
        raise TypeError(f"no split of detection: {examples}")
    return np.array([len(crowd) if crowds else int((~crowd).sum()) for crowd in found])


@functools.lru_cache(maxsize=8)  # read once: a second for 30,000 examples
def _scanned(examples: PreparedSplit, record: ImageWithObjects) -> list[np.ndarray]:
    """Returns for each example which of its objects are a crowd."""
    return examples.scan(record.crowd)


def with_objects(dataset: Dataset) -> Dataset:
    """Returns the data set without evaluation splits that hold no object to find.

    Nothing could be measured on them. Prepared splits of more than 50,000 examples are not
    searched.

    Raises:
      UserError: where "train", or every other split, has no object.
    """
    empty = [
        split for split, found in _counted(dataset).items() if not counts(found, crowds=False).any()
    ]
    left = {split: found for split, found in dataset.splits.items() if split not in empty}
    if empty and ("train" in empty or not left.keys() - {"train"}):
        raise UserError(
            f"--dataset={dataset.name}: there is no object to be found in "
            f"{' nor in '.join(empty)}; look at the annotations."
        )
    for split in empty:
        line = f"{dataset.name}: {split} is not evaluated: there is no object to be found in it"
        console().print(line, markup=False)
    return dataset._replace(splits=left)


def _counted(dataset: Dataset) -> dict[str, Labelled]:
    """Returns the splits whose objects can be counted quickly."""
    return {
        split: examples
        for split, examples in dataset.splits.items()
        if len(examples) <= _MOST_COUNTED or not isinstance(examples, PreparedSplit)
    }


def check_room(dataset: Dataset, max_objects: int) -> None:
    """Raises UserError, with the number needed, if an example has more than `max_objects`.

    Prepared splits of more than 50,000 examples are not read for it; `fit_objects` then refuses
    the first example that has too many.
    """
    needed = {split: int(counts(examples).max()) for split, examples in _counted(dataset).items()}
    split = max(needed, key=needed.__getitem__, default=None)
    if split is not None and needed[split] > max_objects:
        raise UserError(
            f"--max_objects={max_objects}: an image of {split} holds {needed[split]} objects; "
            f"give --max_objects={needed[split]} or more"
        )


def inspect(dataset: Dataset) -> list[str]:
    """Lists a data set's faults, one line each; reads every example once or twice.

    Faults are unreadable examples, classes without objects, and classes that train lacks.
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
        total = np.zeros(len(dataset.class_names), np.int64)
        for start in range(0, len(examples), 256):
            for example in read_many(examples, range(start, min(start + 256, len(examples)))):
                total += np.bincount(example["classes"], minlength=len(total))
        trained = total if split == "train" else trained
        for number, name in enumerate(dataset.class_names):
            if not total[number]:
                problems.append(f"{where} class {name!r} has no objects")
            elif trained is not None and not trained[number]:
                problems.append(f"{where} class {name!r} is not in train")
    return problems
