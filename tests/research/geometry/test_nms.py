"""Non-maximum suppression: torchvision's answers, a plain loop, ties, no area, nothing at all."""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.detection.config import DetectionConfig
from research.detection.selection import select
from research.geometry.nms import detect, nms

CASES = json.loads((Path(__file__).parents[2] / "fixtures" / "torchvision_boxes.json").read_text())[
    "nms"
]


def kept(result):
    return np.asarray(result.box)[np.asarray(result.valid)].tolist()


@pytest.mark.parametrize("case", CASES, ids=["0.3", "0.5 with ties", "0.7"])
def test_equals_torchvision(case):
    boxes, scores = (jnp.array(case[key], jnp.float32) for key in ("boxes", "scores"))
    run = jax.jit(nms, static_argnames=("count", "threshold", "least"))
    options = {"count": len(scores), "threshold": case["threshold"], "least": -1.0}
    assert kept(run(boxes, scores, **options)) == case["nms"]
    by_class = run(boxes, scores, classes=jnp.array(case["classes"]), **options)
    assert kept(by_class) == case["batched_nms"]
    few = run(boxes, scores, **{**options, "count": 5})
    assert kept(few) == case["nms"][:5]


def soft_loop(boxes, scores, sigma, least):
    """Bodla et al. 2017, figure 3, with the Gaussian of equation 3."""

    def iou(a, b):
        w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        both = max(w, 0) * max(h, 0)
        return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)

    rest, out = dict(enumerate(map(float, scores))), []
    while rest:
        best = max(rest, key=lambda i: rest[i])
        out.append((best, rest.pop(best)))
        rest = {
            i: s * math.exp(-(iou(boxes[best], boxes[i]) ** 2) / sigma) for i, s in rest.items()
        }
        rest = {i: s for i, s in rest.items() if s > least}
    return out


def test_soft_suppression_against_a_loop():
    boxes, scores = (np.array(CASES[0][key]) for key in ("boxes", "scores"))
    result = nms(
        jnp.array(boxes, jnp.float32), jnp.array(scores, jnp.float32), 60, sigma=0.5, least=0.05
    )
    expected = soft_loop(boxes, scores, 0.5, 0.05)
    assert len(expected) < 60
    assert kept(result) == [i for i, _ in expected]
    np.testing.assert_allclose(
        result.score[: len(expected)], [score for _, score in expected], rtol=1e-4
    )


def test_of_equal_boxes_and_scores_the_first_stays():
    boxes = jnp.array([[0, 0, 4, 4]] * 3 + [[8, 8, 9, 9]], jnp.float32)
    assert kept(nms(boxes, jnp.array([0.5, 0.5, 0.5, 0.5]), 4)) == [0, 3]


def test_an_overlap_of_exactly_the_threshold_is_allowed():
    boxes = jnp.array([[0, 0, 4, 4], [0, 0, 4, 2]], jnp.float32)  # IoU 1/2
    assert kept(nms(boxes, jnp.array([0.9, 0.8]), 2, 0.5)) == [0, 1]
    assert kept(nms(boxes, jnp.array([0.9, 0.8]), 2, 0.49)) == [0]


def test_boxes_without_area_neither_suppress_nor_are_suppressed():
    boxes = jnp.array([[2, 2, 2, 2], [2, 2, 2, 2], [0, 0, 4, 4]], jnp.float32)
    assert kept(nms(boxes, jnp.array([0.9, 0.8, 0.7]), 3)) == [0, 1, 2]


def test_nothing_in_gives_nothing_out():
    assert kept(nms(jnp.zeros((0, 4)), jnp.zeros(0), 5)) == []
    assert kept(nms(jnp.zeros((3, 4)), jnp.full(3, -jnp.inf), 5)) == []


def test_padding_is_never_kept_and_more_may_be_asked_than_there_is():
    boxes = jnp.array([[0, 0, 4, 4], [10, 10, 14, 14], [20, 20, 24, 24]], jnp.float32)
    result = nms(boxes, jnp.array([0.2, -jnp.inf, 0.3]), 10, least=0.1)
    assert kept(result) == [2, 0]
    assert result.valid.shape == (10,)


