"""Two sides of a comparison: the runs of a variant against those of the baseline."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from research.comparison import statistics
from research.comparison.statistics import Difference, Needed, Share, Summary, Values
from research.errors import UserError

FEWEST_TO_PERMUTE = 6  # five pairs cannot come below p = 0.0625


class Sample(NamedTuple):
    """The runs of one variant: the metric of each (not finite: it failed), and its seed."""

    values: Float[np.ndarray, " run"]
    seeds: Sequence[int]


class Comparison(NamedTuple):
    """A variant against the baseline, in the metric's own units.

    Attributes:
      variant, baseline: what each side's runs say alone.
      pairs: whether runs are compared by their seed.
      n: pairs that finished, or finished runs of the smaller side.
      left_out: runs that finished but take no part in pairs: no run of their seed finished on the
        other side.
      difference: variant - baseline; NaN but for the estimate below three.
      permutation: p of the exact permutation test; NaN below six.
      disagrees: whether it and the t test lie on different sides of 0.05.
      superiority: probability that a run of the variant is better; failed runs lose.
      smallest: the smallest difference of interest, as declared; None where none was.
      equivalence: p of two one-sided tests against `smallest`; NaN without it, or below three.
      needed: how many seeds would show `smallest`; None without it, below three, or no spread.
      failed: seeds of the runs that failed, of "variant" and of "baseline".
    """

    variant: Summary
    baseline: Summary
    pairs: bool
    n: int
    left_out: int
    difference: Difference
    permutation: float
    disagrees: bool
    superiority: Share
    smallest: float | None
    equivalence: float
    needed: Needed | None
    failed: Mapping[str, Sequence[int]]


def compare(
    variant: Sample,
    baseline: Sample,
    smallest: float | None = None,
    higher_is_better: bool = True,
) -> Comparison:
    """Compares two sides: paired where most seeds of the smaller side are shared, else by Welch.

    Which of the two is a matter of the seeds that were run, never of what came out.

    Raises:
      UserError: if a side has no runs or one seed twice, or `smallest` is not above 0.
    """
    if smallest is not None and not smallest > 0:
        raise UserError(f"the smallest difference of interest is {smallest:g}: it must be above 0")
    for side in (variant, baseline):
        if not len(side.seeds):
            raise UserError("one side of the comparison has no runs")
        seed, times = Counter(side.seeds).most_common(1)[0]
        if times > 1:
            raise UserError(f"{times} runs of one variant have seed {seed}: give each its own")

    shared = sorted(set(variant.seeds) & set(baseline.seeds))
    pairs = 2 * len(shared) > min(len(variant.seeds), len(baseline.seeds))
    a, b = _values(variant, shared if pairs else None), _values(baseline, shared if pairs else None)
    better = statistics.superiority(a, b, pairs, higher_is_better)
    if pairs:
        both = np.isfinite(a) & np.isfinite(b)
        a, b = a[both], b[both]
    else:
        a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    summaries = [statistics.summarise(_values(side)) for side in (variant, baseline)]
    n = min(len(a), len(b))

    if n >= statistics.FEWEST_FOR_INFERENCE:
        difference = statistics.paired(a, b) if pairs else statistics.welch(a, b)
    else:
        estimate = float(a.mean() - b.mean()) if n else math.nan
        difference = Difference(estimate, *[math.nan] * (len(Difference._fields) - 1))
    permutation = math.nan
    if n >= FEWEST_TO_PERMUTE:
        p = statistics.sign_flips(a - b) if pairs else statistics.label_permutations(a, b)
        permutation = float(p)
    needed = None
    if smallest is not None and difference.error > 0:
        deviation, freedom = float(difference.deviation), float(difference.freedom)
        needed = statistics.seeds_needed(deviation, freedom, smallest, pairs)
    return Comparison(
        variant=summaries[0],
        baseline=summaries[1],
        pairs=pairs,
        n=n,
        left_out=summaries[0].n + summaries[1].n - 2 * n if pairs else 0,
        difference=difference,
        permutation=permutation,
        disagrees=n >= FEWEST_TO_PERMUTE
        and (permutation < statistics.ALPHA) != bool(difference.p < statistics.ALPHA),
        superiority=better,
        smallest=smallest,
        equivalence=float(statistics.equivalence(difference, smallest)) if smallest else math.nan,
        needed=needed,
        failed={"variant": _failed(variant), "baseline": _failed(baseline)},
    )


def _values(side: Sample, seeds: Sequence[int] | None = None) -> Values:
    """Returns the values of a side, or those of `seeds` in their order."""
    values = np.asarray(side.values, float)
    return values if seeds is None else values[[list(side.seeds).index(seed) for seed in seeds]]


def _failed(side: Sample) -> list[int]:
    return [
        seed
        for seed, value in zip(side.seeds, side.values, strict=True)
        if not math.isfinite(value)
    ]
