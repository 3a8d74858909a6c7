"""Sides of a comparison: which runs are compared, found by patterns and checked."""

import glob
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from research.comparison.runs import REPEATS, Run, is_run
from research.comparison.sides import Sample
from research.comparison.wording import lower_is_better
from research.errors import UserError, nearest

Groups = Mapping[str, Sequence[Path]]  # {label of a side: the folders of its runs}


def find_groups(patterns: Sequence[str]) -> tuple[dict[str, list[Path]], list[str]]:
    """Finds the runs of each side.

    Args:
      patterns: GLOB or LABEL=GLOB, of folders of runs, or of folders that hold runs.

    Returns:
      {label: folders}, and a line for each side some of whose folders hold no run.

    Raises:
      UserError: where no run matches; for a label, or a run, that is given twice.
    """
    groups: dict[str, list[Path]] = {}
    notes: list[str] = []
    given = [_split(pattern) for pattern in patterns]
    for (said, pattern), label in zip(given, _labels(given), strict=True):
        folders, others = _runs_of(pattern)
        if not folders:
            raise UserError(
                f"--runs={pattern}: {'holds' if others else 'matches'} no run, that is, no folder "
                f"with a config.json.{_beside(pattern)}"
            )
        if others:
            names = ", ".join(path.name for path in others[:3]) + ", ..." * (len(others) > 3)
            notes.append(f"--runs={pattern}: {len(others)} left out that hold no run: {names}")
        if label in groups:
            raise UserError(f"--runs={said or label}={pattern}: {label!r} is a side already.")
        groups[label] = folders
    check_once(groups)
    return groups, notes


def check_once(groups: Groups) -> None:
    """Raises UserError for a run that is in two sides, and so would be compared with itself."""
    owners: dict[Path, str] = {}
    for label, folders in groups.items():
        for folder in folders:
            other = owners.setdefault(folder.resolve(), label)
            if other != label:
                raise UserError(f"{folder}: is in both sides, {other!r} and {label!r}.")


def check_sides(sides: Mapping[str, Sequence[Run]]) -> None:
    """Raises UserError for runs of several experiments, and for seeds that a side has twice."""
    names = {run.experiment: run.folder for runs in sides.values() for run in runs}
    names.pop("", None)
    if len(names) > 1:
        (first, there), (second, here) = list(names.items())[:2]
        raise UserError(
            f"{here}: is a run of --experiment={second}, {there} of {first}; what is compared is "
            "of one experiment."
        )
    for label, runs in sides.items():
        counted = Counter(repeat_of(run) for run in runs if run.flags)
        for key, times in counted.items():
            if times > 1:
                one, other = [run.folder for run in runs if repeat_of(run) == key][:2]
                said = ", ".join(
                    f"--{name}={value}" for name, value in zip(REPEATS, key, strict=True) if value
                )
                raise UserError(
                    f"{label}: {one} and {other} have the same {said or '--seed=0'}; a seed "
                    "counts once. Leave one out."
                )


def repeat_of(run: Run) -> tuple[int | str, ...]:
    """Returns what tells a run from others of its variant: its values of REPEATS."""
    seed = run.flags.get("seed")
    if seed is None:  # it failed before its configuration was written: a study's folder says
        _, _, number = run.folder.name.partition("seed=")
        seed = int(number) if number.isdecimal() else f"? {run.folder.name}"
    return (seed, *(run.flags.get(name) or "" for name in REPEATS[1:]))


def samples(
    sides: Mapping[str, Sequence[Run]], value: Callable[[Run], float]
) -> tuple[dict[str, Sample], str]:
    """Returns each side's values with what pairs them, a number each, and what that number is.

    It is the seed where the runs of a side differ in nothing else, the fold where they differ in
    that alone; else all pairs of these are numbered.
    """
    keys = sorted({repeat_of(run) for runs in sides.values() for run in runs}, key=str)
    columns = [sorted({key[i] for key in keys}, key=str) for i in range(len(REPEATS))]
    varied = [i for i, column in enumerate(columns) if len(column) > 1]
    numbers: dict[tuple[int | str, ...], int] = {}
    what = "seed"
    if varied in ([], [0]) and all(isinstance(key[0], int) for key in keys):
        numbers = {key: int(key[0]) for key in keys}
    elif len(varied) == 1 and varied != [0]:
        what = REPEATS[varied[0]].replace("_", " ")
        found = [str(key[varied[0]]).partition("/")[0] for key in keys]
        if all(number.isdecimal() for number in found):
            numbers = {key: int(number) for key, number in zip(keys, found, strict=True)}
    if not numbers:
        what, numbers = "repeat", {key: number for number, key in enumerate(keys)}
    return {
        label: Sample(
            np.array([value(run) for run in runs], float), [numbers[repeat_of(run)] for run in runs]
        )
        for label, runs in sides.items()
    }, what


