"""Words and numbers for a person: a metric in its own unit, with the digits that are known."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from research.comparison.statistics import ALPHA

# Words of metrics' names that mean a share in 0..1; "error" alone may be in any unit.
SHARES = {
    *("accuracy", "iou", "miou", "dice", "f1", "auc", "precision", "acceptance", "one_shot_error"),
    *("equal_error_rate", "calibration_error"),
}
BEGINNINGS = ("map", "bleu", "recall")
# Words of the names of metrics of which less is better.
LOWER = {"loss", "error", "perplexity", "entropy", "distance", "bits", "identical"}


class Metric(NamedTuple):
    """The metric that is compared.

    Attributes:
      name: as in result.json, such as "test/accuracy": what stands before "/" is the split.
      higher_is_better: False for losses and errors.
      points: a share in 0..1, which is said in points: 0.01 is one.
    """

    name: str
    higher_is_better: bool = True
    points: bool = False


def in_points(name: str, values: Sequence[float]) -> bool:
    """Guesses whether a metric is a share: its name says so, and all values lie in 0..1."""
    last = name.rpartition("/")[2]
    words = last.split("_")
    named = last.endswith(tuple(SHARES)) or any(word.startswith(BEGINNINGS) for word in words)
    return named and all(0 <= value <= 1 for value in values if math.isfinite(value))


def lower_is_better(name: str) -> bool:
    """Tells from its name whether less of a metric is better.

    Args:
      name: as in result.json, such as "test/cross_entropy".
    """
    _, _, short = name.partition("/")
    return not LOWER.isdisjoint(short.partition("/")[0].split("_"))


def show(value: float, metric: Metric, signed: bool = False) -> str:
    """Returns a value or difference with its unit, such as "0.8 points"; "-" for a failed run."""
    if not math.isfinite(value):
        return "-"
    number = f"{100 * value if metric.points else value:{'+' if signed else ''}.4g}"
    unit = " point" if number.lstrip("+-") == "1" else " points"
    return f"{number}{unit}" if metric.points else number


def digits(metric: Metric, low: float, high: float) -> Callable[[float], str]:
    """Returns how numbers of one interval are written: with the digits that its width bears out.

    Without the unit. A width of three units or more of its first digit is written with that digit,
    a smaller one with two; an end that is not zero never looks so.
    """
    scale = 100.0 if metric.points else 1.0
    half = (high - low) / 2 * scale
    form = ".3g"
    if math.isfinite(half) and half > 0:
        leading = math.floor(math.log10(half))
        decimals = max(-leading + (half / 10**leading < 3), 0)
        ends = [abs(end) * scale for end in (low, high) if end]
        while decimals < 9 and any(float(f"{end:.{decimals}f}") == 0 for end in ends):
            decimals += 1
        form = f".{decimals}f" if decimals < 7 else ".3g"

    def write(value: float) -> str:
        text = f"{value * scale:{form}}"
        return text.removeprefix("-") if float(text) == 0 else text

    return write


def chance(p: float) -> str:
    """Returns "p = 0.012" or "p < 0.001"; rounding never carries it over 0.05."""
    if p < 0.001:
        return "p < 0.001"
    text = f"{p:.2g}"
    return f"p = {text}" if (float(text) < ALPHA) == (p < ALPHA) else f"p = {p:.4g}"
