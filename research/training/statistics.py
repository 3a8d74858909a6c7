"""Batch statistics that belong to the weights: estimated anew before an evaluation that counts.

Running averages lag behind the weights: with a momentum of 0.99 a quarter of them is still the
initial value after 125 steps. So before an evaluation, and before a checkpoint, the statistics are
averaged anew over the next batches of training, while the weights stand still: Wu and Johnson,
"Rethinking 'batch' in BatchNorm", 2021, section 3 ("precise" statistics).

They are a function of the weights, the seed and the step alone. Training never uses them, but for
frozen layers, whose statistics stay as they are: so they change no step.
"""

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from research.errors import UserError
from research.experiment import Batch, PyTree, Training, Variables
from research.nn.normalisation import own_statistics
from research.random import step_key
from research.training.config import LoopConfig
from research.training.parallel import CompiledByShape, Compiling, Parallel, placed_batches
from research.training.step import Keys, parts_of, without_padding

if TYPE_CHECKING:
    from research.data.sources.source import Source

COLLECTION = "batch_stats"
BATCHES, EXAMPLES = 8, 256  # the least that statistics are averaged over
FEW = 16  # with fewer values of a channel, a warning says that statistics are noisy


class Estimate(NamedTuple):
    """Batch statistics, averaged over the batches so far.

    Attributes:
      statistics: {"mean", "var"} of each layer; before the first batch those of the layers as
        they are.
      seed: uint32 [], of the run.
      step: int32 [], the training step whose keys the next batch gets.
      parts: int32 [], parts of batches so far.
    """

    statistics: PyTree
    seed: jax.Array
    step: jax.Array
    parts: jax.Array


def batches_of(config: LoopConfig) -> int:
    """Returns how many batches --statistics_batches asks for."""
    if config.statistics_batches:
        return max(config.statistics_batches, 0)
    return max(BATCHES, math.ceil(EXAMPLES / config.batch_size))


def make_estimate(
    training: Training,
    seed: int,
    parallel: Parallel,
    source: "Source",
    batches: int,
    accumulate: int = 1,
    compiling: Compiling = contextlib.nullcontext,
) -> Callable[[Variables, int], Variables]:
    """Returns (variables, steps done) -> the variables with statistics of their own.

    They are those of the next batches of training, `batches` in number; with 0 the variables stay
    as they are. One program is compiled for each shape of batch, within `compiling`.
    """
    parallel = parallel._replace(by_device=False)  # they are of the whole batch
    program = CompiledByShape(
        lambda values, batch: parallel.compile(
            lambda axis: make_statistics_step(training, axis, accumulate), values, batch
        ),
        compiling,
    )

    def estimate(variables: Variables, step: int) -> Variables:
        begun = Estimate(variables[COLLECTION], jnp.uint32(seed), jnp.int32(step), jnp.int32(0))
        found = parallel.put(begun)
        with contextlib.closing(source.iterate(step, step + batches)) as ahead:
            for batch in placed_batches(ahead, parallel):
                jax.block_until_ready(found)  # one batch under way: many would take memory
                found, _ = program((variables, found), batch)
        return {**variables, COLLECTION: found.statistics}

    return estimate if batches else lambda variables, step: variables


def make_statistics_step(
    training: Training, axis: str | None, accumulate: int = 1
) -> Callable[[tuple[Variables, Estimate], Batch], tuple[Estimate, None]]:
    """Returns a pure ((variables, estimate), batch) -> (estimate, None) that takes a batch in.

    The pass is training's: the same augmentation and keys as step `estimate.step` has, and the
    same parts of a batch where gradients are accumulated. Dropout is off, as in evaluation.
    """

    def step(values: tuple[Variables, Estimate], batch: Batch) -> tuple[Estimate, None]:
        variables, estimate = values

        def add_part(estimate: Estimate, part: tuple[Batch, Keys]) -> tuple[Estimate, None]:
            rows, keys = part
            rows = training.augment(keys.augment, rows, axis)
            with own_statistics():
                _, state, _ = training.loss(variables, rows, keys.loss, axis)
            parts = estimate.parts + 1
            share = 1 / parts.astype(jnp.float32)
            statistics = pooled(estimate.statistics, state[COLLECTION], share)
            return estimate._replace(statistics=statistics, parts=parts), None

        batch = without_padding(batch, axis)
        rows = parts_of(batch, step_key(estimate.seed, estimate.step), accumulate)
        if accumulate == 1:
            estimate, _ = add_part(estimate, rows)
        else:
            estimate, _ = jax.lax.scan(add_part, estimate, rows)
        return estimate._replace(step=estimate.step + 1), None

    return step


def pooled(old: PyTree, new: PyTree, share: jax.Array) -> PyTree:
    """Pools the means and variances of one more batch with those of the batches before it.

    The variance is that of all values together, around their common mean (Chan, Golub and LeVeque
    1979). Where both are the same, as in frozen layers, not a bit changes.

    Args:
      old, new: trees of layers {"mean": ..., "var": ...}.
      share: of the new batch among all of them, 1 / n for the n-th.
    """
    if isinstance(next(iter(old.values())), Mapping):
        return {name: pooled(old[name], new[name], share) for name in old}
    shift = new["mean"] - old["mean"]
    between = share * (1 - share) * jnp.square(shift)
    both = {
        "mean": old["mean"] + share * shift,
        "var": old["var"] + share * (new["var"] - old["var"]) + between,
    }
    # The first batch's alone: earlier statistics have no part in them, not even by rounding.
    return {name: jnp.where(share == 1, new[name], value) for name, value in both.items()}


def check_values(counts: Mapping[str, int], accumulate: int) -> str | None:
    """Looks at how many values of a channel each layer of a training step averages.

    Args:
      counts: {path of a layer: values}, as `counting_values` finds them.

    Returns:
      A warning where they are fewer than 16, or None.

    Raises:
      UserError: where a channel has one value: normalised, it is 0 whatever it was.
    """
    if not counts:
        return None
    layer, fewest = min(counts.items(), key=lambda item: item[1])
    mend = "lower --accumulate" if accumulate > 1 else "raise --batch_size"
    if fewest == 1:
        raise UserError(
            f"batch normalisation {layer} sees a single value of each channel, and makes 0 of it: "
            f"nothing can be learned; {mend}, or take larger images."
        )
    if fewest < FEW:
        return (
            f"batch normalisation {layer} sees {fewest} values of each channel in a step: its "
            f"statistics are noisy; {mend}, or take larger images."
        )
    return None