class Chosen(NamedTuple):
    """The metric of a comparison.

    Attributes:
      name: such as "test/accuracy".
      mode: "max" or "min".
      protocol: how it is computed.
    """

    name: str
    mode: str
    protocol: str


def choose_metric(sides: Mapping[str, Sequence[Run]], wanted: str) -> Chosen:
    """Returns the metric of a comparison, by default that by which the experiment is judged.

    Raises:
      UserError: for one that no run has, and for one that runs computed in different ways.
    """
    runs = [run for group in sides.values() for run in group if not run.failure]
    best = next((run.best for run in runs if run.best[0]), ("", "max"))
    known = sorted({name for run in runs for name in run.numbers})
    name = wanted or best[0] or (known or [""])[0]
    if known and name not in known:
        hint = nearest(name, known)
        some = [other for other in known if other.count("/") == 1]  # not those of single classes
        raise UserError(f"--metric={name}: no run has it.{hint} Known: {', '.join(some)}.")
    short = name.partition("/")[2]
    protocols: dict[str, Path] = {}
    for run in runs:
        line = run.result.get("protocol", {}).get(short)
        if line is not None:
            protocols.setdefault(line, run.folder)
    if len(protocols) > 1:
        (first, there), (second, here) = list(protocols.items())[:2]
        raise UserError(
            f"--metric={name}: is {second!r} in {here}, {first!r} in {there}; different measures "
            "are not compared. --mode=evaluate computes it anew."
        )
    mode = best[1] if name == best[0] else ("min" if lower_is_better(name) else "max")
    return Chosen(name, mode, next(iter(protocols), ""))


def _split(pattern: str) -> tuple[str, str]:
    """Splits LABEL=GLOB; folders may hold "=" too, so what is there is none with a label."""
    label, equals, rest = pattern.partition("=")
    if not equals or "/" in label or not rest or glob.glob(str(Path(pattern).expanduser())):
        return "", pattern
    return label, rest


def _labels(given: Sequence[tuple[str, str]]) -> list[str]:
    """Returns the labels; a pattern without one is called as its last part, if that is enough."""
    short = [label or _short(pattern) for label, pattern in given]
    return [
        label or (name if short.count(name) == 1 and name else pattern)
        for (label, pattern), name in zip(given, short, strict=True)
    ]


def _short(pattern: str) -> str:
    """Returns a pattern's last part that says something, such as "adam" of "runs/adam*"."""
    for part in reversed(Path(pattern).parts):
        kept = part.replace("seed=*", "").replace("*", "").strip("-_. /")
        if kept and not kept.startswith("["):
            return kept
    return ""


def _runs_of(pattern: str) -> tuple[list[Path], list[Path]]:
    """Returns the folders of runs that a pattern matches, or that lie in such; and what else is."""
    found, others = [], []
    for name in sorted(glob.glob(str(Path(pattern).expanduser()))):
        path = Path(name)
        inside = sorted(filter(is_run, path.iterdir())) if path.is_dir() else []
        if is_run(path):
            found.append(path)
        elif inside:
            found += inside
        else:
            others.append(path)
    return sorted(found, key=_by_number), others


def _by_number(path: Path) -> tuple[str, float, str]:
    """Sorts seed=10 behind seed=9."""
    name = path.name.rstrip("0123456789")
    digits = path.name[len(name) :]
    return f"{path.parent}/{name}", float(digits) if digits else math.inf, path.name


def _beside(pattern: str) -> str:
    """Returns a hint for a pattern that matches nothing."""
    folder = Path(pattern).expanduser().parent
    if not folder.is_dir():
        return f" There is no folder {folder}." if "*" not in str(folder) else ""
    return nearest(Path(pattern).name.replace("*", ""), [path.name for path in folder.iterdir()])
