import numpy as np
import pytest
from scipy import stats
from statsmodels.stats import contingency_tables

from research.comparison import resampling
from research.comparison.resampling import Means, Scores, draw_scores, mcnemar
from research.errors import UserError

pytestmark = pytest.mark.filterwarnings("error")


def outcomes(seed, runs=10, examples=80, shift=0.0, seeds=0.3, alone=0.5):
    """Values of runs on examples: what is an example's, a run's, and of both together."""
    generator = np.random.default_rng(seed)
    hard = np.random.default_rng(99).normal(size=examples)  # of the test set: the same for all
    return (
        shift
        + hard
        + seeds * generator.normal(size=(runs, 1))
        + alone * generator.normal(size=(runs, examples))
    )


def means(values):
    return Means(values, np.ones_like(values))


def weighted(values, weights):
    return lambda chosen: float(np.average(values[chosen], weights=weights[chosen]))


def test_means_are_scored_as_any_score_is():
    values = outcomes(0, runs=3, examples=50)
    weights = np.random.default_rng(1).random((3, 50))
    fast = draw_scores(Means(values, weights), 50, draws=40, seed=7)
    slow = draw_scores([weighted(*row) for row in zip(values, weights, strict=True)], 50, 40, 7)
    np.testing.assert_allclose(fast.observed, slow.observed)
    np.testing.assert_allclose(fast.drawn, slow.drawn)
    assert fast.examples == slow.examples == 50


def test_blocks_of_draws_do_not_change_them(monkeypatch):
    runs = means(outcomes(0, runs=2, examples=30))
    expected = draw_scores(runs, 30, draws=20)
    monkeypatch.setattr(resampling, "BLOCK", 30 * 7)
    np.testing.assert_allclose(draw_scores(runs, 30, draws=20).drawn, expected.drawn)


def test_draws_are_a_function_of_their_seed_alone():
    runs = means(outcomes(0, runs=2, examples=30))
    np.random.seed(0)
    one = draw_scores(runs, 30, 20, seed=1)
    np.random.seed(1)
    np.testing.assert_array_equal(one.drawn, draw_scores(runs, 30, 20, seed=1).drawn)
    assert (one.drawn != draw_scores(runs, 30, 20, seed=2).drawn).all()


def test_examples_without_weight_may_have_no_value():
    values = outcomes(0, runs=2, examples=40)
    weights = np.ones((2, 40), "f")
    weights[:, ::4] = 0
    expected = draw_scores(Means(values, weights), 40, 30)
    values[:, ::4] = np.nan
    found = draw_scores(Means(values, weights), 40, 30)
    np.testing.assert_array_equal(found.drawn, expected.drawn)
    assert found.observed == pytest.approx(values[:, np.arange(40) % 4 > 0].mean(1))


def test_both_sides_see_the_same_examples():
    # B is A plus a constant: on the same examples the difference never changes.
    a = draw_scores(means(outcomes(0)), 80)
    b = draw_scores([weighted(row - 0.25, np.ones(80)) for row in outcomes(0)], 80)
    found = resampling.over_examples(a, b)
    assert found.estimate == pytest.approx(0.25)
    np.testing.assert_allclose(found.draws, 0.25)
    assert found.high - found.low < 1e-9


def test_error_over_examples_is_the_standard_error_of_a_mean():
    values = outcomes(0, runs=4, examples=60)
    found = resampling.over_examples(draw_scores(means(values), 60, draws=8_000))
    expected = stats.sem(values.mean(0))
    assert found.examples_error == pytest.approx(expected, rel=0.03)
    assert found.seeds_error == 0 and found.estimate == pytest.approx(values.mean())
    interval = stats.ttest_1samp(values.mean(0), 0.0).confidence_interval()
    assert (found.low, found.high) == pytest.approx(tuple(interval), abs=0.1 * expected)


def test_few_examples_are_no_bias():
    values = outcomes(3, runs=2, examples=6)
    found = resampling.over_examples(draw_scores(means(values), 6, draws=8_000))
    assert found.examples_error == pytest.approx(stats.sem(values.mean(0)), rel=0.04)


def test_runs_and_examples_are_drawn_independently():
    values = np.arange(10.0)[:, None] + np.arange(10.0)
    found = resampling.over_seeds_and_examples(draw_scores(means(values), 10, 4_000))
    # Both are means of ten of the numbers 0 to 9, whose variance is 8.25.
    assert found.draws.var() == pytest.approx(2 * 8.25 / 10, rel=0.1)


@pytest.mark.parametrize("pairs", [True, False])
def test_errors_are_those_of_a_two_way_analysis_of_variance(pairs):
    """Unbiased parts of the variance, by the mean squares of runs, examples and the rest."""
    a, b = outcomes(1, 12, 90, alone=2.0), outcomes(2, 12 if pairs else 15, 90, alone=2.0)
    expected_seeds, mean = 0.0, 0.0
    for sign, values in [(1, a - b)] if pairs else [(1, a), (-1, b)]:
        n, m = values.shape
        rest = values - values.mean(0) - values.mean(1)[:, None] + values.mean()
        interaction = (rest**2).sum() / ((n - 1) * (m - 1))
        expected_seeds += values.mean(1).var(ddof=1) / n - interaction / (n * m)
        mean = mean + sign * values.mean(0)
    scores = [draw_scores(means(side), 90, draws=8_000) for side in (a, b)]
    found = resampling.over_seeds_and_examples(*scores, pairs=pairs)
    assert expected_seeds > 0
    assert found.examples_error == pytest.approx(stats.sem(mean), rel=0.04)
    assert found.seeds_error == pytest.approx(np.sqrt(expected_seeds), rel=0.15)
    half = np.hypot(found.seeds_error, found.examples_error) * 2
    assert found.high - found.low == pytest.approx(2 * half, rel=0.15)
    assert found.low < found.estimate < found.high


