import math

import numpy as np
import pytest
from scipy import stats

from research.comparison import statistics
from research.comparison.resampling import mcnemar
from research.comparison.sides import Sample, compare
from research.comparison.verdict import decide, one_run_verdict, verdicts
from research.comparison.wording import Metric

pytestmark = pytest.mark.filterwarnings("error")

ACCURACY = Metric("test/accuracy", points=True)
LOSS = Metric("test/cross_entropy", higher_is_better=False)
REACH = "on this test set, with these hyperparameters and this budget."


def runs(n, mean, deviation, first=0):
    """Values with exactly this mean and deviation: the quantiles of a normal distribution."""
    shape = stats.norm.ppf((np.arange(n) + 0.5) / n)
    values = mean + deviation * (shape - shape.mean()) / shape.std(ddof=1)
    return Sample(values, list(range(first, first + n)))


def against(base, differences):
    return Sample(base.values + np.array(differences), base.seeds)


def say(variant, baseline, metric=ACCURACY, smallest=None, **named):
    one = compare(variant, baseline, smallest, metric.higher_is_better)
    return verdicts({"A": one}, "B", metric, **named)["A"]


BASE = runs(10, 0.9, 0.01)
SPREAD = runs(10, 0.0, 0.007).values[[3, 0, 7, 9, 1, 5, 2, 8, 6, 4]]


def test_a_difference_is_said_with_its_interval_seeds_and_p():
    # Error 0.7 / sqrt(10) points; t(9) at 0.975 is 2.262: 0.8 ± 0.5.
    found = say(against(BASE, SPREAD + 0.008), BASE)
    assert found.kind == "higher" and found.warnings == []
    assert found.text == (
        "A is higher than B by 0.8 points (95 % 0.3 to 1.3; 10 paired seeds; p = 0.0056), " + REACH
    )
    assert found.p == pytest.approx(2 * stats.t.sf(0.008 / (0.007 / math.sqrt(10)), 9))


def test_a_lower_metric_has_the_interval_of_the_amount():
    found = say(against(BASE, SPREAD - 0.008), BASE)
    assert found.kind == "lower"
    assert "A is lower than B by 0.8 points (95 % 0.3 to 1.3;" in found.text


@pytest.mark.parametrize(("sign", "judged"), [(1, "higher"), (-1, "lower")])
def test_of_losses_less_is_better(sign, judged):
    base = runs(10, 2.0, 0.1)
    found = say(against(base, SPREAD * 10 + sign * 0.08), base, LOSS)
    better = "worse" if sign > 0 else "better"
    assert found.kind == judged
    assert f"A is {judged} than B by 0.08, which is {better} (95 % 0.03 to 0.13;" in found.text


def test_runs_without_pairs_are_counted_on_both_sides():
    found = say(runs(8, 0.95, 0.01, first=50), BASE)
    assert "8 and 10 runs" in found.text and found.kind == "higher"


def test_several_variants_are_adjusted_together():
    better, other = against(BASE, SPREAD + 0.008), against(BASE, SPREAD + 0.0055)
    same = against(BASE, SPREAD)
    alone = compare(other, BASE)
    assert alone.difference.p < 0.05 and say(other, BASE).kind == "higher"
    three = {"A": compare(better, BASE), "C": alone, "D": compare(same, BASE)}
    found = verdicts(three, "B", ACCURACY)
    assert [one.kind for one in found.values()] == ["higher", "undecided", "undecided"]
    assert "Holm p = 0.017" in found["A"].text and "Holm p = 0.069" in found["C"].text
    assert found["C"].p == pytest.approx(2 * alone.difference.p)
    # A variant of which nothing can be inferred asks for no adjustment.
    few = {"A": compare(better, BASE), "E": compare(runs(2, 0.9, 0.01), BASE)}
    found = verdicts(few, "B", ACCURACY)
    assert found["A"].p == three["A"].difference.p and "(95 % 0.3 to 1.3; 10 paired seeds; p" in (
        found["A"].text
    )


