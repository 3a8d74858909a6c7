"""--mode=compare: finished runs side by side, with intervals and a verdict."""

import functools
import math
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from matplotlib.figure import Figure

from research.code import files as code_lib
from research.commands.disagreements import draw_disagreements
from research.commands.output import output_folder
from research.comparison import study as study_lib
from research.comparison import tables
from research.comparison.conditions import cost
from research.comparison.curves import Curve, read_curves
from research.comparison.findings import Findings, find
from research.comparison.groups import Groups, check_once, find_groups
from research.comparison.markdown import as_markdown
from research.comparison.page import make_page
from research.comparison.runs import Run, read_run
from research.comparison.study import Study
from research.config import from_json, options
from research.errors import UserError
from research.experiment import Evaluation
from research.figures import comparison as figures_lib
from research.modes import LaunchConfig
from research.record.progress import console
from research.record.report import save_csv
from research.record.run_folder import save_figures
from research.record.whole_files import write_json, write_text
from research.remote.copies import copied_runs
from research.remote.store import is_remote
from research.training.checkpoint import locate, read_metadata

NAME = "compare"  # of the files


def compare(
    launch: LaunchConfig,
    workdir: str,
    arguments: Sequence[str],
    open_experiment: Callable[[str], ModuleType],
) -> None:
    """Compares the runs that --runs names, and writes what was found into a new folder.

    Args:
      arguments: all that was typed.
      open_experiment: name, or file -> an experiment's module.

    Raises:
      UserError: for runs that are not there or cannot be compared; nothing is written then.
    """
    if not launch.runs:
        raise UserError("--mode=compare needs --runs='runs/mlp*', once for each side.")
    said: dict[str, Any] = {
        "metric": launch.metric,
        "difference": launch.difference or None,
        "baseline": launch.baseline,
    }
    patterns = [_on_this_machine(pattern) for pattern in launch.runs]
    folder = Path(patterns[0]).expanduser()
    if len(patterns) == 1 and (folder / study_lib.FILE).is_file():
        study = study_lib.read_study(folder)
        found = findings_of_study(study, folder, said, open_experiment)
    else:
        groups, notes = find_groups(patterns)
        found = findings_of(groups, **said, notes=notes, open_experiment=open_experiment)
    drawn = {}
    if launch.show:
        sides = [run for runs in found.sides.values() for run in runs]
        drawn = draw_disagreements(found, module_of({"": sides}, open_experiment))
    path = output_folder(workdir, NAME, "", f"{NAME}.json")
    show(found, path, f"python launch.py {shlex.join(arguments)}", drawn)


def _on_this_machine(pattern: str) -> str:
    """Returns GLOB or LABEL=GLOB, of copies where it is of runs in a store."""
    label, equals, rest = pattern.partition("=")
    if is_remote(pattern):
        return copied_runs(pattern)
    return f"{label}={copied_runs(rest)}" if equals and is_remote(rest) else pattern


def findings_of_study(
    study: Study,
    folder: Path,
    said: Mapping[str, Any],
    open_experiment: Callable[[str], ModuleType],
) -> Findings:
    """Compares the variants of a study by what it declared.

    Args:
      said: "metric", "difference" and "baseline" where others were asked for: after looking, which
        is said.
    """
    declared = {name: getattr(study, name) for name in ("metric", "difference", "baseline")}
    notes = [f"seed {seed} was added after looking." for seed in study.added_seeds]
    for name, value in said.items():
        if value and value != declared[name]:
            was = f"not the {declared[name]} that" if declared[name] else "which no"
            notes.append(f"--{name}={value} is {was} study declared: this explores.")
    return findings_of(
        study.groups(folder),
        **{name: said.get(name) or value for name, value in declared.items()},
        late=study.added,
        under_study=study.flags_under_study,
        notes=notes,
        open_experiment=open_experiment,
    )._replace(study=study)


def findings_of(
    groups: Groups,
    *,
    metric: str = "",
    difference: float | None = None,
    baseline: str = "",
    late: Collection[str] = (),
    under_study: Collection[str] | None = None,
    notes: Sequence[str] = (),
    open_experiment: Callable[[str], ModuleType] | None = None,
) -> Findings:
    """Reads groups of runs, by their labels, and compares them.

    Args:
      metric: by default that by which the experiment is judged.
      difference: the smallest of interest, in the metric's units.
      baseline: the label of the group that others are compared with; by default the first.
      late: groups that were added after results had been looked at.
      under_study: flags that are meant to differ; None: any one.
      notes: warnings that the caller has already.
      open_experiment: name, or file -> an experiment's module.

    Raises:
      UserError: for runs that cannot be compared.
    """
    check_once(groups)
    sides = {label: [read_run(folder) for folder in folders] for label, folders in groups.items()}
    module = module_of(sides, open_experiment)
    return find(
        sides,
        metric,
        difference,
        baseline,
        late,
        under_study,
        options(module.Config) if module else (),
        notes,
        functools.partial(evaluation_of, module) if module else None,
    )


