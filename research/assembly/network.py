"""Binds a model to its preprocessing, its precision and its frozen parameters."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.data.images.preprocessing import Preprocessing
from research.errors import UserError
from research.experiment import Axis, Batch, Names, Network, PyTree, Variables, not_bound
from research.nn.forward import forward
from research.nn.rematerialisation import recomputing
from research.random import stream
from research.training.config import TrainingConfig
from research.weights.transfer import matcher


def bind(
    config: TrainingConfig,
    model: nn.Module,
    *blank: PyTree,
    see: Callable[[Batch], jax.Array] = not_bound,
    names: Names = Names(),  # noqa: B008, a NamedTuple cannot be changed
) -> Network:
    """Returns the network: the model at --precision, with what --freeze holds frozen.

    Args:
      blank: inputs of the model, of which shapes alone matter.
      see: a batch -> the inputs of its images.
    """
    frozen = matcher(config.freeze)
    if config.remat != "none":
        check_blocks(config, model, *blank)

    def init(key: jax.Array) -> Variables:
        variables: Variables = model.init(key, *blank)
        return variables

    def train(
        variables: Variables, *inputs: PyTree, key: jax.Array, axis: Axis, **options: Any
    ) -> tuple[PyTree, PyTree]:
        return forward(
            model,
            variables,
            *inputs,
            precision=config.precision,
            train=True,
            key=stream(key, "dropout"),
            axis=axis,
            frozen=frozen,
            remat=config.remat,
            **options,
        )

    def evaluate(variables: Variables, *inputs: PyTree, **options: Any) -> PyTree:
        return forward(model, variables, *inputs, precision=config.precision, **options)[0]

    return Network(init, train, evaluate, see, names)


def check_blocks(config: TrainingConfig, model: nn.Module, *blank: PyTree) -> None:
    """Raises UserError where --remat finds no blocks in a model."""
    with recomputing(config.remat) as blocks:
        jax.eval_shape(model.init, jax.random.key(0), *blank)
    if not blocks:
        raise UserError(
            f"--remat={config.remat}: this network has no blocks to compute again; leave it out."
        )


def bind_images(
    config: TrainingConfig,
    model: nn.Module,
    preprocessing: Preprocessing,
    names: tuple[str, ...] | Names = (),
) -> Network:
    """Returns the network of a model of images, which `see` standardises.

    Args:
      names: of its classes, or of its units.
    """

    def see(batch: Batch) -> jax.Array:
        return preprocessing.standardise(jnp.asarray(batch["image"]))

    named = names if isinstance(names, Names) else Names(names)
    return bind(config, model, see(preprocessing.blank()), see=see, names=named)
