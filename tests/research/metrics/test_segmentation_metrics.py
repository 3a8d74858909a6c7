"""Counts over a whole split by scikit-learn, boundaries by a loop, the Rand score by pairs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from research.data.images.masks import IGNORE
from research.metrics import segmentation as metrics

NAMES = ("a", "b", "c", "d")


def masks(seed=0, n=5, side=12):
    """Blocky truths and predictions; class 3 never occurs, and some pixels are ignored."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 3, (2, n, side // 3, side // 3)).astype("u1")
    true, guess = np.repeat(np.repeat(small, 3, axis=2), 3, axis=3)
    guess = np.where(rng.random(guess.shape) < 0.7, true, guess)
    true[0, :3, :5] = 255
    return true, guess.astype("u1")


def counted(true, guess, classes=4, rand=False):
    """What is kept of a split."""
    rows = [metrics.compare(t, g, classes, rand) for t, g in zip(true, guess, strict=True)]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def test_areas_are_margins_and_diagonal_of_scikit_learn_s_confusion_matrix():
    for t, g in zip(*masks(), strict=True):
        inside = t != IGNORE
        expected = sklearn.metrics.confusion_matrix(t[inside], g[inside], labels=range(4))
        found = metrics.areas(t, g, 4)
        np.testing.assert_array_equal(found[:, 0], expected.sum(1))
        np.testing.assert_array_equal(found[:, 1], expected.sum(0))
        np.testing.assert_array_equal(found[:, 2], np.diag(expected))


def test_scores_are_those_of_the_whole_split_and_absent_classes_are_left_out():
    true, guess = masks()
    counts = counted(true, guess)
    inside = true != IGNORE
    t, g = true[inside], guess[inside]
    jaccard = sklearn.metrics.jaccard_score(t, g, average=None, labels=range(3))
    f1 = sklearn.metrics.f1_score(t, g, average=None, labels=range(3))
    score = metrics.score(counts, NAMES)
    assert score["mIoU"] == pytest.approx(jaccard.mean())
    assert [score[f"iou/{n}"] for n in "abc"] == pytest.approx(list(jaccard))
    assert score["dice"] == pytest.approx(f1.mean())
    assert [score[f"dice/{n}"] for n in "abc"] == pytest.approx(list(f1))
    assert "iou/d" not in score
    assert score["pixel_accuracy"] == pytest.approx((t == g).mean())
    assert score["pixel_error"] == pytest.approx((t != g).mean())
    # A class that is predicted though it is nowhere counts, with 0.
    counts["areas"][0, 3, 1] += 1
    assert metrics.score(counts, NAMES)["iou/d"] == 0
    # The mean of the images' own values is another number, and not what is reported.
    of_images = np.mean(
        [
            sklearn.metrics.jaccard_score(t.ravel(), g.ravel(), average="macro", labels=range(3))
            for t, g in zip(true[1:], guess[1:], strict=True)
        ]
    )
    assert abs(score["mIoU"] - of_images) > 1e-3


def test_what_has_no_pixel_to_be_scored_is_left_out():
    """Ignored pixels alone, beside other images and by themselves; one class; none predicted."""
    true, guess = masks()
    nothing = np.full_like(true[:1], IGNORE)
    beside = [np.concatenate(pair) for pair in ((true, nothing), (guess, guess[:1]))]
    whole, plain = (
        metrics.score(counted(*pair, rand=True), NAMES) for pair in (beside, (true, guess))
    )
    assert whole == plain and "rand_score" in plain
    assert metrics.score(counted(nothing, guess[:1], rand=True), NAMES) == {}
    # One class that is right everywhere: no boundary and no foreground to speak of.
    same = np.zeros_like(true)
    assert metrics.score(counted(same, same, rand=True), NAMES) == {
        "mIoU": 1, "dice": 1, "pixel_accuracy": 1, "pixel_error": 0, "iou/a": 1, "dice/a": 1
    }  # fmt: skip
    # A true boundary that nobody found, and one that is found where there is none, score 0.
    for pair in ((true[1:], same[1:]), (same[1:], true[1:])):
        assert metrics.score(counted(*pair), NAMES)["boundary_f1"] == 0


def test_pixels_that_nothing_was_predicted_of_are_missed():
    true, guess = masks()
    cut = guess.copy()
    cut[:, :6] = IGNORE
    score = metrics.score(counted(true, cut), NAMES)
    known = true != IGNORE
    assert score["pixel_accuracy"] == pytest.approx((true == cut)[known].mean())
    hit = ((true == 1) & (cut == 1)).sum()
    union = (((true == 1) | (cut == 1)) & known).sum()
    assert score["iou/b"] == pytest.approx(hit / union)


