"""The test set's own uncertainty: examples drawn anew, runs too, and one run against one run.

A score of a test set would be another with other examples from where these came from, as it would
be with other seeds. `draw_scores` computes the scores of examples that are drawn with replacement;
`over_examples` and `over_seeds_and_examples` make intervals of them.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special, stats

from research.comparison.statistics import CONFIDENCE
from research.errors import UserError

MIN_SEEDS = 10  # fewer say too little of the seeds that might be drawn
DRAWS = 2000
BLOCK = 2**22  # counts of examples that are held at a time

Chosen = Int[np.ndarray, " example"]
# One run's score of chosen examples: positions, of which some come again and others never.
Score = Callable[[Chosen], float]


class Means(NamedTuple):
    """Outcomes of runs whose score is a mean: sum(values * weights) / sum(weights)."""

    values: Float[np.ndarray, "run example"]
    weights: Float[np.ndarray, "run example"]


class Scores(NamedTuple):
    """Scores of runs on the test set, and on each draw of its examples.

    Attributes:
      observed: of the test set itself.
      drawn: of as many examples, drawn with replacement; the same for all runs.
      examples: of the test set.
      seed: of the draws.
    """

    observed: Float[np.ndarray, " run"]
    drawn: Float[np.ndarray, "draw run"]
    examples: int
    seed: int


class Resampled(NamedTuple):
    """A mean over runs, or a difference of two, with its uncertainty.

    Attributes:
      estimate: of the runs and examples that there are.
      low, high: the 95 % interval.
      seeds_error: the standard error that comes from seeds; 0 where runs are not drawn.
      examples_error: the standard error that comes from examples.
      draws: the estimate in each draw, as it came, for a picture.
    """

    estimate: float
    low: float
    high: float
    seeds_error: float
    examples_error: float
    draws: Float[np.ndarray, " draw"]


class McNemar(NamedTuple):
    """One run against one run on the same examples.

    Attributes:
      only_a, only_b: examples that one alone gets right.
      n: all examples.
      difference: share that a gets right, minus that of b.
      low, high: its 95 % interval (Bonett & Price, 2012: Wald's, with an example added to each).
      p: exact, two-sided: that those of one alone fall to either like a coin.
    """

    only_a: int
    only_b: int
    n: int
    difference: float
    low: float
    high: float
    p: float


def draw_scores(
    runs: Means | Sequence[Score], examples: int, draws: int = DRAWS, seed: int = 0
) -> Scores:
    """Scores each run on `draws` resamples of the examples.

    The same `seed` and number of examples give the same examples: two sides, whose examples stand
    in the same order, are so compared on the same. Scores of whole sets that look for neighbours
    among the examples (recall@k) are no use here: an example that is drawn twice finds itself.

    Args:
      runs: outcomes whose mean is the score, or a function for each run (mAP, mIoU, BLEU).

    Raises:
      UserError: for fewer than two examples, or a run without a finite score on them.
    """
    if examples < 2:
        raise UserError(f"resampling needs two examples or more; there are {examples}")
    observed = _means(runs) if isinstance(runs, Means) else _score(runs, np.arange(examples))
    if not np.isfinite(observed).all():
        raise UserError("a run has no finite score on these examples: leave out runs that failed")
    generator = np.random.default_rng(seed)
    size = max(BLOCK // examples, 1)
    parts = []
    for first in range(0, draws, size):
        rows = min(size, draws - first)
        chosen = generator.integers(examples, size=(rows, examples))
        if isinstance(runs, Means):
            chosen += examples * np.arange(rows)[:, None]  # each row counts apart
            counts = np.bincount(chosen.ravel(), minlength=rows * examples)
            parts.append(_means(runs, counts.reshape(rows, examples).astype(float)))
        else:
            parts.append(np.stack([_score(runs, row) for row in chosen]))
    return Scores(observed, np.concatenate(parts), examples, seed)


def _score(runs: Sequence[Score], chosen: Chosen) -> Float[np.ndarray, " run"]:
    return np.array([score(chosen) for score in runs], float)


def _means(runs: Means, counts: Float[np.ndarray, "draw example"] | None = None) -> np.ndarray:
    """Returns each run's mean over all examples, or over `counts` of each; NaN without weight."""
    weights = np.asarray(runs.weights, float).T
    products = np.where(weights > 0, np.asarray(runs.values, float).T, 0.0) * weights
    if counts is None:
        total, weight = products.sum(0), weights.sum(0)
    else:
        total, weight = counts @ products, counts @ weights
    return np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), np.nan)


def over_examples(a: Scores, b: Scores | None = None) -> Resampled:
    """Returns the uncertainty of these very runs: their mean, or a - b, were other examples drawn.

    Draws without a score are left out.
    """
    arms = _arms(a, b, pairs=False)
    draws = _finite(_combined(arms, [arm.drawn.mean(1) for arm in arms]))
    estimate = _estimate(arms)
    error = math.sqrt(_variance(draws, a.examples))
    low, high = _interval(estimate, error, a.examples - 1.0, draws)
    return Resampled(estimate, low, high, 0.0, error, draws)


