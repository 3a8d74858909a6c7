"""The programs of a run, from shapes alone: no weights are made, and nothing is placed."""

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from research.experiment import Batch, Experiment, PyTree, Training
from research.flops import Cost, count_flops
from research.hardware.target import compiled_for
from research.training import state as state_lib
from research.training.config import LoopConfig
from research.training.parallel import Make, Parallel
from research.training.state import TrainState
from research.training.step import make_eval_step, make_train_step

if TYPE_CHECKING:
    from research.data.sources.source import Source

FEW = 8  # examples that are read for the shapes of a batch


class Program(NamedTuple):
    """A step that is not compiled yet.

    Attributes:
      name: "training" or "evaluation".
      lowered: of JAX.
      cost: of all devices together.
      examples: of the global batch.
    """

    name: str
    lowered: Any
    cost: Cost
    examples: int


def state_shapes(experiment: Experiment, config: LoopConfig) -> TrainState:
    """Returns the shapes and types of the state before the first step."""

    def create(seed: jax.Array) -> TrainState:
        variables = state_lib.init(experiment.network, seed)
        return state_lib.create(experiment.training, variables, config.ema_decay > 0, seed)

    shapes: TrainState = jax.eval_shape(create, jax.ShapeDtypeStruct((), np.uint32))
    return shapes


def batch_shapes(source: "Source", rows: int) -> Batch:
    """Returns the shapes and types of a source's batches, with `rows` examples.

    A few examples are read. Where batches differ in shape, as captions in buckets do, it is the
    shape of a batch of all examples: none is larger.
    """
    small = min(rows, FEW)
    few = dataclasses.replace(source, batch_size=small, part=(0, 1), order=None, collate=None)
    batch = few.batch(0)
    if source.collate is not None:
        batch = source.collate(batch, np.arange(len(source.examples), dtype=np.int32))
    return {
        name: jax.ShapeDtypeStruct((rows, *value.shape[1:]), value.dtype)
        for name, value in batch.items()
    }


def train_steps(training: Training, config: LoopConfig, parallel: Parallel) -> Make:
    """Returns make(axis) -> step, for `Parallel.compile`.

    Of an axis it is one function, however often it is asked for, and so JAX traces it once.
    """

    # Under pmap a step sees one device's rows already.
    mapped = parallel.by_device and parallel.mode == "jit"
    over_devices = parallel.over_devices if mapped else None

    def make(axis: str | None) -> Any:
        return make_train_step(training, axis, config.accumulate, config.ema_decay, over_devices)

    return functools.cache(make)


def step_cost(steps: Make, parallel: Parallel, state: PyTree, batch: Batch) -> Cost:
    """Counts the operations of one step, however the batch is split.

    Args:
      steps: of `train_steps`, or evaluation's.
      state: what the step takes beside the batch; arrays, or shapes alone.
      batch: all of it, or its shapes.
    """
    with compiled_for(parallel.target):
        return count_flops(steps(None), state, dict(batch))


def training_program(
    experiment: Experiment, config: LoopConfig, parallel: Parallel, batch: Batch
) -> Program:
    """Returns the training step for a global batch of these shapes."""
    state = state_shapes(experiment, config)
    steps = train_steps(experiment.training, config, parallel)
    lowered = parallel.lower(steps, state, parallel.shapes(batch), donate=True)
    cost = step_cost(steps, parallel, state, batch)
    return Program("training", lowered, cost, len(batch["index"]))


def evaluation_program(
    experiment: Experiment, config: LoopConfig, parallel: Parallel, batch: Batch
) -> Program:
    """Returns the evaluation step for a global batch of these shapes."""
    variables = state_shapes(experiment, config).variables
    steps = functools.cache(functools.partial(make_eval_step, experiment.evaluation))
    lowered = parallel.lower(steps, variables, parallel.shapes(batch))
    cost = step_cost(steps, parallel, variables, batch)
    return Program("evaluation", lowered, cost, len(batch["index"]))
