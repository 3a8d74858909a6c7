"""All that changes while training."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from research.experiment import Network, PyTree, Training, Variables
from research.random import stream


class TrainState(NamedTuple):
    """Replicated in every parallel mode, so a checkpoint looks the same whatever it was trained on.

    There is no random generator in it: keys are functions of the seed and the step.
    """

    step: jax.Array  # int32 []: steps done
    params: PyTree
    model_state: PyTree  # every other Flax collection, such as {"batch_stats": ...}
    opt_state: optax.OptState
    average: Variables | None  # moving average of params and model state, where asked for

    @property
    def variables(self) -> Variables:
        """The variables to evaluate: the average where there is one."""
        if self.average is not None:
            return self.average
        return {"params": self.params, **self.model_state}

    def evaluated_with(self, variables: Variables) -> "TrainState":
        """Returns the state whose variables to evaluate are these; what is trained stays."""
        if self.average is not None:
            return self._replace(average=variables)
        state = {name: value for name, value in variables.items() if name != "params"}
        return self._replace(model_state=state)


def init(network: Network, seed: int) -> Variables:
    """The variables before training. Pure, meant for jax.jit."""
    return network.init(stream(jax.random.key(seed), "init"))


def create(training: Training, variables: Variables, averaged: bool) -> TrainState:
    """The state before the first step. Pure, meant for jax.jit."""
    # Copies: the buffers of state and average are both donated to the first step.
    average = jax.tree.map(jnp.copy, dict(variables)) if averaged else None
    model_state = {name: value for name, value in variables.items() if name != "params"}
    params = variables["params"]
    return TrainState(jnp.int32(0), params, model_state, training.optimizer.init(params), average)
