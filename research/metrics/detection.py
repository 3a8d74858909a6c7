"""Metrics of detection, of a whole split, on the host: COCO's through its evaluator, and VOC's.

Detections and targets are mappings of arrays that lead with the image:

    boxes    [n, k, 4]  (x0, y0, x1, y1) in pixels of the original image
    classes  [n, k]     numbers of classes
    valid    [n, k]     False marks padding
    scores   [n, k]     of detections alone
    crowd    [n, k]     of targets alone: COCO's crowds, VOC's difficult objects

Crowds may be found or missed without penalty.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from jaxtyping import Array, Bool, Float, Int

from research.geometry.boxes import iou

Arrays = Mapping[str, np.ndarray]

MOST = 100  # detections an image that count, COCO's choice
_COCO = f"COCO: 101-point average precision, {MOST} detections an image, crowds ignored"
_VOC = "VOC: IoU 0.5, difficult objects ignored, mean over classes, widths without VOC's + 1"

PROTOCOL = {
    "mAP": f"{_COCO}, mean over IoU 0.50:0.05:0.95 and classes",
    "mAP50": f"{_COCO}, IoU 0.5, mean over classes",
    "mAP75": f"{_COCO}, IoU 0.75, mean over classes",
    "mAP_small": "mAP of objects below 32 x 32 pixels of the original image (area of the box)",
    "mAP_medium": "mAP of objects from 32 x 32 to 96 x 96 pixels of the original image",
    "mAP_large": "mAP of objects above 96 x 96 pixels of the original image",
    "AR": f"COCO: recall with {MOST} detections an image, mean over IoU 0.50:0.05:0.95 and classes",
    "voc07_mAP": f"{_VOC}, 11 points (VOC 2007)",
    "voc12_mAP": f"{_VOC}, area under the curve (VOC 2010 on)",
    "recall50": "share of objects that a detection of their class overlaps by IoU 0.5 or more",
}


def measure(outputs: Mapping[str, Array], batch: Mapping[str, Array]) -> dict[str, Any]:
    """Returns {"recall50": (share found, number of objects)} of each image, on the device."""
    real = batch["valid"] & ~batch["crowd"]
    overlap = iou(batch["boxes"][:, :, None], outputs["boxes"][:, None])  # [B, object, detection]
    same = batch["classes"][:, :, None] == outputs["classes"][:, None]
    found = ((overlap >= 0.5) & same & outputs["valid"][:, None]).any(2) & real
    count = real.sum(1).astype(jnp.float32)
    return {"recall50": (found.sum(1) / jnp.maximum(count, 1.0), count)}


def score(detections: Arrays, targets: Arrays, class_names: tuple[str, ...]) -> dict[str, float]:
    """Computes PROTOCOL's metrics but recall50, and AP50/<class>, left out for absent classes."""
    values = _coco(detections, targets, class_names)
    curves = precision_recall(detections, targets, len(class_names))
    for name, points in (("voc07_mAP", 11), ("voc12_mAP", 0)):
        average = [average_precision(c.recall, c.precision, points) for c in curves if c.objects]
        if average:
            values[name] = float(np.mean(average))
    return values


def results(
    detections: Arrays, image_ids: list[int], category_ids: list[int]
) -> list[dict[str, Any]]:
    """Makes rows of COCO's results: image_id, category_id, bbox (x, y, width, height), score."""
    rows = []
    for i, image in enumerate(image_ids):
        for k in np.flatnonzero(detections["valid"][i]):
            x0, y0, x1, y1 = (float(v) for v in detections["boxes"][i, k])
            rows.append(
                {
                    "image_id": image,
                    "category_id": category_ids[int(detections["classes"][i, k])],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "score": float(detections["scores"][i, k]),
                }
            )
    return rows


def _coco(detections: Arrays, targets: Arrays, class_names: tuple[str, ...]) -> dict[str, float]:
    images = list(range(1, len(targets["boxes"]) + 1))
    categories = list(range(1, len(class_names) + 1))
    objects: list[dict[str, Any]] = []
    for i, k in zip(*np.nonzero(targets["valid"]), strict=True):
        x0, y0, x1, y1 = (float(v) for v in targets["boxes"][i, k])
        objects.append(
            {
                "id": len(objects) + 1,
                "image_id": images[i],
                "category_id": categories[int(targets["classes"][i, k])],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0),
                "iscrowd": int(targets["crowd"][i, k]),
            }
        )
    found = results(detections, images, categories)
    if not any(not row["iscrowd"] for row in objects):
        return {}
    areas = {"mAP": 0, "mAP_small": 1, "mAP_medium": 2, "mAP_large": 3}
    if not found:  # the evaluator needs one at least: this one finds nothing
        found = [{"image_id": 1, "category_id": 1, "bbox": [-2.0, -2.0, 1.0, 1.0], "score": 0.0}]
    truth = COCO(
        {
            "images": [{"id": image} for image in images],
            "annotations": objects,
            "categories": [
                {"id": k, "name": n} for k, n in zip(categories, class_names, strict=True)
            ],
        }
    )
    evaluator = COCOeval_faster(truth, truth.loadRes(found), "bbox")
    evaluator.params.maxDets = [1, 10, MOST]
    evaluator.evaluate()
    evaluator.accumulate()
    # IoU thresholds, recalls, classes, areas, numbers of detections; -1 without an object.
    precision, recall = (evaluator.eval[name][..., -1] for name in ("precision", "recall"))
    values = {name: _mean(precision[..., area]) for name, area in areas.items()}
    values["mAP50"], values["mAP75"] = _mean(precision[0, ..., 0]), _mean(precision[5, ..., 0])
    values["AR"] = _mean(recall[..., 0])
    for k, name in enumerate(class_names):
        values[f"AP50/{name}"] = _mean(precision[0, :, k, 0])
    return {name: value for name, value in values.items() if value >= 0}


