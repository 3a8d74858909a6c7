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
    # Outputs and batch of evenly spaced examples, a batch at most, with images: what pictures and
    # notes are made of. None where it was not asked for.
    sample: tuple[PyTree, Batch] | None
    # What is kept of every example, and the batches without their pictures; None and {} where the
    # experiment neither scores nor draws splits.
    outputs: PyTree
    targets: Batch


def make_evaluate(experiment: Experiment, parallel: Parallel) -> Callable[..., Evaluation]:
    """Returns (variables, source, sample=False) -> Evaluation, compiled once a shape of batch."""
    keep = any(x is not None for x in (experiment.score, experiment.draw_split, experiment.bias))
    step = CompiledByShape(
        lambda variables, batch: parallel.compile(
            lambda axis: make_eval_step(experiment, axis), variables, batch
        )
    )

    def rows_of(outputs: PyTree, batch: Batch) -> PyTree:
        """On the host, without padding."""
        return jax.tree.map(lambda x: x[batch["mask"]], parallel.get_rows(outputs))

    def joined(parts: list[PyTree]) -> PyTree:
        return jax.tree.map(lambda *values: np.concatenate(values), *parts)

    def unpadded(batch: Batch) -> Batch:
        return {name: value[batch["mask"]] for name, value in batch.items()}

    def evaluate(variables: Variables, source: "Source", sample: bool = False) -> Evaluation:
        sums: dict[str, np.ndarray] = {}
        rows: list[PyTree] = []  # what is kept of each batch, without padding
        truth: list[Batch] = []
        previous: tuple[PyTree, PyTree, Batch] | None = None

        def fetch(totals: PyTree, results: PyTree, batch: Batch) -> None:
            for name, pair in jax.device_get(totals).items():
                sums[name] = sums.get(name, 0.0) + np.array(pair, np.float64)
            if keep:
                kept, real = rows_of(results[1], batch), unpadded(batch)
                if experiment.tally is not None:
                    kept = experiment.tally(kept, real, source.originals)
                rows.append(kept)
                truth.append({name: x for name, x in real.items() if name not in PICTURES})

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
        outputs, targets = (joined(rows), joined(truth)) if keep else (None, {})
        if experiment.score is not None:
            metrics |= experiment.score(outputs, targets)
        return Evaluation(metrics, sampled, outputs, targets)

    return evaluate


def biases(experiment: Experiment, evaluations: Mapping[str, Evaluation]) -> dict[str, Bias]:
    """What a bias of the predictions would look like, of each split, where the experiment says."""
    if experiment.bias is None:
        return {}
    return {
        split: experiment.bias(evaluation.outputs, evaluation.targets)
        for split, evaluation in evaluations.items()
    }


def protocol_of(experiment: Experiment, metrics: Mapping[str, float]) -> dict[str, str]:
    """How each of the numbers that are reported was computed, where the experiment says so."""
    reported = {name.partition("/")[2] for name in metrics}
    return {name: line for name, line in experiment.protocol.items() if name in reported}


def flat_metrics(evaluations: Mapping[str, Evaluation]) -> dict[str, float]:
    """{"test/accuracy": 0.98, ...}"""
    return {
        f"{split}/{name}": value
        for split, evaluation in evaluations.items()
        for name, value in evaluation.metrics.items()
    }
