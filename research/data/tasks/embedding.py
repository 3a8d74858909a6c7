"""Embedding: {"image": uint8 [h, w, c], "label": int32 []}, split by class.

Some sets have "domain" int32 [], in which pictures of one class differ (typeface family, drawer),
and "run" and "is_query", a picture's place in published one-shot runs.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from research.data.images.reading import Reduce, decode_image, with_channels
from research.data.own import folders
from research.data.sources.division import deal, draw, parse_fold
from research.data.sources.examples import Example
from research.data.sources.splits import (
    Dataset,
    Labelled,
    Subset,
    looked_at,
    refuse_second_validation,
)
from research.data.tasks import Own, Stored, Task
from research.data.tasks.classification import unreadable
from research.errors import UserError

DOMAINS = ("family", "drawer")  # features that are read as "domain"
TEST_SHARE = 0.3  # of the classes, where a set is not split by class


@dataclasses.dataclass(frozen=True)
class Identity:
    """An encoded image, and its identity: a number, or a name among `names`.

    Attributes:
      others: (name in the batch, name in the set) of further integers.
    """

    image_key: str
    label_key: str
    channels: int | None
    names: tuple[str, ...] = ()
    others: tuple[tuple[str, str], ...] = ()
    reduce: Reduce | None = None  # see `images.read`

    def example(self, features: Mapping[str, Any], where: str) -> Example:
        encoded = features[self.image_key].bytes_list.value[0]
        image = decode_image(encoded, where, reduce=self.reduce)
        numbers = {name: features[key].int64_list.value[0] for name, key in self.others}
        numbers["label"] = self.label(features)
        fields = {name: np.asarray(number, np.int32) for name, number in numbers.items()}
        return {"image": with_channels(image, self.channels), **fields}

    def label(self, features: Mapping[str, Any]) -> int:
        feature = features[self.label_key]
        if self.names:
            return self._numbers[feature.bytes_list.value[0].decode()]
        return feature.int64_list.value[0]

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}


def find(info: Any) -> Stored | None:
    """Finds the image, and the class or the name, of a TFDS set's supervised pair."""
    import tensorflow_datasets as tfds

    features = dict(info.features)
    pair = info.supervised_keys or ("image", "label")
    images = [key for key in pair if isinstance(features.get(key), tfds.features.Image)]
    if len(images) != 1:
        return None
    image_key = images[0]
    label_key = pair[1 - pair.index(image_key)]
    image, label = features[image_key], features.get(label_key)
    if isinstance(label, tfds.features.ClassLabel):
        names, stored = tuple(label.names), tuple[str, ...]()
    elif isinstance(label, tfds.features.Text):  # lfw
        names = stored = tuple(sorted(set(_texts(info, label_key))))
    else:
        return None
    others = [("domain", key) for key in DOMAINS if key in features][:1]
    others += [(key, key) for key in ("run", "is_query") if key in features]
    record = Identity(image_key, label_key, image.shape[-1], stored, tuple(others))
    return Stored(record, names, tuple(image.shape))


