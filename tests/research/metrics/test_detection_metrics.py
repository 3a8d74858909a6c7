"""Detection metrics against COCO's own evaluator, examples worked by hand, and a plain loop."""

import contextlib
import io

import jax.numpy as jnp
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from research.geometry.boxes import iou
from research.metrics import detection as metrics

NAMES = ("cat", "dog", "owl")


def random_split(seed=0, images=12, objects=6, found=20):
    """Objects of very different sizes, some crowded, and detections near and far of them."""
    rng = np.random.default_rng(seed)

    def boxes(count):
        low = rng.uniform(0, 300, (images, count, 2))
        return np.concatenate([low, low + np.exp(rng.uniform(2, 5.3, (images, count, 2)))], 2)

    targets = {
        "boxes": boxes(objects).astype("f"),
        "classes": rng.integers(0, 3, (images, objects)),
        "valid": rng.random((images, objects)) < 0.7,
        "crowd": rng.random((images, objects)) < 0.15,
    }
    near = rng.random((images, found)) < 0.7
    which = rng.integers(0, objects, (images, found))
    moved = np.take_along_axis(targets["boxes"], which[..., None], 1)
    moved = moved + rng.normal(size=moved.shape) * 4
    classes = np.take_along_axis(targets["classes"], which, 1)
    detections = {
        "boxes": np.where(near[..., None], moved, boxes(found)).astype("f"),
        "classes": np.where(rng.random(near.shape) < 0.8, classes, rng.integers(0, 3, near.shape)),
        "scores": rng.random((images, found)).astype("f"),
        "valid": rng.random((images, found)) < 0.8,
    }
    return detections, targets


def official(detections, targets):
    """The twelve numbers that pycocotools prints."""

    def xywh(box):
        x0, y0, x1, y1 = map(float, box)
        return [x0, y0, x1 - x0, y1 - y0]

    truth, found = [], []
    for i in range(len(targets["valid"])):
        for j in np.flatnonzero(targets["valid"][i]):
            box = xywh(targets["boxes"][i, j])
            row = {"id": len(truth) + 1, "image_id": i, "bbox": box, "area": box[2] * box[3]}
            row["category_id"] = int(targets["classes"][i, j])
            truth.append({**row, "iscrowd": int(targets["crowd"][i, j])})
        for k in np.flatnonzero(detections["valid"][i]):
            row = {"image_id": i, "bbox": xywh(detections["boxes"][i, k])}
            row["category_id"] = int(detections["classes"][i, k])
            found.append({**row, "score": float(detections["scores"][i, k])})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": i} for i in range(len(targets["valid"]))],
            "annotations": truth,
            "categories": [{"id": k, "name": name} for k, name in enumerate(NAMES)],
        }
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator.stats


@pytest.mark.parametrize("seed", range(3))
def test_coco_metrics_equal_pycocotools(seed):
    detections, targets = random_split(seed)
    ours, theirs = metrics.score(detections, targets, NAMES), official(detections, targets)
    names = ("mAP", "mAP50", "mAP75", "mAP_small", "mAP_medium", "mAP_large")
    np.testing.assert_allclose([ours[name] for name in names], theirs[:6], atol=1e-9)
    assert ours["AR"] == pytest.approx(theirs[8])
    assert 0.05 < ours["mAP"] < ours["mAP50"] < 0.9
    assert np.mean([ours[f"AP50/{name}"] for name in NAMES]) == pytest.approx(ours["mAP50"])


def test_average_precision_by_hand():
    """Ten detections of five objects; those at ranks 1, 2, 6, 7 and 10 are right."""
    right = np.array([1, 1, 0, 0, 0, 1, 1, 0, 0, 1])
    recall, precision = right.cumsum() / 5, right.cumsum() / np.arange(1, 11)
    # Best precisions: 1 up to recall 0.4, 4/7 up to 0.8, 1/2 up to 1.
    eleven = (5 * 1 + 4 * 4 / 7 + 2 * 1 / 2) / 11
    assert metrics.average_precision(recall, precision, 11) == pytest.approx(eleven)
    area = 0.4 * 1 + 0.4 * 4 / 7 + 0.2 * 1 / 2
    assert metrics.average_precision(recall, precision) == pytest.approx(area)


def one_image(boxes, crowd, found, scores):
    n, k = len(boxes), len(found)
    targets = {
        "boxes": np.array([boxes], "f").reshape(1, n, 4),
        "classes": np.zeros((1, n), int),
        "valid": np.ones((1, n), bool),
        "crowd": np.array([crowd], bool).reshape(1, n),
    }
    detections = {
        "boxes": np.array([found], "f").reshape(1, k, 4),
        "classes": np.zeros((1, k), int),
        "scores": np.array([scores], "f").reshape(1, k),
        "valid": np.ones((1, k), bool),
    }
    return detections, targets


A, B, FAR = [0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]


def test_a_second_detection_of_an_object_is_wrong():
    split = one_image([A, B], [False, False], [A, A, B], [0.9, 0.8, 0.7])
    (curve,) = metrics.precision_recall(*split, 1)
    np.testing.assert_allclose(curve.precision, [1, 1 / 2, 2 / 3])
    np.testing.assert_allclose(curve.recall, [1 / 2, 1 / 2, 1])
    assert metrics.score(*split, ("cat",))["voc12_mAP"] == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_difficult_objects_are_neither_right_nor_wrong():
    split = one_image([A, B], [False, True], [B, B, A], [0.9, 0.8, 0.7])
    scores = metrics.score(*split, ("cat",))
    assert scores["voc12_mAP"] == scores["voc07_mAP"] == scores["mAP50"] == pytest.approx(1.0)
    split[1]["crowd"][:] = False
    assert metrics.score(*split, ("cat",))["voc12_mAP"] < 1


