"""The contract every experiment fulfils: a bundle of pure functions, no base class.

`experiments/<name>.py` builds an `Experiment`; the training loop, the step compiler, evaluation,
checkpoints and pictures know experiments through this bundle alone.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import optax

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from research.data.overlap import Contents
    from research.data.source import Examples, Source
    from research.metrics.bias import Bias

PyTree = Any
# Arrays with a leading batch dimension. Always there: "mask" bool[B] (False marks padding) and
# "index" int32[B] (which example of its split a row is); in training also "occurrence" int32[B]
# (how many rows of the global batch before it are of the same example).
Batch = Mapping[str, Any]
# {"params": ..., "batch_stats": ...}: Flax variables; all but "params" is called model state.
Variables = Mapping[str, PyTree]
# One value and one weight for each example; step.py and evaluation.py alone mask, sum and divide.
Measures = Mapping[str, tuple[jax.Array, jax.Array]]


class Data(NamedTuple):
    """The batches to train on and the splits to evaluate on, by name ("test", "validation")."""

    train: "Source"
    evals: "Mapping[str, Source]"
    # What is wrong with the data, one line each; for the pre-flight of --mode=check.
    inspect: Callable[[], list[str]] = list
    # Tells what was trained on from what is new; None where no pictures are trained on.
    contents: "Contents | None" = None


class Named(NamedTuple):
    """What a network's units are called: what one can ask for by name when looking into it.

    Attributes:
      names: of its classes, or of the words that it says.
      output: key of `predict`'s output that holds their scores [B, names], before softmax or
        sigmoid; "": they are the units of a layer, the last that has one for each name.
      exclusive: whether the highest is the answer: the others then are what it is not.
    """

    names: tuple[str, ...] = ()
    output: str = ""
    exclusive: bool = True


def as_initialised(variables: Variables) -> Variables:
    """Returns freshly initialised variables as they are."""
    return variables


def no_augmentation(key: jax.Array, batch: Batch, axis: str | None) -> Batch:
    """Returns the batch as it is."""
    return batch


class Experiment(NamedTuple):
    """What is asked, as pure functions of arrays.

    `axis` is the name of the pmap axis the batch is split over, or None where the function sees
    the global batch (one device, or jit over a mesh). Whatever mixes examples (batch statistics,
    triplet mining, mixup) gathers over it, so that the result never depends on the split.
    """

    init: Callable[[jax.Array, Batch], Variables]
    # (variables, batch, key, axis) -> loss of each example, new model state, extra measures
    loss: Callable[
        [Variables, Batch, jax.Array, str | None], tuple[jax.Array, PyTree, dict[str, jax.Array]]
    ]
    predict: Callable[[Variables, Batch], PyTree]  # evaluation mode; every output leads with B
    measure: Callable[[PyTree, Batch], Measures]
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    data: Callable[[], Data]  # opened when first called: predicting needs no data set
    # What was learned from the training data and must travel with the parameters: class names,
    # preprocessing, ... Plain JSON; `build(config, facts)` rebuilds the experiment from it.
    facts: Mapping[str, Any]
    protocol: Mapping[str, str]  # how each reported number is computed
    named: Named = Named()
    best: tuple[str, str] = (
        "",
        "max",
    )  # the measure that names the best checkpoint; "max" or "min"
    augment: Callable[[jax.Array, Batch, str | None], Batch] = no_augmentation  # key is per step
    # Replaces fresh variables by trained ones, before the first step; on the host.
    start: Callable[[Variables], Variables] = as_initialised
    # Whole-split metrics that are no means over examples (mAP, BLEU, calibration), on the host.
    score: Callable[[PyTree, Batch], dict[str, float]] | None = None
    # (outputs, batch) -> what score and draw_split get of them, on the device; None: the outputs.
    # Where these are too large to hold for a whole split, such as probabilities of every pixel.
    keep: Callable[[PyTree, Batch], PyTree] | None = None
    # (what is kept of a batch's examples, their batch, the split's `originals` or None) -> what
    # score and draw_split get in its place; on the host. Where examples are scored against what no
    # batch can hold, such as masks of their own sizes.
    tally: "Callable[[PyTree, Batch, Examples | None], PyTree] | None" = None
    # (what score gets) -> whether predictions are too large, too many or beside, for a person.
    bias: "Callable[[PyTree, Batch], Bias] | None" = None
    # {picture name: figure} of a few predictions, and of a whole split. An image, uint8 [H, W, C],
    # in the place of a figure is saved pixel for pixel.
    draw: Callable[[PyTree, Batch], "Mapping[str, Figure | np.ndarray]"] | None = None
    draw_split: Callable[[PyTree, Batch], "Mapping[str, Figure | np.ndarray]"] | None = None
    # What numbers cannot say of a few predictions: lines for a person, kept in result.json.
    notes: Callable[[PyTree, Batch], list[str]] | None = None
    # Steps of the run, where the experiment knows better than --steps and --epochs. With 0 nothing
    # is optimised: the run evaluates and draws.
    steps: int | None = None
    # The means of the steps since the last log line -> what to warn of, or None. It is logged; a
    # UserError stops the run before these weights are saved.
    watch: Callable[[Mapping[str, float]], str | None] | None = None
    # A person's own files -> a batch; predictions -> one JSON object for each input.
    read: Callable[[list[str]], Batch] | None = None
    alone: bool = False  # `read` gets one file at a time: of images that keep their own sizes
    describe: Callable[[PyTree, Batch], list[dict[str, Any]]] | None = None
    # What is predicted, one entry for `read` each, where it is not --inputs that says so.
    inputs: Callable[[], list[str]] | None = None
    # What prediction must know beforehand of other files, such as a gallery: gets a function from
    # files to their outputs, returns the experiment to predict with.
    consult: "Callable[[Callable[[list[str]], PyTree]], Experiment] | None" = None
    # (folder, files, outputs, batch): files of its own beside predictions.jsonl, such as masks.
    save: Callable[[Path, list[str], PyTree, Batch], None] | None = None
    # (folder, rows of predictions.jsonl): what is made of all of them, such as COCO's results.
    collect: Callable[[Path, list[dict[str, Any]]], None] | None = None


def gather(x: jax.Array, axis: str | None) -> jax.Array:
    """The rows of the global batch, from this device's rows. Identity where axis is None."""
    return x if axis is None else jax.lax.all_gather(x, axis, tiled=True)