def boundary(mask, c, valid):
    height, width = mask.shape
    found = []
    for i, j in itertools.product(range(height), range(width)):
        beside = [(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
        beside = [(y, x) for y, x in beside if 0 <= y < height and 0 <= x < width and valid[y, x]]
        if valid[i, j] and mask[i, j] == c and any(mask[at] != c for at in beside):
            found.append((i, j))
    return found


@pytest.mark.parametrize("radius", [1, 2])
def test_boundaries_are_a_loop(radius, monkeypatch):
    monkeypatch.setattr(metrics, "tolerance", lambda height, width: radius)
    true, guess = masks(seed=radius, n=2)
    guess[1, 2:5, 3:] = IGNORE  # what a crop cut off
    for t, g in zip(true, guess, strict=True):
        counts = metrics.boundary_counts(t, g, 4)
        for c in range(4):
            inside = t != IGNORE
            truly, guessed = boundary(t, c, inside), boundary(g, c, inside & (g != IGNORE))

            def near(these, those):
                return sum(
                    any(np.hypot(i - y, j - x) <= radius for y, x in those) for i, j in these
                )

            expected = [near(guessed, truly), len(guessed), near(truly, guessed), len(truly)]
            assert counts[c].tolist() == expected
        assert counts[3].sum() == 0


def test_a_boundary_that_is_right_scores_one_and_one_far_off_zero():
    true = np.zeros((1, 40, 40), "u1")
    true[0, :10] = 1
    moved = np.roll(true, 20, axis=1)
    for guess, expected in ((true, 1.0), (moved, 0.0)):
        assert metrics.score(counted(true, guess), NAMES)["boundary_f1"] == expected
    assert metrics.tolerance(512, 512) == 5 and metrics.tolerance(64, 64) == 1


def test_cross_entropy_is_weighted_by_pixels():
    rng = np.random.default_rng(0)
    true, _ = masks()
    p = rng.dirichlet(np.ones(4), true.shape).astype("f")
    values, weights = metrics.cross_entropy(jnp.log(p), jnp.asarray(true))
    inside = true != IGNORE
    expected = -np.log(np.take_along_axis(p[inside], true[inside][:, None].astype(int), 1)).mean()
    assert float((values * weights).sum() / weights.sum()) == pytest.approx(expected, rel=1e-5)
    assert weights[0] == 12 * 12 - 15


def test_cross_entropy_has_no_ceiling():
    """A network that is sure of the wrong class: 500 nats, of which a probability holds 87."""
    log_p = jax.nn.log_softmax(jnp.array([0.0, 500.0])) * jnp.ones((1, 4, 4, 1))
    value, _ = metrics.cross_entropy(log_p, jnp.zeros((1, 4, 4), jnp.uint8))
    assert float(value[0]) == 500


def test_scores_that_are_no_numbers_decide_for_no_class():
    scores = np.log(np.random.default_rng(0).dirichlet(np.ones(3), (2, 2))).astype("f")
    best = scores.argmax(-1)
    scores[0, 1] = np.nan
    for array in (scores, jnp.asarray(scores)):
        found = np.array(metrics.decide(array))
        assert found.dtype == np.uint8 and found[0, 1] == IGNORE
        found[0, 1] = best[0, 1]
        np.testing.assert_array_equal(found, best)
    assert not metrics.decide(np.zeros((2, 3), "f")).any()  # of equal ones the first, as argmax


def test_an_image_without_foreground_has_no_part_in_the_rand_score():
    true = np.zeros((6, 9), "u1")
    true[1:5, :4] = true[1:5, 5:] = 1
    empty = np.zeros_like(true)
    assert metrics.rand_score(true, true) == pytest.approx(1.0)
    assert np.isnan(metrics.rand_score(empty, np.ones_like(true)))
    counts = counted(np.stack([true, empty]), np.stack([true, true]), rand=True)
    assert metrics.score(counts, NAMES)["rand_score"] == pytest.approx(1.0)
    # Nothing found: all cells are one, with the wall between them.
    one = 2 * 32 * 15 / (32 * 15 + 32 * 31)  # pairs of pixels, of one cell of 16 and of both
    assert metrics.rand_score(true, empty) == pytest.approx(one)


def test_the_rand_score_counts_pairs_of_pixels():
    true = np.zeros((6, 9), "u1")
    true[1:5, :4] = true[1:5, 5:] = 1  # two cells with a wall between them
    broken = true.copy()
    broken[2, 4] = 1  # a gap in the wall makes one of the two
    parts = [(true == 1)[:, :4], (true == 1)[:, 5:]]
    sizes = [int(p.sum()) for p in parts]
    # Of all pairs of cell pixels, now in one component, those of one true cell belong together.
    pairs, everything = sum(n * (n - 1) for n in sizes), sum(sizes) * (sum(sizes) - 1)
    expected = 2 * pairs / (pairs + everything)
    assert metrics.rand_score(true, true) == pytest.approx(1.0)
    assert metrics.rand_score(true, broken) == pytest.approx(expected)
    thick = true.copy()
    thick[:, 3:6] = 0  # a thicker wall parts the same cells
    assert metrics.rand_score(true, thick) == pytest.approx(1.0)


def test_a_boundary_may_be_off_by_a_pixel_or_a_share_of_the_diagonal():
    assert metrics.tolerance(10, 10) == 1
    assert metrics.tolerance(300, 400) == round(500 * metrics.TOLERANCE) > 1
