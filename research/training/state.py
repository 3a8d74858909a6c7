"""The state of training: all values that change."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from research.experiment import Network, PyTree, Training, Variables
from research.random import stream


class TrainState(NamedTuple):
    """The state of training, replicated in every parallel mode, so checkpoints look alike.

    There is no random generator in it: keys are functions of the seed and the step. The seed is
    among the values, so that runs with other seeds have the same programs.
    """

    seed: jax.Array  # uint32 []: the run's; no checkpoint holds it, since the configuration does
    step: jax.Array  # int32 []: steps done
    params: PyTree
    model_state: PyTree  # every other Flax collection, such as {"batch_stats": ...}
    opt_state: optax.OptState
    average: Variables | None  # moving average of params and model state, where asked for

    @property
    def variables(self) -> Variables:
        """Returns the variables to evaluate: the average if there is one."""
        if self.average is not None:
            return self.average
        return {"params": self.params, **self.model_state}

    def evaluated_with(self, variables: Variables) -> "TrainState":
        """Returns the state with these variables to evaluate; the trained ones stay."""
        if self.average is not None:
            return self._replace(average=variables)
        state = {name: value for name, value in variables.items() if name != "params"}
        return self._replace(model_state=state)


def init(network: Network, seed: int | jax.Array) -> Variables:
    """Returns the variables before training. Pure, meant for jax.jit."""
    return network.init(stream(jax.random.key(seed), "init"))


def create(
    training: Training, variables: Variables, averaged: bool, seed: int | jax.Array = 0
) -> TrainState:
    """Returns the state before the first step. Pure, meant for jax.jit."""
    # Copies: the buffers of state and average are both donated to the first step.
    average = jax.tree.map(jnp.copy, dict(variables)) if averaged else None
    model_state = {name: value for name, value in variables.items() if name != "params"}
    params = variables["params"]
    opt_state = training.optimizer.init(params)
    return TrainState(jnp.uint32(seed), jnp.int32(0), params, model_state, opt_state, average)
