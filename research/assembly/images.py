"""Opens a data set of images, learns facts from it, and makes sources of batches."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from research.assembly.defaults import MOST_WHOLE, choose_batches, choose_size, taken
from research.data import pipeline
from research.data.config import ImageConfig
from research.data.images.augment import Components, colour_components
from research.data.images.normalisation import learn
from research.data.images.preprocessing import Preprocessing, fit_example, read_batch
from research.data.images.reading import read, read_with, with_channels
from research.data.pipeline import Splits
from research.data.sources.examples import Example, Examples, read_many
from research.data.sources.splits import Dataset, Labelled, has_made_test, looked_at
from research.errors import UserError
from research.experiment import Batch, Data, Facts
from research.models import Entry
from research.record.progress import console
from research.spacing import spaced
from research.training.config import AugmentedTrainingConfig, ImageTrainingConfig
from research.weights.trained import Trained, channels_of, of_config

SEEN = 1000  # training images that colours are learned from
TRIED = 32  # training images by which one sees whether --decode=reduced reduces any


Fit = Callable[[Example, Preprocessing], Example]


def image_alone(dataset: Dataset) -> Fit:
    """Returns a function that brings an example's image to a fixed size, and no more."""
    return fit_example


def nothing_more(raw: Preprocessing, splits: Splits) -> Facts:
    """Adds no facts to those that every experiment on images learns."""
    return {}


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData:
    """Images to train on and to evaluate, and facts learned from them; see `assemble`.

    Attributes:
      config: of the experiment, with what was taken where nobody chose; see `defaults`.
      facts: numbers and names learned from the training split; plain JSON, kept with the weights.
      trains: False where a checkpoint holds all the weights, so nothing of --init_from is needed.
      trained: the weights of --init_from, to start from; None for none.
      dataset: () -> the data set, which is opened at the first call only.
      divided: () -> its splits, "validation" held out, images at their own sizes.
      opened: preprocessing -> these splits at its size, in memory where --cache_mb allows.
      inspect: the data set -> its faults, one line each.
    """

    config: ImageTrainingConfig
    facts: Facts
    trains: bool
    trained: Trained | None
    dataset: Callable[[], Dataset]
    divided: Callable[[], Mapping[str, Labelled]]
    opened: Callable[[Preprocessing], Splits]
    inspect: Callable[[Dataset], list[str]]

    @functools.cached_property
    def preprocessing(self) -> Preprocessing:
        """Returns the preprocessing of every image."""
        return Preprocessing.from_json(self.facts["preprocessing"])

    @property
    def class_names(self) -> tuple[str, ...]:
        """Returns the names of the classes 0, 1, ...; () if there are none."""
        return tuple(self.facts.get("class_names", ()))

    @property
    def components(self) -> Components:
        """Returns the principal components of the training images' colours, for --pca_colour."""
        return np.array(self.facts.get("colour_components", np.eye(3)), np.float32)

    def best(self, metric: str, mode: str = "max") -> tuple[str, str]:
        """Returns the metric that chooses the best checkpoint, as "split/metric", and its mode."""
        return f"{self.facts['monitored']}/{metric}", mode

    def splits(self) -> Splits:
        """Returns the splits at the network's image size, not yet standardised.

        Raises:
          UserError: where the data set has other classes than the checkpoint knows.
        """
        if "class_names" in self.facts:
            check_classes(self.config, self.dataset(), self.class_names)
        return self.opened(self.preprocessing.unnormalised())

    def sources(self, splits: Splits | None = None, **options: Any) -> Data:
        """Returns sources of these splits, or of all, with the options of `pipeline.make_data`."""
        opened = self.splits() if splits is None else splits
        inspect = lambda: self.inspect(self.dataset())
        return pipeline.make_data(opened, self.config, self.config.seed, inspect, **options)

    def read(self, files: list[str]) -> Batch:
        """Reads a batch of a person's images: "image", and "size", the original (height, width).

        With --decode=reduced, "size" is that of the reduced picture.
        """
        return read_batch(files, self.preprocessing)

    def read_whole(self, files: list[str]) -> np.ndarray:
        """Reads a person's own images, all of one size, at that size; uint8 [n, h, w, channel]."""
        white, channels = self.preprocessing.white, self.preprocessing.channels
        return np.stack([with_channels(read(file, white), channels) for file in files])