def test_equivalence_is_within_what_was_declared():
    close = against(BASE, SPREAD / 7)
    found = say(close, BASE, smallest=0.003)
    assert found.kind == "equivalent"
    # Error 0.1 / sqrt(10) points; t(9) at 0.95 is 1.833: 0 ± 0.058.
    assert found.text == (
        "equivalent within 0.3 points: 0.00 (90 % -0.06 to 0.06; 10 paired seeds; p < 0.001), "
        + REACH
    )
    assert say(close, BASE).kind == "undecided"
    both = say(against(BASE, SPREAD / 7 + 0.001), BASE, smallest=0.003)
    assert both.kind == "higher" and "and equivalent within 0.3 points, on" in both.text


def test_undecided_says_what_it_would_take():
    found = say(against(BASE, SPREAD + 0.0035), BASE, smallest=0.005)
    assert found.kind == "undecided"
    # Chi-square with 9 degrees of freedom, 19.023 and 2.700: deviations of 0.48 to 1.28 points.
    assert statistics.seeds_needed(0.007, 9.0, 0.005, pairs=True) == (10, 54)
    assert found.text == (
        "undecided: -0.2 to 0.9 points (95 %; 10 paired seeds; p = 0.15); 10 to 54 seeds would "
        "show 0.5 points at 80 % power, " + REACH
    )
    assert "no smallest difference of interest was declared" in say(BASE, runs(10, 0.9, 0.02)).text
    wide = say(against(BASE, SPREAD), BASE, smallest=1e-5)
    assert "more than 10,000 seeds would show 0.001 points" in wide.text


def test_no_fewer_seeds_than_a_verdict_takes_are_named():
    base, differences = runs(5, 0.9, 0.01), np.array([-1, 14, 8, 17, 2]) / 1000
    assert compare(against(base, differences), base, 0.012).needed.low < 5
    wide = say(against(base, differences), base, smallest=0.012)
    assert "; 5 to " in wide.text and wide.kind == "undecided"
    apart = say(runs(5, 0.9, 0.01, first=10), runs(5, 0.9, 0.01), smallest=0.01)
    assert "seeds a side would show 1 point at 80 % power" in apart.text


@pytest.mark.parametrize("n", [3, 4])
def test_few_seeds_are_suggestive_at_most(n):
    base = runs(n, 0.9, 0.01)
    found = say(against(base, runs(n, 0.2, 0.005).values), base, smallest=0.5)
    assert found.kind == "suggestive" and found.p < 0.001
    assert found.text.startswith("suggestive: A is higher than B by 20.0 points (95 % ")
    assert say(against(base, runs(n, 0.001, 0.01).values), base).kind == "undecided"
    # However equal: of equivalence nothing is claimed either.
    assert say(against(base, runs(n, 0.0, 0.0001).values), base, smallest=0.5).kind == "undecided"


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_seeds_infer_nothing(n):
    base = Sample(np.array([0.9, 0.91])[:n], list(range(n)))
    found = say(against(base, np.full(n, 0.3)), base)
    assert found.kind == "no inference" and math.isnan(found.p)
    plural = "s" if n > 1 else ""
    assert found.text == (
        f"no inference from {n} paired seed{plural}: A is higher than B by 30 points in these, "
        + REACH
    )


def test_where_nothing_finished_nothing_is_said():
    found = say(against(BASE, np.full(10, np.nan)), BASE)
    assert found.kind == "no inference" and "no seed finished on both sides" in found.text
    assert "10 of 10 runs of A failed (seed 0; seed 1;" in found.text
    apart = say(Sample(np.full(3, np.nan), [50, 51, 52]), BASE)
    assert "a side has no finished run" in apart.text


def test_equal_values_are_identical_not_the_same_thing():
    found = say(BASE, BASE, smallest=0.01)
    assert found.kind == "identical"
    assert "identical: A and B have the same value in 10 paired seeds, on this" in found.text


