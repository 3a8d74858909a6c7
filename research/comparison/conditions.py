"""Under which conditions the sides of a comparison were trained: flags, machines, data, budget.

A difference of the metric is one of the flag under study only where nothing else differs.
"""

import functools
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from research.comparison.runs import REPEATS, Run
from research.config import Option, options, show
from research.data.sources.splits import VALIDATION
from research.training.config import AugmentedTrainingConfig

# A wall clock varies with what else a machine does; a third more is more than that.
SLOWER = 1.33
Sides = Mapping[str, Sequence[Run]]


class Conditions(NamedTuple):
    """Differences between sides, beside the metric.

    Attributes:
      flags: {flag: {side: its value, or values, in words}}, of flags that change results.
      warnings: lines on what else differs, and on what is unclear.
    """

    flags: Mapping[str, Mapping[str, str]]
    warnings: Sequence[str]


def conditions(
    sides: Sides, fields: Sequence[Option] = (), under_study: Collection[str] | None = None
) -> Conditions:
    """Compares the conditions of all sides.

    Args:
      fields: of the experiment's Config, which say what changes results; by default those that
        most experiments share.
      under_study: the flags that were declared to differ; None: one may, whichever it is.
    """
    known = {row.name: row for row in fields or options(AugmentedTrainingConfig)}
    begun = {label: [run for run in runs if run.flags] for label, runs in sides.items()}
    begun = {label: runs for label, runs in begun.items() if runs}
    flags, warnings = _flags(begun, known)
    if len(begun) > 1:
        if under_study is None and len(flags) > 1:
            warnings.append(
                f"sides differ in {len(flags)} flags ({_list(flags)}): what one of them does is "
                "not told from what the others do."
            )
        elif under_study is not None and (more := [f for f in flags if f not in under_study]):
            warnings.append(f"sides differ in more than the flags under study: {_list(more)}.")
        if not flags:
            warnings.append("sides differ in no flag that changes results.")
    if len(begun) > 1:
        warnings += _surroundings(begun)
        warnings += _data(begun)
        warnings += _budget(begun)
    return Conditions(flags, warnings)


def cost(run: Run) -> dict[str, float]:
    """Returns what a run cost, as far as it says: seconds, FLOPs, parameters, memory, examples."""
    result = run.result
    steps = result.get("step", 0)
    known = {
        "seconds": result.get("seconds"),
        "flops": (result.get("flops") or 0) * steps or None,
        "parameters": result.get("parameters"),
        "peak_memory": result.get("peak_memory"),
        "compile_seconds": result.get("compile_seconds"),
        "steps": steps or None,
        "examples": steps * run.flags.get("batch_size", 0) or None,
    }
    return {name: float(value) for name, value in known.items() if value is not None}


def chosen_on(sides: Sides, metric: str) -> str:
    """Returns a warning where the metric's split also chose checkpoints, or flags; else ""."""
    split, _, short = metric.partition("/")
    tuned = [label for label, runs in sides.items() if any(map(_trials, runs))]
    if split in VALIDATION and tuned:
        return (
            f"{metric}: {split!r} chose the flags of {_list(tuned)}, which look too good on it; "
            f"--metric=test/{short} compares on examples that chose nothing."
        )
    choosers = [
        (run.result.get("best_checkpoint") or {}).get("chosen_by") or {}
        for runs in sides.values()
        for run in runs
    ]
    if split in VALIDATION or all(by.get("split") != split for by in choosers):
        return ""
    return (
        f"{metric}: no validation split was held out, so {split!r} chose the best checkpoints too. "
        "These values are of the last weights, which it did not choose; but variants that were "
        f"tuned on {split!r} are not ranked by it. --validation=0.1 holds examples out."
    )