def test_a_batch_is_its_images():
    boxes = jnp.array([case["boxes"] for case in CASES], jnp.float32)
    scores = jnp.array([case["scores"] for case in CASES], jnp.float32)
    together = jax.jit(jax.vmap(lambda b, s: nms(b, s, 20)))(boxes, scores)
    for i in range(len(CASES)):
        alone = nms(boxes[i], scores[i], 20)
        np.testing.assert_array_equal(together.box[i], alone.box)


def test_as_many_objects_are_found_as_may_be_told():
    """Nine cells answer for each of 90 objects, and each says two classes: 1,620 candidates."""
    rng = np.random.default_rng(0)
    corner = 32.0 * np.stack(np.meshgrid(np.arange(10), np.arange(9)), -1).reshape(-1, 1, 2)
    low = corner + 4 + rng.uniform(-1, 1, (90, 9, 2))
    boxes = np.concatenate([low, low + 24], -1).reshape(1, -1, 4)
    scores = np.zeros((1, 810, 3))
    scores[..., 0] = (rng.uniform(0.3, 0.9, (90, 1)) + rng.uniform(0, 0.1, (90, 9))).reshape(-1)
    scores[..., 2] = 0.3 * scores[..., 0]
    image_size, config = (288, 320), DetectionConfig()
    found = jax.jit(lambda b, s: select(config, b, s, image_size))(
        jnp.array(boxes, jnp.float32), jnp.array(scores, jnp.float32)
    )
    told = np.asarray(found["boxes"][0][found["valid"][0] & (found["classes"][0] == 0)])
    assert len(told) == 90  # best first: these stand before the second classes
    middle = (told[:, :2] + told[:, 2:]) / 2
    assert len({tuple(cell) for cell in (middle // 32).astype(int)}) == 90


def test_a_score_of_nothing_is_dropped_by_default():
    boxes = jnp.array([[0, 0, 4, 4], [8, 8, 12, 12], [0, 0, 4, 2.1]], jnp.float32)
    assert kept(nms(boxes, jnp.array([0.01, 0.0, 0.005]), 3)) == [0]  # IoU 0.525 above one half


def test_detections_are_those_of_each_class_alone_best_first_inside_the_image():
    rng = np.random.default_rng(0)
    low = rng.uniform(-4, 30, (2, 40, 2))
    boxes = np.concatenate([low, low + rng.uniform(4, 16, (2, 40, 2))], -1).astype("f")
    scores = rng.random((2, 40, 3)).astype("f")
    found = detect(jnp.array(boxes), jnp.array(scores), (32, 36), count=30, least=0.2)
    for i in range(2):
        rows = []
        for k in range(3):
            one = nms(jnp.array(boxes[i]), jnp.array(scores[i, :, k]), 40, 0.5, least=0.2)
            rows += [(scores[i, b, k], k, b) for b in kept(one)]
        rows = sorted(rows, reverse=True)[:30]
        inside = np.clip([boxes[i, b] for _, _, b in rows], 0, [36, 32, 36, 32])
        assert np.asarray(found["valid"][i]).all() and len(rows) == 30
        np.testing.assert_allclose(found["scores"][i], [score for score, _, _ in rows])
        np.testing.assert_array_equal(found["classes"][i], [k for _, k, _ in rows])
        np.testing.assert_allclose(found["boxes"][i], inside, rtol=1e-6)


def test_detection_leaves_out_low_scores_and_pads_with_nothing():
    boxes = jnp.array([[[0, 0, 8, 8], [20, 20, 28, 28]]], jnp.float32)
    scores = jnp.array([[[0.9, 0.005], [0.02, 0.6]]])
    found = detect(boxes, scores, (32, 32))
    assert found["valid"].shape == (1, 100) and found["valid"][0].tolist()[:4] == [1, 1, 1, 0]
    assert found["classes"][0, :3].tolist() == [0, 1, 0]
    assert not found["boxes"][0, 3:].any() and not found["scores"][0, 3:].any()
    few = detect(boxes, scores, (32, 32), candidates=2)  # of all pairs, the two best
    assert few["valid"].sum() == 2
    together = jnp.array([[[0, 0, 8, 8], [0, 0, 8, 7]]], jnp.float32)
    assert detect(together, scores, (32, 32))["valid"].sum() == 2  # 0.02 is of the first's class
    assert detect(together, scores, (32, 32), agnostic=True)["valid"].sum() == 1