def _texts(info: Any, key: str) -> Iterator[str]:
    """Yields a text of every example of a prepared set, without decoding its images."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.proto import tf_example_pb2

    builder = tfds.builder_from_directory(info.data_dir)
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    for split in info.splits:
        records = builder.as_data_source(split, deserialize_method=raw)
        for start in range(0, len(records), 256):
            block = range(start, min(start + 256, len(records)))
            for record in records.__getitems__(list(block)):
                features = tf_example_pb2.Example.FromString(record).features.feature
                yield features[key].bytes_list.value[0].decode()


def by_class(
    dataset: Dataset, validation: float = 0.0, *, fold: str = "", seed: int = 0
) -> dict[str, Labelled]:
    """Divides a data set so that evaluation has no class of training.

    If other splits have classes that train lacks, they keep these classes alone; splits without
    such classes are left out. In any other set, TEST_SHARE of the classes, evenly spaced or drawn,
    are left out of train; the other splits, or a "test" made of train if there is no other, hold
    these alone.

    Args:
      validation: share of train's classes that become "validation".
      fold: I/K: the I-th of K parts of them, in the place of a share.
      seed: --split_seed: draws the classes that are held out; 0: evenly spaced.

    Raises:
      UserError: where fewer than two classes would be left.
    """
    splits = unseen(dataset)
    train = dataset.splits["train"]
    trained = np.unique(train.labels)
    others = {split: part for split, part in dataset.splits.items() if split != "train"}
    if not splits:
        held = trained[draw(len(trained), max(round(TEST_SHARE * len(trained)), 2), seed)]
        splits = {k: _of(part, held) for k, part in (others or {"test": train}).items()}
        trained = np.setdiff1d(trained, held)
    if validation or fold:
        refuse_second_validation(splits, f"--fold={fold}" if fold else "--validation")
        if fold:
            number, of = parse_fold(fold)
            held = trained[deal(np.zeros(len(trained), int), of, seed) == number - 1]
        else:
            held = trained[draw(len(trained), max(round(validation * len(trained)), 2), seed)]
        splits["validation"] = _of(train, held)
        trained = np.setdiff1d(trained, held)
    splits = {"train": _of(train, trained), **splits}
    for split, examples in splits.items():
        if len(np.unique(examples.labels)) < 2:
            raise UserError(
                f"--dataset={dataset.name}: split by class, {split} has fewer than two classes; "
                "there is nothing to tell apart. Add classes: training takes two, and so does each "
                "other part."
            )
    return splits


def unseen(dataset: Dataset) -> dict[str, Labelled]:
    """Returns the splits that have classes which train lacks, with these classes alone.

    Raises:
      UserError: where there is no train.
    """
    if "train" not in dataset.splits:
        raise UserError(f"--dataset={dataset.name}: has no split called train")
    trained = np.unique(dataset.splits["train"].labels)
    new = {k: np.setdiff1d(part.labels, trained) for k, part in dataset.splits.items()}
    return {k: _of(dataset.splits[k], classes) for k, classes in new.items() if len(classes)}


def _of(examples: Labelled, classes: np.ndarray) -> Labelled:
    """Returns the examples of some classes."""
    chosen = np.flatnonzero(np.isin(examples.labels, classes))
    return examples if len(chosen) == len(examples) else Subset(examples, chosen)


def minable(dataset: Dataset, train: Labelled, drop_small: bool) -> Labelled:
    """Returns the training examples that have a positive: those of classes of two or more images.

    Raises:
      UserError: for a class of one image, unless drop_small leaves it out.
    """
    classes, counts = np.unique(train.labels, return_counts=True)
    single = classes[counts < 2]
    if len(single) and not drop_small:
        raise UserError(
            f"--dataset={dataset.name}: class {dataset.class_names[single[0]]!r} has one image in "
            f"train{f', and {len(single) - 1} others too' if len(single) > 1 else ''}; a class "
            "needs at least two. Add images, or leave such classes out with --drop_small."
        )
    return _of(train, classes[counts >= 2]) if len(single) else train


def inspect(dataset: Dataset, splits: Mapping[str, Labelled]) -> list[str]:
    """Lists faults, one line each: classes of one image, and examples that cannot be read."""
    problems = []
    for split, examples in splits.items():
        classes, counts = np.unique(examples.labels, return_counts=True)
        problems += [
            f"{dataset.name}, {split}: class {dataset.class_names[label]!r} has one image only"
            for label in classes[counts < 2].tolist()
        ]
        seen = looked_at(examples, dataset.sample)
        problems += [f"{dataset.name}, {split}: {message}" for message in unreadable(seen)]
    return problems


TASK = Task(
    noun="set of images with classes",
    find=find,
    own={
        "folder": Own(
            functools.partial(folders.load, by_class=True),
            "PATH",
            "one subfolder a class, or train/ and test/ of these, of different classes",
            checks=True,
        )
    },
)