@pytest.mark.parametrize("seed", range(3))
def test_voc_curves_against_a_loop(seed):
    detections, targets = random_split(seed)
    for k, curve in enumerate(metrics.precision_recall(detections, targets, 3)):
        rows = [
            (-detections["scores"][i, d], i, d)
            for i, d in zip(*np.nonzero(detections["valid"]), strict=True)
            if detections["classes"][i, d] == k
        ]
        seen, outcomes = set(), []
        for _, i, d in sorted(rows):
            best, most = None, -1.0
            for j in np.flatnonzero(targets["valid"][i] & (targets["classes"][i] == k)):
                found = detections["boxes"][i, d][None]
                overlap = float(metrics.numpy_iou(found, targets["boxes"][i, j][None])[0])
                if overlap > most:
                    best, most = (i, j), overlap
            if most < 0.5:
                outcomes.append(0)
            elif not targets["crowd"][best]:
                outcomes.append(int(best not in seen))
                seen.add(best)
        np.testing.assert_allclose(
            curve.precision, np.cumsum(outcomes) / np.arange(1, len(outcomes) + 1)
        )


def test_no_detections_and_no_objects():
    nothing = one_image([A], [False], [], [])
    assert metrics.score(*nothing, ("cat",))["mAP50"] == 0.0
    assert metrics.score(*nothing, ("cat",))["voc12_mAP"] == 0.0
    # What there is to be found is named, and not found, as where a detection is wrong.
    wrong = one_image([A], [False], [FAR], [0.5])
    assert metrics.score(*nothing, ("cat",)) == metrics.score(*wrong, ("cat",))
    assert "AP50/cat" in metrics.score(*nothing, ("cat",))
    assert metrics.score(*one_image([], [], [A], [0.5]), ("cat",)) == {}


def test_share_of_objects_found_leaves_crowds_and_padding_out():
    detections, targets = one_image([A, B, FAR], [False, False, True], [A], [0.9])
    batch = {name: jnp.asarray(value) for name, value in targets.items()}
    outputs = {name: jnp.asarray(value) for name, value in detections.items()}
    value, weight = metrics.measure(outputs, batch)["recall50"]
    assert (value[0], weight[0]) == (0.5, 2.0)
    value, weight = metrics.measure(outputs, {**batch, "valid": batch["valid"] & False})["recall50"]
    assert (value[0], weight[0]) == (0.0, 0.0)


def test_what_stands_in_the_slots_of_no_object_counts_for_nothing():
    found, true = random_split(3)
    spoilt = []
    for arrays in (found, true):
        free = ~arrays["valid"]
        nothing = {"boxes": np.nan, "scores": np.nan, "classes": 99, "crowd": True}
        changed = {
            name: np.where(free if value.ndim == 2 else free[..., None], nothing[name], value)
            for name, value in arrays.items()
            if name != "valid"
        }
        spoilt.append({**changed, "valid": arrays["valid"]})
    for function, classes in ((metrics.score, tuple("abc")), (metrics.confusion, 3)):
        np.testing.assert_equal(function(found, true, classes), function(*spoilt, classes))
    as_arrays = lambda split: {name: jnp.asarray(value) for name, value in split.items()}
    a, b = (metrics.measure(*map(as_arrays, pair)) for pair in ((found, true), spoilt))
    np.testing.assert_array_equal(a["recall50"], b["recall50"])


def test_confusion_counts_classes_by_place_and_what_is_missed_or_made_up():
    detections, targets = one_image([A, B], [False, False], [A, FAR, B], [0.9, 0.8, 0.3])
    targets["classes"][0] = [0, 1]
    detections["classes"][0] = [2, 1, 1]
    expected = np.zeros((4, 4), int)
    expected[0, 2] = expected[3, 1] = expected[1, 3] = 1
    np.testing.assert_array_equal(metrics.confusion(detections, targets, 3), expected)
    # Nothing is said of what lies in a crowd.
    targets["crowd"][0] = True
    expected[0, 2] = expected[1, 3] = 0
    np.testing.assert_array_equal(metrics.confusion(detections, targets, 3), expected)


def test_results_are_in_cocos_format():
    detections, _ = one_image([A], [False], [[1, 2, 4, 8]], [0.5])
    (row,) = metrics.results(detections, [42], [7])
    assert row == {"image_id": 42, "category_id": 7, "bbox": [1, 2, 3, 6], "score": 0.5}


def test_overlaps_on_the_host_are_those_on_the_device():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 20, (2, 30, 2))
    a, b = np.concatenate([low, low + rng.uniform(-1, 15, low.shape)], -1).astype("f")
    found = metrics.numpy_iou(a[:, None], b[None])
    true = iou(jnp.array(a)[:, None], jnp.array(b)[None])
    np.testing.assert_allclose(found, true, rtol=1e-5, atol=1e-6)
    assert 0.2 < found.max() < 1 and (found == 0).any()


def test_half_a_box_and_half_a_score_are_a_match_by_default():
    targets = {
        "boxes": np.array([[0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]], "f"),
        "valid": np.ones(3, bool),
        "crowd": np.zeros(3, bool),
    }
    detections = {
        "boxes": np.array([[0, 0, 10, 5], [20, 20, 30, 24.9], [40, 40, 50, 50]], "f"),
        "scores": np.array([0.5, 0.9, 0.49], "f"),
        "valid": np.ones(3, bool),
    }
    assert metrics.match(detections, targets) == ([(0, 0)], [1], [1, 2])
    nothing = {name: values[:0] for name, values in targets.items()}
    assert metrics.match(detections, nothing) == ([], [1, 0], [])
