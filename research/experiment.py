"""The contract every experiment fulfils: a few parts, each a bundle of pure functions.

`experiments/<name>.py` builds an `Experiment`; the training loop, the step compiler, evaluation,
checkpoints and pictures know experiments through this bundle alone. `research/assembly` puts
together what most experiments share. What trains nothing is a `Look`, which never meets the loop.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import jax
import optax

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from research.data.overlap import Contents
    from research.data.source import Examples, Source
    from research.metrics.bias import Bias
    from research.report import Report

PyTree = Any
# Arrays with a leading batch dimension. Always there: "mask" bool[B] (False marks padding) and
# "index" int32[B] (which example of its split a row is); in training also "occurrence" int32[B]
# (how many rows of the global batch before it are of the same example).
Batch = Mapping[str, Any]
# {"params": ..., "batch_stats": ...}: Flax variables; all but "params" is called model state.
Variables = Mapping[str, PyTree]
# One value and one weight for each example; step.py and evaluation.py alone mask, sum and divide.
Measures = Mapping[str, tuple[jax.Array, jax.Array]]
# Plain JSON that was learned from the training data and travels with the weights.
Facts = Mapping[str, Any]
# The name of the pmap axis that a batch is split over, or None where a function sees the global
# batch (one device, or jit over a mesh). Whatever mixes examples (batch statistics, triplet mining,
# mixup) gathers over it, so that the result never depends on the split.
Axis = str | None
# The loss of each example, the new model state, further measures of each example.
Losses = tuple[jax.Array, PyTree, dict[str, jax.Array]]
# {picture name: figure}. An image, uint8 [H, W, C], is saved pixel for pixel.
Pictures = Mapping[str, "Figure | np.ndarray"]


# --- What a network is ---


class Names(NamedTuple):
    """The names of a network's units: what one can ask for when looking into it.

    Attributes:
      of: names of its classes, or of the words that it says.
      output: key of `predict`'s output that holds their scores [B, names], before softmax or
        sigmoid; "": they are the units of a layer, the last that has one for each name.
      exclusive: whether the highest is the answer, so that the others are ruled out.
    """

    of: tuple[str, ...] = ()
    output: str = ""
    exclusive: bool = True


@runtime_checkable
class Train(Protocol):
    """The network in training mode."""

    def __call__(
        self, variables: Variables, *inputs: PyTree, key: jax.Array, axis: Axis, **options: Any
    ) -> tuple[PyTree, PyTree]:
        """Returns the outputs and the new model state; options are the model's."""
        ...


@runtime_checkable
class Evaluate(Protocol):
    """The network in evaluation mode."""

    def __call__(self, variables: Variables, *inputs: PyTree, **options: Any) -> PyTree:
        """Returns the outputs; options are the model's."""
        ...


def not_bound(*_: Any, **__: Any) -> Any:
    """Stands for a function that an experiment never calls."""
    raise NotImplementedError("this experiment binds no such function")


class Network(NamedTuple):
    """A model with its preprocessing, its precision and what is frozen; see `assembly.network`.

    Attributes:
      init: key -> fresh variables.
      train, evaluate: the forward passes.
      see: a batch -> the inputs of its images, standardised.
      names: of its units.
    """

    init: Callable[[jax.Array], Variables]
    train: Train = not_bound
    evaluate: Evaluate = not_bound
    see: Callable[[Batch], jax.Array] = not_bound
    names: Names = Names()


# --- How it is trained ---


def as_initialised(variables: Variables) -> Variables:
    """Returns freshly initialised variables as they are."""
    return variables


def no_augmentation(key: jax.Array, batch: Batch, axis: Axis) -> Batch:
    """Returns the batch as it is."""
    return batch


class Training(NamedTuple):
    """How the network is trained.

    Attributes:
      loss: (variables, batch, key, axis) -> `Losses`.
      optimizer, learning_rate: of optax.
      augment: (key of the step, batch, axis) -> batch.
      start: replaces fresh variables by trained ones, before the first step; on the host.
      steps: number of steps, where the experiment knows better than --steps and --epochs.
      watch: the means of the steps since the last log line -> a warning, or None. It is logged; a
        UserError stops the run before these weights are saved.
    """

    loss: Callable[[Variables, Batch, jax.Array, Axis], Losses]
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    augment: Callable[[jax.Array, Batch, Axis], Batch] = no_augmentation
    start: Callable[[Variables], Variables] = as_initialised
    steps: int | None = None
    watch: Callable[[Mapping[str, float]], str | None] | None = None


# --- How it is evaluated ---


