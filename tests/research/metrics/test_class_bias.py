"""Ratios and their standard errors against plain loops, leaving one out, and drawing anew."""

import math

import numpy as np
import pytest

from research.metrics.bias import Ratio, ratio_of_sums
from research.metrics.class_bias import of_areas, of_shares
from research.metrics.segmentation import areas


def images(n, seed=0, factor=1.3):
    """True areas, in a third of the images none, and predicted ones that are too large."""
    rng = np.random.default_rng(seed)
    whole = rng.integers(20, 400, n) * (np.arange(n) % 3 > 0)
    part = np.round(whole * factor * rng.lognormal(0, 0.2, n)).astype(int)
    part[0] = 7  # made up
    return part, whole


def test_ratio_and_error_by_a_loop():
    part, whole = images(20)
    top = bottom = squares = present = 0
    for p, w in zip(part.tolist(), whole.tolist(), strict=True):
        top, bottom = top + p, bottom + w
    for p, w in zip(part.tolist(), whole.tolist(), strict=True):
        if p or w:
            present += 1
            squares += (p - top / bottom * w) ** 2
    error = math.sqrt(present * squares / (present - 1)) / bottom
    assert ratio_of_sums(part, whole) == pytest.approx((top / bottom, error))


def test_the_error_is_what_leaving_each_image_out_and_other_images_give():
    part, whole = images(150)
    ratio = ratio_of_sums(part, whole)
    n = len(part)
    without = [(part.sum() - p) / (whole.sum() - w) for p, w in zip(part, whole, strict=True)]
    jackknife = math.sqrt((n - 1) * np.var(without))
    assert ratio.error == pytest.approx(jackknife, rel=0.05)
    drawn = [ratio_of_sums(*images(150, seed)).value for seed in range(300)]
    assert ratio.error == pytest.approx(np.std(drawn), rel=0.2)
    assert abs(ratio.value - 1.3 * math.exp(0.2**2 / 2)) < 2 * ratio.error < 0.1


def test_too_few_images_have_no_error_and_no_truth_no_ratio():
    assert ratio_of_sums(np.array([3, 0]), np.array([2, 0])) == pytest.approx(
        (1.5, math.nan), nan_ok=True
    )
    assert all(map(math.isnan, ratio_of_sums(np.array([3, 1]), np.array([0, 0]))))
    assert ratio_of_sums(np.array([0, 0]), np.array([2, 4])) == Ratio(0.0, 0.0)


def test_areas_by_class():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, (6, 9, 7)).astype("u1")
    guess = np.where(rng.random(true.shape) < 0.3, 1, true).astype("u1")  # class 1 swallows others
    true[:, 0] = 255
    counts = np.stack([areas(t, g, 4) for t, g in zip(true, guess, strict=True)])
    found = of_areas(counts, ("a", "b", "c", "never")).ratios
    known = true != 255
    for k, name in enumerate("abc"):
        said, there = ((x == k) & known for x in (guess, true))
        assert found[name].value == pytest.approx(said.sum() / there.sum())
        assert found[name] == ratio_of_sums(said.sum((1, 2)), there.sum((1, 2)))
    assert found["b"].value > 1 + 2 * found["b"].error > 1 > found["a"].value
    assert math.isnan(found["never"].value)


def test_shares_of_classes():
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
    predicted = np.array([0, 0, 2, 2, 1, 2, 2, 2, 2, 2])
    found = of_shares(labels, predicted, ("a", "b", "c", "never")).ratios
    # Of the three images of a, or taken for it: 1 - R, 1 - R and R with R = 2/3.
    error = math.sqrt(3 / 2 * ((1 / 3) ** 2 + (1 / 3) ** 2 + (2 / 3) ** 2)) / 3
    assert found["a"] == pytest.approx((2 / 3, error))
    assert found["c"].value == pytest.approx(7 / 5)
    assert math.isnan(found["never"].value)
    # Everything taken for one class: nothing else is left to vary.
    one = of_shares(labels, np.full(10, 2), ("a", "b", "c")).ratios
    assert one["c"].value == 2 and one["a"] == Ratio(0.0, 0.0)
