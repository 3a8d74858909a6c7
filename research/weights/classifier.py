"""Trained classifiers of --init_from, for use without training."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import numpy as np

from research import models
from research.config import Configuration
from research.config import options as options_of
from research.data.config import Normalisation, Resize
from research.data.images.normalisation import unlearned
from research.data.images.preprocessing import Preprocessing
from research.errors import UserError, choose
from research.experiment import Experiment, Facts
from research.weights import PRETRAINED, into
from research.weights import trained as trained_weights


@runtime_checkable
class ClassifierOptions(Protocol):
    """The flags that choose a classifier and the preparation of its images."""

    @property
    def model(self) -> str: ...
    @property
    def model_options(self) -> tuple[str, ...]: ...
    @property
    def init_from(self) -> str: ...
    @property
    def init_as(self) -> str: ...
    @property
    def image_size(self) -> int: ...
    @property
    def resize(self) -> Resize: ...
    @property
    def input_normalisation(self) -> Normalisation: ...


@runtime_checkable
class Configured(ClassifierOptions, Configuration, Protocol):
    """A whole configuration with these flags."""


Options = TypeVar("Options", bound=Configured)


class Classifier(NamedTuple):
    """A trained classifier.

    Attributes:
      model: its name in `research.models`.
      class_names: of its outputs; "class 0", ... where its file does not say.
      preprocessing: of the images it is given.
      tensors: its weights, by torchvision's or timm's names.
    """

    model: str
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    tensors: Mapping[str, np.ndarray]


def open_classifier(options: ClassifierOptions, given: Collection[str] = ()) -> Classifier:
    """Opens the classifier of --init_from.

    Args:
      given: the names of the flags that were typed: flags of images among them replace the
        weights' own preprocessing.

    Raises:
      UserError: for names that are unknown, and weights that do not fit --model.
    """
    source, name = options.init_from, options.model
    if source in PRETRAINED:
        name = PRETRAINED[source].model
        if "model" in given and options.model != name:
            raise UserError(
                f"--model={options.model} --init_from={source}: is {name}; leave --model out."
            )
    entry = choose(name, models.available(), "model")
    attributes = models.attributes(entry, options.model_options)
    trained = trained_weights.open_trained(source, name, options.init_as, attributes)
    preprocessing = trained.preprocessing
    if options.image_size:
        preprocessing = dataclasses.replace(preprocessing, image_size=(options.image_size,) * 2)
    if "resize" in given:
        preprocessing = dataclasses.replace(preprocessing, resize=options.resize)
    preprocessing = unlearned(preprocessing, options.input_normalisation)
    if source in PRETRAINED:
        names = PRETRAINED[source].class_names()
        if not names:
            raise UserError(
                f"--init_from={source}: is a trunk without a classifier; look into it with "
                "--experiment=input_optimization."
            )
        return Classifier(name, names, preprocessing, trained.tensors)
    model = entry.make(**attributes)
    image = preprocessing.standardise(preprocessing.blank()["image"])
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    head = into(
        shapes, trained.tensors, new_head=True, source=f"--model={name} --init_from={source}"
    )
    count = head.outputs or vars(model)["num_classes"]
    names = tuple(f"class {k}" for k in range(count))
    return Classifier(name, names, preprocessing, trained.tensors)


def open_pretrained(
    config: Options, given: Collection[str], build: Callable[[Options, Facts], Experiment]
) -> tuple[Options, dict[str, Any], dict[str, Any]]:
    """Opens the classifier of --init_from as a checkpoint is opened: its config, facts, variables.

    Args:
      given: the names of the flags that were typed.
      build: makes the experiment of the config and facts.

    Raises:
      UserError: as `open_classifier`, and for flags that have no effect.
    """
    refuse_training(config, given)
    known = open_classifier(config, given)
    config = dataclasses.replace(config, model=known.model)
    facts = {
        "class_names": list(known.class_names),
        "preprocessing": known.preprocessing.to_json(),
        "train_examples": 1,
        "monitored": "",
    }
    shapes = jax.eval_shape(build(config, facts).network.init, jax.random.key(0))
    source = f"--model={config.model} --init_from={config.init_from}"
    return config, facts, into(shapes, known.tensors, source=source).variables


# What has an effect on a network that --init_from names and nothing trains.
NOT_TRAINED = {
    *("init_from", "init_as", "model", "model_options", "activation", "precision", "batch_size"),
    *("image_size", "resize", "input_normalisation", "dataset", "validation", "skip_corrupt"),
    *("split_seed", "fold"),
}


def refuse_training(config: Configuration, given: Collection[str]) -> None:
    """Raises UserError for the flags of training, where nothing is trained."""
    for row in options_of(type(config)):
        decides = row.changes_result and row.learned
        if row.name in given and decides and row.name not in NOT_TRAINED:
            raise UserError(
                f"--{row.flag}: is about training, and has no effect on the weights of "
                "--init_from; leave it out."
            )
