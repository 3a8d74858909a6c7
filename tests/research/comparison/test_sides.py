import math

import numpy as np
import pytest
from scipy import stats

from research.comparison.sides import Sample, compare
from research.errors import UserError

pytestmark = pytest.mark.filterwarnings("error")


def sample(values, seeds=None):
    values = np.array(values, float)
    return Sample(values, list(range(len(values))) if seeds is None else list(seeds))


def draw(seed, n, mean=0.0):
    return np.random.default_rng(seed).normal(mean, 1.0, n)


def test_runs_meet_by_their_seed_whatever_their_order():
    a, b = draw(0, 8, 0.5), draw(1, 8)
    order = np.random.default_rng(2).permutation(8)
    found = compare(sample(a), Sample(b[order], [int(i) for i in order]))
    assert found.pairs and found.n == 8 and found.left_out == 0
    assert found.difference.p == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert found.permutation == pytest.approx(
        stats.permutation_test(
            (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
        ).pvalue
    )
    assert not found.disagrees


def test_seeds_of_one_side_alone_take_no_part_in_pairs():
    a, b = draw(0, 8), draw(1, 6)
    found = compare(sample(a, range(8)), sample(b, range(2, 8)))
    assert found.pairs and found.n == 6 and found.left_out == 2
    assert found.difference.p == pytest.approx(stats.ttest_rel(a[2:], b).pvalue)
    assert found.variant.n == 8


def test_without_shared_seeds_all_runs_are_compared():
    a, b = draw(0, 8), draw(1, 6)
    found = compare(sample(a), sample(b, range(5, 11)))  # three of six are shared
    assert not found.pairs and found.n == 6 and found.left_out == 0
    assert found.difference.p == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)
    assert math.isnan(found.difference.correlation)


def test_failed_runs_stay_in_the_denominator():
    a, b = draw(0, 8), draw(1, 8)
    failed, other = a.copy(), b.copy()
    failed[2], failed[5], other[5], other[7] = np.nan, np.nan, np.inf, np.nan
    found = compare(sample(failed), sample(other))
    kept = [0, 1, 3, 4, 6]
    assert found.n == 5 and found.failed == {"variant": [2, 5], "baseline": [5, 7]}
    assert (found.variant.runs, found.variant.n) == (8, 6)
    assert found.left_out == 2  # run 2 of the baseline, and 7 of the variant
    assert found.difference.p == pytest.approx(stats.ttest_rel(a[kept], b[kept]).pvalue)
    # Won: as they are; 2 is lost, 5 a tie, 7 won.
    wins = [*(a[kept] > b[kept]), 0, 0.5, 1]
    assert found.superiority.estimate == pytest.approx(np.mean(wins))


def test_whether_runs_are_paired_does_not_depend_on_which_failed():
    a = [np.nan] * 6 + [1.0, 2.0]
    found = compare(sample(a), sample(draw(0, 8)))
    assert found.pairs and found.n == 2


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_seeds_give_an_estimate_alone(n):
    a, b = draw(0, n), draw(1, n)
    found = compare(sample(a), sample(b), smallest=0.5)
    assert found.difference.estimate == pytest.approx((a - b).mean())
    assert all(math.isnan(number) for number in found.difference[1:])
    assert math.isnan(found.equivalence) and math.isnan(found.permutation)
    assert found.needed is None and not found.disagrees


def test_where_all_failed_there_is_no_estimate():
    found = compare(sample([np.nan] * 5), sample(draw(0, 5)), smallest=0.1)
    assert found.n == 0 and math.isnan(found.difference.estimate)
    assert found.superiority.estimate == 0


def test_permutation_begins_with_six_seeds():
    assert math.isnan(compare(sample(draw(0, 5)), sample(draw(1, 5))).permutation)
    assert 0 < compare(sample(draw(0, 6)), sample(draw(1, 6))).permutation <= 1
    apart = compare(sample(draw(0, 6)), sample(draw(1, 6), range(6, 12)))
    assert 0 < apart.permutation <= 1 and not apart.pairs


def test_a_disagreement_of_both_tests_is_noticed():
    # One pair in six points the other way and is far out: 10 of 64 sums are as extreme.
    difference = np.array([1.0, 1.1, 0.9, 1.0, 1.2, -0.1])
    found = compare(sample(difference), sample(np.zeros(6)))
    assert found.difference.p < 0.05 < found.permutation and found.disagrees


def test_seeds_needed_come_from_the_spread_alone():
    a, b = draw(0, 10), draw(1, 10)
    one = compare(sample(a), sample(b), smallest=0.5)
    shifted = compare(sample(a + 3), sample(b), smallest=0.5)
    assert one.needed == shifted.needed and one.needed.low < one.needed.high
    assert compare(sample(a), sample(b)).needed is None
    assert compare(sample(b), sample(b), smallest=0.5).needed is None  # no spread


def test_equivalence_is_against_the_declared_difference():
    a, b = draw(0, 30), draw(0, 30) + 0.1 * draw(2, 30)
    assert compare(sample(a), sample(b), smallest=0.2).equivalence < 0.001
    assert compare(sample(a), sample(b), smallest=0.001).equivalence > 0.05
    assert math.isnan(compare(sample(a), sample(b)).equivalence)


@pytest.mark.parametrize(
    ("a", "b", "smallest", "message"),
    [
        (sample([1, 2, 3], [0, 4, 4]), sample([1, 2]), None, "2 runs of one variant have seed 4"),
        (sample([1, 2]), sample([1, 2], [7, 7]), None, "2 runs of one variant have seed 7"),
        (sample([]), sample([1.0]), None, "no runs"),
        (sample([1.0]), sample([1.0]), 0.0, "must be above 0"),
        (sample([1.0]), sample([1.0]), math.nan, "must be above 0"),
    ],
)
def test_bad_input_is_one_line(a, b, smallest, message):
    with pytest.raises(UserError, match=message):
        compare(a, b, smallest)
