"""Results and reports of commands: their folders, and their tables on the terminal."""

import datetime
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from research.data.sources import overlap
from research.distributed.folder import shared
from research.distributed.group import is_first
from research.errors import UserError
from research.record.progress import console
from research.record.report import Report, metrics_table, save_rows
from research.record.run_folder import save_figures
from research.training.chosen import in_words


def show_result(result: Mapping[str, Any], path: Path) -> None:
    """Prints a short table of a result.json, what else it says, and the pictures beside it."""
    table = metrics_table(result["metrics"], result["protocol"], f"step {result['step']}")
    for member, metrics in result.get("members", {}).items():
        for name, value in metrics.items():
            if "/" not in name.partition("/")[2]:
                table.add_row(name, f"{value:.4f}", f"of {member} alone")
    out = console()
    out.print(table)
    for weights in result.get("weights", []):  # older results do not say
        out.print(f"weights  {in_words(weights)}", markup=False)
    if best := result.get("best_checkpoint"):
        out.print(f"best     {in_words(best)}", markup=False)
    for split, of_split in result.get("bias", {}).items():
        for bias in of_split.values():
            out.print(f"bias     {split}, {bias['line']}", markup=False)
            for line in bias["warnings"]:
                out.print(f"WARNING  {split}, {line}", markup=False)
    told = overlap.lines(result["trained_on"]) if "trained_on" in result else []
    for line in [*told, *result.get("notes", [])]:
        out.print(line, markup=False)
    for picture in sorted((path / "figures").rglob("*.png")):
        out.print(f"picture  {picture}", markup=False)
    out.print(f"run      {path}", markup=False)


def show_report(report: Report, path: Path, mode: str) -> None:
    """Prints a report's table and writes MODE.json, MODE.csv and its pictures into a folder."""
    save_rows(path / mode, report.rows)
    save_figures(path, report.figures)
    out = console()
    if not out.is_terminal:
        out.width = max(out.width, 140)  # a file has room; a terminal has what it has
    out.print("", report.table)
    for line in report.notes:
        out.print(line, markup=False)
    for name in report.figures:
        out.print(f"picture  {path / name}.png", markup=False)
    out.print(f"numbers  {path / mode}.json and .csv", markup=False)


def new_folder(*parts: str) -> Path:
    """Names a folder that is not there yet: runs/<experiment>/<date>-<time>[-<number>]."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = Path(parts[0].removesuffix("/__init__.py")).stem  # of a person's own, its file's
    base = Path("runs", name, "-".join([now, *parts[1:]]))
    names = (base if n == 1 else base.with_name(f"{base.name}-{n}") for n in itertools.count(1))
    return next(path for path in names if not path.exists())


def output_folder(workdir: str, experiment: str, mode: str, file: str) -> Path:
    """Makes the folder for what a mode writes; refuses to overwrite `file` in it.

    Called before the work is done, so that it is not done in vain. Of several processes the first
    makes it, and it alone writes there.
    """
    path = shared(Path(workdir) if workdir else new_folder(experiment, mode))
    if not is_first():
        return path
    if (path / file).exists():
        raise UserError(f"--workdir={path}: holds a {file} already; choose another folder.")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir={path}: cannot be written ({error.strerror}).") from error
    return path
