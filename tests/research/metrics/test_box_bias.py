"""Bias of boxes against a plain loop, boxes that were changed on purpose, and a bootstrap."""

import math

import numpy as np
import pytest

from research.metrics.box_bias import matched, median, of_boxes


def split(seed=0, images=40, objects=5, detections=9):
    """Detections around objects, others anywhere; some objects are crowds, some slots padding."""
    rng = np.random.default_rng(seed)

    def boxes(shape):
        low = rng.uniform(0, 80, (*shape, 2))
        return np.concatenate([low, low + rng.uniform(4, 40, (*shape, 2))], -1)

    true, found = boxes((images, objects)), boxes((images, detections))
    near = true + rng.normal(0, 4, true.shape)
    found[:, :objects] = np.sort(near.reshape(images, objects, 2, 2), axis=2).reshape(near.shape)
    targets = {
        "boxes": true.astype("f"),
        "valid": rng.random((images, objects)) < 0.8,
        "crowd": rng.random((images, objects)) < 0.2,
    }
    return {
        "boxes": found.astype("f"),
        "scores": rng.random((images, detections)).astype("f"),
        "valid": rng.random((images, detections)) < 0.8,
    }, targets


def loop(detections, targets, threshold):
    """The same in plain Python: the lists of four ratios and offsets."""

    def iou(a, b):
        w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        both = max(w, 0) * max(h, 0)
        return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)

    rows = []
    for i in range(len(targets["valid"])):
        free = [
            j for j in range(targets["valid"].shape[1])
            if targets["valid"][i, j] and not targets["crowd"][i, j]
        ]  # fmt: skip
        told = [k for k in range(detections["valid"].shape[1]) if detections["valid"][i, k]]
        for k in sorted(told, key=lambda k: -detections["scores"][i, k]):
            a = detections["boxes"][i, k].tolist()
            overlaps = {j: iou(a, targets["boxes"][i, j].tolist()) for j in free}
            best = max(overlaps, key=overlaps.get, default=None)
            if best is None or overlaps[best] < threshold:
                continue
            free.remove(best)
            b = targets["boxes"][i, best].tolist()
            w, h = b[2] - b[0], b[3] - b[1]
            rows.append(
                (
                    (a[2] - a[0]) / w,
                    (a[3] - a[1]) / h,
                    ((a[0] + a[2]) - (b[0] + b[2])) / 2 / w,
                    ((a[1] + a[3]) - (b[1] + b[3])) / 2 / h,
                )
            )
    return rows


@pytest.mark.parametrize("threshold", [0.2, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_bias_against_a_loop(seed, threshold):
    detections, targets = split(seed)
    found, rows = of_boxes(detections, targets, threshold), loop(detections, targets, threshold)
    assert found.also["matches"] == len(rows) > 50 and not found.warning
    width, height, x, y = zip(*rows, strict=True)
    assert found.also["centre to the right"] == pytest.approx(np.median(x), abs=1e-6)
    assert found.also["centre below"] == pytest.approx(np.median(y), abs=1e-6)
    for estimate, values in ((found.ratios["width"], width), (found.ratios["height"], height)):
        ordered, n = sorted(values), len(values)
        middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
        assert estimate.value == pytest.approx(middle, abs=1e-6)
        # As many ranks off as one standard deviation of n fair coins, between two values each.
        ends = []
        for rank in ((n - 1) / 2 - math.sqrt(n) / 2, (n - 1) / 2 + math.sqrt(n) / 2):
            first = math.floor(rank)
            ends.append(ordered[first] + (rank - first) * (ordered[first + 1] - ordered[first]))
        assert estimate.error == pytest.approx((ends[1] - ends[0]) / 2, abs=1e-6)


def test_boxes_that_are_too_wide_and_stand_aside_say_so():
    """At IoU 0.5 those that are not so bad would be all that is seen."""
    detections, targets = split()
    detections = {**targets, "scores": np.ones(targets["valid"].shape, "f")}
    boxes = targets["boxes"]
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    rng = np.random.default_rng(1)
    grow = 1.6 * np.exp(rng.normal(0, 0.3, width.shape))
    centre = (boxes[..., 0] + boxes[..., 2]) / 2 - 0.1 * width
    moved = [centre - grow * width / 2, boxes[..., 1] + 0.05 * height]
    moved += [centre + grow * width / 2, boxes[..., 3] + 0.05 * height]
    found = of_boxes({**detections, "boxes": np.stack(moved, -1)}, targets)
    wide, high = found.ratios["width"], found.ratios["height"]
    assert abs(wide.value - 1.6) < 3 * wide.error < 0.2
    assert high.value == pytest.approx(1, abs=1e-3) and not high.off
    (warning,) = found.warnings()
    assert "width 1." in warning
    assert found.also["centre to the right"] == pytest.approx(-0.1, abs=1e-3)
    assert found.also["centre below"] == pytest.approx(0.05, abs=1e-3)
    real = targets["valid"] & ~targets["crowd"]
    assert 0.9 * real.sum() < found.also["matches"] <= real.sum()


@pytest.mark.parametrize("n", [25, 400])
def test_the_error_of_a_median_is_how_far_medians_of_other_draws_lie(n):
    rng = np.random.default_rng(0)
    draws = np.exp(rng.normal(0, 0.5, (600, n)))  # skewed
    estimates = [median(draw) for draw in draws]
    actual = np.std([estimate.value for estimate in estimates])
    assert np.mean([estimate.error for estimate in estimates]) == pytest.approx(actual, rel=0.15)


def test_few_or_no_matches():
    detections, targets = split(images=1, objects=1)
    nothing = {**targets, "valid": targets["valid"] & False}
    found = of_boxes(detections, nothing)
    assert all(math.isnan(x) for ratio in found.ratios.values() for x in ratio)
    assert found.warnings() == ["only 0 objects were matched with a detection"]
    none = {name: value[:, :0] for name, value in targets.items()}
    assert of_boxes(detections, none).also["matches"] == 0
    no_detections = {name: value[:, :0] for name, value in detections.items()}
    assert of_boxes(no_detections, targets).also["matches"] == 0
    assert median(np.array([1.5])).value == 1.5 and math.isnan(median(np.array([1.5])).error)


def test_objects_without_width_are_matched_by_nothing():
    targets = {
        "boxes": np.array([[[5, 5, 5, 25], [0, 0, 10, 20]]], "f"),
        "valid": np.ones((1, 2), bool),
        "crowd": np.zeros((1, 2), bool),
    }
    detections = {
        "boxes": np.array([[[5, 5, 5, 25], [0, 0, 10, 20]]], "f"),
        "scores": np.array([[0.9, 0.8]], "f"),
        "valid": np.ones((1, 2), bool),
    }
    image, detection, target = matched(detections, targets, threshold=0.0)
    assert (image.tolist(), detection.tolist(), target.tolist()) == ([0], [0], [1])
