"""Turns splits into sources of batches, and holds out examples for validation."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np

from research.data import datasets
from research.data.config import DataConfig
from research.data.images.preprocessing import Mapped, Preprocessing, fit_example
from research.data.images.reading import read_with
from research.data.sources.contents import Contents, Digested
from research.data.sources.examples import Example, Examples, decode, decoded_bytes
from research.data.sources.source import Batch, Source
from research.data.sources.splits import (
    VALIDATION,
    Labelled,
    hold_fold,
    hold_out,
    refuse_second_validation,
)
from research.errors import UserError
from research.experiment import Data


@dataclasses.dataclass(frozen=True, eq=False)
class Splits(Mapping[str, Examples]):
    """Opened splits by name, and the digests of the pictures that they were opened from."""

    examples: Mapping[str, Examples]
    contents: Contents

    def __getitem__(self, split: str, /) -> Examples:
        return self.examples[split]

    def __iter__(self) -> Iterator[str]:
        return iter(self.examples)

    def __len__(self) -> int:
        return len(self.examples)

    def replaced(self, examples: Mapping[str, Examples]) -> "Splits":
        """Returns these splits with some replaced, whose examples have other fields."""
        return Splits({**self.examples, **examples}, self.contents)


def divide(splits: Mapping[str, Labelled], config: DataConfig) -> dict[str, Labelled]:
    """Returns the splits; --validation or --fold holds "validation" out of "train".

    The same examples under every seed of the run: --split_seed alone draws others.

    Raises:
      UserError: --validation or --fold for a set that has such a split, or both.
    """
    refuse_both(config)
    divided, seed = dict(splits), config.split_seed
    if config.fold:
        refuse_second_validation(splits, f"--fold={config.fold}")
        divided["train"], divided["validation"] = hold_fold(splits["train"], config.fold, seed)
    elif config.validation:
        refuse_second_validation(splits)
        divided["train"], divided["validation"] = hold_out(splits["train"], config.validation, seed)
    return divided


def refuse_both(config: DataConfig) -> None:
    """Raises UserError for --fold beside --validation: each says what is held out."""
    if config.fold and config.validation:
        raise UserError(
            f"--fold={config.fold}: holds a part out itself; leave --validation={config.validation}"
            " out."
        )


def refuse_unused_seed(config: DataConfig, tests_drawn: bool) -> None:
    """Raises UserError for a --split_seed that nothing would be drawn with.

    Args:
      tests_drawn: whether the test split is held out here, and is not the set's own.
    """
    if config.split_seed and not (config.validation or config.fold or tests_drawn):
        raise UserError(
            f"--split_seed={config.split_seed}: nothing is held out that it could draw, as the set "
            "has a test split of its own; add --validation or --fold, or leave it out."
        )


def fitted(
    splits: Mapping[str, Labelled],
    preprocessing: Preprocessing,
    config: DataConfig,
    fit: Callable[[Example, Preprocessing], Example] = fit_example,
    *,
    by_class: bool = False,
) -> Splits:
    """Returns the splits at their fixed size, in memory where --cache_mb allows.

    Args:
      by_class: whether training and evaluation must have no class in common.
    """
    splits = {name: read_with(split, white=preprocessing.white) for name, split in splits.items()}
    digested = {name: Digested(split) for name, split in splits.items()}

    memory = cache_bytes(splits, config)

    def examples_of(name: str) -> Examples:
        mapped = Mapped(splits[name], preprocessing, fit)
        if preprocessing.reduce is not None:  # not what digests are of: whole pictures
            reduced = read_with(splits[name], reduce=preprocessing.reduce)
            mapped = dataclasses.replace(mapped, examples=reduced)
            return mapped if decoded_bytes(mapped) >= memory else decode(mapped)
        if decoded_bytes(mapped) >= memory:
            return mapped
        return decode(dataclasses.replace(mapped, examples=digested[name]))

    examples = {name: examples_of(name) for name in splits}
    own = datasets.is_own(config.dataset) and not is_sampled(splits, config)
    return Splits(examples, Contents(digested, own, by_class))


def is_sampled(splits: Mapping[str, Examples], config: DataConfig) -> bool:
    """Returns whether a check looks at some examples of a split, and not at all."""
    return 0 < config.sample < max(map(len, splits.values()))


def cache_bytes(splits: Mapping[str, Examples], config: DataConfig) -> int:
    """Returns --cache_mb in bytes; 0 where a check looks at some examples alone."""
    return 0 if is_sampled(splits, config) else config.cache_mb * 2**20


def make_data(
    splits: Splits,
    config: DataConfig,
    seed: int,
    inspect: Callable[[], list[str]],
    *,
    order: Callable[[int], np.ndarray] | None = None,
    collate: Callable[[Batch, np.ndarray], Batch] | None = None,
    originals: Mapping[str, Examples] | None = None,
    alone: bool = False,
    large: tuple[str, ...] = ("image",),
) -> Data:
    """Makes sources of decoded splits: "train" an endless shuffled stream, the others in order.

    Args:
      inspect: see `Data`.
      order, collate: of the split to train on; see `Source`.
      originals, alone, large: of the splits to evaluate; see `Source`.
    """

    def source(split: str) -> Source:
        training = split == "train"
        size = config.batch_size if training else config.eval_batch_size or config.batch_size
        if alone and not training:  # no more rows than devices: all but one are padding
            size = math.gcd(size, jax.device_count())
        return Source(
            splits[split],
            size,
            seed=seed if training else None,
            cache_bytes=cache_bytes(splits, config),
            workers=config.workers,
            order=order if training else None,
            collate=collate if training else None,
            alone=alone and not training,
            large=large,
            originals=None if originals is None or training else originals[split],
            files=splits.contents.splits[split].examples,
        )

    evals = {split: source(split) for split in splits if split != "train"}
    return Data(source("train"), evals, inspect, splits.contents)


def monitored(splits: Mapping[str, Examples]) -> str:
    """Returns the split that chooses the best checkpoint: not the test if there is another.

    "" if "train" is the only split.
    """
    evals = [split for split in splits if split != "train"]
    return next((s for s in (*VALIDATION, "test") if s in evals), "".join(evals[:1]))
