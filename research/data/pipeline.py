"""From a configuration to sources: which examples are trained on and which are held out."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from research.data.config import DataConfig
from research.data.images import Mapped, Preprocessing, fit_example
from research.data.source import Example, Examples, Source, decode, decoded_bytes
from research.data.splits import Labelled, hold_out
from research.errors import UserError
from research.experiment import Data
from research.models import Entry


def choose_preprocessing(
    config: Any, image_shape: tuple[int | None, int | None, int | None], entry: Entry
) -> Preprocessing:
    """Image size and channels that suit data and model; mean and deviation are not known yet.

    Args:
      config: has --model, --image_size (0: the data's, or else the model's own) and --resize.
      image_shape: height, width and channels of the data, None where images differ.
      entry: of the model.

    Raises:
      UserError: where the images would be smaller than the model can take.
    """
    height, width, channels = image_shape
    if config.image_size or entry.fixed_size or height is None or width is None:
        height = width = config.image_size or entry.image_size
    if min(height, width) < entry.min_size:
        raise UserError(
            f"--image_size={min(height, width)}: --model={config.model} takes images of at least "
            f"{entry.min_size} x {entry.min_size} pixels; set --image_size."
        )
    return Preprocessing((height, width), channels or 3, config.resize)


def open_splits(
    splits: Mapping[str, Labelled],
    preprocessing: Preprocessing,
    config: DataConfig,
    fit: Callable[[Example, Preprocessing], Example] = fit_example,
) -> dict[str, Examples]:
    """The splits at their fixed size, in memory where --cache_mb allows.

    Where --validation is not 0, "validation" is held out of "train": the same examples under
    every seed.

    Args:
      fit: brings an example to that size: its image, and what belongs to the image.
    """
    opened: dict[str, Labelled] = dict(splits)
    if config.validation:
        opened["train"], opened["validation"] = hold_out(splits["train"], config.validation)
    mapped = {name: Mapped(split, preprocessing, fit) for name, split in opened.items()}
    return {
        name: decode(split) if decoded_bytes(split) < cache_bytes(config) else split
        for name, split in mapped.items()
    }


def cache_bytes(config: DataConfig) -> int:
    """--cache_mb in bytes."""
    return config.cache_mb * 2**20


def make_data(
    splits: Mapping[str, Examples],
    config: DataConfig,
    seed: int,
    inspect: Callable[[], list[str]],
) -> Data:
    """Sources over decoded splits: "train" as an endless shuffled stream, the others in order."""
    part = (jax.process_index(), jax.process_count())

    def source(split: str) -> Source:
        training = split == "train"
        return Source(
            splits[split],
            config.batch_size if training else config.eval_batch_size or config.batch_size,
            seed=seed if training else None,
            cache_bytes=cache_bytes(config),
            workers=config.workers,
            part=part,
        )

    evals = {split: source(split) for split in splits if split != "train"}
    return Data(source("train"), evals, inspect)


def monitored(splits: Mapping[str, Examples]) -> str:
    """The split whose metric names the best checkpoint: not the test where there is another.

    "" where there is no split but "train".
    """
    evals = [split for split in splits if split != "train"]
    return next((s for s in ("validation", "val", "test") if s in evals), "".join(evals[:1]))