def test_pairs_have_a_smaller_error_than_strangers():
    a = outcomes(1, 10, 80)
    b = a + 0.1 * np.random.default_rng(0).normal(size=(10, 1))
    scores = [draw_scores(means(side), 80) for side in (a, b)]
    near = resampling.over_seeds_and_examples(*scores)
    far = resampling.over_seeds_and_examples(*scores, pairs=False)
    assert near.estimate == pytest.approx(far.estimate)
    assert near.high - near.low < (far.high - far.low) / 2


def test_with_one_value_everywhere_both_levels_have_no_width():
    a = draw_scores(means(np.ones((10, 20))), 20, 50)
    found = resampling.over_seeds_and_examples(a, a)
    assert (found.estimate, found.low, found.high) == (0, 0, 0)
    found = resampling.over_examples(a)
    assert (found.estimate, found.low, found.high) == (1, 1, 1)


def test_a_score_that_is_no_mean_has_an_interval():
    # The median: known standard error sqrt(pi / 2 n) for normal data.
    values = np.random.default_rng(0).normal(size=400)
    a = draw_scores([lambda chosen: float(np.median(values[chosen]))], 400, 1000)
    found = resampling.over_examples(a)
    assert found.estimate == np.median(values)
    assert found.examples_error == pytest.approx(np.sqrt(np.pi / 800), rel=0.3)
    assert found.low < found.estimate < found.high


def test_draws_without_a_score_are_left_out():
    rare = np.arange(30) == 3

    def of_the_rare_class(chosen):
        return float(chosen[rare[chosen]].mean()) if rare[chosen].any() else np.nan

    found = resampling.over_examples(draw_scores([of_the_rare_class], 30, 500))
    assert found.estimate == 3 and 200 < len(found.draws) < 400


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, b: resampling.over_seeds_and_examples(a(9)), "9 seeds are too few"),
        (lambda a, b: resampling.over_seeds_and_examples(a(12), b(4), False), "4 seeds"),
        (lambda a, b: resampling.over_seeds_and_examples(a(10), b(11)), "no pairs"),
        (lambda a, b: resampling.over_examples(a(2), b(2, examples=31)), "the same draws"),
        (lambda a, b: resampling.over_examples(a(2), b(2, seed=1)), "the same draws"),
        (lambda a, b: a(2, examples=1), "two examples"),
        (lambda a, b: draw_scores(Means(np.ones((1, 4)), np.zeros((1, 4))), 4), "no finite score"),
        (lambda a, b: draw_scores(means(np.full((2, 4), np.nan)), 4), "leave out runs that failed"),
        (lambda a, b: draw_scores([lambda chosen: np.nan], 4), "no finite score"),
    ],
)
def test_bad_input_is_one_line(call, message):
    def some(runs, examples=30, seed=0):
        return draw_scores(means(outcomes(0, runs, examples)), examples, 20, seed)

    with pytest.raises(UserError, match=message):
        call(some, some)


def test_mcnemar_is_statsmodels():
    generator = np.random.default_rng(0)
    for share in (0.5, 0.7, 0.9):
        a, b = generator.random(60) < share, generator.random(60) < 0.6
        table = [[(a & b).sum(), (a & ~b).sum()], [(b & ~a).sum(), (~a & ~b).sum()]]
        found = mcnemar(a, b)
        assert found.p == pytest.approx(contingency_tables.mcnemar(table, exact=True).pvalue)
        assert (found.only_a, found.only_b) == (table[0][1], table[1][0])
        assert found.difference == pytest.approx(a.mean() - b.mean())
        assert found.low < found.difference < found.high


def test_mcnemar_of_equal_answers():
    right = np.arange(50) % 3 > 0
    found = mcnemar(right, right)
    assert (found.only_a, found.only_b, found.p, found.difference) == (0, 0, 1.0, 0.0)
    assert found.low == -found.high and 0 < found.high < 0.1


def test_interval_of_mcnemar_covers():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(500):
        kind = generator.choice(4, 100, p=[0.7, 0.15, 0.05, 0.1])  # both, a alone, b alone, none
        found = mcnemar((kind == 0) | (kind == 1), (kind == 0) | (kind == 2))
        covered += found.low <= 0.1 <= found.high
    assert 465 <= covered <= 490


def test_scores_hold_what_was_drawn():
    found = draw_scores(means(outcomes(0, runs=3, examples=20)), 20, draws=15, seed=4)
    assert isinstance(found, Scores) and found.seed == 4
    assert found.drawn.shape == (15, 3) and found.observed.shape == (3,)
