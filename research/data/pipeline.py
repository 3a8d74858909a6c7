"""From a configuration to sources: which examples are trained on and which are held out."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from research.data import datasets
from research.data.augment import colour_components
from research.data.config import DataConfig, ImageDataConfig
from research.data.normalisation import learn
from research.data.overlap import Contents, Digested
from research.data.preprocessing import Mapped, Preprocessing, fit_example
from research.data.source import Example, Examples, Source, decode, decoded_bytes, read_many
from research.data.splits import (
    VALIDATION,
    Dataset,
    Labelled,
    hold_out,
    refuse_second_validation,
    with_white,
)
from research.errors import UserError
from research.experiment import Data
from research.models import Entry
from research.spacing import spaced
from research.weights.trained import Trained, channels_of


@dataclasses.dataclass(frozen=True, eq=False)
class Splits(Mapping[str, Examples]):
    """Opened splits by name, and the contents of the files that they were opened from."""

    examples: Mapping[str, Examples]
    contents: Contents

    def __getitem__(self, split: str, /) -> Examples:
        return self.examples[split]

    def __iter__(self) -> Iterator[str]:
        return iter(self.examples)

    def __len__(self) -> int:
        return len(self.examples)

    def replaced(self, examples: Mapping[str, Examples]) -> "Splits":
        """These splits, some of them with other fields beside or in the place of their pictures."""
        return Splits({**self.examples, **examples}, self.contents)


def choose_preprocessing(
    config: ImageDataConfig, dataset: Dataset, entry: Entry, init_from: str = ""
) -> Preprocessing:
    """Image size and channels that suit data and model; mean and deviation are not known yet.

    Args:
      entry: of the model, or of its backbone.
      init_from: the weights to start from, if any: trained kernels fix the number of channels.

    Raises:
      UserError: where the images would be smaller than the model can take.
    """
    height, width, channels = dataset.image_shape
    if config.image_size or entry.fixed_size or height is None or width is None:
        height = width = config.image_size or entry.image_size
    if init_from:
        channels = channels_of(init_from, entry)
    if min(height, width) < entry.min_size:
        raise UserError(
            f"--image_size={min(height, width)}: the model takes images of at least "
            f"{entry.min_size} x {entry.min_size} pixels; set --image_size."
        )
    return Preprocessing((height, width), channels or 3, config.resize, white=dataset.white)


def learn_facts(
    config: ImageDataConfig,
    raw: Preprocessing,
    splits: Mapping[str, Examples],
    trained: Trained | None = None,
) -> dict[str, Any]:
    """The facts that every experiment on images needs of its data, in plain JSON.

    "preprocessing", with what was learned of the training split's values; "train_examples", their
    number; "monitored", the split that names the best checkpoint; and "colour_components", where
    the augmentation asks for them.

    Args:
      trained: the weights to start from, if any.
    """
    train = splits["train"]
    as_trained = None if trained is None else trained.preprocessing
    facts = {
        "preprocessing": learn(raw, train, config.input_normalisation, as_trained).to_json(),
        "train_examples": len(train),
        "monitored": monitored(splits),
    }
    if config.pca_colour and raw.channels != 3:
        raise UserError(f"--pca_colour: needs RGB images; these have {raw.channels} channel(s).")
    if config.pca_colour:
        seen = read_many(train, spaced(len(train), 1000).tolist())
        sample = np.stack([example["image"] for example in seen])
        facts["colour_components"] = colour_components(sample / 255.0).tolist()
    return facts


def check_classes(config: DataConfig, dataset: Dataset, class_names: tuple[str, ...]) -> None:
    """Raises UserError where a data set has other classes than the checkpoint knows."""
    found = dataset.class_names
    if found != class_names:
        raise UserError(
            f"--dataset={config.dataset}: has {len(found)} classes ({', '.join(found[:5])}, ...), "
            f"the checkpoint knows {len(class_names)} ({', '.join(class_names[:5])}, ...)."
        )


def divide(splits: Mapping[str, Labelled], config: DataConfig) -> dict[str, Labelled]:
    """The splits; where --validation is not 0, "validation" is held out of "train".

    The same examples under every seed.

    Raises:
      UserError: --validation for a set that has such a split.
    """
    divided = dict(splits)
    if config.validation:
        refuse_second_validation(splits)
        divided["train"], divided["validation"] = hold_out(splits["train"], config.validation)
    return divided


def open_splits(
    splits: Mapping[str, Labelled],
    preprocessing: Preprocessing,
    config: DataConfig,
    fit: Callable[[Example, Preprocessing], Example] = fit_example,
) -> Splits:
    """The splits that `divide` makes, at their fixed size, in memory where --cache_mb allows.

    Args:
      fit: brings an example to that size: its image, and what belongs to the image.

    Raises:
      UserError: --validation for a set that has such a split.
    """
    return fitted(divide(splits, config), preprocessing, config, fit)


def fitted(
    splits: Mapping[str, Labelled],
    preprocessing: Preprocessing,
    config: DataConfig,
    fit: Callable[[Example, Preprocessing], Example] = fit_example,
    *,
    by_class: bool = False,
) -> Splits:
    """The splits as they are, at their fixed size, in memory where --cache_mb allows.

    Args:
      by_class: whether no class that is trained on may be evaluated on.
    """
    splits = {name: with_white(split, preprocessing.white) for name, split in splits.items()}
    digested = {name: Digested(split) for name, split in splits.items()}

    def examples_of(name: str) -> Examples:
        mapped = Mapped(splits[name], preprocessing, fit)
        if decoded_bytes(mapped) >= cache_bytes(config):
            return mapped
        return decode(dataclasses.replace(mapped, examples=digested[name]))

    examples = {name: examples_of(name) for name in splits}
    return Splits(examples, Contents(digested, datasets.is_own(config.dataset), by_class))


def cache_bytes(config: DataConfig) -> int:
    """--cache_mb in bytes."""
    return config.cache_mb * 2**20


def make_data(
    splits: Splits,
    config: DataConfig,
    seed: int,
    inspect: Callable[[], list[str]],
    *,
    originals: Mapping[str, Examples] | None = None,
    alone: bool = False,
) -> Data:
    """Sources over decoded splits: "train" as an endless shuffled stream, the others in order.

    Args:
      inspect: see `Data`.
      originals, alone: of the splits to evaluate; see `Source`.
    """
    part = (jax.process_index(), jax.process_count())

    def source(split: str) -> Source:
        training = split == "train"
        size = config.batch_size if training else config.eval_batch_size or config.batch_size
        if alone and not training:  # no more rows than devices: all but one are padding
            size = math.gcd(size, jax.device_count())
        return Source(
            splits[split],
            size,
            seed=seed if training else None,
            cache_bytes=cache_bytes(config),
            workers=config.workers,
            part=part,
            alone=alone and not training,
            originals=None if originals is None or training else originals[split],
        )

    evals = {split: source(split) for split in splits if split != "train"}
    return Data(source("train"), evals, inspect, splits.contents)


def monitored(splits: Mapping[str, Examples]) -> str:
    """The split whose metric names the best checkpoint: not the test where there is another.

    "" where there is no split but "train".
    """
    evals = [split for split in splits if split != "train"]
    return next((s for s in (*VALIDATION, "test") if s in evals), "".join(evals[:1]))