def over_seeds_and_examples(
    a: Scores, b: Scores | None = None, pairs: bool = True, seed: int = 0
) -> Resampled:
    """Returns the uncertainty of the mean over runs, or of a - b: other seeds, other examples.

    Both are drawn, runs and examples crossed (Owen, "The pigeonhole bootstrap", 2007). Such draws
    spread too little for a few seeds, and count three times what only this seed on this example
    does. So the interval takes their shape alone. Its width comes from the parts of the variance:
    of the runs' scores, and of the draws of examples, less what both of these count; with the
    quantiles of t for so many seeds (Satterthwaite).

    Args:
      pairs: run i of both sides share their seed, and are drawn together.

    Raises:
      UserError: below 10 runs a side.
    """
    fewest = min(len(side.observed) for side in (a, b) if side is not None)
    if fewest < MIN_SEEDS:
        raise UserError(
            f"{fewest} seeds are too few to be drawn from: the bootstrap over seeds and examples "
            f"needs {MIN_SEEDS}; with fewer, examples alone are drawn"
        )
    if pairs and b is not None and len(a.observed) != len(b.observed):
        raise UserError(
            f"{len(a.observed)} and {len(b.observed)} runs are no pairs of one seed each"
        )
    arms = _arms(a, b, pairs)
    examples = _variance(_finite(_combined(arms, [arm.drawn.mean(1) for arm in arms])), a.examples)
    runs, twice, spread = 0.0, 0.0, examples**2 / (a.examples - 1)
    for arm in arms:
        n, finite = len(arm.observed), arm.drawn[np.isfinite(arm.drawn).all(1)]
        of_mean = float(arm.observed.var(ddof=1)) / n
        alone = float(np.mean([_variance(column, a.examples) for column in finite.T]))
        runs += of_mean
        # What one run alone does on an example is whole in `alone`, 1/n of it in their mean.
        twice += (alone - _variance(finite.mean(1), a.examples)) / (n - 1)
        spread += of_mean**2 / (n - 1)
    seeds = max(runs - twice, 0.0)
    variance = seeds + examples
    freedom = max(variance**2 / spread, fewest - 1.0) if spread else fewest - 1.0
    generator = np.random.default_rng([seed, 1])  # not the numbers that drew the examples
    draws = _finite(_combined(arms, [_some(arm.drawn, generator).mean(1) for arm in arms]))
    estimate = _estimate(arms)
    low, high = _interval(estimate, math.sqrt(variance), freedom, draws)
    return Resampled(estimate, low, high, math.sqrt(seeds), math.sqrt(examples), draws)


def mcnemar(a: Bool[np.ndarray, " example"], b: Bool[np.ndarray, " example"]) -> McNemar:
    """Compares which examples two runs get right: McNemar's test, exact.

    It says something of these two runs on such examples, nothing of other seeds.
    """
    n, only_a, only_b = len(a), int((a & ~b).sum()), int((b & ~a).sum())
    p = float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    first, second = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = _z() * math.sqrt((first + second - (first - second) ** 2) / (n + 2))
    middle = first - second
    low, high = max(middle - half, -1.0), min(middle + half, 1.0)
    return McNemar(only_a, only_b, n, (only_a - only_b) / n, low, high, p)


class _Arm(NamedTuple):
    """Runs that are drawn together, of one side or differences of pairs, with the mean's sign."""

    observed: Float[np.ndarray, " run"]
    drawn: Float[np.ndarray, "draw run"]
    sign: float = 1.0


def _arms(a: Scores, b: Scores | None, pairs: bool) -> list[_Arm]:
    if b is None:
        return [_Arm(a.observed, a.drawn)]
    if (a.examples, a.seed, len(a.drawn)) != (b.examples, b.seed, len(b.drawn)):
        raise UserError(
            f"both sides need the same draws of the same examples: {len(a.drawn)} of {a.examples} "
            f"with seed {a.seed}, and {len(b.drawn)} of {b.examples} with seed {b.seed}"
        )
    if pairs:
        return [_Arm(a.observed - b.observed, a.drawn - b.drawn)]
    return [_Arm(a.observed, a.drawn), _Arm(b.observed, b.drawn, -1.0)]


def _combined(arms: list[_Arm], means: list[np.ndarray]) -> np.ndarray:
    return np.sum([arm.sign * mean for arm, mean in zip(arms, means, strict=True)], 0)


def _estimate(arms: list[_Arm]) -> float:
    return sum(arm.sign * float(arm.observed.mean()) for arm in arms)


def _some(drawn: Float[np.ndarray, "draw run"], generator: np.random.Generator) -> np.ndarray:
    """Returns as many runs, drawn anew for each draw of examples."""
    return np.take_along_axis(drawn, generator.integers(drawn.shape[1], size=drawn.shape), 1)


def _variance(draws: Float[np.ndarray, " draw"], examples: int) -> float:
    """Returns the variance of draws of examples, without the bias of drawing from so few."""
    return float(draws.var(ddof=1)) * examples / (examples - 1)


def _interval(
    estimate: float, error: float, freedom: float, draws: Float[np.ndarray, " draw"]
) -> tuple[float, float]:
    """Returns the draws' 95 % interval, moved to the estimate and stretched to its own error."""
    if not error:
        return estimate, estimate
    wanted = error * float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))
    stretch = wanted / (_z() * float(draws.std(ddof=1)))
    ends = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]) - draws.mean()
    return estimate + stretch * float(ends[0]), estimate + stretch * float(ends[1])


def _finite(draws: np.ndarray) -> np.ndarray:
    return draws[np.isfinite(draws)]


def _z() -> float:
    return float(special.ndtri((1 + CONFIDENCE) / 2))
