"""Captioning: {"image": uint8 [h, w, c], "captions": str [k]}, k of each image's own.

digit_scenes adds "things" int32 [MOST, 6]: digit, colour, box (x0, y0, x1, y1) in pixels of each
thing, -1 in empty rows; so captions can be compared with the scene.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from research.data.images.reading import Reduce, decode_image
from research.data.own import captions as own_captions
from research.data.sources.examples import Example, Examples
from research.data.sources.splits import Dataset, Subset, looked_at
from research.data.stored.scenes.drawing import COLOURS, MOST, SIDE, Thing
from research.data.stored.sets import PreparedSplit
from research.data.tasks import Own, Stored, Task
from research.data.tasks.classification import unreadable
from research.data.text.tokens import words
from research.errors import UserError


@dataclasses.dataclass(frozen=True)
class CaptionedImage:
    """An encoded image and sentences about it."""

    has_things: bool
    reduce: Reduce | None = None  # see `images.read`

    def example(self, features: Mapping[str, Any], where: str) -> Example:
        encoded = features["image"].bytes_list.value[0]
        image = decode_image(encoded, where, reduce=self.reduce)
        example = {"image": image, "captions": np.array(self.captions(features))}
        return example | ({"things": self.things(features)} if self.has_things else {})

    def label(self, features: Mapping[str, Any]) -> int:
        return 0

    def captions(self, features: Mapping[str, Any]) -> list[str]:
        return [text.decode() for text in features["captions/text"].bytes_list.value]

    def things(self, features: Mapping[str, Any]) -> np.ndarray:
        table = np.full((MOST, 6), -1, np.int32)
        digits = features["objects/label"].int64_list.value
        table[: len(digits), 0] = digits
        table[: len(digits), 1] = features["objects/colour"].int64_list.value
        boxes = np.reshape(features["objects/bbox"].float_list.value, (-1, 4)) * SIDE
        table[: len(digits), 2:] = np.rint(boxes[:, [1, 0, 3, 2]])  # stored as y0, x0, y1, x1
        return table


def find(info: Any) -> Stored | None:
    """Finds the captions of a TFDS set that stores them as coco_captions does: captions/text."""
    import tensorflow_datasets as tfds

    captions = dict(info.features).get("captions")
    image = dict(info.features).get("image")
    if not isinstance(image, tfds.features.Image) or "text" not in getattr(captions, "feature", ()):
        return None
    objects = getattr(dict(info.features).get("objects"), "feature", {})
    return Stored(CaptionedImage("colour" in objects), (), tuple(image.shape))


def captions(examples: Examples) -> list[list[str]]:
    """Returns the sentences of every example, without decoding an image."""
    if isinstance(examples, Subset):
        whole = captions(examples.examples)
        return [whole[i] for i in examples.positions]
    if isinstance(examples, PreparedSplit):
        record = examples.record
        assert isinstance(record, CaptionedImage), "opened for another task"
        return examples.scan(record.captions)
    assert isinstance(examples, own_captions.CaptionedSplit), "no captions"
    return [list(texts) for texts in examples.captions]


def as_things(table: np.ndarray) -> list[Thing]:
    """Returns the things of one scene, from the rows of its "things"."""
    names = list(COLOURS)
    return [
        Thing(row=0, digit=int(digit), colour=names[colour], box=(int(a), int(b), int(c), int(d)))
        for digit, colour, a, b, c, d in table
        if digit >= 0
    ]


def inspect(dataset: Dataset) -> list[str]:
    """Lists a data set's faults, one line each: missing or empty captions, unreadable images."""
    problems = []
    for split, examples in dataset.splits.items():
        where = f"{dataset.name}, {split}:"
        try:
            texts = captions(examples)
        except UserError as error:
            problems.append(f"{where} {error}")
            continue
        for index, sentences in enumerate(texts):
            if not sentences:
                problems.append(f"{where} example {index} has no caption")
            elif not all(map(words, sentences)):
                problems.append(f"{where} example {index} has an empty caption")
        seen = looked_at(examples, dataset.sample)
        problems += [f"{where} {message}" for message in unreadable(seen)]
    return problems


TASK = Task(
    noun="captioning set",
    find=find,
    own={
        "captions": Own(
            own_captions.load,
            "IMAGES_DIR:FILE",
            "sentences about the images of a folder: Flickr8k's token file, CSV or JSON",
        )
    },
)
