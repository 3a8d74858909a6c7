"""The contract every experiment fulfils: a few parts, each a bundle of pure functions.

`experiments/<name>.py` builds an `Experiment`; the training loop, the step compiler, evaluation,
checkpoints and pictures know experiments through this bundle alone. `research/assembly` puts
together what most experiments share. What trains nothing is a `Look`, which never meets the loop.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
import optax

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from research.data.sources.contents import Contents
    from research.data.sources.examples import Examples
    from research.data.sources.source import Source
    from research.metrics.bias import Bias
    from research.record.report import Report

PyTree = Any
# Arrays with a leading batch dimension. Always there: "mask" bool[B] (False marks padding) and
# "index" int32[B] (which example of its split a row is); in training also "occurrence" int32[B]
# (how many rows of the global batch before it are of the same example).
Batch = Mapping[str, Any]
# {"params": ..., "batch_stats": ...}: Flax variables; all but "params" is called model state.
Variables = Mapping[str, PyTree]
# One value and one weight for each example; step.py and evaluation.py alone mask, sum and divide.
Measures = Mapping[str, tuple[jax.Array, jax.Array]]
# A metric of a whole split; or the value and the weight of each example, whose mean is the metric.
Score = float | tuple[np.ndarray, np.ndarray]
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
    """The names of a network's units, by which methods that look into it find them.

    Attributes:
      of: names of its classes, or of the words of its vocabulary.
      output: key of `predict`'s output that holds their scores [B, names], before softmax or
        sigmoid; "": they are the units of the last layer that has one for each name.
      exclusive: whether the unit with the highest score is the answer, and the others are not.
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
    """Raises an error: the default for functions that an experiment never calls."""
    raise NotImplementedError("this experiment binds no such function")


