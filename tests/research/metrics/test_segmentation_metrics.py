"""One confusion matrix of a whole split, boundaries by a loop, the Rand score by pairs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

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


def test_the_confusion_matrix_is_scikit_learn_s():
    true, guess = masks()
    found = metrics.confusion(jnp.asarray(true), jnp.asarray(guess), 4)
    assert found.shape == (5, 4, 4)
    inside = true != 255
    expected = sklearn.metrics.confusion_matrix(true[inside], guess[inside], labels=range(4))
    np.testing.assert_array_equal(found.sum(0), expected)
    for one, t, g in zip(found, true, guess, strict=True):
        inside = t != 255
        np.testing.assert_array_equal(
            one, sklearn.metrics.confusion_matrix(t[inside], g[inside], labels=range(4))
        )


def test_scores_are_those_of_the_whole_split_and_absent_classes_are_left_out():
    true, guess = masks()
    matrix = np.asarray(metrics.confusion(jnp.asarray(true), jnp.asarray(guess), 4)).sum(0)
    inside = true != 255
    t, g = true[inside], guess[inside]
    jaccard = sklearn.metrics.jaccard_score(t, g, average=None, labels=range(3))
    f1 = sklearn.metrics.f1_score(t, g, average=None, labels=range(3))
    score = metrics.score(matrix, np.zeros((4, 4), int), NAMES)
    assert score["mIoU"] == pytest.approx(jaccard.mean())
    assert [score[f"iou/{n}"] for n in "abc"] == pytest.approx(list(jaccard))
    assert score["dice"] == pytest.approx(f1.mean())
    assert [score[f"dice/{n}"] for n in "abc"] == pytest.approx(list(f1))
    assert "iou/d" not in score
    assert score["pixel_accuracy"] == pytest.approx((t == g).mean())
    assert score["pixel_error"] == pytest.approx((t != g).mean())
    # A class that is predicted though it is nowhere counts, with 0.
    matrix[0, 3] += 1
    assert metrics.score(matrix, np.zeros((4, 4), int), NAMES)["iou/d"] == 0
    # The mean of the images' own values is another number, and not what is reported.
    of_images = np.mean(
        [
            sklearn.metrics.jaccard_score(t.ravel(), g.ravel(), average="macro", labels=range(3))
            for t, g in zip(true[1:], guess[1:], strict=True)
        ]
    )
    assert abs(score["mIoU"] - of_images) > 1e-3


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
    # A function of its own, as jit remembers one that was traced with another radius.
    count = jax.jit(lambda *masks: metrics.boundary_counts(*masks, 4))
    counts = count(jnp.asarray(true), jnp.asarray(guess))
    for b, c in itertools.product(range(2), range(4)):
        valid = true[b] != 255
        t, g = boundary(true[b], c, valid), boundary(guess[b], c, valid)

        def near(these, those):
            return sum(any(np.hypot(i - y, j - x) <= radius for y, x in those) for i, j in these)

        assert counts[b, c].tolist() == [near(g, t), len(g), near(t, g), len(t)]
    assert counts[:, 3].sum() == 0


def test_a_boundary_that_is_right_scores_one_and_one_far_off_zero():
    true = np.zeros((1, 40, 40), "u1")
    true[0, :10] = 1
    moved = np.roll(true, 20, axis=1)
    for guess, expected in ((true, 1.0), (moved, 0.0)):
        counts = metrics.boundary_counts(jnp.asarray(true), jnp.asarray(guess), 2)
        score = metrics.score(np.eye(2, dtype=int), np.asarray(counts).sum(0), NAMES)
        assert score["boundary_f1"] == expected
    assert metrics.tolerance(512, 512) == 5 and metrics.tolerance(64, 64) == 1


def test_cross_entropy_is_weighted_by_pixels():
    rng = np.random.default_rng(0)
    true, _ = masks()
    p = rng.dirichlet(np.ones(4), true.shape).astype("f")
    values, weights = metrics.cross_entropy(jnp.asarray(p), jnp.asarray(true))
    inside = true != 255
    expected = -np.log(np.take_along_axis(p[inside], true[inside][:, None].astype(int), 1)).mean()
    assert float((values * weights).sum() / weights.sum()) == pytest.approx(expected, rel=1e-5)
    assert weights[0] == 12 * 12 - 15


def test_an_image_without_foreground_has_no_part_in_the_rand_score():
    true = np.zeros((2, 6, 9), "u1")
    true[0, 1:5, :4] = true[0, 1:5, 5:] = 1
    guess = true.copy()
    guess[1] = 1
    assert metrics.rand_score(true, guess)["rand_score"] == pytest.approx(1.0)
    assert metrics.rand_score(true[1:], guess[1:]) == {}


def test_the_rand_score_counts_pairs_of_pixels():
    true = np.zeros((1, 6, 9), "u1")
    true[0, 1:5, :4] = true[0, 1:5, 5:] = 1  # two cells with a wall between them
    broken = true.copy()
    broken[0, 2, 4] = 1  # a gap in the wall makes one of the two
    parts = [(true == 1)[0, :, :4], (true == 1)[0, :, 5:]]
    sizes = [int(p.sum()) for p in parts]
    # Of all pairs of cell pixels, now in one component, those of one true cell belong together.
    pairs, everything = sum(n * (n - 1) for n in sizes), sum(sizes) * (sum(sizes) - 1)
    expected = 2 * pairs / (pairs + everything)
    assert metrics.rand_score(true, true)["rand_score"] == pytest.approx(1.0)
    assert metrics.rand_score(true, broken)["rand_score"] == pytest.approx(expected)
    thick = true.copy()
    thick[0, :, 3:6] = 0  # a thicker wall parts the same cells
    assert metrics.rand_score(true, thick)["rand_score"] == pytest.approx(1.0)