def module_of(
    sides: Mapping[str, Sequence[Run]], open_experiment: Callable[[str], ModuleType] | None
) -> ModuleType | None:
    """Returns the module of the runs' experiment; None where it is there no more."""
    run = next((run for runs in sides.values() for run in runs if run.experiment), None)
    if open_experiment is None or run is None:
        return None
    kept = run.folder / code_lib.KEPT / run.experiment
    try:
        return open_experiment(str(kept) if kept.is_file() else run.experiment)
    except (UserError, ImportError):
        return None


def evaluation_of(module: ModuleType, run: Run) -> Evaluation:
    """Builds the evaluation of a run as its checkpoint describes it.

    Raises:
      UserError: where it has no checkpoint, or one that this version does not open.
    """
    facts = read_metadata(locate(run.folder))["facts"]
    config = from_json(module.Config, run.flags, str(run.folder))
    evaluation: Evaluation = module.build(config, facts).evaluation
    return evaluation


def show(
    found: Findings, path: Path, command: str = "", drawn: Mapping[str, Figure] | None = None
) -> None:
    """Prints a comparison's tables and verdicts, and writes its files and pictures.

    Args:
      drawn: further figures, by file name.
    """
    figures = {**draw(found), **(drawn or {})}
    save_csv(path / f"{NAME}.csv", tables.rows_of_runs(found))
    write_json(path / f"{NAME}.json", without_nan(found.to_json()))
    write_text(path / f"{NAME}.tex", as_latex(found))
    save_figures(path, figures)
    files = {name: path / f"{name}.png" for name in figures}
    write_text(path / f"{NAME}.md", as_markdown(found, files, command))
    write_text(path / f"{NAME}.html", make_page(found, files, command))

    out = console()
    if not out.is_terminal:
        out.width = max(out.width, 140)  # a file has room; a terminal has what it has
    for table in tables.all_of(found):
        out.print("", tables.rich_table(table))
    out.print("")
    for line in found.lines:
        out.print(f"verdict  {line}", markup=False)
    for label, one in found.by_example.items():
        out.print(f"examples {label}: {one.line}", markup=False)
    for label, runs in found.sides.items():
        for run in runs:
            if reason := found.reason(run):
                out.print(f"failed   {label}, {run.folder.name}: {reason}", markup=False)
    for line in found.cautions:
        out.print(f"WARNING  {line}", markup=False)
    for name in figures:
        out.print(f"picture  {path / name}.png", markup=False)
    out.print(f"page     {path / NAME}.html, and .csv, .json, .md, .tex", markup=False)


def draw(found: Findings) -> dict[str, Any]:
    """Draws every value, the learning curves, and quality against cost."""
    name = found.chosen.name
    scale = 100 if found.metric.points else 1
    axis = f"{name}, points" if found.metric.points else name
    variants = {}
    for label, one in found.summaries.items():
        values = [float(x) * scale for x in found.samples[label].values if math.isfinite(x)]
        variants[label] = figures_lib.Variant(
            values, one.mean * scale, one.low * scale, one.high * scale, one.runs - one.n
        )
    smallest = None if found.difference is None else found.difference * scale
    figures: dict[str, Any] = {
        "values": figures_lib.values(variants, axis, found.baseline, smallest)
    }
    names = list(dict.fromkeys(["train/loss", name]))
    read = {
        label: [(run, read_curves(run.folder, names)) for run in runs]
        for label, runs in found.sides.items()
    }
    logged = [n for n in names if any(n in c for group in read.values() for _, c in group)]
    if logged:
        figures["curves"] = figures_lib.curves(
            {label: {n: _curves(n, group) for n in logged} for label, group in read.items()}
        )
    spent = {
        label: {
            kind: [
                (cost(run)[kind], run.value(name) * scale)
                for run in runs
                if kind in cost(run) and math.isfinite(run.value(name))
            ]
            for kind in figures_lib.COSTS
        }
        for label, runs in found.sides.items()
    }
    if (costs := figures_lib.costs(spent, axis)) is not None:
        figures["costs"] = costs
    return figures


def as_latex(found: Findings) -> str:
    """Returns compare.tex: tables, with verdicts and warnings as comments above them."""
    said = [*found.lines, *(f"Warning: {line}" for line in found.cautions)]
    made = "\n".join(tables.latex(table) for table in tables.all_of(found))
    return "".join(f"% {line}\n" for line in said) + made


def without_nan(values: Any) -> Any:
    """Returns plain JSON, where NaN and infinity are null."""
    if isinstance(values, Mapping):
        return {name: without_nan(x) for name, x in values.items()}
    if isinstance(values, list | tuple):
        return [without_nan(x) for x in values]
    if hasattr(values, "item"):
        values = values.item()
    return None if isinstance(values, float) and not math.isfinite(values) else values


def _curves(name: str, group: Sequence[tuple[Run, Mapping[str, Curve]]]) -> figures_lib.Curves:
    """Returns a side's curves of one name, those of failed runs apart."""
    having = [(run, found[name]) for run, found in group if name in found]
    return figures_lib.Curves(
        [curve for run, curve in having if not run.failure],
        [curve for run, curve in having if run.failure],
    )
