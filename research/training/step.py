"""One training step and one evaluation step, for one device, a mesh (jit) and pmap alike.

This file alone masks, sums and reduces: losses and measures return a value for each example,
values travel as (sum, weight) and are divided once, on the host.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from research.experiment import (
    Axis,
    Batch,
    Evaluation,
    Measures,
    PyTree,
    Training,
    Variables,
    gather,
)
from research.hardware.target import target
from research.random import step_key, stream
from research.training.state import TrainState

Totals = dict[str, tuple[jax.Array, jax.Array]]  # {name: (sum, weight)}


def add_over(axis: Axis, x: PyTree) -> PyTree:
    """Sums over the devices of a pmap axis; under jit the arrays are global already."""
    return x if axis is None else jax.lax.psum(x, axis)


def without_padding(batch: Batch, axis: Axis) -> Batch:
    """Replaces rows that only pad the batch by copies of its first; the mask stays.

    So no value in them, not even NaN, reaches the network, its batch statistics or its gradient,
    where 0 x NaN would be NaN. The first row of a batch is always a real one.
    """

    def fill(x: jax.Array) -> jax.Array:
        first = gather(x[:1], axis)[:1]
        return jnp.where(jnp.expand_dims(mask, range(1, x.ndim)), x, first)

    mask = batch["mask"]
    return {name: x if name == "mask" else fill(x) for name, x in batch.items()}


def masked_sum(values: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns the weighted sum in float32; values in rows of weight 0, even NaN, do not count."""
    return jnp.where(weight > 0, values.astype(jnp.float32) * weight, 0.0).sum()


class Keys(NamedTuple):
    """The random keys of a part of a batch.

    Attributes:
      augment: the same for all parts, so that an example's changes do not depend on its part.
      loss: each part's own.
    """

    augment: jax.Array
    loss: jax.Array


def parts_of(batch: Batch, key: jax.Array, accumulate: int) -> tuple[Batch, Keys]:
    """Splits a batch into parts, with their keys: they get a leading dimension.

    A single part has no such dimension: it is the batch as it is.
    """
    augment, loss = stream(key, "augment"), stream(key, "loss")
    if accumulate == 1:
        return batch, Keys(augment, loss)
    # Rows j, j + k, ...: a part is then spread over all devices of a mesh, as the batch is.
    parts = jax.tree.map(
        lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), dict(batch)
    )
    own = jax.vmap(jax.random.fold_in, (None, 0))(loss, jnp.arange(accumulate))
    return parts, Keys(jnp.broadcast_to(augment, (accumulate,)), own)


# (axis, params, model state, batch, key) -> values of all devices, made a function without axis.
OverDevices = Callable[[Callable[..., PyTree]], Callable[..., PyTree]]


def add_in_one_message(axis: Axis, *trees: PyTree) -> tuple[PyTree, ...]:
    """Sums all arrays of trees over the devices of an axis, as one vector."""
    if axis is None:
        return trees
    vector, back = ravel_pytree(trees)
    summed: tuple[PyTree, ...] = back(jax.lax.psum(vector, axis))
    return summed


