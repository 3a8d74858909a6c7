"""Runs, read from the folders that training left, whether they finished or not."""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from research.data.files import read_json, read_text
from research.errors import UserError
from research.record import sealing
from research.record.sealing import CONFIG, LOG, RESULT

FAILURE = "failure.json"
# Flags that make another run of the same variant, and not another variant.
REPEATS = ("seed", "split_seed", "fold")
_DEVICES: Mapping[str, Any] = {"cores": int, "threads": int, "devices": [str]}
# The kinds of what is read of these files: [kind] of a list's, {name: kind} of an object's values.
KINDS: Mapping[str, Mapping[str, Any]] = {
    CONFIG: {
        "experiment": str,
        **dict.fromkeys(("config", "plan", "parallel", "fingerprint"), dict),
        "environment": {**_DEVICES, "versions": dict, "processes": int, "xla_flags": [str]},
    },
    RESULT: {
        "best": list,
        "step": int,
        "peak_memory": int,
        "parts": [_DEVICES],
        **dict.fromkeys(("metrics", "protocol", "bias"), dict),
        "examples_per_second": dict.fromkeys(("training", "evaluation"), int | float),
    },
    FAILURE: dict.fromkeys(("kind", "reason", "traceback"), str),
}


class Run(NamedTuple):
    """A run as its folder tells it, without its curves.

    Attributes:
      folder: its path.
      experiment: its name; "" where the run failed before it was written.
      flags: its configuration, by field.
      begun: what else was known when it began: environment, parallel, plan, fingerprint.
      result: the content of result.json; {} for a run that did not finish.
      logged: the training metrics of its last log line.
      failure: why there is no result, in a line; "" for a run that finished.
    """

    folder: Path
    experiment: str
    flags: Mapping[str, Any]
    begun: Mapping[str, Any]
    result: Mapping[str, Any]
    logged: Mapping[str, float]
    failure: str = ""

    @property
    def numbers(self) -> dict[str, float]:
        """Returns the metrics that were logged last in training, and the final evaluation's.

        What could not be measured, null in the file, is left out.
        """
        measured = self.result.get("metrics", {}).items()
        known = {name: float(value) for name, value in measured if value is not None}
        return {**self.logged, **known}

    @property
    def best(self) -> tuple[str, str]:
        """Returns the metric that the experiment is judged by, and "max" or "min"."""
        name, mode = self.result.get("best", ("", "max"))
        return name, mode

    def value(self, metric: str) -> float:
        """Returns a metric's final value; NaN for a run that failed or has none."""
        return math.nan if self.failure else float(self.numbers.get(metric, math.nan))


def is_run(folder: Path) -> bool:
    """Returns whether a folder is that of a run, or of one that failed before it began."""
    return (folder / CONFIG).is_file() or (folder / FAILURE).is_file()


def read_run(folder: Path) -> Run:
    """Reads a run's folder; where there is none, or nothing in it, the run was not begun.

    Raises:
      UserError: where one of its files is damaged.
    """
    sealing.verify(folder)
    begun, result, failed = (_read(folder / name) for name in (CONFIG, RESULT, FAILURE))
    logged = last_row(folder / LOG)
    failure = ""
    if not result:
        step, of = logged.get("step", 0), begun.get("plan", {}).get("steps")
        known = isinstance(step, int) and isinstance(of, int)
        failure = f"unfinished: step {step:,} of {of:,}" if known else "unfinished"
        failure = failure if begun else "not begun"
        if failed:
            failure = str(failed.get("reason") or failed.get("kind"))
    training = {
        name: float(value)
        for name, value in logged.items()
        if name.startswith("train/") and isinstance(value, int | float)
    }
    return Run(
        folder,
        begun.pop("experiment", ""),
        begun.pop("config", {}),
        begun,
        result,
        training,
        failure,
    )


def _read(file: Path) -> dict[str, Any]:
    """Reads a JSON object; {} where there is no such file."""
    if not file.exists():
        return {}
    try:
        found = read_json(file)
    except UserError as error:
        raise UserError(f"{error}; bring it back, or leave its run out.") from None
    if not isinstance(found, dict):
        raise UserError(f"{file}: holds no JSON object; bring it back, or leave its run out.")
    for name, value in found.items():
        if not _is_kind(value, KINDS[file.name].get(name, object)):
            raise UserError(
                f"{file}: {name} is not what runs write; bring it back, or leave its run out."
            )
    if file.name == RESULT and not _is_result(found):
        raise UserError(f"{file}: is not what runs write; bring it back, or leave its run out.")
    return found


def _is_kind(value: Any, kind: Any) -> bool:
    """Returns whether a value, and what it holds, is of a kind of `KINDS`."""
    if isinstance(kind, Mapping):
        return isinstance(value, dict) and all(
            _is_kind(value[name], inner) for name, inner in kind.items() if name in value
        )
    if isinstance(kind, list):
        return isinstance(value, list) and all(_is_kind(x, kind[0]) for x in value)
    return isinstance(value, kind)


def _is_result(found: Mapping[str, Any]) -> bool:
    """Returns whether metrics are numbers, or null, and the best one is named by two words."""
    metrics, best = found.get("metrics", {}), found.get("best", ["", "max"])
    numbers = all(
        x is None or type(x) is float or (type(x) is int and abs(x) < sys.float_info.max)
        for x in metrics.values()
    )
    return numbers and len(best) == 2 and all(isinstance(x, str) for x in best)


def log_lines(folder: Path) -> list[str]:
    """Returns the lines of a run's log; none where there is no log."""
    file = folder / LOG
    return read_text(file).splitlines() if file.exists() else []


def parsed(line: str) -> dict[str, Any]:
    """Returns a log line's content; {} for what is none, such as one left unfinished."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def last_row(file: Path, size: int = 2**16) -> dict[str, Any]:
    """Returns the last whole line of a log without reading the rest; {} where there is none."""
    try:
        with open(file, "rb") as log:
            log.seek(0, 2)
            log.seek(max(0, log.tell() - size))
            tail = log.read().decode(errors="replace")
    except FileNotFoundError:
        return {}
    return next((row for row in map(parsed, reversed(tail.splitlines())) if row), {})
