"""Splits of a data set, and fixed parts of them, stratified by class."""

import dataclasses
from collections.abc import Collection
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from research.data.images.reading import WHITE
from research.data.sources.source import Chosen, Examples
from research.errors import UserError
from research.spacing import spaced

VALIDATION = ("validation", "val")  # names of splits for validation


@runtime_checkable
class Labelled(Examples, Protocol):
    """Examples whose labels are known without decoding images."""

    @property
    def labels(self) -> np.ndarray: ...


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


def stratified(
    labels: Int[np.ndarray, " n"], share: float
) -> tuple[Int[np.ndarray, " kept"], Int[np.ndarray, " held"]]:
    """Returns the positions to keep and the positions to hold out, each in rising order.

    Of the n examples of a class, in order, round(share n) are held out, evenly spaced. A class of
    two or more keeps one and holds one out.
    """
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = round(share * len(members))
        count = min(max(count, 1), len(members) - 1) if len(members) > 1 and share else count
        held[members[spaced(len(members), count)]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


@dataclasses.dataclass(frozen=True, eq=False)
class Subset(Chosen):
    """The examples at some positions of a split, with their labels."""

    examples: Labelled

    @property
    def labels(self) -> np.ndarray:
        return self.examples.labels[self.positions]


def with_test(splits: dict[str, Labelled], where: str) -> dict[str, Labelled]:
    """Returns the splits; if "train" is the only one, a fifth of each class becomes "test".

    In the order of the examples, the middle one of each five.

    Raises:
      UserError: where an example is lacking for either; `where` names the data.
    """
    if list(splits) == ["train"]:
        kept, held = stratified(splits["train"].labels, share=0.2)
        if not len(kept) or not len(held):
            raise UserError(
                f"{where}: two images at least of a class are needed, one of them for the test"
            )
        splits = {"train": Subset(splits["train"], kept), "test": Subset(splits["train"], held)}
    for name, split in splits.items():
        if not len(split):
            raise UserError(f"{where}: its {name} split holds no images")
    return splits


def refuse_second_validation(splits: Collection[str]) -> None:
    """Raises UserError where a set has the split that --validation would make."""
    if "validation" in splits:
        raise UserError("--validation: the set has a validation split of its own; leave it out.")


def hold_out(examples: Labelled, share: float) -> tuple[Subset, Subset]:
    """Splits examples in two, stratified by class: the rest, and `share` of each class.

    Raises:
      UserError: where either part is empty.
    """
    kept, held = stratified(examples.labels, share)
    if not len(kept) or not len(held):
        part = "validate with" if len(kept) else "train on"
        raise UserError(
            f"--validation={share:g}: of {len(examples)} training examples none is left to {part}; "
            "a class needs two, to be in both parts"
        )
    return Subset(examples, kept), Subset(examples, held)
