"""A tuning: the trials of a search, ranked on validation data alone, and where to look next."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from research.comparison.conditions import cost
from research.comparison.runs import LOG, last_row, read_run
from research.comparison.search import Choices, Range, Space
from research.config import Option, show
from research.record.run_folder import read_stopped

ETA = 3  # of the trials of a rung, the best third goes on, three times as far
FEW = 3  # trials whose ranges say anything
EDGE, BEYOND = 0.1, 0.25  # shares of a range: what counts as its end, and how far to look past it


class Rung(NamedTuple):
    """A stage of successive halving: how many trials reach which share of their steps."""

    trials: int
    share: float


def rungs(trials: int, halving: bool) -> list[Rung]:
    """Returns the stages in order; without halving, one of all trials and all their steps.

    Of 16 trials, all train for a ninth of their steps, the best 5 on to a third, the best to the
    end. (Jamieson and Talwalkar 2016, with a factor of 3 for 2.)
    """
    levels = 0
    while halving and ETA ** (levels + 1) <= trials:
        levels += 1
    return [Rung(trials // ETA**i, float(ETA) ** (i - levels)) for i in range(levels + 1)]


class Trial(NamedTuple):
    """A trial, as far as it got.

    Attributes:
      name: of its variant.
      flags: the searched ones, by name.
      value: of the validation metric, at the last step; NaN where there is none.
      share: of its steps that it was trained for, if it did not fail.
      spent: {"steps", "examples", "seconds"} that it took, as far as is known.
      failure: why it has no value, in a line; "" where it has one.
    """

    name: str
    flags: Mapping[str, Any]
    value: float
    share: float
    spent: Mapping[str, float]
    failure: str = ""


def read_trial(name: str, flags: Mapping[str, Any], folder: Path, metric: str) -> Trial:
    """Reads a trial's run, finished, left on the way or failed."""
    run = read_run(folder)
    stopped = {} if run.result else read_stopped(folder)
    result = run.result or stopped
    failure = "" if result else run.failure
    measured = result.get("metrics", {}).get(metric)
    value = math.nan if measured is None else float(measured)
    if result and not math.isfinite(value):
        failure = f"{metric} is no number"
    spent = cost(run._replace(result=result or last_row(folder / LOG)))
    spent = {key: spent.get(key, 0.0) for key in ("steps", "examples", "seconds")}
    share = 1.0 if run.result else stopped.get("stop_after", 0.0)
    return Trial(name, flags, value, share, spent, failure)


def ranked(trials: Sequence[Trial], mode: str) -> list[Trial]:
    """Returns them best first: those that got furthest, by their value; the failed ones last.

    Args:
      mode: "max" or "min".
    """
    sign = -1.0 if mode == "max" else 1.0

    def key(trial: Trial) -> tuple[bool, float, float]:
        return (bool(trial.failure), -trial.share, 0.0 if trial.failure else sign * trial.value)

    return sorted(trials, key=key)


class Finer(NamedTuple):
    """A row of the coarse-to-fine table, of one flag.

    Attributes:
      searched, best, quarter: what was searched, the best trial's value, and the values of the
        best quarter, as --search takes them.
      next: what to search next: --search=FLAG=NEXT.
      note: "" where the best lie well within.
    """

    flag: str
    searched: str
    best: str
    quarter: str
    next: str
    note: str = ""


def finer(space: Space, trials: Sequence[Trial], options: Sequence[Option]) -> list[Finer]:
    """Says for each flag where the best quarter of the trials lies, and where to look next.

    Args:
      trials: ranked; those that failed are passed over.
    """
    good = [trial for trial in trials if not trial.failure]
    if not good:
        return []
    best = good[: max(FEW, math.ceil(len(good) / 4))]
    rows = {row.flag: row for row in options}
    found = []
    for flag, dimension in space.items():
        values = [trial.flags[flag] for trial in best]
        if isinstance(dimension, Choices):
            kept = [value for value in dimension.values if value in values]
            counts = ", ".join(f"{show(v)} {values.count(v)} of {len(values)}" for v in kept)
            closer = Choices(tuple(kept)).text()
            row = Finer(flag, dimension.text(), show(values[0]), counts, closer)
        else:
            row = _finer(dimension, values, len(good), rows[flag])
        found.append(row)
    return found


def _finer(of: Range, values: Sequence[float], count: int, row: Option) -> Finer:
    """Narrows a range to its best values and a gap between trials on both sides of them."""
    places = [of.place(value) for value in values]
    low, high = min(places) - 1 / count, max(places) + 1 / count
    note = ""
    if places[0] < EDGE:
        low, note = min(places) - BEYOND, "the best lies at the lower end: look below"
    if places[0] > 1 - EDGE:
        high, note = max(places) + BEYOND, "the best lies at the upper end: look above"
    low = low if note.endswith("below") else max(low, 0.0)
    high = high if note.endswith("above") else min(high, 1.0)
    least = -math.inf if row.minimum is None else row.minimum
    most = math.inf if row.maximum is None else row.maximum
    lower, upper = (min(max(of.at(place), least), most) for place in (low, high))
    if of.whole and of.scale == "log":
        lower = max(lower, 1)
    narrowed = of._replace(low=lower, high=upper, points=0)
    quarter = of._replace(low=min(values), high=max(values), points=0)
    return Finer(row.flag, of.text(), show(values[0]), quarter.text(), narrowed.text(), note)
