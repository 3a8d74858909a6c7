"""How an experiment's network is trained: what it starts from, what stays frozen, the optimizer."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax

from research.experiment import Batch, Variables, as_initialised
from research.training import optimizers
from research.training.config import TrainingConfig
from research.training.plan import make_plan
from research.weights import transfer
from research.weights.trained import Trained


class Recipe(NamedTuple):
    """What a configuration says about training, put together once for all experiments.

    Attributes:
      start: replaces fresh variables by those of --init_from.
      frozen: path of a parameter -> whether --freeze holds it; None where nothing is frozen.
    """

    start: Callable[[Variables], Variables]
    frozen: Callable[[str], bool] | None
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule


def make_recipe(
    config: TrainingConfig,
    init: Callable[[jax.Array, Batch], Variables],
    batch: Batch,
    num_examples: int,
    *,
    trains: bool,
    trained: Trained | None = None,
    below: str = "",
) -> Recipe:
    """Reads --freeze, --transfer_rate and the flags of optimisation.

    Args:
      init: of the experiment.
      batch: what `init` takes; shapes alone matter.
      num_examples: of the training split.
      trains: False where a checkpoint holds all the weights: what it started from is past.
      trained: the weights of --init_from, to start from; None for none.
      below: the submodule that they are for, such as "backbone"; "" for all.

    Raises:
      UserError: weights that do not fit, a pattern that is none, and what the optimizer refuses.
    """
    start = shapes = None
    if trains and (trained is not None or config.freeze):
        shapes = jax.eval_shape(init, jax.random.key(0), batch)
    if trained is not None and shapes is not None:
        start = transfer.start_from(trained, shapes, below)
    frozen = transfer.matcher(config.freeze)
    optimizer, learning_rate = optimizers.from_config(
        config,
        make_plan(config, num_examples).steps,
        frozen,
        transfer.rates(start, config.transfer_rate),
    )
    if frozen and shapes is not None:
        jax.eval_shape(optimizer.init, shapes["params"])  # refuses a pattern that freezes nothing
    return Recipe(start.fill if start else as_initialised, frozen, optimizer, learning_rate)
