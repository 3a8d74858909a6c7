"""Finished runs, read from their folders and laid side by side."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.table import Table

from research.figures.comparison import Curve, curves
from research.record.report import Report
from research.record.run_folder import read_result


class Run(NamedTuple):
    """The results that a run's folder holds.

    Attributes:
      numbers: the last training metrics that were logged and the final evaluation's, by name;
        empty where none were.
      seconds: of training and evaluation; NaN for a run that stopped.
      best: the name of the metric that the experiment is judged by; "" for a run that stopped.
      log: the lines of metrics.jsonl.
      failure: why training stopped; "" for a run that finished.
    """

    numbers: Mapping[str, float]
    seconds: float
    best: str
    log: Sequence[Mapping[str, float]]
    failure: str = ""


def read_run(folder: Path, failure: str = "") -> Run:
    """Reads a run's folder; `failure` says why it has no result."""
    file = folder / "metrics.jsonl"
    log = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    result = read_result(folder) or {"metrics": {}, "seconds": math.nan, "best": ["", "max"]}
    training = {name: value for name, value in (log or [{}])[-1].items() if "train/" in name}
    return Run(
        {**training, **result["metrics"]}, result["seconds"], result["best"][0], log, failure
    )


def report(runs: Mapping[str, Sequence[Run]]) -> Report:
    """Makes a table, numbers and curves of runs by label; runs of one label differ in their seed.

    Shown are the training loss and the metric that the experiment is judged by, in training and in
    evaluation: mean ± standard deviation (n - 1) over the runs of a label.
    """
    best = next((run.best for group in runs.values() for run in group if run.best), "")
    wanted = dict.fromkeys(["train/loss", f"train/{best.partition('/')[2]}", best])
    columns = sorted({name for group in runs.values() for run in group for name in run.numbers})
    names = [name for name in wanted if name in columns]
    table = Table("variant", *names, "seconds", title="weights after the last step", box=None)
    for label, group in runs.items():
        failure = next((run.failure for run in group if run.failure), "")
        cells = [_spread([run.numbers.get(name, math.nan) for run in group]) for name in names]
        table.add_row(label, *cells, _spread([round(run.seconds, 0) for run in group if run.best]))
        if failure:
            table.add_row(f"  stopped: {failure.partition(';')[0]}", *[""] * (len(names) + 1))

    rows = [
        {
            "variant": label,
            "run": number,
            **{name: run.numbers.get(name, math.nan) for name in columns},
            "seconds": run.seconds,
            "failure": run.failure,
        }
        for label, group in runs.items()
        for number, run in enumerate(group)
    ]
    drawn = {
        label: {name: _curve(name, group) for name in ("train/loss", best) if name}
        for label, group in runs.items()
    }
    return Report(rows, table, {"curves": curves(drawn)})


def _spread(values: Sequence[float]) -> str:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return "-"
    mean = f"{np.mean(finite):.4g}"
    return f"{mean} ± {np.std(finite, ddof=1):.2g}" if len(finite) > 1 else mean


def _curve(name: str, group: Sequence[Run]) -> Curve:
    """Returns the mean over a label's runs, at the steps at which all of them logged `name`."""
    logged = [{line["step"]: line[name] for line in run.log if name in line} for run in group]
    steps = sorted(set.intersection(*map(set, logged)))
    return Curve(steps, [float(np.mean([values[step] for values in logged])) for step in steps])
