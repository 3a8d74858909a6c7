"""--show=disagreements: the pictures that one side gets right and the other wrong, by both."""

import re
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from research.comparison.examples import Apart
from research.comparison.findings import Findings, finished_pairs
from research.comparison.runs import Run
from research.config import from_json
from research.data.sources.source import Source
from research.errors import UserError
from research.experiment import Evaluation, Variables
from research.figures.sheet import sheet
from research.training import parallel as parallel_lib
from research.training.checkpoint import open_checkpoint
from research.training.drawing import Pictures, draw_examples


def draw_disagreements(found: Findings, module: ModuleType | None) -> dict[str, Figure]:
    """Draws the examples on which each side parts most from the baseline, by the networks of both.

    Of each side the first run draws, of one seed with the baseline's where seeds pair: above the
    side's answer, below it the baseline's.

    Args:
      module: of the runs' experiment.

    Returns:
      {"disagreements-LABEL-better" and "-worse": a sheet}.

    Raises:
      UserError: where there is nothing to draw, or a run has no checkpoint.
    """
    if module is None:
        raise UserError("--show=disagreements: the runs' experiment is there no more.")
    split = found.chosen.name.partition("/")[0]
    sheets = {}
    for label, one in found.by_example.items():
        if not (one.better or one.worse):
            continue
        ours, theirs = finished_pairs(found, label)
        sides = [_opened(module, runs[0], split) for runs in (ours, theirs)]
        for kind, apart in (("better", one.better), ("worse", one.worse)):
            if apart:
                drawn = [_drawn(side, apart) for side in sides]
                tiles = [
                    {**above, **{f"{name}, below": x for name, x in below.items()}}
                    for above, below in zip(*drawn, strict=True)
                ]
                lines = [_line(x, label, found.baseline) for x in apart]
                name = re.sub(r"[^\w.=,+]+", "-", f"disagreements {label} {kind}")
                sheets[name] = sheet(tiles, lines)
    if not sheets:
        said = "; ".join(one.line for one in found.by_example.values())
        raise UserError(f"--show=disagreements: no example sets the sides apart. {said}")
    return sheets


class _Side(NamedTuple):
    """A run's last weights, of which its result is, and a split as that run sees it.

    Each has its own: sides may differ in the size of images, or in their preprocessing.
    """

    evaluation: Evaluation
    variables: Variables
    source: Source


def _opened(module: ModuleType, run: Run, split: str) -> _Side:
    opened = open_checkpoint(run.folder)
    config = from_json(module.Config, run.flags, str(run.folder))
    experiment = module.build(config, opened.metadata["facts"])
    source = experiment.data().evals.get(split)
    if source is None:
        raise UserError(f"--show=disagreements: the data set of {run.folder} has no {split!r}.")
    return _Side(experiment.evaluation, opened.variables, source)


def _drawn(side: _Side, apart: Sequence[Apart]) -> list[Pictures]:
    parallel = parallel_lib.create("single", side.source.batch_size)
    index = np.array([x.index for x in apart])
    variables = parallel.put(side.variables)
    return draw_examples(side.evaluation, parallel, variables, side.source, index)


def _line(example: Apart, label: str, baseline: str) -> str:
    """Returns what stands above a tile: whose picture, and how often each side's runs are right."""
    name = "/".join(example.name.split("/")[-2:]) or f"example {example.index}"
    return f"{name}  {label} {example.variant:.3g}, {baseline} {example.baseline:.3g}"