@pytest.mark.parametrize(("n", "kind"), [(4, "suggestive"), (5, "suggestive"), (6, "higher")])
def test_one_difference_in_every_seed_is_judged_by_permutation(n, kind):
    base = runs(n, 0.5, 0.01)
    found = say(against(base, np.full(n, 0.02)), base)
    assert found.kind == kind and found.p == 2 ** (1 - n)
    assert f"by 2 points (no spread; {n} paired seeds; exact permutation, p" in found.text


def test_failed_runs_are_named_with_their_reason():
    variant = against(BASE, SPREAD + 0.02)
    variant.values[3] = variant.values[7] = np.nan
    baseline = Sample(BASE.values.copy(), BASE.seeds)
    baseline.values[1] = np.inf
    reasons = {"A": {3: "the loss is nan"}, "B": {1: "out of memory"}}
    found = say(variant, baseline, reasons=reasons)
    assert found.kind == "higher" and "7 paired seeds" in found.text
    assert "2 of 10 runs of A failed (seed 3: the loss is nan; seed 7); the" in found.text
    assert "1 of 10 runs of B failed (seed 1: out of memory); the" in found.text
    assert found.warnings == [
        "3 finished runs take no part: no run of the same seed finished on the other side"
    ]


def test_variants_added_after_looking_are_marked():
    found = say(against(BASE, SPREAD + 0.008), BASE, late={"A"})
    assert "A was added after looking at results" in found.text
    assert "added" not in say(against(BASE, SPREAD + 0.008), BASE, late={"C"}).text


def test_a_permutation_test_that_disagrees_is_a_warning():
    base = runs(6, 0.9, 0.01)
    found = say(against(base, np.array([1.0, 1.1, 0.9, 1.0, 1.2, -0.1]) / 100), base)
    assert found.kind == "higher" and len(found.warnings) == 1
    assert "p = 0.062 where the t test alone says p = 0.0" in found.warnings[0]


def test_no_difference_is_never_claimed():
    generator = np.random.default_rng(0)
    for n in (1, 2, 3, 5, 6, 9):
        for smallest in (None, 0.001, 0.1):
            for pairs in (True, False):
                base = Sample(generator.normal(0.5, 0.01, n), list(range(n)))
                seeds = base.seeds if pairs else [seed + 100 for seed in base.seeds]
                other = Sample(generator.normal(0.5, 0.01, n), seeds)
                found = say(other, base, smallest=smallest)
                assert "no difference" not in found.text and "nan" not in found.text
                assert found.text.endswith(REACH)


def test_the_reach_names_the_split():
    metric = Metric("validation/accuracy", points=True)
    assert "on this validation set, with" in say(BASE, BASE, metric).text


def test_many_comparisons_are_decided_as_each_alone():
    generator = np.random.default_rng(0)
    a, b = generator.normal(0.6, 1.0, (40, 6)), generator.normal(size=(40, 6))
    a[0] = b[0]
    difference = statistics.paired(a, b)
    kinds = decide(6, difference, difference.p, statistics.equivalence(difference, 1.5))
    for i in range(40):
        seeds = list(range(6))
        one = say(Sample(a[i], seeds), Sample(b[i], seeds), Metric("x"), smallest=1.5)
        assert one.kind == kinds[i]
    assert {"identical", "undecided", "higher"} <= set(kinds)


def test_one_run_against_one_run_infers_nothing_about_seeds():
    right = np.arange(1000) < 900
    other = right.copy()
    other[:40] = False
    other[900:922] = True
    text = one_run_verdict(mcnemar(right, other), "A", "B", ACCURACY)
    assert text.startswith("no inference over seeds from one run each. Of 1,000 examples this run")
    assert "of A alone is right on 40, this one of B alone on 22: 1.8 points (95 % 0.2" in text
    assert "exact McNemar p = 0.03" in text and text.endswith(REACH)
