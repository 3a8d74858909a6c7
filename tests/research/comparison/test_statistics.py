import itertools
import math
import warnings

import numpy as np
import pytest
from scipy import integrate, stats
from statsmodels.stats import multitest, proportion, weightstats

from research.comparison import statistics

# What is not defined (no spread, one run) has its own answer: nothing may divide by zero.
pytestmark = pytest.mark.filterwarnings("error")


def sides(seed, n=10, m=10, shift=0.4):
    generator = np.random.default_rng(seed)
    common = generator.normal(size=max(n, m))
    a = common[:n] + 0.7 * generator.normal(size=n) + shift
    return a, common[:m] + 0.7 * generator.normal(size=m)


@pytest.mark.parametrize("n", [3, 5, 10, 40])
def test_mean_and_interval_are_scipys(n):
    values = sides(n, n, n)[0]
    found = statistics.summarise(values)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (found.runs, found.n) == (n, n)
    assert found.mean == pytest.approx(values.mean())
    assert found.deviation == pytest.approx(values.std(ddof=1))
    assert (found.low, found.high) == pytest.approx(tuple(expected))


def test_failed_runs_are_counted_and_left_out_of_the_mean():
    found = statistics.summarise(np.array([1.0, np.nan, 2.0, np.inf, 3.0, 6.0]))
    assert (found.runs, found.n, found.mean) == (6, 4, 3.0)
    assert found == statistics.summarise(np.array([1.0, 2.0, 3.0, 6.0]))._replace(runs=6)


@pytest.mark.parametrize("values", [[], [np.nan, np.nan], [1.0], [1.0, 2.0], [0.7, 0.7, 0.7, 0.7]])
def test_there_is_no_interval_of_few_runs_or_without_spread(values):
    found = statistics.summarise(np.array(values, float))
    assert math.isnan(found.low) and math.isnan(found.high)
    finite = [value for value in values if np.isfinite(value)]
    assert math.isnan(found.mean) == (not finite) and math.isnan(found.deviation) == (
        len(finite) < 2
    )


@pytest.mark.parametrize("n", [3, 5, 10, 33])
def test_paired_differences_are_scipys(n):
    a, b = sides(n, n, n)
    found, expected = statistics.paired(a, b), stats.ttest_rel(a, b)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.correlation == pytest.approx(stats.pearsonr(a, b).statistic)
    assert found.deviation == pytest.approx((a - b).std(ddof=1))


@pytest.mark.parametrize(("n", "m"), [(3, 3), (5, 12), (10, 10), (20, 4)])
def test_differences_without_pairs_are_welchs(n, m):
    a, b = sides(n + m, n, m)
    found = statistics.welch(3 * a, b)
    expected = stats.ttest_ind(3 * a, b, equal_var=False)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.freedom == pytest.approx(expected.df) and math.isnan(found.correlation)
    variances = 9 * a.var(ddof=1), b.var(ddof=1)
    assert found.deviation == pytest.approx(math.sqrt(sum(variances) / 2))


def test_many_comparisons_at_once_are_each_alone():
    a, b = np.random.default_rng(0).normal(size=(2, 4, 3, 6))
    for test in (statistics.paired, statistics.welch):
        together = test(a, b)
        for place in np.ndindex(4, 3):
            alone = test(a[place], b[place])
            np.testing.assert_allclose([field[place] for field in together], alone)
        within = statistics.equivalence(together, 0.5)
        assert within[2, 1] == pytest.approx(statistics.equivalence(alone_at(together), 0.5))
    flips = statistics.sign_flips(a - b)
    assert flips[3, 2] == statistics.sign_flips(a[3, 2] - b[3, 2])


def alone_at(together):
    return statistics.Difference(*(float(field[2, 1]) for field in together))


@pytest.mark.parametrize("n", [1, 5, 6, 8])
def test_sign_flips_are_all_counted(n):
    # Whole numbers: many sums are ties, which count as extreme.
    for d in np.random.default_rng(n).integers(-3, 5, (20, n)).astype(float):
        sums = [abs(np.dot(signs, d)) for signs in itertools.product([1, -1], repeat=n)]
        expected = np.mean([total >= abs(d.sum()) - 1e-9 for total in sums])
        assert statistics.sign_flips(d) == expected


def test_sign_flips_agree_with_scipy():
    a, b = sides(0, 9, 9)
    expected = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    )
    assert statistics.sign_flips(a - b) == pytest.approx(expected.pvalue)


