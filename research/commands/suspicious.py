"""--show=suspicious: the examples whose labels look most wrong, by the loss of each."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from research.errors import UserError, nearest
from research.experiment import Batch, Data, Evaluation, Experiment, Names, PyTree, Variables
from research.figures.sheet import sheet
from research.record.outcomes import Outcomes
from research.record.progress import console
from research.record.report import save_rows
from research.record.run_folder import save_figures
from research.record.sealing import EXAMPLES
from research.training import parallel as parallel_lib
from research.training.config import LoopConfig
from research.training.drawing import draw_example, examples_of
from research.training.evaluation import SplitResult
from research.training.parallel import CompiledByShape, Parallel

if TYPE_CHECKING:
    from research.data.sources.source import Source

MOST = 50  # examples of a split
TOLD = 5  # of them on the console


def refuse_without_loss(name: str, experiment: Experiment) -> None:
    """Raises UserError for an experiment that measures no loss of single examples."""
    if not experiment.evaluation.loss:
        raise UserError(
            f"--show=suspicious: --experiment={name} measures no loss of single examples by which "
            "labels could be doubted; leave it out."
        )


def show_suspicious(
    experiment: Experiment,
    config: LoopConfig,
    variables: Variables,
    data: Data,
    results: Mapping[str, SplitResult],
    path: Path,
) -> None:
    """Writes examples/suspicious.csv and .json, and figures/<split>/suspicious.png of each split.

    The examples of the highest loss come first. A wrong label is one reason for a high loss, a hard
    picture another.

    Args:
      results: of `data`, with outcomes.
      path: the folder of the evaluation.
    """
    evaluation = experiment.evaluation
    parallel = parallel_lib.for_evaluation(config)
    placed = parallel.put(variables)
    rows: list[dict[str, Any]] = []
    for split, source in data.evals.items():
        outcomes = results[split].outcomes
        assert outcomes is not None, "they were asked for"
        losses, weights = losses_of(evaluation, parallel, placed, source, outcomes)
        worst = most_doubted(losses, weights, MOST)
        found = examples_of(evaluation, parallel, placed, source, outcomes.index[worst])
        drawn, lines = [], []
        for rank, (k, one) in enumerate(zip(worst.tolist(), found, strict=True), 1):
            row = {
                "rank": rank,
                "split": split,
                "index": int(outcomes.index[k]),
                "name": outcomes.names[k] if outcomes.names else "",
                "label": label_of(experiment, one[1]),
                "answer": answer_of(experiment.network.names, one[0]),
                "loss": float(losses[k]),
            }
            rows.append(row)
            drawn.append(draw_example(evaluation, *one))
            lines.append(line_of(row))
        if drawn:
            save_figures(path / "figures", {f"{split}/suspicious": sheet(drawn, lines)})
        for line in lines[:TOLD]:
            console().print(f"doubtful {split} {line}", markup=False)
    if not rows:
        raise UserError("--show=suspicious: no example counts; give data with labels.")
    save_rows(path / EXAMPLES / "suspicious", rows)
    console().print(f"doubtful {path / EXAMPLES / 'suspicious.csv'}, all {len(rows)}", markup=False)


def losses_of(
    evaluation: Evaluation,
    parallel: Parallel,
    variables: Variables,
    source: "Source",
    outcomes: Outcomes,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the loss and the weight of each example, in the order of `outcomes`.

    Args:
      variables: as `parallel.put` returns them.

    Raises:
      UserError: where `Evaluation.loss` names a measure that no evaluator takes.
    """
    loss = evaluation.loss
    if not callable(loss):
        if loss not in outcomes.values:
            raise UserError(
                f"Evaluation.loss={loss!r}: no evaluator measures it."
                f"{nearest(loss, list(outcomes.values))}"
            )
        return outcomes.values[loss], outcomes.weights[loss]

    def step(variables: Variables, batch: Batch) -> tuple[None, jax.Array]:
        return None, loss(variables, batch)

    program = CompiledByShape(functools.partial(parallel.compile, lambda axis: step))
    rows = []
    for batch in source.iterate():
        _, found = program(variables, parallel.put_batch(batch))
        rows.append(parallel.get_rows(found)[batch["mask"]])
    return np.concatenate(rows), np.ones(len(outcomes.index))


def most_doubted(losses: np.ndarray, weights: np.ndarray, most: int) -> np.ndarray:
    """Returns the rows of at most `most` examples of the highest loss, the highest first.

    Only those that count and whose loss is a number.
    """
    known = np.flatnonzero((weights > 0) & ~np.isnan(losses))
    return known[np.argsort(-losses[known], kind="stable")][:most]


def label_of(experiment: Experiment, batch: Batch) -> str:
    """Names an example's class, where it has one."""
    names, label = experiment.facts.get("class_names", ()), np.asarray(batch.get("label", ()))
    return str(names[int(label[0])]) if names and label.shape == (1,) else ""


def answer_of(names: Names, outputs: PyTree) -> str:
    """Names the class that the network gives an example, where it gives one."""
    scores = outputs[names.output] if names.output else outputs
    one_class = isinstance(scores, np.ndarray) and scores.shape == (1, len(names.of))
    return names.of[int(scores.argmax())] if one_class and names.of and names.exclusive else ""


def line_of(row: Mapping[str, Any]) -> str:
    """Writes a row as one line, such as "1. cats/7.png  loss 9.31"."""
    name = "/".join(Path(row["name"]).parts[-2:]) or f"example {row['index']}"
    said = f"{row['rank']}. {name}  loss {row['loss']:.3g}"
    if row["label"] and row["answer"]:
        said += f"  {row['label']} -> {row['answer']}"
    return said
