"""How often the statistics of comparisons are right, where the truth is known.

    python benchmarks/null_comparisons.py

Draws many comparisons from distributions whose means are equal, or differ by a known amount, and
asks research/comparison for its verdict on each: how often it calls a difference that is not there,
finds one that is, and how often its intervals hold the truth. What came out stands in
docs/comparing.md; tests/research/comparison/test_calibration.py keeps the same within bounds.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import special

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from research.comparison import statistics
from research.comparison.resampling import Means, draw_scores, over_seeds_and_examples
from research.comparison.statistics import Difference
from research.comparison.verdict import decide

COUNT = 20_000
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
# Mean 0 and standard deviation 1.
SHAPES: dict[str, Draw] = {
    "normal": lambda generator, size: generator.normal(size=size),
    "skewed": lambda generator, size: generator.exponential(size=size) - 1,
}


class Sides(NamedTuple):
    """Runs of both sides in each of many comparisons, and their true difference of means."""

    a: np.ndarray
    b: np.ndarray
    pairs: bool
    truth: float


def draw(
    shape: str, pairs: bool, n: int, truth: float = 0.0, count: int = COUNT, seed: int = 0
) -> Sides:
    """Draws comparisons of n against n runs.

    The standard deviation is 1: of each side, and, with pairs, of their differences too, since
    half of what a run does comes from its seed. `truth` is so in standard deviations either way.
    """
    generator = np.random.default_rng([seed, n, pairs])
    a, b = (SHAPES[shape](generator, (count, n)) for _ in range(2))
    if pairs:
        common = SHAPES[shape](generator, (count, n))
        a, b = ((common + own) / np.sqrt(2) for own in (a, b))
    return Sides(a + truth, b, pairs, truth)


def compared(sides: Sides) -> Difference:
    """Tests every comparison at once."""
    return (statistics.paired if sides.pairs else statistics.welch)(sides.a, sides.b)


def called(sides: Sides) -> float:
    """Returns the share of comparisons whose verdict is a difference."""
    difference = compared(sides)
    kinds = decide(sides.a.shape[1], difference, difference.p, np.full(len(sides.a), np.nan))
    return float(np.isin(kinds, ["higher", "lower"]).mean())


def covered(low: np.ndarray, high: np.ndarray, truth: float) -> float:
    """Returns the share of intervals that hold the truth."""
    return float(((low <= truth) & (truth <= high)).mean())


def covered_difference(sides: Sides) -> float:
    difference = compared(sides)
    return covered(difference.low, difference.high, sides.truth)


def covered_mean(shape: str, n: int, count: int = COUNT, seed: int = 0) -> float:
    """Of the t interval of one side's mean."""
    values = SHAPES[shape](np.random.default_rng([seed, n]), (count, n))
    found = [statistics.summarise(row) for row in values]
    return covered(*np.array([(one.low, one.high) for one in found]).T, 0.0)


def covered_by_percentiles(shape: str, n: int, count: int = 4000, seed: int = 0) -> float:
    """Of the plain percentile bootstrap of a mean over n seeds, which nothing here uses."""
    generator = np.random.default_rng([seed, n])
    values = SHAPES[shape](generator, (count, n))
    means = np.stack([row[generator.integers(n, size=(1000, n))].mean(1) for row in values])
    return covered(*np.quantile(means, [0.025, 0.975], 1), 0.0)


def called_equivalent(pairs: bool, n: int, count: int = COUNT) -> float:
    """How often equivalence is claimed where the true difference is the smallest that matters."""
    sides = draw("normal", pairs, n, truth=1.0, count=count)
    return float((statistics.equivalence(compared(sides), 1.0) < statistics.ALPHA).mean())


def covered_superiority(pairs: bool, n: int, truth: float, count: int = 2000) -> float:
    """Of the interval of the probability that a run of A is better."""
    sides = draw("normal", pairs, n, truth, count)
    found = [statistics.superiority(a, b, pairs) for a, b in zip(sides.a, sides.b, strict=True)]
    expected = float(special.ndtr(truth if pairs else truth / np.sqrt(2)))
    return covered(*np.array([(one.low, one.high) for one in found]).T, expected)


class Levels(NamedTuple):
    """What outcomes are made of: deviations of seeds, of examples, and of both together."""

    name: str
    seeds: float
    examples: float
    both: float
    shape: str = "normal"


LEVELS = (
    Levels("seeds matter most", 1.0, 1.0, 1.0),
    Levels("seeds matter most, skewed", 1.0, 1.0, 1.0, "skewed"),
    Levels("seeds and examples matter alike", 1.0, 4.5, 1.0),
    Levels("examples matter most", 0.1, 10.0, 1.0),
    Levels("each answer's noise matters most", 0.0, 0.0, 10.0),
)