def test_many_pairs_have_random_sign_flips():
    d = np.random.default_rng(1).normal(0.4, 1.0, 24)
    found = statistics.sign_flips(d)
    assert found == statistics.sign_flips(d)
    assert found == pytest.approx(stats.ttest_1samp(d, 0).pvalue, abs=0.01)


@pytest.mark.parametrize(("n", "m"), [(3, 3), (6, 4), (2, 9)])
def test_all_labels_are_tried(n, m):
    for seed in range(5):
        a, b = np.round(sides(seed, n, m), 1) if n == m else sides(seed, n, m)
        both, least = np.concatenate([a, b]), abs(a.mean() - b.mean()) - 1e-9
        ways = [set(way) for way in itertools.combinations(range(n + m), n)]
        split = [
            abs(both[list(way)].mean() - both[[i for i in range(n + m) if i not in way]].mean())
            for way in ways
        ]
        found = statistics.label_permutations(a, b)
        assert found == pytest.approx(np.mean([gap >= least for gap in split]))


def test_where_labels_have_too_many_ways_some_are_drawn():
    a, b = sides(3, 12, 11, shift=0.9)
    expected = stats.permutation_test(
        (a, b),
        lambda x, y, axis: x.mean(axis) - y.mean(axis),
        vectorized=True,
        n_resamples=50_000,
        rng=np.random.default_rng(5),
    )
    assert statistics.label_permutations(a, b) == pytest.approx(expected.pvalue, abs=0.005)


def test_holm_is_statsmodels_and_leaves_out_what_was_not_tested():
    generator = np.random.default_rng(0)
    for size in (1, 2, 3, 7):
        p = generator.random(size) ** 3
        expected = multitest.multipletests(p, method="holm")[1]
        np.testing.assert_allclose(statistics.holm(p), expected)
        np.testing.assert_allclose(statistics.holm([*p, math.nan])[:-1], expected)
    assert np.isnan(statistics.holm([math.nan, 0.01])[0])
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_two_one_sided_tests_are_statsmodels():
    a, b = sides(2, 12, 12, shift=0.1)
    for smallest in (0.2, 0.6, 1.5):
        expected = weightstats.ttost_paired(a, b, -smallest, smallest)[0]
        assert statistics.equivalence(statistics.paired(a, b), smallest) == pytest.approx(expected)
        expected = weightstats.ttost_ind(a, b, -smallest, smallest, usevar="unequal")[0]
        assert statistics.equivalence(statistics.welch(a, b), smallest) == pytest.approx(expected)


# Sample sizes of G*Power 3.1 (Faul et al., 2007) and of Cohen's tables (1988): two-sided 0.05.
@pytest.mark.parametrize(
    ("effect", "pairs", "wanted", "n"),
    [
        (0.5, True, 0.8, 34),
        (0.2, True, 0.8, 199),
        (0.8, True, 0.8, 15),
        (0.5, False, 0.8, 64),
        (0.8, False, 0.8, 26),
        (0.2, False, 0.8, 394),
        (0.5, True, 0.95, 54),
    ],
)
def test_seeds_needed_are_the_published_ones(effect, pairs, wanted, n):
    # With so many degrees of freedom the standard deviation is known.
    found = statistics.seeds_needed(1.0, 1e12, effect, pairs, wanted)
    assert found == (n, n)


def power_by_integration(n, effect, pairs):
    """The definition: a normal mean, divided by an independent chi-distributed deviation."""
    freedom = n - 1 if pairs else 2 * n - 2
    shift, critical = effect * math.sqrt(n if pairs else n / 2), stats.t.ppf(0.975, freedom)

    def beyond(chi):
        bound = critical * chi / math.sqrt(freedom)
        tails = stats.norm.sf(bound - shift) + stats.norm.cdf(-bound - shift)
        return stats.chi.pdf(chi, freedom) * tails

    return integrate.quad(beyond, 0, np.inf)[0]


@pytest.mark.parametrize("pairs", [True, False])
def test_power_is_the_integral_over_both_estimates(pairs):
    for n, effect in itertools.product((2, 10), (0.0, 1.0, 5.0)):
        expected = power_by_integration(n, effect, pairs)
        assert statistics.power(n, effect, pairs) == pytest.approx(expected, abs=1e-7)