class Network(NamedTuple):
    """A model with its preprocessing, its precision and its frozen part; see `assembly.network`.

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


# --- Training ---


def as_initialised(variables: Variables) -> Variables:
    """Returns freshly initialised variables as they are."""
    return variables


def no_augmentation(key: jax.Array, batch: Batch, axis: Axis) -> Batch:
    """Returns the batch as it is."""
    return batch


class Training(NamedTuple):
    """The training of the network.

    Attributes:
      loss: (variables, batch, key, axis) -> `Losses`.
      optimizer, learning_rate: of optax.
      augment: (key of the step, batch, axis) -> batch.
      start: replaces fresh variables by trained ones, before the first step; on the host.
      steps: number of steps, in the place of --steps and --epochs; None for these.
      watch: the means of the steps since the last log line -> a warning, or None. It is logged; a
        UserError stops the run before these weights are saved.
      answers: between which the loss, cross-entropy, decides: a network that knows nothing has the
        loss ln(answers); 0 for other losses.
    """

    loss: Callable[[Variables, Batch, jax.Array, Axis], Losses]
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    augment: Callable[[jax.Array, Batch, Axis], Batch] = no_augmentation
    start: Callable[[Variables], Variables] = as_initialised
    steps: int | None = None
    watch: Callable[[Mapping[str, float]], str | None] | None = None
    answers: int = 0


# --- Evaluation ---


class Evaluator(NamedTuple):
    """One kind of score, computed, kept and drawn. A new metric is a new evaluator.

    Attributes:
      protocol: {name of a metric: how it is computed}.
      measure: (outputs, batch) -> {name: (value, weight) of each example}, on the device. Their
        means over a split are metrics.
      keep: (outputs, batch) -> the values of each example for `score`, `bias` and `draw_split`, on
        the device; None: the outputs. Reduce outputs here that are too large to hold for a whole
        split, such as probabilities of every pixel.
      tally: (a batch's kept values, the batch without what its source calls `large`, the split's
        `originals` or None) -> the values to hold in their place; on the host. For scores against
        targets that no batch can hold, such as masks of their own sizes.
      score: (a split's held values, its targets) -> metrics that no batch can give, such as average
        precision; on the host.
      bias: (the same) -> whether predictions are too large, too many or displaced, for a person.
      draw: (outputs, batch) of a few evenly spaced examples -> pictures.
      draw_split: (a split's held values, its targets) -> pictures.
    """

    protocol: Mapping[str, str] = {}
    measure: Callable[[PyTree, Batch], Measures] | None = None
    keep: Callable[[PyTree, Batch], PyTree] | None = None
    tally: "Callable[[PyTree, Batch, Examples | None], PyTree] | None" = None
    score: Callable[[PyTree, Batch], Mapping[str, Score]] | None = None
    bias: "Callable[[PyTree, Batch], Bias] | None" = None
    draw: Callable[[PyTree, Batch], Pictures] | None = None
    draw_split: Callable[[PyTree, Batch], Pictures] | None = None

    @property
    def holds(self) -> bool:
        """Returns whether the evaluator needs values of every example of a split."""
        return any(x is not None for x in (self.score, self.bias, self.draw_split))


class Evaluation(NamedTuple):
    """The evaluation of the network.

    Attributes:
      predict: (variables, batch) -> outputs, in evaluation mode; every output leads with B.
      evaluators: by name; no two give the same metric.
      best: the metric that names the best checkpoint, such as "test/accuracy", and "max" or "min".
      notes: (outputs, batch) of a few examples -> lines for a person, kept in result.json, for
        observations that are not numbers.
      loss: the measure that is, or stands for, the loss of each example; or, where evaluation
        measures none, (variables, batch) -> losses [B], in evaluation mode; "": there is none.
    """

    predict: Callable[[Variables, Batch], PyTree]
    evaluators: Mapping[str, Evaluator] = {}
    best: tuple[str, str] = ("", "max")
    notes: Callable[[PyTree, Batch], list[str]] | None = None
    loss: str | Callable[[Variables, Batch], jax.Array] = ""

    @property
    def protocol(self) -> dict[str, str]:
        """Returns how each metric is computed, by its name."""
        return {k: line for one in self.evaluators.values() for k, line in one.protocol.items()}


# --- Prediction for a person's own files ---

Consulted = Callable[[list[str]], "tuple[np.ndarray, PyTree]"]


class Prediction(NamedTuple):
    """The network's predictions for a person's own files.

    Attributes:
      read: files -> a batch.
      describe: (outputs, batch) -> one JSON object for each input; its "summary" is printed.
      alone: whether `read` takes one file at a time: for images that keep their own sizes.
      inputs: () -> the list of inputs for `read`, if a flag other than --inputs names them.
      consult: takes a function from files to the positions of those that can be read and their
        outputs, and returns the prediction to use from then on. For predictions that first need
        other files, such as known identities.
      draw: (outputs, batch) of a few inputs -> pictures.
      save: (folder, files, outputs, batch): writes files beside predictions.jsonl, such as masks.
      collect: (folder, rows of predictions.jsonl): writes files made of all rows, such as COCO's
        results.
    """

    read: Callable[[list[str]], Batch]
    describe: Callable[[PyTree, Batch], list[dict[str, Any]]]
    alone: bool = False
    inputs: Callable[[], list[str]] | None = None
    consult: "Callable[[Consulted], Prediction] | None" = None
    draw: Callable[[PyTree, Batch], Pictures] | None = None
    save: Callable[[Path, list[str], PyTree, Batch], None] | None = None
    collect: Callable[[Path, list[dict[str, Any]]], None] | None = None


# --- The whole ---


class Data(NamedTuple):
    """The batches for training and the splits for evaluation, by name ("test", "validation").

    Attributes:
      inspect: () -> the faults of the data, one line each; for --mode=check.
      contents: tells trained pictures from new ones; None if no pictures are trained on.
    """

    train: "Source"
    evals: "Mapping[str, Source]"
    inspect: Callable[[], list[str]] = list
    contents: "Contents | None" = None


class Experiment(NamedTuple):
    """An experiment, as parts that are pure functions of arrays.

    Attributes:
      data: opened when first called: predicting needs no data set.
      facts: plain JSON from which `build(config, facts)` rebuilds the experiment.
      prediction: None if the experiment takes no files of a person's own.
    """

    network: Network
    training: Training
    evaluation: Evaluation
    data: Callable[[], Data]
    facts: Facts
    prediction: Prediction | None = None


class Look(NamedTuple):
    """A report by looking alone: nothing is trained, and no loop is run.

    Attributes:
      report: () -> the report. Its rows are of "metric", "value" and "protocol", as
        `report.metrics_report` makes them, if the report is kept.
      kept: whether a run's folder keeps the report, as it keeps a training's result; False: it is
        printed alone.
    """

    report: "Callable[[], Report]"
    kept: bool = True


def gather(x: jax.Array, axis: Axis) -> jax.Array:
    """Returns the rows of the global batch, from all devices; without an axis, x itself."""
    return x if axis is None else jax.lax.all_gather(x, axis, tiled=True)