def _flags(
    begun: Sides, known: Mapping[str, Option]
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Returns the flags in which sides differ, and warnings where runs of a side do."""
    passed_over = {
        *REPEATS[:1],
        "workdir",
        *(name for name, row in known.items() if not (row.changes_result and row.saved)),
    }
    names = sorted({name for runs in begun.values() for run in runs for name in run.flags})
    found: dict[str, dict[str, str]] = {}
    warnings = []
    for name in names:
        if name in passed_over:
            continue
        default = known[name].default if name in known else None  # flags of later versions
        values = {
            label: list(dict.fromkeys(_said(run.flags.get(name, default)) for run in runs))
            for label, runs in begun.items()
        }
        flag = name.rstrip("_")
        for label, different in values.items():
            if len(different) > 1 and name not in REPEATS:
                warnings.append(
                    f"{label}: its runs differ in --{flag} ({_list(different)}) and not in their "
                    "seed alone."
                )
        if len({tuple(sorted(different)) for different in values.values()}) > 1:
            found[flag] = {label: _list(different) for label, different in values.items()}
    return found, warnings


def _surroundings(begun: Sides) -> list[str]:
    """Returns warnings of other versions and other machines."""

    def of(run: Run, name: str) -> Any:
        return run.begun.get("environment", {}).get(name)

    def version(package: str, run: Run) -> Any:
        return (of(run, "versions") or {}).get(package)

    packages = sorted(
        {p for runs in begun.values() for run in runs for p in of(run, "versions") or ()}
    )
    asked: dict[str, Callable[[Run], Any]] = {
        "version of Fovea (git commit)": lambda run: (of(run, "git_commit") or "")[:12] or None,
        "Python": lambda run: of(run, "python"),
        **{package: functools.partial(version, package) for package in packages},
        "devices": lambda run: of(run, "devices"),
        "machine": lambda run: of(run, "platform"),
        "processes": lambda run: of(run, "processes"),
        "cores": lambda run: of(run, "cores"),
        "threads": lambda run: of(run, "threads"),
        "parallel mode": lambda run: run.begun.get("parallel", {}).get("mode"),
        "devices in use": lambda run: run.begun.get("parallel", {}).get("devices"),
    }
    return [line for what, ask in asked.items() if (line := _differing(begun, what, ask))]


def _data(begun: Sides) -> list[str]:
    """Returns warnings of other training data, as far as fingerprints tell.

    "trained_on" is of the pictures whatever their order, "data_order" depends on the seed and on
    the size of a batch, too: it tells something of runs that agree in these.
    """
    prints = {
        label: {run.begun.get("fingerprint", {}).get("trained_on") for run in runs}
        for label, runs in begun.items()
    }
    if all(None not in found for found in prints.values()):
        # Folds and redrawn splits train on other parts, of one data set, side by side.
        if len({frozenset(found) for found in prints.values()}) > 1:
            return [f"training data differ: {_sides_apart(prints)} were not trained on the same."]
        return []
    orders: dict[str, dict[str, set[str]]] = {}
    for label, runs in begun.items():
        for run in runs:
            if order := run.begun.get("fingerprint", {}).get("data_order"):
                like = json.dumps(
                    [run.flags.get(k) for k in (*REPEATS, "batch_size", "accumulate")]
                )
                orders.setdefault(like, {}).setdefault(label, set()).add(order)
    for found in orders.values():
        if len({frozenset(values) for values in found.values()}) > 1:
            return [f"training data, or their order, differ at one seed: {_sides_apart(found)}."]
    return []


def _budget(begun: Sides) -> list[str]:
    """Returns warnings of other budgets: steps, examples, seconds, trials of tuning."""
    finished = {label: [run for run in runs if not run.failure] for label, runs in begun.items()}
    finished = {label: runs for label, runs in finished.items() if runs}
    asked: dict[str, Callable[[Run], Any]] = {
        "budget, steps": lambda run: cost(run).get("steps"),
        "budget, examples": lambda run: cost(run).get("examples"),
    }
    lines = [line for what, ask in asked.items() if (line := _differing(finished, what, ask))]
    tuned = {label: {_trials(run) for run in runs} for label, runs in finished.items()}
    if any(max(found) for found in tuned.values()):  # what was tuned alike is stated, too
        each = [f"{label} {_list([str(n) for n in sorted(x)])}" for label, x in tuned.items()]
        lines.append(f"budget, trials of tuning: {'; '.join(each)}.")
    seconds = {
        label: float(np.median([cost(run).get("seconds", np.nan) for run in runs]))
        for label, runs in finished.items()
    }
    if len(seconds) > 1 and max(seconds.values()) > SLOWER * min(seconds.values()):
        said = ", ".join(f"{label} {value:.3g} s" for label, value in seconds.items())
        lines.append(f"budget, seconds (median of a run): {said}.")
    return lines


def _trials(run: Run) -> int:
    """Returns how many trials chose a run's flags; older runs do not say."""
    return int(run.flags.get("tuning_trials", 0))


def _differing(sides: Sides, what: str, ask: Callable[[Run], Any]) -> str:
    """Returns a line on what differs between sides; what a run does not say is not compared."""
    values = {
        label: list(dict.fromkeys(_said(x) for run in runs if (x := ask(run)) is not None))
        for label, runs in sides.items()
    }
    values = {label: found for label, found in values.items() if found}
    if len({value for found in values.values() for value in found}) < 2:
        return ""
    if len(values) > 1 and len({tuple(sorted(found)) for found in values.values()}) == 1:
        return ""  # each side has the same mixture
    said = "; ".join(f"{label} {_list(found)}" for label, found in values.items())
    return f"{what}: {said}."


def _sides_apart(values: Mapping[str, Collection[Any]]) -> str:
    return " and ".join(values)


def _said(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    if isinstance(value, float) and value.is_integer():
        return f"{value:,.0f}" if abs(value) >= 1 else "0"
    return "" if value is None else show(value)


def _list(values: Collection[str], most: int = 4) -> str:
    shown = [value if value else "empty" for value in list(values)[:most]]
    return ", ".join(shown) + (f" and {len(values) - most} more" if len(values) > most else "")