def test_few_seeds_give_a_wide_range_of_seeds_needed():
    # Chi-square with 4 degrees of freedom: 0.4844 and 11.1433 (published tables).
    found = statistics.seeds_needed(1.0, 4.0, 1.0, True)
    for spread, n in zip((4 / 11.1433, 4 / 0.4844), found, strict=True):
        assert statistics.power(n, 1 / math.sqrt(spread), True) >= 0.8
        assert n == 2 or statistics.power(n - 1, 1 / math.sqrt(spread), True) < 0.8
    assert found.low < statistics.seeds_needed(1.0, 30.0, 1.0, True).low
    assert found.high > statistics.seeds_needed(1.0, 30.0, 1.0, True).high
    assert statistics.seeds_needed(1e-9, 4.0, 1.0, True) == (2, 2)


def test_superiority_in_pairs_is_wilsons_share():
    a, b = sides(4, 10, 10)
    found = statistics.superiority(a, b, pairs=True)
    wins = int((a > b).sum())
    expected = proportion.proportion_confint(wins, 10, method="wilson")
    assert found.estimate == wins / 10 and (found.low, found.high) == pytest.approx(expected)
    other = statistics.superiority(a, b, pairs=True, higher_is_better=False)
    assert other.estimate == pytest.approx(1 - found.estimate)
    assert (other.low, other.high) == pytest.approx((1 - found.high, 1 - found.low))


def test_superiority_without_pairs_counts_ties_half():
    a, b = np.array([1.0, 2.0, 2.0, 5.0]), np.array([2.0, 0.0, 2.0])
    wins = [(x > y) + 0.5 * (x == y) for x in a for y in b]
    found = statistics.superiority(a, b, pairs=False)
    assert found.estimate == pytest.approx(np.mean(wins))
    assert 0 <= found.low < found.estimate < found.high <= 1
    # Newcombe's equation holds at both ends.
    for end in (found.low, found.high):
        inner = 1 + 2.5 * ((1 - end) / (2 - end) + end / (1 + end))
        error = 1.959964 * math.sqrt(end * (1 - end) * inner / 12)
        assert abs(end - found.estimate) == pytest.approx(error, rel=1e-5)


def test_a_failed_run_loses_to_each_that_finished():
    a, b = np.array([np.nan, 3.0, np.nan]), np.array([1.0, 2.0, np.inf])
    assert statistics.superiority(a, b, pairs=True).estimate == pytest.approx(1.5 / 3)
    # Against 1, 2 and failed: lose, lose, tie; win all; lose, lose, tie.
    for better in (True, False):
        won = 3 if better else 1
        found = statistics.superiority(a, b, pairs=False, higher_is_better=better)
        assert found.estimate == pytest.approx((0.5 + won + 0.5) / 9)


@pytest.mark.parametrize("pairs", [True, False])
def test_sides_that_never_overlap_have_an_interval(pairs):
    found = statistics.superiority(np.arange(5.0) + 9, np.arange(5.0), pairs)
    assert found.estimate == found.high == 1 and 0.5 < found.low < 0.9
    found = statistics.superiority(np.arange(5.0), np.arange(5.0) + 9, pairs)
    assert found.estimate == found.low == 0 and 0.1 < found.high < 0.5


@pytest.mark.parametrize("n", [2, 5, 8])
def test_without_spread_only_permutations_judge(n):
    b = np.linspace(0.88, 0.93, n)
    same, shifted = statistics.paired(b, b), statistics.paired(b + 0.01, b)
    assert same.p == 1 and same.estimate == 0 and same.error == 0 and math.isnan(same.low)
    assert shifted.p == 2 ** (1 - n) == statistics.sign_flips(np.full(n, 0.01))
    assert shifted.error == 0 and math.isnan(shifted.high)
    one, zero = np.ones(n), np.zeros(n + 1)
    assert statistics.welch(one, zero).p == statistics.label_permutations(one, zero)
    assert statistics.welch(one, zero[1:]).p == statistics.label_permutations(one, zero[1:])
    assert statistics.welch(one, np.ones(n + 3)).p == 1
    assert math.isnan(statistics.equivalence(shifted, 1.0))
    assert math.isnan(statistics.paired(one, b).correlation)


def test_one_side_without_spread_is_tested_as_usual():
    a, b = np.full(6, 0.5), sides(0, 6, 6)[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = stats.ttest_ind(a, b, equal_var=False)
    assert statistics.welch(a, b).p == pytest.approx(expected.pvalue)
    assert statistics.paired(a, b).p == pytest.approx(stats.ttest_1samp(b, 0.5).pvalue)


def test_units_do_not_matter():
    a, b = sides(7)
    for test in (statistics.paired, statistics.welch):
        for scale in (1e-12, 1e9):
            assert test(scale * a, scale * b).p == pytest.approx(test(a, b).p)
