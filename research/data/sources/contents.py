"""Digests of pictures by their content, and which pictures of a split were trained on."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from research.data.sources.examples import Example, read_many
from research.data.sources.splits import Labelled
from research.record.progress import console

BYTES = 16  # of a digest: two of 10 million pictures share one with a probability below 1e-24
_CHUNK = 8  # pictures, perhaps large ones, that a thread holds at a time

Digests = frozenset[bytes]  # the digests of the trained pictures


def digest(image: UInt8[np.ndarray, "height width channel"]) -> bytes:
    """Returns a digest of a picture's size and pixels, whatever its file's name or encoding.

    RGB without any colour is the same picture as grey.
    """
    if image.shape[2] == 3 and all((part == part[:, :, :1]).all() for part in (image[:1], image)):
        image = image[:, :, :1]
    state = hashlib.sha256(str(image.shape).encode())
    state.update(np.ascontiguousarray(image).data)
    return state.digest()[:BYTES]


class Digested:
    """A split whose pictures are digested as they are read, so that decoding it once is enough."""

    def __init__(self, examples: Labelled) -> None:
        self.examples = examples
        self._digests = np.zeros((len(examples), BYTES), np.uint8)
        self._is_read = np.zeros(len(examples), bool)

    def __len__(self) -> int:
        return len(self._digests)

    def __getitem__(self, index: int, /) -> Example:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int], /) -> list[Example]:
        examples = read_many(self.examples, indices)
        for index, example in zip(indices, examples, strict=True):
            if not self._is_read[index]:
                self._digests[index] = np.frombuffer(digest(example["image"]), np.uint8)
                self._is_read[index] = True
        return examples

    @property
    def labels(self) -> np.ndarray:
        return self.examples.labels

    def digests(self, read: bool) -> list[bytes] | None:
        """Returns all examples' digests, in order; None if some were not read and not `read`."""
        missing = np.flatnonzero(~self._is_read).tolist()
        if missing and not read:
            return None
        if missing:
            console().print(
                f"reading {len(missing):,} pictures once, to know them again", markup=False
            )
            chunks = [missing[i : i + _CHUNK] for i in range(0, len(missing), _CHUNK)]
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for _ in pool.map(lambda chunk: len(self.__getitems__(chunk)), chunks):
                    pass
        return [row.tobytes() for row in self._digests]


class Contents(NamedTuple):
    """The digests of a data set's splits, and the rules of their comparison.

    Attributes:
      splits: by name, "train" among them.
      own: whether they are a person's own. In a published set, only pictures that are decoded whole
        into memory anyway are digested; nothing is read for it alone.
      by_class: whether no class of "train" may be in the others.
    """

    splits: Mapping[str, Digested]
    own: bool
    by_class: bool = False

    def trained(self) -> Digests | None:
        """Returns the digests of "train"; None where they are not known."""
        digests = self.splits["train"].digests(read=self.own)
        return None if digests is None else frozenset(digests)

    def known(self, split: str, trained: Digests | None) -> Bool[np.ndarray, " n"] | None:
        """Returns which examples of a split were trained on; None where that is unknown."""
        digests = None if trained is None else self.splits[split].digests(read=self.own)
        if trained is None or digests is None:
            return None
        return np.array([value in trained for value in digests])

    def left_out(self, split: str, trained: Digests | None) -> Bool[np.ndarray, " n"]:
        """Returns which examples of a split evaluation leaves out."""
        known = self.known(split, trained)
        if known is None or not self.own:
            return np.zeros(len(self.splits[split]), bool)
        if not self.by_class:
            return known
        labels = self.splits[split].labels
        return np.isin(labels, labels[known])

    def new_labels(self, split: str) -> Int[np.ndarray, " n"]:
        """Returns the labels of the examples that this very run does not leave out."""
        return self.splits[split].labels[~self.left_out(split, self.trained())]
