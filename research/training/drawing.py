"""Pictures of chosen examples, each alone, by the evaluators that draw a sample at a run's end."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import Int

from research.experiment import Batch, Evaluation, PyTree, Variables
from research.training.evaluation import add_pictures
from research.training.parallel import CompiledByShape, Parallel
from research.training.step import make_eval_step

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from research.data.sources.source import Source

Pictures = dict[str, "Figure | np.ndarray"]


def examples_of(
    evaluation: Evaluation,
    parallel: Parallel,
    variables: Variables,
    source: "Source",
    index: Int[np.ndarray, " n"],
) -> "Iterator[tuple[PyTree, Batch]]":
    """Yields the outputs and the batch of each of some examples, alone, in the order of `index`.

    Args:
      variables: as `parallel.put` returns them.
      index: the examples' numbers in their split, as `Outcomes.index` has them.

    Raises:
      ValueError: for an example that the source leaves out.
    """
    step = CompiledByShape(
        lambda variables, batch: parallel.compile(
            lambda axis: make_eval_step(evaluation, axis), variables, batch
        )
    )
    rows = source.rows_of(index)
    together = 1 if source.alone else source.batch_size
    for start in range(0, len(rows), together):
        chosen = rows[start : start + together]
        batch = source.picked(chosen)
        _, found = step(variables, parallel.put_batch(batch))
        outputs = parallel.get_rows(found.outputs)
        for k in range(len(chosen)):
            one = slice(k, k + 1)
            yield jax.tree.map(lambda x: x[one], (outputs, batch))  # noqa: B023 (used at once)


def draw_example(evaluation: Evaluation, outputs: PyTree, batch: Batch) -> "Pictures":
    """Draws one example by all evaluators: {"predictions": figure, ...}."""
    drawn: Pictures = {}
    for one in evaluation.evaluators.values():
        if one.draw is not None:
            add_pictures(drawn, one.draw(outputs, batch))
    return drawn


def draw_examples(
    evaluation: Evaluation,
    parallel: Parallel,
    variables: Variables,
    source: "Source",
    index: Int[np.ndarray, " n"],
) -> "list[Pictures]":
    """Draws each of some examples, in the order of `index`; see `examples_of`."""
    found = examples_of(evaluation, parallel, variables, source, index)
    return [draw_example(evaluation, *one) for one in found]
