"""Evaluates one split: exact sums over all examples, and scores of the whole split on the host."""

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from research.experiment import Batch, Evaluation, Pictures, PyTree, Variables
from research.training.parallel import CompiledByShape, Parallel
from research.training.step import make_eval_step

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from research.data.sources.source import Source


class SplitResult(NamedTuple):
    """The results of one pass over a split, on the host.

    Attributes:
      metrics: {name: value}, of all evaluators.
      sample: outputs and batch of evenly spaced examples, a batch at most, with images: what
        pictures and notes are made of. None where it was not asked for.
      held: the held values of every example, by evaluator; {} if none holds any.
      targets: the batches, without the fields that a source calls large; {} likewise.
    """

    metrics: dict[str, float]
    sample: tuple[PyTree, Batch] | None
    held: Mapping[str, PyTree]
    targets: Batch


def make_evaluate(evaluation: Evaluation, parallel: Parallel) -> Callable[..., SplitResult]:
    """Returns (variables, source, sample=False) -> SplitResult, compiled once a shape of batch.

    It raises ValueError where two evaluators give the same metric.
    """
    holding = {k: one for k, one in evaluation.evaluators.items() if one.holds}
    step = CompiledByShape(
        lambda variables, batch: parallel.compile(
            lambda axis: make_eval_step(evaluation, axis), variables, batch
        )
    )

    def rows_of(outputs: PyTree, batch: Batch) -> PyTree:
        """Copies outputs and fields to the host, without padding."""
        return jax.tree.map(lambda x: x[batch["mask"]], parallel.get_rows(outputs))

    def joined(parts: list[PyTree]) -> PyTree:
        return jax.tree.map(lambda *values: np.concatenate(values), *parts)

    def unpadded(batch: Batch) -> Batch:
        return {name: value[batch["mask"]] for name, value in batch.items()}

    def evaluate(variables: Variables, source: "Source", sample: bool = False) -> SplitResult:
        sums: dict[str, np.ndarray] = {}
        rows: list[PyTree] = []  # the held values of each batch, without padding
        truth: list[Batch] = []
        previous: tuple[PyTree, PyTree, Batch] | None = None

        def fetch(totals: PyTree, results: PyTree, batch: Batch) -> None:
            for name, pair in jax.device_get(totals).items():
                sums[name] = sums.get(name, 0.0) + np.array(pair, np.float64)
            if holding:
                kept, real = rows_of(results[1], batch), unpadded(batch)
                for name, one in holding.items():
                    if one.tally is not None:
                        kept[name] = one.tally(kept[name], real, source.originals)
                rows.append(kept)
                truth.append({name: x for name, x in real.items() if name not in source.large})

        for batch in source.iterate(0, source.num_batches):
            started = (*step(variables, parallel.put_batch(batch)), batch)
            if previous is not None:
                fetch(*previous)  # while the device works on the batch just started
            previous = started
        assert previous is not None, "a split has at least one example"
        fetch(*previous)

        sampled = None
        if sample:
            if source.num_batches > 1:  # else the only batch is the sample
                few: Batch = source.sample()
                previous = (*step(variables, parallel.put_batch(few)), few)
            _, (outputs, _), few = previous
            sampled = rows_of(outputs, few), unpadded(few)

        metrics = {name: float(s / w) for name, (s, w) in sums.items() if w > 0}
        held, targets = (joined(rows), joined(truth)) if holding else ({}, {})
        for name, one in holding.items():
            if one.score is not None:
                scores = one.score(held[name], targets)
                if both := metrics.keys() & scores.keys():
                    raise ValueError(f"evaluator {name!r}: {min(both)!r} is a metric already")
                metrics |= scores
        return SplitResult(metrics, sampled, held, targets)

    return evaluate


def report_of(evaluation: Evaluation, results: Mapping[str, SplitResult]) -> dict[str, Any]:
    """Returns an evaluation's part of result.json, in plain JSON.

    "metrics"; "protocol", how each of them is computed; "bias" of each split, by evaluator; and
    "notes", lines for a person.
    """
    metrics = flat_metrics(results)
    reported = {name.partition("/")[2] for name in metrics}
    samples = [result.sample for result in results.values() if result.sample is not None]
    return {
        "metrics": metrics,
        "protocol": {k: line for k, line in evaluation.protocol.items() if k in reported},
        "bias": {
            split: {
                name: one.bias(result.held[name], result.targets).to_json()
                for name, one in evaluation.evaluators.items()
                if one.bias is not None
            }
            for split, result in results.items()
        },
        "notes": [
            line for sample in samples if evaluation.notes for line in evaluation.notes(*sample)
        ],
    }


def pictures_of(
    evaluation: Evaluation, results: Mapping[str, SplitResult]
) -> "dict[str, Figure | np.ndarray]":
    """Draws {"test/predictions": figure, ...} of every split, by all evaluators."""
    pictures: dict[str, Figure | np.ndarray] = {}
    for split, result in results.items():
        drawn: dict[str, Figure | np.ndarray] = {}
        for name, one in evaluation.evaluators.items():
            if one.draw is not None and result.sample is not None:
                add_pictures(drawn, one.draw(*result.sample))
            if one.draw_split is not None:
                add_pictures(drawn, one.draw_split(result.held[name], result.targets))
        pictures |= {f"{split}/{name}": picture for name, picture in drawn.items()}
    return pictures


def add_pictures(drawn: "dict[str, Figure | np.ndarray]", more: Pictures) -> None:
    """Adds pictures; one whose name is taken gets a number: map, map-2, map-3."""
    for name, picture in more.items():
        names = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
        drawn[next(name for name in names if name not in drawn)] = picture


def flat_metrics(results: Mapping[str, SplitResult]) -> dict[str, float]:
    """Returns {"test/accuracy": 0.98, ...}."""
    return {
        f"{split}/{name}": value
        for split, result in results.items()
        for name, value in result.metrics.items()
    }
