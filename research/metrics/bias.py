"""Bias: whether predictions are too large, too many or displaced, in a line for a person.

Accuracy, IoU and average precision measure how good predictions are, not how they fail. A ratio of
predicted to true values does: boxes that are 1.3 times too wide, a class that is predicted twice as
often as it occurs.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

LOW, HIGH = 0.9, 1.1  # ratios between them need no warning
SHOWN = 4  # ratios in a line, at most


class Ratio(NamedTuple):
    """A ratio of predicted to true, and its standard error; NaN for too few examples."""

    value: float
    error: float

    @property
    def off(self) -> bool:
        """Returns whether the ratio lies outside LOW to HIGH by more than two standard errors."""
        return self.value - 2 * self.error > HIGH or self.value + 2 * self.error < LOW

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {self.error:.2f}"


class Bias(NamedTuple):
    """The systematic errors of a split's predictions.

    Attributes:
      what: the ratios' meaning, such as "predicted / true area".
      ratios: by name ("width", a class); 1 means no bias.
      also: further numbers, which have no bounds.
      warning: the reason why the ratios themselves are doubtful; "" if they are not.
    """

    what: str
    ratios: Mapping[str, Ratio]
    also: Mapping[str, float] = {}
    warning: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON for result.json, in which NaN is None."""
        numbers = {name: [_json(x) for x in ratio] for name, ratio in self.ratios.items()}
        also = {name: _json(value) for name, value in self.also.items()}
        told = {"line": self.line(), "warnings": self.warnings()}
        return {"what": self.what, "ratios": numbers, "also": also, **told}

    def line(self) -> str:
        """Writes the ratios in words; of many, those that are the furthest from 1."""
        known = {name: ratio for name, ratio in self.ratios.items() if math.isfinite(ratio.value)}
        far = sorted(known, key=lambda name: -abs(known[name].value - 1))[:SHOWN]
        parts = [f"{name} {ratio}" for name, ratio in known.items() if name in far]
        if len(known) > SHOWN:
            parts[-1] += f" (the furthest from 1 of {len(known)})"
        parts += [] if parts or not self.ratios else ["unknown"]
        parts += [f"{name} {value:.3g}" for name, value in self.also.items()]
        return f"{self.what}: {', '.join(parts)}"

    def warnings(self) -> list[str]:
        """Lists warnings for a person, one line each; none if nothing is wrong."""
        off = {name: ratio for name, ratio in self.ratios.items() if ratio.off}
        lines = [self.warning] if self.warning else []
        if off:
            worst = max(off, key=lambda name: abs(off[name].value - 1))
            others = f" and {len(off) - 1} more" if len(off) > 1 else ""
            lines.append(
                f"{self.what} is biased: {worst} {off[worst]}{others}; unbiased would be "
                f"{LOW} to {HIGH}"
            )
        return lines


def ratio_of_sums(part: Shaped[np.ndarray, " n"], whole: Shaped[np.ndarray, " n"]) -> Ratio:
    """Returns the sum of `part` over that of `whole`, which hold a number for every example.

    With R the ratio, the standard error is √(m / (m - 1) Σ (partᵢ - R wholeᵢ)²) / Σ wholeᵢ
    (Cochran, "Sampling techniques", 1977, section 2.11), where m is the number of examples in which
    either occurs: the others tell nothing about the ratio's variance. It needs two examples, and is
    too low for few.
    """
    part, whole = (np.asarray(x, np.float64) for x in (part, whole))
    if not whole.any():
        return Ratio(math.nan, math.nan)
    ratio = part.sum() / whole.sum()
    examples = np.count_nonzero(part + whole)
    if examples < 2:
        return Ratio(float(ratio), math.nan)
    spread = ((part - ratio * whole) ** 2).sum() * examples / (examples - 1)
    return Ratio(float(ratio), float(math.sqrt(spread) / whole.sum()))


def _json(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