class Evaluator(NamedTuple):
    """Computes, keeps and draws one kind of score. A new metric is a new evaluator.

    Attributes:
      protocol: {name of a metric: how it is computed}.
      measure: (outputs, batch) -> {name: (value, weight) of each example}, on the device. Their
        means over a split are metrics.
      keep: (outputs, batch) -> what `score`, `bias` and `draw_split` need of each example, on the
        device; None: the outputs. Reduce here what is too large to hold for a whole split, such as
        probabilities of every pixel.
      tally: (what is kept of a batch's examples, their batch, the split's `originals` or None) ->
        what is held in its place; on the host. For scores against what no batch can hold, such as
        masks of their own sizes.
      score: (what is held of a split, its targets) -> metrics that are no means over examples, such
        as average precision; on the host.
      bias: (the same) -> whether predictions are too large, too many or displaced, for a person.
      draw: (outputs, batch) of a few evenly spaced examples -> pictures.
      draw_split: (what is held of a split, its targets) -> pictures.
    """

    protocol: Mapping[str, str] = {}
    measure: Callable[[PyTree, Batch], Measures] | None = None
    keep: Callable[[PyTree, Batch], PyTree] | None = None
    tally: "Callable[[PyTree, Batch, Examples | None], PyTree] | None" = None
    score: Callable[[PyTree, Batch], dict[str, float]] | None = None
    bias: "Callable[[PyTree, Batch], Bias] | None" = None
    draw: Callable[[PyTree, Batch], Pictures] | None = None
    draw_split: Callable[[PyTree, Batch], Pictures] | None = None

    @property
    def holds(self) -> bool:
        """Whether it needs something of every example of a split."""
        return any(x is not None for x in (self.score, self.bias, self.draw_split))


class Evaluation(NamedTuple):
    """How the network is evaluated.

    Attributes:
      predict: (variables, batch) -> outputs, in evaluation mode; every output leads with B.
      evaluators: by name; no two give the same metric.
      best: the metric that names the best checkpoint, such as "test/accuracy", and "max" or "min".
      notes: (outputs, batch) of a few examples -> lines for a person, kept in result.json: what
        numbers cannot say.
    """

    predict: Callable[[Variables, Batch], PyTree]
    evaluators: Mapping[str, Evaluator] = {}
    best: tuple[str, str] = ("", "max")
    notes: Callable[[PyTree, Batch], list[str]] | None = None

    @property
    def protocol(self) -> dict[str, str]:
        """How each metric is computed, by its name."""
        return {k: line for one in self.evaluators.values() for k, line in one.protocol.items()}


# --- How it answers a person's own files ---


class Prediction(NamedTuple):
    """How the network answers a person's own files.

    Attributes:
      read: files -> a batch.
      describe: (outputs, batch) -> one JSON object for each input; its "summary" is printed.
      alone: whether `read` gets one file at a time: for images that keep their own sizes.
      inputs: () -> the inputs, one entry for `read` each, where a flag other than --inputs says so.
      consult: gets a function from files to their outputs, and returns the prediction to go on
        with. For what must be known of other files first, such as the identities of a gallery.
      draw: (outputs, batch) of a few inputs -> pictures.
      save: (folder, files, outputs, batch): writes files beside predictions.jsonl, such as masks.
      collect: (folder, rows of predictions.jsonl): writes what is made of all of them, such as
        COCO's results.
    """

    read: Callable[[list[str]], Batch]
    describe: Callable[[PyTree, Batch], list[dict[str, Any]]]
    alone: bool = False
    inputs: Callable[[], list[str]] | None = None
    consult: "Callable[[Callable[[list[str]], PyTree]], Prediction] | None" = None
    draw: Callable[[PyTree, Batch], Pictures] | None = None
    save: Callable[[Path, list[str], PyTree, Batch], None] | None = None
    collect: Callable[[Path, list[dict[str, Any]]], None] | None = None


# --- The whole ---


class Data(NamedTuple):
    """The batches to train on and the splits to evaluate on, by name ("test", "validation").

    Attributes:
      inspect: () -> what is wrong with the data, one line each; for --mode=check.
      contents: tells what was trained on from what is new; None where no pictures are trained on.
    """

    train: "Source"
    evals: "Mapping[str, Source]"
    inspect: Callable[[], list[str]] = list
    contents: "Contents | None" = None


class Experiment(NamedTuple):
    """One question, as parts that are pure functions of arrays.

    Attributes:
      data: opened when first called: predicting needs no data set.
      facts: `build(config, facts)` rebuilds the experiment from them.
      prediction: None where a person's own files cannot be answered.
    """

    network: Network
    training: Training
    evaluation: Evaluation
    data: Callable[[], Data]
    facts: Facts
    prediction: Prediction | None = None


class Look(NamedTuple):
    """One question that is answered by looking: nothing is trained, and no loop is run.

    Attributes:
      report: () -> what was found. Its rows are of "metric", "value" and "protocol", as
        `report.metrics_report` makes them, where the report is kept.
      kept: whether a run's folder keeps the report, as it keeps a training's result; False: it is
        printed alone.
    """

    report: "Callable[[], Report]"
    kept: bool = True


def gather(x: jax.Array, axis: Axis) -> jax.Array:
    """Returns the rows of the global batch, from this device's rows; x itself without an axis."""
    return x if axis is None else jax.lax.all_gather(x, axis, tiled=True)
