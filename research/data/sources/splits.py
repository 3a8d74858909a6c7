"""Splits of a data set, and parts of them that are held out, stratified by class."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from research.data.images.reading import WHITE
from research.data.sources.division import deal, parse_fold, stratified
from research.data.sources.examples import Chosen, Examples
from research.errors import UserError
from research.spacing import spaced

VALIDATION = ("validation", "val")  # names of splits for validation


@runtime_checkable
class Labelled(Examples, Protocol):
    """Examples whose labels are known without decoding images."""

    @property
    def labels(self) -> np.ndarray: ...


@runtime_checkable
class Grouped(Labelled, Protocol):
    """Examples of which some belong together, such as those that one person wrote.

    What is drawn keeps them together: held out, or trained on. None where the set names no groups.
    """

    @property
    def groups(self) -> np.ndarray | None: ...


def groups_of(examples: Labelled) -> np.ndarray | None:
    """Returns the number of each example's group; None where they name no groups."""
    return examples.groups if isinstance(examples, Grouped) else None


class Dataset(NamedTuple):
    """Splits of {"image": uint8 [h, w, c] of any size, "label": int32 []}.

    Attributes:
      splits: as the set has them, such as train and test, or train and validation.
      class_names: of labels 0, 1, ...
      image_shape: height, width, channels; None where images differ.
      citation: one line: the authors and the licence; or how a person's own files were read.
      white: the value that means white in 16-bit images; see `images.read`.
      sample: the examples of each split that a check looks at; 0 for all.
    """

    name: str
    splits: dict[str, Labelled]
    class_names: tuple[str, ...]
    image_shape: tuple[int | None, int | None, int | None]
    citation: str
    white: int = WHITE
    sample: int = 0


def looked_at(examples: Examples, sample: int) -> Examples:
    """Returns `sample` evenly spaced examples; all where they are no more, or `sample` is 0."""
    if not 0 < sample < len(examples):
        return examples
    return Chosen(examples, spaced(len(examples), sample))


@dataclasses.dataclass(frozen=True, eq=False)
class Subset(Chosen):
    """The examples at some positions of a split, with their labels."""

    examples: Labelled

    @property
    def labels(self) -> np.ndarray:
        return self.examples.labels[self.positions]

    @property
    def groups(self) -> np.ndarray | None:
        groups = groups_of(self.examples)
        return None if groups is None else groups[self.positions]


def with_test(splits: dict[str, Labelled], where: str, seed: int = 0) -> dict[str, Labelled]:
    """Returns the splits; if "train" is the only one, a fifth of each class becomes "test".

    In the order of the examples, the middle one of each five; with a --split_seed, drawn.

    Raises:
      UserError: where an example is lacking for either; `where` names the data.
    """
    if list(splits) == ["train"]:
        kept, held = stratified(splits["train"].labels, 0.2, seed, groups_of(splits["train"]))
        if not len(kept) or not len(held):
            raise UserError(
                f"{where}: two images at least of a class are needed, one of them for the test"
            )
        splits = {"train": Subset(splits["train"], kept), "test": Subset(splits["train"], held)}
    for name, split in splits.items():
        if not len(split):
            raise UserError(f"{where}: its {name} split holds no images")
    return splits


def has_made_test(splits: Mapping[str, Labelled]) -> bool:
    """Returns whether `with_test` made the test split."""
    train, test = splits["train"], splits.get("test")
    if not (isinstance(train, Subset) and isinstance(test, Subset)):
        return False
    return train.examples is test.examples


def refuse_second_validation(splits: Collection[str], flag: str = "--validation") -> None:
    """Raises UserError where a set has the split that a flag would make."""
    if "validation" in splits:
        raise UserError(f"{flag}: the set has a validation split of its own; leave it out.")


def hold_out(examples: Labelled, share: float, seed: int = 0) -> tuple[Subset, Subset]:
    """Splits examples in two, stratified by class: the rest, and `share` of each class.

    Args:
      seed: --split_seed; see `division.stratified`.

    Raises:
      UserError: where either part is empty.
    """
    kept, held = stratified(examples.labels, share, seed, groups_of(examples))
    if not len(kept) or not len(held):
        part = "validate with" if len(kept) else "train on"
        raise UserError(
            f"--validation={share:g}: of {len(examples)} training examples none is left to {part}; "
            "a class needs two, to be in both parts"
        )
    return Subset(examples, kept), Subset(examples, held)


def hold_fold(examples: Labelled, fold: str, seed: int = 0) -> tuple[Subset, Subset]:
    """Splits examples in two, stratified by class: the rest, and the fold I/K of --fold.

    The K folds have no example in common, and together have all. Groups stay whole.

    Raises:
      UserError: for a fold that is none, and more folds than examples or groups.
    """
    number, of = parse_fold(fold)
    held = deal(examples.labels, of, seed, groups_of(examples)) == number - 1
    return Subset(examples, np.flatnonzero(~held)), Subset(examples, np.flatnonzero(held))