def two_level(
    levels: Levels,
    pairs: bool,
    runs: int = 10,
    examples: int = 200,
    count: int = 1000,
    draws: int = 400,
) -> tuple[float, float]:
    """Returns coverage of the calibrated interval of a difference, and of the draws' percentiles.

    Each side finds other examples hard, so that their part does not cancel. The true difference
    is 0.
    """
    generator = np.random.default_rng([runs, examples, pairs])
    shaped = SHAPES[levels.shape]
    found = []
    for seed in range(count):
        common = shaped(generator, (runs, 1)) if pairs else 0.0
        sides = [
            levels.seeds * (common + shaped(generator, (runs, 1)))
            + levels.examples * generator.normal(size=examples)  # the same for all runs of a side
            + levels.both * generator.normal(size=(runs, examples))
            for _ in range(2)
        ]
        scores = [
            draw_scores(Means(side, np.ones_like(side)), examples, draws, seed) for side in sides
        ]
        one = over_seeds_and_examples(*scores, pairs=pairs, seed=seed)
        found.append((one.low, one.high, *np.quantile(one.draws, [0.025, 0.975])))
    low, high, plain_low, plain_high = np.array(found).T
    return covered(low, high, 0.0), covered(plain_low, plain_high, 0.0)


def table(title: str, head: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Prints a table in Markdown."""
    head = list(head)
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        cells = [f"{100 * cell:.1f} %" if isinstance(cell, float) else str(cell) for cell in row]
        print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=COUNT, help="comparisons of each kind")
    parser.add_argument("--two_level", type=int, default=1000, help="of the two-level bootstrap")
    options = parser.parse_args()
    start = time.perf_counter()
    tests = [(pairs, "paired" if pairs else "Welch") for pairs in (True, False)]
    table(
        "Nothing differs: a difference is called",
        ("Values", "Seeds", "Paired", "Welch", "Sign flips alone"),
        (
            (
                shape,
                n,
                *(called(draw(shape, pairs, n, count=options.count)) for pairs, _ in tests),
                float((flips(draw(shape, True, n, count=options.count)) < 0.05).mean()),
            )
            for shape in SHAPES
            for n in (5, 6, 10)
        ),
    )
    table(
        "A true difference of one standard deviation, normal values: it is called, and in theory",
        ("Test", "Seeds", "Called", "In theory"),
        (
            (
                name,
                n,
                called(draw("normal", pairs, n, 1.0, options.count)),
                statistics.power(n, 1.0, pairs),
            )
            for pairs, name in tests
            for n in (5, 10, 20)
        ),
    )
    table(
        "95 % intervals that hold the truth",
        ("Values", "Seeds", "Mean of a side", "Paired difference", "Welch's", "Percentiles"),
        (
            (
                shape,
                n,
                covered_mean(shape, n, options.count),
                *(covered_difference(draw(shape, p, n, 0.5, options.count)) for p, _ in tests),
                covered_by_percentiles(shape, n, options.count // 5),
            )
            for shape in SHAPES
            for n in (5, 10)
        ),
    )
    table(
        "One side skewed, the other a constant with the same mean: a difference is called",
        ("Seeds", "Paired", "Welch"),
        (
            (n, *(called(one_sided(pairs, n, options.count)) for pairs, _ in tests))
            for n in (5, 10, 30)
        ),
    )
    table(
        "The true difference is the smallest that matters: equivalence is claimed",
        ("Seeds", "Paired", "Welch"),
        ((n, *(called_equivalent(p, n, options.count) for p, _ in tests)) for n in (5, 10, 20)),
    )
    table(
        "95 % intervals of the probability of superiority that hold the truth",
        ("True difference", "Seeds", "Paired (Wilson)", "Not paired (Newcombe)"),
        (
            (
                truth,
                n,
                *(covered_superiority(p, n, float(truth), options.count // 10) for p, _ in tests),
            )
            for truth in (0, 1)
            for n in (5, 10)
        ),
    )
    table(
        "Two-level bootstrap, 10 seeds and 200 examples: 95 % intervals that hold the truth",
        ("Data", "Runs", "Calibrated, as used", "Percentiles of the draws"),
        (
            (levels.name, name, *two_level(levels, pairs, count=options.two_level))
            for levels in LEVELS
            for pairs, name in ((True, "paired"), (False, "not paired"))
        ),
    )
    print(f"\n{time.perf_counter() - start:.0f} s")


def flips(sides: Sides) -> np.ndarray:
    """Returns p of the exact sign-flip test of each comparison."""
    return np.concatenate(
        [statistics.sign_flips(part) for part in np.array_split(sides.a - sides.b, 20)]
    )


def one_sided(pairs: bool, n: int, count: int) -> Sides:
    """Draws comparisons of a skewed side against a constant with the same mean."""
    a = SHAPES["skewed"](np.random.default_rng([n, pairs]), (count, n))
    return Sides(a, np.zeros_like(a), pairs, 0.0)


if __name__ == "__main__":
    main()