def _mean(values: np.ndarray) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0


class PrecisionRecall(NamedTuple):
    """Precision and recall of one class at each score, from high to low."""

    recall: Float[np.ndarray, " detection"]
    precision: Float[np.ndarray, " detection"]
    scores: Float[np.ndarray, " detection"]
    objects: int  # to be found


def precision_recall(
    detections: Arrays, targets: Arrays, classes: int, threshold: float = 0.5
) -> list[PrecisionRecall]:
    """Computes each class's curve: Everingham et al., "The Pascal VOC challenge", 2010, 4.2.

    A detection is compared with the object of its class that it overlaps most. It is right if their
    IoU is at least `threshold` and no detection of a higher score took that object before; it does
    not count if the object is difficult.
    """
    n, most = targets["valid"].shape
    overlap = numpy_iou(detections["boxes"][:, :, None], targets["boxes"][:, None])
    same = detections["classes"][:, :, None] == targets["classes"][:, None]
    overlap = np.where(same & targets["valid"][:, None], overlap, -1.0)
    if most == 0:
        overlap, most = np.full((*overlap.shape[:2], 1), -1.0), 1
    best, reached = overlap.argmax(2), overlap.max(2) >= threshold  # [n, detection]
    crowd = np.zeros((n, most), bool)
    crowd[:, : targets["crowd"].shape[1]] = targets["crowd"]
    ignored = reached & np.take_along_axis(crowd, best, axis=1)
    taken = np.arange(n)[:, None] * most + best  # a number for each object
    curves = []
    for k in range(classes):
        use = detections["valid"] & (detections["classes"] == k) & ~ignored
        scores, hit, which = (x[use] for x in (detections["scores"], reached, taken))
        order = np.argsort(-scores, kind="stable")
        scores, hit, which = scores[order], hit[order], which[order]
        right = np.zeros(len(scores), bool)
        candidates = np.flatnonzero(hit)
        _, first = np.unique(which[candidates], return_index=True)
        right[candidates[first]] = True
        objects = int((targets["valid"] & ~targets["crowd"] & (targets["classes"] == k)).sum())
        hits = np.cumsum(right)
        precision = hits / np.arange(1, len(scores) + 1)
        curves.append(PrecisionRecall(hits / max(objects, 1), precision, scores, objects))
    return curves


def average_precision(
    recall: Float[np.ndarray, " n"], precision: Float[np.ndarray, " n"], points: int = 0
) -> float:
    """Averages the best precision at or above `points` even recalls (11: VOC 2007).

    With points = 0, the area under that best precision, at all recalls (VOC 2010 on).
    """
    if points:
        at = np.arange(points) / (points - 1)
        # Recalls such as 3/10 and the tenth 0.3 must meet in spite of rounding.
        best = [precision[recall >= r - 1e-9].max(initial=0.0) for r in at]
        return float(np.mean(best))
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * envelope).sum())


def numpy_iou(
    a: Float[np.ndarray, "*#n 4"], b: Float[np.ndarray, "*#n 4"]
) -> Float[np.ndarray, "*#n"]:
    """Computes `research.geometry.boxes.iou` for any shapes, without compiling for each."""
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    both = np.maximum(high - low, 0.0).prod(-1)
    areas = [np.maximum(x[..., 2:] - x[..., :2], 0.0).prod(-1) for x in (a, b)]
    union = areas[0] + areas[1] - both
    return both / np.where(union > 0, union, 1.0)


def confusion(
    detections: Arrays, targets: Arrays, classes: int, threshold: float = 0.5, least: float = 0.5
) -> Int[np.ndarray, "{classes}+1 {classes}+1"]:
    """Counts true class (row) against detected class (column) of pairs that overlap.

    The last row is detections of nothing, the last column objects that were missed. Detections
    below the score `least` are left out; the best come first, and each takes the free object it
    overlaps most, where their IoU is at least `threshold`.
    """
    counts = np.zeros((classes + 1, classes + 1), int)
    for i in range(len(targets["valid"])):
        pairs, extra, missed = match(
            {name: value[i] for name, value in detections.items()},
            {name: targets[name][i] for name in ("boxes", "classes", "valid", "crowd")},
            threshold,
            least,
        )
        for k, j in pairs:
            counts[targets["classes"][i, j], detections["classes"][i, k]] += 1
        for k in extra:
            counts[classes, detections["classes"][i, k]] += 1
        for j in missed:
            counts[targets["classes"][i, j], classes] += 1
    return counts


def match(
    detections: Arrays, targets: Arrays, threshold: float = 0.5, least: float = 0.5
) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Matches an image: pairs (detection, object), false detections, and missed objects."""
    shown: Bool[np.ndarray, " k"] = detections["valid"] & (detections["scores"] >= least)
    free = targets["valid"] & ~targets["crowd"]
    pairs, extra = [], []
    for k in sorted(np.flatnonzero(shown), key=lambda k: -detections["scores"][k]):
        overlap = numpy_iou(detections["boxes"][k][None], targets["boxes"])
        crowded = targets["valid"] & targets["crowd"] & (overlap >= threshold)
        overlap = np.where(free, overlap, -1.0)
        best = int(overlap.argmax()) if len(overlap) else -1
        if best >= 0 and overlap[best] >= threshold:
            pairs.append((int(k), best))
            free[best] = False
        elif not crowded.any():
            extra.append(int(k))
    return pairs, extra, [int(j) for j in np.flatnonzero(free)]
