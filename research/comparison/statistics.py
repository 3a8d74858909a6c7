"""Statistics of a metric over seeds: intervals, tests of differences, how many seeds these need.

All are functions of arrays. A value that is not finite is a run that failed. Where the values of a
side, or the differences of pairs, have no spread beyond rounding, a t test would divide by nothing:
its interval is NaN, and its p is that of the exact permutation test.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import optimize, special, stats

ALPHA = 0.05
CONFIDENCE = 1 - ALPHA
FEWEST_FOR_INFERENCE = 3  # seeds; below: point estimates alone
FEWEST_FOR_VERDICTS = 5  # of three or four "suggestive" is the most that is said
RESOLUTION = 1e-7  # of the largest value, about that of float32: less is no spread
EXACT_FLIPS = 20  # pairs: 2^20 sums
EXACT_LABELS = 200_000  # ways to choose one side's runs: 184,756 for ten against ten
RANDOM_PERMUTATIONS = 100_000

Values = Float[np.ndarray, " run"]
Others = Float[np.ndarray, " other"]  # of a side that need not have as many runs
Batch = Float[np.ndarray, "*batch run"]
Result = float | np.ndarray  # of a function of Batch: an array with the leading axes


class Summary(NamedTuple):
    """The values of a variant's runs, summarised.

    Attributes:
      runs: all of them, those that failed included.
      n: runs that finished.
      mean: of those that finished; NaN where none did.
      deviation: sample standard deviation (n - 1); NaN for fewer than two.
      low, high: the 95 % t interval of the mean; NaN for fewer than three runs or no spread.
    """

    runs: int
    n: int
    mean: float
    deviation: float
    low: float
    high: float


class Difference(NamedTuple):
    """A difference of two means, variant - baseline, by a t test.

    Each is a number, or an array with the leading axes of what was compared.

    Attributes:
      estimate: the difference of the means.
      low, high: its confidence interval; NaN where there is no spread.
      p: two-sided.
      error: the standard error.
      freedom: degrees of freedom; Welch's are seldom whole.
      deviation: standard deviation of the pairs' differences; for Welch the root of the mean of
        both variances.
      correlation: Pearson's, of the pairs; NaN for Welch, and where a side has no spread.
    """

    estimate: Result
    low: Result
    high: Result
    p: Result
    error: Result
    freedom: Result
    deviation: Result
    correlation: Result


class Share(NamedTuple):
    """A probability, its 95 % interval, and the name of the method of this."""

    estimate: float
    low: float
    high: float
    method: str


class Needed(NamedTuple):
    """The number of seeds a side (or pairs) that a difference needs: its bounds."""

    low: int
    high: int


def summarise(values: Values, confidence: float = CONFIDENCE) -> Summary:
    """Returns mean, deviation and t interval of the values that are finite."""
    finite = values[np.isfinite(values)]
    n = len(finite)
    mean = float(finite.mean()) if n else math.nan
    deviation = float(_deviation(finite, _resolution(finite))) if n > 1 else math.nan
    half = math.nan
    if n >= FEWEST_FOR_INFERENCE and deviation:
        half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * deviation / math.sqrt(n)
    return Summary(len(values), n, mean, deviation, mean - half, mean + half)


def paired(a: Batch, b: Batch, confidence: float = CONFIDENCE) -> Difference:
    """Compares runs i of `a` and `b`, which share their seed: the paired t test.

    All values are finite; there are at least two runs a side.
    """
    n = a.shape[-1]
    smallest = np.maximum(_resolution(a), _resolution(b))
    difference = a - b
    deviation = _deviation(difference, smallest)
    mean = np.where(np.abs(difference).max(-1) <= smallest, 0.0, difference.mean(-1))
    sides = _deviation(a, smallest) * _deviation(b, smallest)
    product = (_centred(a) * _centred(b)).sum(-1) / (n - 1)
    correlation = np.where(sides > 0, product / np.where(sides > 0, sides, 1.0), np.nan)
    alone = 2.0 ** (1 - n)  # of the sign flips, these and their opposite are the most extreme
    error, freedom = deviation / math.sqrt(n), np.full(mean.shape, n - 1.0)
    return _by_t(mean, error, freedom, deviation, correlation, alone, confidence)


def welch(
    a: Float[np.ndarray, "*batch run"],
    b: Float[np.ndarray, "*batch other"],
    confidence: float = CONFIDENCE,
) -> Difference:
    """Compares runs that share no seeds: Welch's t test, whose sides may differ in spread and size.

    All values are finite; there are at least two runs a side.
    """
    n, m = a.shape[-1], b.shape[-1]
    smallest = np.maximum(_resolution(a), _resolution(b))
    first, second = _deviation(a, smallest) ** 2, _deviation(b, smallest) ** 2
    mean = a.mean(-1) - b.mean(-1)
    square = first / n + second / m
    parts = (first / n) ** 2 / (n - 1) + (second / m) ** 2 / (m - 1)
    freedom = np.where(parts > 0, square**2 / np.where(parts > 0, parts, 1.0), n + m - 2.0)
    alone = (2 if n == m else 1) / math.comb(n + m, n)
    mean = np.where((square == 0) & (np.abs(mean) <= smallest), 0.0, mean)
    pooled = np.sqrt((first + second) / 2)
    none = np.full(mean.shape, np.nan)
    return _by_t(mean, np.sqrt(square), freedom, pooled, none, alone, confidence)


def sign_flips(differences: Batch, seed: int = 0) -> Result:
    """Returns the two-sided p of the mean of pairs' differences, if each sign were a coin's.

    Exact to 20 pairs: all 2^n signs; beyond, 100,000 drawn ones.
    """
    n = differences.shape[-1]
    size = np.abs(differences)
    observed = np.abs(differences.sum(-1))
    least = observed - 1e-9 * size.sum(-1)  # ties are equal but for rounding
    if n > EXACT_FLIPS:
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], (RANDOM_PERMUTATIONS, n))
        count = (np.abs(size @ signs.T) >= least[..., None]).sum(-1)
        return (count + 1) / (RANDOM_PERMUTATIONS + 1)
    # Signs and their opposites give sums of one size: the first stays positive.
    sums = size[..., :1]
    for i in range(1, n):
        one = size[..., i : i + 1]
        sums = np.concatenate([sums + one, sums - one], -1)
    return (np.abs(sums) >= least[..., None]).mean(-1)


def label_permutations(a: Values, b: Others, seed: int = 0) -> float:
    """Returns the two-sided p of the difference of means, if labels of the runs meant nothing.

    Exact where there are at most 200,000 ways to choose; beyond, 100,000 drawn ones.
    """
    n, m = len(a), len(b)
    both = np.concatenate([a, b])
    both = both - both.mean()  # the difference of means then grows with the first side's sum
    least = abs(both[:n].sum()) - 1e-9 * np.abs(both).sum()
    if math.comb(n + m, n) <= EXACT_LABELS:
        return float((np.abs(both[_choices(n + m, n)].sum(1)) >= least).mean())
    generator = np.random.default_rng(seed)
    order = generator.permuted(np.tile(both, (RANDOM_PERMUTATIONS, 1)), axis=1)
    count = (np.abs(order[:, :n].sum(1)) >= least).sum()
    return float((count + 1) / (RANDOM_PERMUTATIONS + 1))


def holm(p: Sequence[float] | Values) -> Values:
    """Returns p of several tests, adjusted (Holm, 1979): that any is wrongly small has chance 5 %.

    NaN, a test that could not be made, stays NaN and is not counted.
    """
    values = np.array(p, float)
    made = np.flatnonzero(np.isfinite(values))
    order = made[np.argsort(values[made], kind="stable")]
    steps = (len(order) - np.arange(len(order))) * values[order]
    values[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return values


def equivalence(difference: Difference, smallest: float) -> Result:
    """Returns p of two one-sided t tests (Schuirmann, 1987): is it within ±smallest?

    Small where the difference is shown to be less than the smallest that matters. NaN where there
    is no spread, which says nothing of the next seed.
    """
    error = np.where(np.asarray(difference.error) > 0, difference.error, np.nan)
    above = stats.t.sf((difference.estimate + smallest) / error, difference.freedom)
    below = stats.t.cdf((difference.estimate - smallest) / error, difference.freedom)
    return np.maximum(above, below)


def superiority(a: Values, b: Others, pairs: bool, higher_is_better: bool = True) -> Share:
    """Estimates the probability that a run of `a` is better than one of `b`; ties count half.

    A run that failed is worse than every run that finished. With `pairs`, run i of both share
    their seed and meet each other alone: Wilson's interval of a share. Else each meets all others,
    the Mann-Whitney statistic: Newcombe's interval (Statistics in Medicine, 2006, method 5).
    """
    sign = 1.0 if higher_is_better else -1.0
    first = np.where(np.isfinite(a), sign * a, -np.inf)
    second = np.where(np.isfinite(b), sign * b, -np.inf)
    if pairs:
        wins = (first > second) + (first == second) / 2
        return _wilson(float(wins.mean()), len(wins))
    wins = (first[:, None] > second) + (first[:, None] == second) / 2
    return _newcombe(float(wins.mean()), len(a), len(b))


def power(n: int, effect: float, pairs: bool, alpha: float = ALPHA) -> float:
    """Returns how often the two-sided t test of n pairs, or n runs a side, sees a true difference.

    `effect` is the true difference, in standard deviations of the pairs' differences or of a side.
    From the noncentral t distribution (Cohen, 1988).
    """
    freedom = n - 1 if pairs else 2 * n - 2
    shift = abs(effect) * math.sqrt(n if pairs else n / 2)
    critical = stats.t.ppf(1 - alpha / 2, freedom)
    # Both tails as upper ones: far out scipy's lower tail is NaN.
    return float(sum(stats.nct.sf(critical, freedom, [shift, -shift])))


def seeds_needed(
    deviation: float,
    freedom: float,
    smallest: float,
    pairs: bool,
    wanted: float = 0.8,
    alpha: float = ALPHA,
) -> Needed:
    """Returns how many seeds would show a true difference of `smallest` with probability `wanted`.

    The standard deviation is itself estimated from few seeds: the range is that of its 95 %
    chi-square interval. The difference that was observed plays no part.
    """
    low, high = (
        deviation * math.sqrt(freedom / stats.chi2.ppf(q, freedom))
        for q in ((1 + CONFIDENCE) / 2, (1 - CONFIDENCE) / 2)
    )
    return Needed(*(_fewest(smallest, spread, pairs, wanted, alpha) for spread in (low, high)))


def _fewest(smallest: float, deviation: float, pairs: bool, wanted: float, alpha: float) -> int:
    if deviation <= smallest / 100:
        return 2
    enough = lambda n: power(n, smallest / deviation, pairs, alpha) >= wanted
    high = 2
    while not enough(high):
        high *= 2
    low = high // 2  # not enough, unless it is 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _by_t(
    mean: Result,
    error: Result,
    freedom: Result,
    deviation: Result,
    correlation: Result,
    alone: float,
    confidence: float,
) -> Difference:
    """Makes a Difference; `alone` is p where there is a difference without spread."""
    spread = error > 0
    t = np.abs(mean) / np.where(spread, error, 1.0)
    flat = np.where(mean == 0, 1.0, alone)
    p = np.where(spread, 2 * stats.t.sf(t, freedom), flat)
    half = np.where(spread, stats.t.ppf((1 + confidence) / 2, freedom) * error, np.nan)
    parts = (mean, mean - half, mean + half, p, error, freedom, deviation, correlation)
    return Difference(*(float(part) if np.ndim(part) == 0 else part for part in parts))


def _centred(x: Batch) -> Batch:
    return x - x.mean(-1, keepdims=True)


def _deviation(x: Batch, smallest: Result) -> np.ndarray:
    """Returns the sample standard deviation, 0 where it is rounding."""
    deviation = x.std(-1, ddof=1)
    return np.where(deviation <= smallest, 0.0, deviation)


def _resolution(x: Batch) -> Result:
    return RESOLUTION * np.abs(x).max(-1, initial=0.0)


@functools.lru_cache(maxsize=4)
def _choices(n: int, k: int) -> Int[np.ndarray, "way k"]:
    flat = itertools.chain.from_iterable(itertools.combinations(range(n), k))
    return np.fromiter(flat, np.int8, math.comb(n, k) * k).reshape(-1, k)


def _wilson(share: float, n: int) -> Share:
    z = float(special.ndtri((1 + CONFIDENCE) / 2))
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return Share(share, max(middle - half, 0.0), min(middle + half, 1.0), "Wilson, by pairs")


def _newcombe(share: float, n: int, m: int) -> Share:
    z = float(special.ndtri((1 + CONFIDENCE) / 2))
    more = (n + m) / 2 - 1

    def gap(x: float) -> float:
        square = x * (1 - x) * (1 + more * ((1 - x) / (2 - x) + x / (1 + x))) / (n * m)
        return abs(x - share) - z * math.sqrt(square)

    # At `share` the gap is below 0 (or 0, at an end), at the far ends of 0..1 above.
    low = 0.0 if share == 0 else optimize.brentq(gap, 0.0, share - 1e-12)
    high = 1.0 if share == 1 else optimize.brentq(gap, share + 1e-12, 1.0)
    return Share(share, low, high, "Newcombe's method 5, of Mann-Whitney's statistic")