def assemble(
    config: ImageTrainingConfig,
    facts: Facts | None,
    dataset: Callable[[], Dataset],
    entry: Entry,
    inspect: Callable[[Dataset], list[str]],
    classifier: str = "",
    *,
    attributes: Mapping[str, Any] | None = None,
    divided: Callable[[], Mapping[str, Labelled]] | None = None,
    fit: Callable[[Dataset], Fit] = image_alone,
    by_class: bool = False,
    classes: bool = True,
    fixed_channels: bool = False,
    mixes: bool = False,
    largest: int = MOST_WHOLE,
    learned: Callable[[Preprocessing, Splits], Facts] = nothing_more,
) -> ImageData:
    """Opens data for training; with a checkpoint's facts, opens them only when they are needed.

    Args:
      facts: of a checkpoint; None to learn them: "preprocessing" with what was learned of the
        training split's values, "train_examples", "monitored" (the split that names the best
        checkpoint), "taken" where something is (see `defaults`), "colour_components" where the
        augmentation asks for them, "class_names" where the data have some and `classes` holds.
      dataset: opens the data set; called once at most.
      entry: of the model, or of its backbone: says which sizes it takes.
      inspect: see `ImageData`.
      classifier: the model, or its backbone, that the weights of --init_from are for, by its name
        in `research.models`; "" where nothing starts from weights.
      attributes: of the classifier, where they are not its own.
      divided: the splits; by default the data set's, with --validation held out.
      fit: the data set -> a function that brings an example to a fixed size: its image, and what
        belongs to it. It must be a module's function, so that it can be sent to worker processes.
      by_class: whether training and evaluation must have no class in common.
      classes: whether the network predicts the data set's classes, and is evaluated on these alone.
      fixed_channels: whether images get the channels of `entry`, and not their own.
      mixes: whether the training mixes pairs of examples, as --mixup asks.
      largest: the largest side that is chosen for the images of a person's own where nobody chose
        one, pixels; 0: none is chosen, as where training sees parts of images.
      learned: (preprocessing without learned numbers, splits at its size) -> further facts.

    Raises:
      UserError: data and weights that cannot be read, or do not fit; --mixup and --decode where
        they would have no effect.
    """
    if isinstance(config, AugmentedTrainingConfig) and config.mixup and not mixes:
        raise UserError("--mixup: this experiment mixes no pairs of examples; leave it out.")
    if config.decode == "reduced" and fit is not image_alone:
        raise UserError(
            "--decode=reduced: what belongs to places in an image needs all its pixels; leave it "
            "out."
        )
    dataset = functools.cache(dataset)
    divided = functools.cache(divided or (lambda: pipeline.divide(dataset().splits, config)))
    opened = functools.cache(
        lambda raw: pipeline.fitted(divided(), raw, config, fit(dataset()), by_class=by_class)
    )
    trains = facts is None
    weights = of_config(config, classifier, attributes) if trains and classifier else None
    if facts is None:
        channels = entry.channels if fixed_channels else 0
        if weights is not None:  # trained kernels fix them
            channels = channels_of(config.init_from, entry)
        if not by_class:
            pipeline.refuse_unused_seed(config, has_made_test(dataset().splits))
        chosen = choose_batches(config, divided())
        if largest:
            chosen |= choose_size(config, dataset(), divided()["train"], entry, weights, largest)
        config = taken(config, {"taken": chosen})
        raw = choose_preprocessing(config, dataset(), entry, channels)
        if raw.reduce is not None:
            check_reduced(divided()["train"], raw)
        names = dataset().class_names if classes else ()
        facts = {
            **({"class_names": list(names)} if names else {}),
            **({"taken": chosen} if chosen else {}),
            **learn_facts(config, raw, opened(raw), weights),
            **learned(raw, opened(raw)),
        }
    return ImageData(config, facts, trains, weights, dataset, divided, opened, inspect)


def choose_preprocessing(
    config: ImageConfig, dataset: Dataset, entry: Entry, fixed_channels: int = 0
) -> Preprocessing:
    """Chooses image size and channels for data and model; mean and deviation are learned later.

    Args:
      entry: of the model, or of its backbone.
      fixed_channels: of all images; 0: their own.

    Raises:
      UserError: where the images would be smaller than the model can take.
    """
    height, width, channels = dataset.image_shape
    if config.image_size or entry.fixed_size or height is None or width is None:
        height = width = config.image_size or entry.image_size
    if min(height, width) < entry.min_size:
        raise UserError(
            f"--image_size={min(height, width)}: the model takes images of at least "
            f"{entry.min_size} x {entry.min_size} pixels; set --image_size."
        )
    channels = fixed_channels or channels or 3
    return Preprocessing(
        (height, width), channels, config.resize, white=dataset.white, decode=config.decode
    )


def check_reduced(train: Labelled, preprocessing: Preprocessing) -> None:
    """Says how many of a few training images --decode=reduced reduces.

    Raises:
      UserError: where it reduces none.
    """
    tried = spaced(len(train), TRIED).tolist()
    ways = (train, read_with(train, reduce=preprocessing.reduce))
    pairs = zip(*(read_many(way, tried) for way in ways), strict=True)
    count = sum(whole["image"].size > part["image"].size for whole, part in pairs)
    few = f"of {len(tried)} evenly spaced training images"
    if not count:
        raise UserError(
            f"--decode=reduced: reduces none {few}: no JPEGs, or none at least twice as large as "
            "the model's images; leave it out."
        )
    console().print(f"--decode=reduced: reduces {count} {few}", markup=False)


def learn_facts(
    config: ImageTrainingConfig,
    raw: Preprocessing,
    splits: Mapping[str, Examples],
    weights: Trained | None,
) -> dict[str, Any]:
    """Learns the facts that every experiment on images needs of its data; see `assemble`."""
    train = splits["train"]
    as_trained = None if weights is None else weights.preprocessing
    seen = looked_at(train, config.sample)
    facts = {
        "preprocessing": learn(raw, seen, config.input_normalisation, as_trained).to_json(),
        "train_examples": len(train),
        "monitored": pipeline.monitored(splits),
    }
    if not (isinstance(config, AugmentedTrainingConfig) and config.pca_colour):
        return facts
    if raw.channels != 3:
        raise UserError(f"--pca_colour: needs RGB images; these have {raw.channels} channel(s).")
    read = read_many(seen, spaced(len(seen), SEEN).tolist())
    sample = np.stack([example["image"] for example in read])
    return facts | {"colour_components": colour_components(sample / 255.0).tolist()}


def check_classes(
    config: ImageTrainingConfig, dataset: Dataset, class_names: tuple[str, ...]
) -> None:
    """Raises UserError where a data set has other classes than the checkpoint knows."""
    found = dataset.class_names
    if found != class_names:
        raise UserError(
            f"--dataset={config.dataset}: has {len(found)} classes ({', '.join(found[:5])}, ...), "
            f"the checkpoint knows {len(class_names)} ({', '.join(class_names[:5])}, ...)."
        )
