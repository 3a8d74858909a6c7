"""Evaluation of one split: exact sums over all examples, and whole-split scores on the host."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from research.experiment import Batch, Experiment, PyTree, Variables
from research.metrics.bias import Bias
from research.training.parallel import CompiledByShape, Parallel
from research.training.step import make_eval_step

if TYPE_CHECKING:
    from research.data.source import Source


PICTURES = ("image", "features", "segmentation")  # fields that are not held for a whole split


class Evaluation(NamedTuple):
    """What one pass over a split gives, on the host."""

    metrics: dict[str, float]
    first: tuple[PyTree, Batch]  # outputs and batch of the first batch, images included
    outputs: (
        PyTree  # kept of every example; None where the experiment neither scores nor draws splits
    )
    targets: Batch  # the batches without their pictures, of every example


def make_evaluate(
    experiment: Experiment, parallel: Parallel
) -> Callable[[Variables, "Source"], Evaluation]:
    """Returns (variables, source) -> Evaluation, compiled once for each shape of batch."""
    keep = any(x is not None for x in (experiment.score, experiment.draw_split, experiment.bias))
    step = CompiledByShape(
        lambda variables, batch: parallel.compile(
            lambda axis: make_eval_step(experiment, axis), variables, batch
        )
    )

    def evaluate(variables: Variables, source: "Source") -> Evaluation:
        sums: dict[str, np.ndarray] = {}
        rows: list[PyTree] = []  # what is kept of each batch, without padding
        truth: list[Batch] = []
        first: tuple[PyTree, Batch] | None = None
        previous: tuple[PyTree, PyTree, Batch] | None = None

        def fetch(totals: PyTree, results: PyTree, batch: Batch) -> None:
            nonlocal first
            outputs, kept = results
            for name, pair in jax.device_get(totals).items():
                sums[name] = sums.get(name, 0.0) + np.array(pair, np.float64)
            if first is not None and not keep:
                return
            real = batch["mask"]
            batch = {name: value[real] for name, value in batch.items()}
            if first is None:
                first = jax.tree.map(lambda x: x[real], parallel.get_rows(outputs)), batch
            if keep:
                row = jax.tree.map(lambda x: x[real], parallel.get_rows(kept))
                if experiment.tally is not None:
                    row = experiment.tally(row, batch, source.originals)
                rows.append(row)
            truth.append({k: value for k, value in batch.items() if k not in PICTURES})

        for batch in source.iterate(0, source.num_batches):
            started = (*step(variables, parallel.put_batch(batch)), batch)
            if previous is not None:
                fetch(*previous)  # while the device works on the batch just started
            previous = started
        assert previous is not None, "a split has at least one example"
        fetch(*previous)

        metrics = {name: float(s / w) for name, (s, w) in sums.items() if w > 0}
        outputs = jax.tree.map(lambda *parts: np.concatenate(parts), *rows) if keep else None
        targets = {name: np.concatenate([t[name] for t in truth]) for name in truth[0]}
        if experiment.score is not None:
            metrics |= experiment.score(outputs, targets)
        assert first is not None
        return Evaluation(metrics, first, outputs, targets)

    return evaluate


def biases(experiment: Experiment, evaluations: Mapping[str, Evaluation]) -> dict[str, Bias]:
    """What a bias of the predictions would look like, of each split, where the experiment says."""
    if experiment.bias is None:
        return {}
    return {
        split: experiment.bias(evaluation.outputs, evaluation.targets)
        for split, evaluation in evaluations.items()
    }


def flat_metrics(evaluations: Mapping[str, Evaluation]) -> dict[str, float]:
    """{"test/accuracy": 0.98, ...}"""
    return {
        f"{split}/{name}": value
        for split, evaluation in evaluations.items()
        for name, value in evaluation.metrics.items()
    }
