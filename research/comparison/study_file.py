"""Study files: TOML that says, readable by eye, what a study compares.

question = "Which optimizer is fastest?"
experiment = "classification"
metric = "test/accuracy"
difference = 0.01
baseline = "sgd"
seeds = [0, 1, 2, 3, 4]

[flags]
steps = 200

[variants.sgd]
optimizer = "sgd"

[variants.adam]
optimizer = "adam"

[grid]
learning_rate = [0.1, 0.01]
"""

import itertools
import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from research import config as config_lib
from research.config import Option
from research.data.files import at_home, read_text
from research.errors import UserError, nearest

KEYS: dict[str, tuple[type, ...]] = {
    "question": (str,),
    "claim": (str,),
    "experiment": (str,),
    "metric": (str,),
    "difference": (int, float),
    "baseline": (str,),
    "budget": (str, int, float),
    "seeds": (list,),
    "repeats": (int,),
    "flags": (dict,),
    "variants": (dict,),
    "grid": (dict,),
}
WORDS = {str: "a text", int: "a whole number", float: "a number", list: "a list", dict: "a table"}
# What belongs to the study or to the command, and so is no flag of a variant.
ELSEWHERE = {
    "seed": "seeds = [...] or repeats = N says it, for all variants",
    "workdir": "--workdir says it in the shell",
    "experiment": "experiment = ... says it, above all tables",
}
MOST_CROSSED = 10_000  # combinations of a grid
Flags = Mapping[str, Any]


class StudyFile(NamedTuple):
    """The content of a study file.

    Attributes:
      path: of the file.
      experiment: its name, or the file of a person's own; "" where it does not say.
      flags: {flag: value} of all variants.
      variants: {name: {flag: value}}, the grid's combinations among them.
      seeds: those it lists; empty where it gives a number of repeats, or none.
      repeats: 0 where it gives none.
    """

    path: Path
    experiment: str
    flags: Flags
    variants: Mapping[str, Flags]
    seeds: tuple[int, ...]
    repeats: int
    metric: str
    difference: float | None
    baseline: str
    question: str
    claim: str
    budget: str


def find(said: str, presets: Path) -> Path:
    """Finds the file that --study names: a path, or the name of one of presets/studies.

    Raises:
      UserError: where there is none.
    """
    path = at_home(said)
    ours = presets / "studies"
    for file in (path, presets.parent.parent / path, ours / f"{said}.toml"):
        if file.is_file() and (file == path or file.is_relative_to(ours)):
            return file
    known = [file.stem for file in ours.glob("*.toml")]
    raise UserError(
        f"--study={said}: there is no such file, and no such study.{nearest(path.stem, known)} "
        f"Known: {', '.join(sorted(known))}."
    )


def read(path: Path) -> StudyFile:
    """Reads a study file.

    Raises:
      UserError: where it is no TOML, or a key or a value is not one of a study's.
    """
    try:
        found = tomllib.loads(read_text(path, f"--study={path}"))
    except RecursionError:
        raise UserError(f"--study={path}: is nested too deeply.") from None
    except ValueError as error:  # no TOML, or a number of thousands of digits
        raise UserError(f"--study={path}: is no TOML ({error}).") from error
    for key, value in found.items():
        if key not in KEYS:
            raise UserError(f"--study={path}: {key!r} is no key of a study.{nearest(key, KEYS)}")
        if type(value) not in KEYS[key]:
            needed = WORDS[KEYS[key][0 if len(KEYS[key]) == 1 else -1]]
            raise UserError(f"--study={path}: {key} = {value!r}: {needed} is needed.")
    seeds, repeats = found.get("seeds", []), found.get("repeats")
    if any(type(seed) is not int or not 0 <= seed < 2**32 for seed in seeds):
        raise UserError(f"--study={path}: seeds: whole numbers from 0 to 2**32 - 1 are needed.")
    if "seeds" in found and (repeats is not None or not seeds):
        raise UserError(f"--study={path}: seeds = [0, 1, ...] or repeats = N is needed, not both.")
    if repeats is not None and repeats < 1:
        raise UserError(f"--study={path}: repeats = {repeats}: at least 1 is needed.")
    variants = found.get("variants", {})
    for name, flags in variants.items():
        if not isinstance(flags, dict):
            raise UserError(f"--study={path}: [variants.{name}] is needed, with its flags below.")
        beside = path.parent / str(flags.get("flagfile", ""))
        if os.path.isfile(beside):  # such as the best.flags of a tuning
            flags["flagfile"] = str(beside)
    experiment = found.get("experiment", "")
    if experiment.endswith(".py") and os.path.isfile(path.parent / experiment):  # as in flag files
        experiment = str(path.parent / experiment)
    said = {key: str(found.get(key, "")) for key in ("metric", "baseline", "question", "claim")}
    return StudyFile(
        path,
        experiment,
        found.get("flags", {}),
        crossed(variants, found.get("grid", {}), path),
        tuple(seeds),
        repeats or 0,
        difference=float(found["difference"]) if "difference" in found else None,
        budget=str(found.get("budget", "")),
        **said,
    )


