"""Evaluates one split: exact sums over all examples, and scores of the whole split on the host."""

import contextlib
import itertools
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from research.distributed import group as distributed
from research.experiment import Batch, Evaluation, Pictures, PyTree, Score, Variables
from research.record.outcomes import Outcomes, mean, path_of, save
from research.training.parallel import CompiledByShape, Compiling, Parallel
from research.training.step import Rows, make_eval_step

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
      outcomes: of every example, with the same held values and targets. None where they were not
        asked for.
    """

    metrics: dict[str, float]
    sample: tuple[PyTree, Batch] | None
    held: Mapping[str, PyTree]
    targets: Batch
    outcomes: Outcomes | None = None


def make_evaluate(
    evaluation: Evaluation, parallel: Parallel, compiling: Compiling = contextlib.nullcontext
) -> Callable[..., SplitResult]:
    """Returns (variables, source, details=False) -> SplitResult, compiled once a shape of batch.

    With details, it keeps a sample for pictures, and the outcomes of single examples. It raises
    ValueError where two evaluators give the same metric.

    Args:
      compiling: a context for each compilation, which may time it.
    """
    holding = {k: one for k, one in evaluation.evaluators.items() if one.holds}
    step = CompiledByShape(
        lambda variables, batch: parallel.compile(
            lambda axis: make_eval_step(evaluation, axis), variables, batch
        ),
        compiling,
    )

    def whole(batch: Batch, leave_out: Collection[str] = ()) -> Batch:
        """Returns the rows of all processes, of a batch of which each has its own."""
        fields = {name: value for name, value in batch.items() if name not in leave_out}
        return fields if distributed.count() == 1 else parallel.get_rows(parallel.place(fields))

    def rows_of(outputs: PyTree, batch: Batch) -> tuple[PyTree, Batch]:
        """Copies outputs to the host; returns them and a whole batch, both without padding."""
        mask = batch["mask"]
        outputs = parallel.get_rows(outputs)
        return jax.tree.map(lambda x: x[mask], (outputs, dict(batch)))

    def joined(parts: list[PyTree]) -> PyTree:
        return jax.tree.map(lambda *values: np.concatenate(values), *parts)

    def evaluate(variables: Variables, source: "Source", details: bool = False) -> SplitResult:
        sums: dict[str, np.ndarray] = {}
        held_rows: list[PyTree] = []  # the held values of each batch, without padding
        truth: list[Batch] = []
        measured: list[PyTree] = []
        previous: tuple[PyTree, Rows, Batch] | None = None

        def fetch(totals: PyTree, rows: Rows, batch: Batch) -> None:
            for name, pair in jax.device_get(totals).items():
                sums[name] = sums.get(name, 0.0) + np.array(pair, np.float64)
            if details:
                *found, mask = parallel.get_rows((rows.example, rows.measured, rows.mask))
                measured.append(jax.tree.map(lambda x: x[mask], found))
            if holding:
                kept, real = rows_of(rows.kept, whole(batch, source.large))
                for name, one in holding.items():
                    if one.tally is not None:
                        kept[name] = one.tally(kept[name], real, source.originals)
                held_rows.append(kept)
                truth.append(real)

        for batch in source.iterate(0, source.num_batches):
            started = (*step(variables, parallel.put_batch(batch)), batch)
            if previous is not None:
                fetch(*previous)  # while the device works on the batch just started
            previous = started
        assert previous is not None, "a split has at least one example"
        fetch(*previous)

        metrics = {name: float(s / w) for name, (s, w) in sums.items() if w > 0}
        held, targets = (joined(held_rows), joined(truth)) if holding else ({}, {})
        scores = _scores(evaluation, held, targets, metrics)
        metrics |= _averaged(scores)
        if not details:
            return SplitResult(metrics, None, held, targets)

        index, by_measure = joined(measured)
        by_measure |= {name: pair for name, pair in scores.items() if isinstance(pair, tuple)}
        outcomes = Outcomes(
            source.in_split(index),
            source.files_of(index),
            {name: values for name, (values, _) in by_measure.items()},
            {name: weights for name, (_, weights) in by_measure.items()},
            held,
            {name: x for name, x in targets.items() if name not in ("index", "mask")},
        )
        if source.num_batches > 1:  # else the only batch is the sample
            few: Batch = source.sample()
            previous = (*step(variables, parallel.put_batch(few)), few)
        _, rows, few = previous
        sample = rows_of(rows.outputs, whole(few))
        return SplitResult(metrics, sample, held, targets, outcomes)

    return evaluate


def scores_of(
    evaluation: Evaluation, held: Mapping[str, PyTree], targets: Batch
) -> dict[str, float]:
    """Computes the metrics of evaluators' `score` from the values held of a split, or of a part.

    Args:
      held: by evaluator; those whose values are missing are left out.
    """
    return _averaged(_scores(evaluation, held, targets))


def _scores(
    evaluation: Evaluation,
    held: Mapping[str, PyTree],
    targets: Batch,
    known: Collection[str] = (),
) -> dict[str, Score]:
    """Returns the scores of all evaluators.

    Raises:
      ValueError: where an evaluator gives a metric that another gave, or that is among `known`.
    """
    found: dict[str, Score] = {}
    for name, one in evaluation.evaluators.items():
        if one.score is not None and name in held:
            scores = one.score(held[name], targets)
            if both := {*known, *found} & scores.keys():
                raise ValueError(f"evaluator {name!r}: {min(both)!r} is a metric already")
            found |= scores
    return found


def _averaged(scores: Mapping[str, Score]) -> dict[str, float]:
    return {name: mean(*x) if isinstance(x, tuple) else x for name, x in scores.items()}


def save_outcomes(folder: Path, results: Mapping[str, SplitResult]) -> dict[str, Any]:
    """Writes the outcomes of each split's examples into a run's folder.

    Returns:
      Their part of result.json, plain JSON: of each split the file, the number of examples, and
      what was left out and why.
    """
    told = {}
    for split, result in results.items():
        if result.outcomes is not None:
            path = path_of(folder, split)
            left_out = save(path, result.outcomes)
            told[split] = {
                "file": str(path.relative_to(folder)),
                "examples": len(result.outcomes.index),
                "left_out": left_out,
            }
    return told


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
