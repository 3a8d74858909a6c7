"""Puts a network's training together: its initial weights, its frozen part, the optimizer."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import jax

from research.assembly.defaults import taken
from research.errors import UserError
from research.experiment import (
    Axis,
    Batch,
    Facts,
    Losses,
    Network,
    Training,
    Variables,
    as_initialised,
    no_augmentation,
)
from research.training import optimizers
from research.training.config import TrainingConfig
from research.training.plan import make_plan
from research.weights import transfer
from research.weights.trained import Trained


@runtime_checkable
class HasFacts(Protocol):
    """Data with facts learned from them, and the weights to start from; see `ImageData`."""

    @property
    def facts(self) -> Facts: ...
    @property
    def trains(self) -> bool: ...
    @property
    def trained(self) -> Trained | None: ...


class Learned(NamedTuple):
    """Facts of training data that are not images, in the form that `ImageData` has.

    Attributes:
      facts: "train_examples" among them.
      trains: False where a checkpoint holds all the weights.
      trained: the weights of --init_from, to start from; None for none.
    """

    facts: Facts
    trains: bool
    trained: Trained | None = None


def make_training(
    config: TrainingConfig,
    network: Network,
    data: HasFacts,
    loss: Callable[[Variables, Batch, jax.Array, Axis], Losses],
    augment: Callable[[jax.Array, Batch, Axis], Batch] = no_augmentation,
    *,
    watch: Callable[[Mapping[str, float]], str | None] | None = None,
    below: str = "",
    answers: int = 0,
) -> Training:
    """Reads --freeze, --transfer_rate and the flags of optimisation.

    Args:
      answers: see `Training`.
      below: the submodule that the weights of --init_from are for, such as "backbone"; "" for all.

    Raises:
      UserError: weights that do not fit, or that nothing here starts from, an invalid pattern, and
        invalid options of the optimizer.
    """
    config = taken(config, data.facts)
    if config.init_from and data.trains and data.trained is None:
        raise UserError("--init_from: this experiment starts from no weights; leave it out.")
    start = shapes = None
    if data.trains and (data.trained is not None or config.freeze):
        shapes = jax.eval_shape(network.init, jax.random.key(0))
    if data.trained is not None and shapes is not None:
        start = transfer.start_from(data.trained, shapes, below)
    frozen = transfer.matcher(config.freeze)
    optimizer, learning_rate = optimizers.from_config(
        config,
        make_plan(config, data.facts["train_examples"]).steps,
        frozen,
        transfer.rates(start, config.transfer_rate),
    )
    if frozen and shapes is not None:
        jax.eval_shape(optimizer.init, shapes["params"])  # refuses a pattern that freezes nothing
    return Training(
        loss=loss,
        optimizer=optimizer,
        learning_rate=learning_rate,
        augment=augment,
        start=start.fill if start else as_initialised,
        watch=watch,
        answers=answers,
    )