def make_train_step(
    training: Training,
    axis: Axis,
    accumulate: int = 1,
    ema_decay: float = 0.0,
    over_devices: OverDevices | None = None,
) -> Callable[[TrainState, Batch], tuple[tuple[TrainState, Totals], None]]:
    """Returns a pure (state, batch) -> ((state, totals), None).

    Every random key is a function of state.seed and state.step.

    Args:
      training: supplies augment, loss and optimizer.
      axis: the pmap axis the batch is split over, None where the step sees the global batch.
      accumulate: the number of parts of a batch, processed one after another. Gradients add up to
        those of the whole batch; batch statistics and batch-wide losses see one part at a time.
      ema_decay: of the moving average of all variables; 0 for none. It starts at 0.1 and rises
        as (1 + t) / (10 + t), so that the first, random weights are soon forgotten.
      over_devices: runs forward and backward on each device's rows, with batch statistics of these
        alone; None where batch statistics are of the whole batch. See `Parallel.over_devices`.
    """

    def gradients(
        axis: Axis, params: PyTree, model_state: PyTree, batch: Batch, key: jax.Array
    ) -> tuple[PyTree, PyTree, dict[str, jax.Array], jax.Array]:
        """Returns gradients, the new model state, the sums of losses, and the number of rows."""
        batch = without_padding(batch, axis)
        before = model_state
        count = add_over(axis, batch["mask"].astype(jnp.float32).sum())

        def part_loss(params: PyTree, model_state: PyTree, part: Batch, keys: Keys):
            part = training.augment(keys.augment, part, axis)
            per_example, model_state, extra = training.loss(
                {"params": params, **model_state}, part, keys.loss, axis
            )
            weight = part["mask"].astype(jnp.float32)
            sums = {name: masked_sum(value, weight) for name, value in extra.items()}
            loss = masked_sum(per_example, weight)
            # The mean over the whole batch: each part contributes its share of it.
            return loss / jnp.maximum(count, 1.0), (model_state, {"loss": loss, **sums})

        gradient = jax.grad(part_loss, has_aux=True)
        parts = parts_of(batch, key, accumulate)
        if accumulate == 1:
            grads, (model_state, sums) = gradient(params, model_state, *parts)
        else:

            def add_part(carry, part_and_keys):
                model_state, grads = carry
                more, (model_state, sums) = gradient(params, model_state, *part_and_keys)
                return (model_state, jax.tree.map(jnp.add, grads, more)), sums

            # optax.microbatching adds gradients up, too, but hands no batch statistics from a part
            # to the next.
            zeros = jax.tree.map(jnp.zeros_like, params)
            (model_state, grads), sums = jax.lax.scan(add_part, (model_state, zeros), parts)
            sums = jax.tree.map(lambda x: x.sum(0), sums)

        if axis is not None and target().by_device:
            # The mean of all devices' statistics, by what changed: what is frozen stays to the bit.
            devices = jax.lax.axis_size(axis)
            change = jax.tree.map(lambda new, old: (new - old) / devices, model_state, before)
            grads, sums, change = add_in_one_message(axis, grads, sums, change)
            model_state = jax.tree.map(jnp.add, before, change)
        else:
            grads, sums = add_in_one_message(axis, grads, sums)
        return grads, model_state, sums, count

    def step(state: TrainState, batch: Batch) -> tuple[tuple[TrainState, Totals], None]:
        key = step_key(state.seed, state.step)
        found = (
            functools.partial(gradients, axis) if over_devices is None else over_devices(gradients)
        )
        grads, model_state, sums, count = found(state.params, state.model_state, batch, key)
        updates, opt_state = training.optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if average is not None:
            decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
            average = jax.tree.map(
                lambda old, new: old + (1.0 - decay).astype(old.dtype) * (new - old),
                dict(average),
                {"params": params, **model_state},
            )
        totals: Totals = {name: (value, count) for name, value in sums.items()}
        totals["gradient_norm"] = (optax.tree.norm(grads), jnp.float32(1.0))
        new = TrainState(state.seed, state.step + 1, params, model_state, opt_state, average)
        return (new, totals), None

    return step


class Rows(NamedTuple):
    """The evaluation of each row of a batch, padding among them.

    Attributes:
      outputs: of `Evaluation.predict`.
      kept: the values that each evaluator keeps.
      measured: of each measure (value, weight), float32; both are 0 where a row does not count.
      example, mask: the batch's "index" and "mask".
    """

    outputs: PyTree
    kept: dict[str, PyTree]
    measured: dict[str, tuple[jax.Array, jax.Array]]
    example: jax.Array
    mask: jax.Array


def make_eval_step(
    evaluation: Evaluation, axis: Axis
) -> Callable[[Variables, Batch], tuple[Totals, Rows]]:
    """Returns a pure (variables, batch) -> (totals, what it says of each row).

    Raises:
      ValueError: when it is traced, where two evaluators measure the same metric.
    """

    def step(variables: Variables, batch: Batch) -> tuple[Totals, Rows]:
        batch = without_padding(batch, axis)
        outputs = evaluation.predict(variables, batch)
        mask = batch["mask"].astype(jnp.float32)
        totals: Totals = {}
        measured = {}
        kept = {}
        for evaluator, one in evaluation.evaluators.items():
            for name, (value, weight) in (one.measure or no_measures)(outputs, batch).items():
                if name in totals:
                    raise ValueError(f"two evaluators measure {name!r}")
                weight = weight * mask
                totals[name] = masked_sum(value, weight), weight.sum()
                value = jnp.where(weight > 0, value.astype(jnp.float32), 0.0)
                measured[name] = value, weight.astype(jnp.float32)
            if one.holds:
                kept[evaluator] = outputs if one.keep is None else one.keep(outputs, batch)
        rows = Rows(outputs, kept, measured, batch["index"], batch["mask"])
        return add_over(axis, totals), rows

    return step


def no_measures(outputs: PyTree, batch: Batch) -> Measures:
    """Measures nothing of single examples."""
    return {}