def crossed(variants: Mapping[str, Flags], grid: Flags, path: Path) -> dict[str, Flags]:
    """Returns each variant with each combination of the grid's values: "sgd learning_rate=0.1".

    Raises:
      UserError: for a flag of the grid that is no list of values, or that a variant has too.
    """
    for flag, values in grid.items():
        if not isinstance(values, list) or not values:
            raise UserError(f"--study={path}: [grid] {flag}: a list of values is needed.")
        for name in [name for name, flags in variants.items() if flag in flags]:
            raise UserError(f"--study={path}: {flag} stands in [grid] and in [variants.{name}].")
    if not grid:
        return dict(variants)
    if (count := math.prod(map(len, grid.values()))) > MOST_CROSSED:
        raise UserError(f"--study={path}: [grid] has {count:,} combinations; try fewer values.")
    found: dict[str, Flags] = {}
    for name, flags in (variants or {"": {}}).items():
        for values in itertools.product(*grid.values()):
            chosen = dict(zip(grid, values, strict=True))
            label = " ".join([name, *(f"{k}={_text(v)}" for k, v in chosen.items())]).strip()
            if label in found:
                raise UserError(f"--study={path}: [grid] gives {label!r} twice.")
            found[label] = {**flags, **chosen}
    return found


def tables(file: StudyFile) -> dict[str, Flags]:
    """Returns {heading: flags} of all the flags that a study file holds."""
    return {"[flags]": file.flags, **{f"variant {k}": v for k, v in file.variants.items()}}


def check_flags(file: StudyFile, options: Sequence[Option]) -> None:
    """Raises UserError for a flag in a study file that is none of its experiment's `options`."""
    known = {row.flag: row for row in options}
    for heading, flags in tables(file).items():
        for flag, value in flags.items():
            where = f"--study={file.path}: {heading}: {flag}"
            if flag == "flagfile" and heading != "[flags]" and isinstance(value, str):
                continue
            if flag in ELSEWHERE:
                raise UserError(f"{where}: is no flag of a variant; {ELSEWHERE[flag]}.")
            if flag not in known and flag in KEYS:
                raise UserError(f"{where}: is a key of the study; it stands above all tables.")
            if flag not in known:
                raise UserError(f"{where}: is no flag.{nearest(flag, known)}")
            values = value if isinstance(value, list) else [value]
            if any(type(item) not in (bool, int, float, str) for item in values):
                raise UserError(f"{where}: a text, a number, true, false or a list is needed.")
            if isinstance(value, list) and known[flag].type is not tuple:
                raise UserError(f"{where}: takes one value, not a list; [grid] tries several.")


def arguments(flags: Flags, options: Sequence[Option] = ()) -> tuple[str, ...]:
    """Returns flags as a shell takes them: {"mirror": True, "widths": [8, 16]} becomes
    "--mirror=true", "--widths=8,16"; a list is given item by item for the options that ask so.
    """
    repeated = {row.flag for row in options if row.repeated}
    found: list[str] = []
    for flag, value in flags.items():
        items = value if flag in repeated and isinstance(value, list) else [value]
        found += [f"--{flag}={_text(item)}" for item in items]
    return tuple(found)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(_text(item) for item in value)
    return config_lib.show(value)
