"""P classes x K images a batch, for losses that compare examples: Hermans et al. 2017."""

import dataclasses
import functools
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Int32

from research.data.sources.source import permutation
from research.data.sources.splits import Labelled
from research.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class ClassesByImages:
    """The order of a `Source`: batch `step` has K images of each of P classes, class by class.

    A pure function of (seed, step). All classes come in a shuffled order, P at a time, then in
    another order; the fewer than P at the end of an order are left out. A class of K or more images
    gives K different ones; a smaller class repeats each image equally often, give or take one.

    Attributes:
      labels: the class of every example of the split.
      classes: P.
      images: K.
      seed: at least 0.
    """

    labels: np.ndarray
    classes: int
    images: int
    seed: int

    def __post_init__(self) -> None:
        """Raises UserError where such batches cannot be made, or hold no triplet."""
        there = len(self.members)
        if self.images < 2:
            raise UserError(
                f"--images_per_class={self.images}: mining needs at least two images a class, an "
                "anchor and its positive."
            )
        if self.classes < 2:
            raise UserError(
                f"--batch_size={self.classes * self.images} holds {self.classes} class of "
                f"--images_per_class={self.images}; mining needs at least two classes a batch."
            )
        if self.classes > there:
            raise UserError(
                f"--batch_size={self.classes * self.images} takes {self.classes} classes of "
                f"--images_per_class={self.images}, but the training split has {there}; at most "
                f"--batch_size={there * self.images} fits."
            )

    @functools.cached_property
    def members(self) -> list[Int[np.ndarray, " _"]]:
        """Returns the positions of the examples of each class."""
        order = np.argsort(self.labels, kind="stable")
        ends = np.flatnonzero(np.diff(self.labels[order])) + 1
        return np.split(order, ends)

    def __call__(self, step: int) -> Int32[np.ndarray, " _"]:
        epoch, place = divmod(step, len(self.members) // self.classes)
        order = permutation(len(self.members), self.seed, epoch)
        chosen = order[place * self.classes : (place + 1) * self.classes]
        bits = np.random.MT19937(np.random.SeedSequence([self.seed, step, self.images]))
        random = np.random.RandomState(bits)  # frozen, as the order of epochs is
        rows = []
        for members in (self.members[k] for k in chosen.tolist()):
            rounds = -(-self.images // len(members))
            rows += [random.permutation(members) for _ in range(rounds - 1)]
            rows.append(random.permutation(members)[: self.images - (rounds - 1) * len(members)])
        return np.concatenate(rows).astype(np.int32)


@runtime_checkable
class BatchOptions(Protocol):
    """The flags that describe a batch."""

    @property
    def batch_size(self) -> int: ...
    @property
    def images_per_class(self) -> int: ...
    @property
    def accumulate(self) -> int: ...
    @property
    def seed(self) -> int: ...


def order_of(options: BatchOptions, train: Labelled) -> ClassesByImages:
    """Returns the order of --batch_size and --images_per_class over a training split.

    Raises:
      UserError: for batches that cannot be made, or in which no example has a positive.
    """
    if options.batch_size % options.images_per_class:
        raise UserError(
            f"--batch_size={options.batch_size} is no multiple of "
            f"--images_per_class={options.images_per_class}."
        )
    if options.accumulate > 1 and options.images_per_class < 2 * options.accumulate:
        raise UserError(
            f"--accumulate={options.accumulate}: its parts hold fewer than two of the "
            f"--images_per_class={options.images_per_class}, so no example has a positive; set "
            f"--images_per_class={2 * options.accumulate} or more."
        )
    classes = options.batch_size // options.images_per_class
    return ClassesByImages(train.labels, classes, options.images_per_class, options.seed)
