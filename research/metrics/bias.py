"""Bias: whether predictions are too large, too many or beside, in a line for a person.

Accuracy, IoU and average precision say how good predictions are, not what is wrong with them. A
ratio of what is predicted to what is true does: boxes that are 1.3 times too wide, a class that is
called twice as often as it comes.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

LOW, HIGH = 0.9, 1.1  # ratios between them are no bias worth a warning
SHOWN = 4  # ratios in a line, at most


class Ratio(NamedTuple):
    """Predicted over true, and its standard error; NaN where there are too few examples."""

    value: float
    error: float

    @property
    def off(self) -> bool:
        """Whether it lies outside LOW to HIGH by more than two standard errors."""
        return self.value - 2 * self.error > HIGH or self.value + 2 * self.error < LOW

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {self.error:.2f}"


class Bias(NamedTuple):
    """What a bias of a split's predictions would look like.

    Attributes:
      what: what the ratios are of, such as "predicted / true area".
      ratios: by what they are of ("width", a class); 1 where nothing is biased.
      also: further numbers, which no bound says to be wrong.
      warning: what makes the ratios themselves doubtful; "" where nothing does.
    """

    what: str
    ratios: Mapping[str, Ratio]
    also: Mapping[str, float] = {}
    warning: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, as result.json holds it; what is no number is None."""
        numbers = {name: [_json(x) for x in ratio] for name, ratio in self.ratios.items()}
        also = {name: _json(value) for name, value in self.also.items()}
        told = {"line": self.line(), "warnings": self.warnings()}
        return {"what": self.what, "ratios": numbers, "also": also, **told}

    def line(self) -> str:
        """The ratios in words; of many, those that are the furthest from 1."""
        known = {name: ratio for name, ratio in self.ratios.items() if math.isfinite(ratio.value)}
        far = sorted(known, key=lambda name: -abs(known[name].value - 1))[:SHOWN]
        parts = [f"{name} {ratio}" for name, ratio in known.items() if name in far]
        if len(known) > SHOWN:
            parts[-1] += f" (the furthest from 1 of {len(known)})"
        parts += [] if parts or not self.ratios else ["unknown"]
        parts += [f"{name} {value:.3g}" for name, value in self.also.items()]
        return f"{self.what}: {', '.join(parts)}"

    def warnings(self) -> list[str]:
        """What must be looked into, one line each; none where nothing is wrong."""
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
    either occurs: those of neither say nothing of how the ratio varies. It needs two examples, and
    of few it is too low.
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
