"""Classification: {"image": uint8 [h, w, c], "label": int32 []}."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from research.data.images.reading import Reduce, decode_image, with_channels
from research.data.own import folders
from research.data.sources.examples import Example, Examples, read_many
from research.data.sources.splits import Dataset, looked_at
from research.data.tasks import Own, Stored, Task
from research.errors import UserError

_CHUNK = 16  # examples, perhaps large ones, that a thread holds at a time


@dataclasses.dataclass(frozen=True)
class LabelledImage:
    """An encoded image and the number of its class.

    TFDS's general parser takes several times as long as a small image takes to decode.
    """

    image_key: str
    label_key: str
    channels: int | None
    reduce: Reduce | None = None  # see `images.read`

    def example(self, features: Mapping[str, Any], where: str) -> Example:
        encoded = features[self.image_key].bytes_list.value[0]
        image = decode_image(encoded, where, reduce=self.reduce)
        label = np.asarray(self.label(features), np.int32)
        return {"image": with_channels(image, self.channels), "label": label}

    def label(self, features: Mapping[str, Any]) -> int:
        return features[self.label_key].int64_list.value[0]


def find(info: Any) -> Stored | None:
    """Finds a TFDS set's image and class: its supervised pair, or features of these names."""
    import tensorflow_datasets as tfds

    keys = info.supervised_keys or ("image", "label")
    image, label = (dict(info.features).get(key) for key in keys)
    if not isinstance(image, tfds.features.Image) or not isinstance(
        label, tfds.features.ClassLabel
    ):
        return None
    record = LabelledImage(keys[0], keys[1], image.shape[-1])
    return Stored(record, tuple(label.names), tuple(image.shape))


def inspect(dataset: Dataset) -> list[str]:
    """Lists a data set's faults, one line each; reads every example once.

    Faults are empty classes, labels out of range, classes that train lacks, and unreadable
    examples.
    """
    names = dataset.class_names
    problems: list[str] = []
    trained = np.arange(len(names))
    for split, examples in sorted(dataset.splits.items(), key=lambda item: item[0] != "train"):
        where = f"{dataset.name}, {split}:"
        try:
            present, counts = np.unique(examples.labels, return_counts=True)
        except UserError as error:
            problems.append(f"{where} {error}")
            continue
        trained = present if split == "train" else trained
        for label, count in zip(present.tolist(), counts.tolist(), strict=True):
            if not 0 <= label < len(names):
                problems.append(
                    f"{where} label {label} of {count} examples is out of range; the labels of "
                    f"{len(names)} classes are 0 to {len(names) - 1}"
                )
            elif label not in trained:
                problems.append(f"{where} class {names[label]!r} is not in train")
        for label, class_name in enumerate(names):
            if label not in present:
                problems.append(f"{where} class {class_name!r} is empty")
        seen = looked_at(examples, dataset.sample)
        problems += [f"{where} {message}" for message in unreadable(seen)]
    return problems


def unreadable(examples: Examples) -> Iterator[str]:
    """Yields a message for each example that cannot be read."""

    def messages(block: range) -> list[str]:
        try:
            read_many(examples, block)
        except UserError:
            return [message for message in map(problem, block) if message]
        return []

    def problem(index: int) -> str:
        try:
            examples[index]
        except UserError as error:
            return str(error)
        return ""

    starts = range(0, len(examples), _CHUNK)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        blocks = (range(start, min(start + _CHUNK, len(examples))) for start in starts)
        for found in pool.map(messages, blocks):
            yield from found


TASK = Task(
    noun="image-classification set",
    find=find,
    own={
        "folder": Own(
            folders.load, "PATH", "one subfolder a class, or train/ and test/ of these", checks=True
        )
    },
)
