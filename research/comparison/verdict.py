"""The verdict of a comparison in words, with what it rests on and how far it reaches.

It speaks of the runs that were made: their test set, flags and budget. That nothing was found is
"undecided", with the interval and what it would take; equality is claimed only within a smallest
difference that was declared.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple, cast

import numpy as np
from scipy import stats

from research.comparison import statistics
from research.comparison.resampling import McNemar
from research.comparison.sides import Comparison
from research.comparison.statistics import ALPHA, FEWEST_FOR_VERDICTS, Difference, Result
from research.comparison.wording import Metric, chance, digits, show

MOST_SEEDS = 10_000  # of what is needed: more is "more than"

Kind = Literal[
    "no inference", "identical", "undecided", "suggestive", "equivalent", "lower", "higher"
]


class Verdict(NamedTuple):
    """The claim that may be made.

    Attributes:
      kind: in one word; "lower" and "higher" are of the metric, whichever is better.
      text: one or more sentences.
      p: of the difference, adjusted for all variants; NaN where nothing is inferred.
      warnings: sentences that a reader of the verdict has to see beside it.
    """

    kind: Kind
    text: str
    p: float
    warnings: Sequence[str]


def decide(n: int, difference: Difference, p: Result, equivalence: Result) -> np.ndarray:
    """Returns the kind of verdict, for one comparison or many with n seeds each.

    Args:
      n: pairs, or runs of the smaller side.
      p, equivalence: of the difference and of two one-sided tests, adjusted for all variants.
    """
    seen = np.asarray(p) < ALPHA
    estimate, error = np.asarray(difference.estimate), np.asarray(difference.error)
    few = n < FEWEST_FOR_VERDICTS
    kinds = {
        "no inference": np.full(seen.shape, n < statistics.FEWEST_FOR_INFERENCE),
        "identical": (error == 0) & (estimate == 0),
        # Without spread, five pairs that all point one way have p = 0.0625.
        "suggestive": (seen & few) | ((error == 0) & ~seen),
        "higher": seen & (estimate > 0),
        "lower": seen & (estimate < 0),
        "equivalent": (np.asarray(equivalence) < ALPHA) & (not few),
    }
    return np.select(list(kinds.values()), list(kinds), "undecided")


def verdicts(
    comparisons: Mapping[str, Comparison],
    baseline: str,
    metric: Metric,
    late: Collection[str] = (),
    reasons: Mapping[str, Mapping[int, str]] | None = None,
) -> dict[str, Verdict]:
    """Says what each comparison with one baseline shows, by the variant's name.

    All that are given count as tried: p is adjusted for them together (Holm).

    Args:
      late: variants that were added after results had been looked at.
      reasons: why runs failed, by the name of the variant (or baseline) and the seed.
    """
    p = statistics.holm([float(one.difference.p) for one in comparisons.values()])
    within = statistics.holm([one.equivalence for one in comparisons.values()])
    holm = "Holm " if np.isfinite(p).sum() > 1 else ""
    why = reasons or {}
    found = {}
    for i, (name, one) in enumerate(comparisons.items()):
        kind = cast(Kind, str(decide(one.n, one.difference, p[i], within[i])))
        words = _Words(name, baseline, metric, one, holm, float(p[i]), float(within[i]))
        notes = [
            f"{_sentence(kind, words)}, {_reach(metric)}.",
            _failures(name, one.variant, one.failed["variant"], why.get(name, {})),
            _failures(baseline, one.baseline, one.failed["baseline"], why.get(baseline, {})),
        ]
        if name in late:
            notes.append(
                f"{name} was added after looking at results: this explores, and claims nothing "
                "before it is repeated with new seeds."
            )
        found[name] = Verdict(kind, " ".join(filter(None, notes)), float(p[i]), _warnings(one))
    return found


def one_run_verdict(test: McNemar, variant: str, baseline: str, metric: Metric) -> str:
    """Says what one run against one run shows: of these two on such examples, not of seeds."""
    shown = digits(metric._replace(points=True), test.low, test.high)
    return (
        f"no inference over seeds from one run each. Of {test.n:,} examples this run of {variant} "
        f"alone is right on {test.only_a:,}, this one of {baseline} alone on {test.only_b:,}: "
        f"{shown(test.difference)} points (95 % {shown(test.low)} to {shown(test.high)}; exact "
        f"McNemar {chance(test.p)}), {_reach(metric)}."
    )


class _Words(NamedTuple):
    """The parts of a sentence."""

    name: str
    baseline: str
    metric: Metric
    one: Comparison
    holm: str  # what stands before p
    p: float
    within: float

    @property
    def seeds(self) -> str:
        if self.one.pairs:
            return f"{self.one.n} paired seed{'s' * (self.one.n != 1)}"
        return f"{self.one.variant.n} and {self.one.baseline.n} runs"

    @property
    def unit(self) -> str:
        return " points" if self.metric.points else ""

    @property
    def smallest(self) -> str:
        return show(self.one.smallest or 0.0, self.metric)

    @property
    def higher(self) -> str:
        """ "A is higher than B by 0.8 points", and whether that is better where less is."""
        difference = self.one.difference
        amount = abs(float(difference.estimate))
        shown = digits(self.metric, float(difference.low), float(difference.high))
        up = difference.estimate >= 0
        judged = "" if self.metric.higher_is_better else f", which is {'worse' if up else 'better'}"
        return (
            f"{self.name} is {'higher' if up else 'lower'} than {self.baseline} by "
            f"{shown(amount)}{self.unit}{judged}"
        )

    @property
    def evidence(self) -> str:
        """The interval of the amount by which one is higher or lower, seeds, and p."""
        difference, p = self.one.difference, f"{self.holm}{chance(self.p)}"
        low, high = float(difference.low), float(difference.high)
        if difference.error == 0:
            return f"no spread; {self.seeds}; exact permutation, {p}"
        if difference.estimate < 0:
            low, high = -high, -low
        shown = digits(self.metric, low, high)
        return f"95 % {shown(low)} to {shown(high)}; {self.seeds}; {p}"


def _sentence(kind: Kind, words: _Words) -> str:
    one, difference = words.one, words.one.difference
    if kind == "no inference":
        if not one.n:
            pair = "no seed finished on both sides" if one.pairs else "a side has no finished run"
            return f"no inference: {pair}"
        return f"no inference from {words.seeds}: {words.higher} in these"
    if kind == "identical":
        return f"identical: {words.name} and {words.baseline} have the same value in {words.seeds}"
    if kind in ("higher", "lower"):
        also = f" and equivalent within {words.smallest}" if words.within < ALPHA else ""
        return f"{words.higher} ({words.evidence}){also}"
    if kind == "suggestive":
        return f"suggestive: {words.higher} ({words.evidence})"
    if kind == "equivalent":
        estimate = float(difference.estimate)
        # Two tests at 5 % each: what lies within is the 90 % interval.
        half = float(stats.t.ppf(0.95, difference.freedom)) * float(difference.error)
        low, high = estimate - half, estimate + half
        shown = digits(words.metric, low, high)
        return (
            f"equivalent within {words.smallest}: {shown(estimate)} (90 % {shown(low)} to "
            f"{shown(high)}; {words.seeds}; {words.holm}{chance(words.within)})"
        )
    low, high = float(difference.low), float(difference.high)
    shown = digits(words.metric, low, high)
    return (
        f"undecided: {shown(low)} to {shown(high)}{words.unit} (95 %; {words.seeds}; "
        f"{words.holm}{chance(words.p)}); {_needed(words)}"
    )


def _needed(words: _Words) -> str:
    needed = words.one.needed
    if needed is None:
        return "no smallest difference of interest was declared, so seeds needed are not known"
    low, high = (max(bound, FEWEST_FOR_VERDICTS) for bound in needed)
    if high <= words.one.n:
        return f"so many seeds show {words.smallest} in four of five studies"
    names = [
        f"{bound:,}" if bound <= MOST_SEEDS else f"more than {MOST_SEEDS:,}"
        for bound in (low, high)
    ]
    number = " to ".join(dict.fromkeys(names))
    seeds = "seeds" if words.one.pairs else "seeds a side"
    return f"{number} {seeds} would show {words.smallest} at 80 % power"


def _reach(metric: Metric) -> str:
    split = metric.name.rpartition("/")[0].partition("/")[0] or "test"
    return f"on this {split} set, with these hyperparameters and this budget"


def _failures(
    name: str, side: statistics.Summary, seeds: Sequence[int], reasons: Mapping[int, str]
) -> str:
    if not seeds:
        return ""
    named = [
        f"seed {seed}: {reasons[seed]}" if seed in reasons else f"seed {seed}" for seed in seeds
    ]
    return (
        f"{len(seeds)} of {side.runs} runs of {name} failed ({'; '.join(named)}); the difference "
        "is of those that finished."
    )


def _warnings(one: Comparison) -> list[str]:
    found = []
    if one.disagrees:
        found.append(
            f"the exact permutation test says {chance(one.permutation)} where the t test "
            f"alone says {chance(float(one.difference.p))}: the values may not be normal, so look "
            "at every point"
        )
    if one.left_out:
        found.append(
            f"{one.left_out} finished run{'s take' if one.left_out > 1 else ' takes'} no part: no "
            "run of the same seed finished on the other side"
        )
    return found
