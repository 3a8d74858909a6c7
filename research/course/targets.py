"""Targets of detectors: anchors, YOLO's grid, and the loss of one object."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from research.course.config import WorkedExamplesConfig
from research.course.worked import Worked, largest_difference, step
from research.figures import course as figures
from research.geometry.anchors import shape_iou
from research.geometry.assignment import POSITIVE
from research.losses.detection import squared_localisation_loss
from research.models import yolo
from research.models.localisation import Localiser

CLASSES = ("person", "car", "motorcycle")
GRID, SIDE = 3, 100  # cells a side, pixels a cell
TALL, WIDE = (40.0, 120.0), (160.0, 60.0)  # two anchors, width and height


def encode(
    boxes: Float[np.ndarray, "object 4"], classes: list[int], anchors: list[tuple[float, float]]
) -> tuple[Float[np.ndarray, "rows columns anchor 8"], Any]:
    """Writes an image's objects as p_c, c1, c2, c3, b_x, b_y, b_h, b_w of each cell and anchor.

    b_x and b_y are shares of the cell, b_h and b_w are in cells. Where p_c is 0 the rest is 0, and
    does not count.
    """
    predictors = yolo.make_predictors(
        (GRID * SIDE, GRID * SIDE), (SIDE,), [np.array(anchors, np.float32)]
    )
    some = jnp.ones(len(boxes), bool)
    found = yolo.assign(predictors, jnp.asarray(boxes, jnp.float32), some, ~some)
    kind, target = np.asarray(found.kind), np.asarray(found.target)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    vectors = np.zeros((len(kind), 8), np.float32)
    for place in np.flatnonzero(kind == POSITIVE):
        i = target[place]
        corner = np.asarray(predictors.points)[place] - SIDE / 2
        width, height = (boxes[i, 2:] - boxes[i, :2]) / SIDE
        x, y = (centre[i] - corner) / SIDE
        vectors[place] = [1, *np.eye(3)[classes[i]], x, y, height, width]
    return vectors.reshape(GRID, GRID, len(anchors), 8), predictors


def decode(target: Float[np.ndarray, "rows columns anchor 8"], predictors: Any) -> np.ndarray:
    """Returns the boxes that a target says, by the library's own decoding."""
    flat = target.reshape(-1, 8)
    share = np.clip(flat[:, 4:6], 1e-6, 1 - 1e-6)
    size = np.maximum(flat[:, [7, 6]], 1e-6) * SIDE / np.asarray(predictors.prior)
    raw = np.concatenate([np.log(share / (1 - share)), np.log(size)], axis=1)
    boxes = np.asarray(yolo.decode(jnp.asarray(raw)[None], predictors))[0]
    return boxes[flat[:, 0] == 1]


def yolo_target(config: WorkedExamplesConfig) -> Worked:
    """Writes two objects as YOLO's target, on a 3x3 grid with one and with two anchors."""
    boxes = np.array([[20.0, 130.0, 60.0, 250.0], [150.0, 165.0, 290.0, 225.0]], np.float32)
    single, predictors = encode(boxes, [0, 1], [(100.0, 100.0)])
    double, _ = encode(boxes, [0, 1], [TALL, WIDE])
    shapes = [single.reshape(GRID, GRID, 8).shape, double.shape]
    back = decode(single, predictors)
    rows, columns = np.nonzero(single[:, :, 0, 0])
    rng = np.random.default_rng(0)
    shared = {}
    for cells in (3, 19):
        a, b = (np.floor(rng.uniform(size=(200_000, 2)) * cells) for _ in range(2))
        shared[cells] = float((a == b).all(1).mean())
    rounded = lambda row: row.astype(float).round(3).tolist()  # float32's digits are not asked for
    names = "p_c, person, car, motorcycle, b_x, b_y, b_h, b_w"
    return Worked(
        [
            step(
                f"target {shapes[0]}: {names}",
                *(
                    f"cell ({r}, {c}): {rounded(single[r, c, 0])}"
                    for r, c in zip(rows, columns, strict=True)
                ),
                "the other seven cells: p_c = 0, the rest does not count",
            ),
            step(
                f"two anchors, {shapes[1]}: the tall object at the tall one",
                *(
                    f"cell ({r}, {c}), anchor {a}: {rounded(double[r, c, a])}"
                    for r, c, a in zip(*np.nonzero(double[..., 0]), strict=True)
                ),
            ),
            step("decoded again, pixels", back),
            step(
                "two random centres in one cell: 1 / S^2",
                *(f"S = {s}: {p:.4f}" for s, p in shared.items()),
            ),
        ],
        {
            "target_numbers": (float(single.size), "3x3x8; must be 72"),
            "anchored_numbers": (float(double.size), "3x3x2x8; must be 144"),
            "objects_in_target": (float(single[..., 0].sum()), "cells with p_c = 1; must be 2"),
            "largest_offset": (float(single[..., 4:6].max()), "b_x, b_y; must be at most 1"),
            "largest_size": (float(single[..., 6:].max()), "b_h, b_w; must be above 1"),
            "round_trip": (largest_difference(back, boxes), "pixels; must be below 0.01"),
            "shared_cell_3": (shared[3], "chance that two centres meet; must be 1/9 +- 0.005"),
            "shared_cell_19": (shared[19], "the same for S = 19; must be 1/361 +- 0.001"),
            "tall_anchor": (float(np.nonzero(double[..., 0])[2][0]), "of the person; must be 0"),
        },
        lambda: {
            "yolo_target": figures.boxes(
                {
                    "each centre's cell answers": [
                        (box, CLASSES[i], figures.COLOURS[i], "-") for i, box in enumerate(boxes)
                    ]
                    + [
                        (
                            SIDE * np.array([c, r, c + 1, r + 1]),
                            "",
                            "#b0b0b0",
                            "--",
                        )
                        for r, c in zip(rows, columns, strict=True)
                    ]
                },
                cells=float(SIDE),
                extent=(float(GRID * SIDE), float(GRID * SIDE)),
            )
        },
    )


def anchors(config: WorkedExamplesConfig) -> Worked:
    """Assigns two and three objects of one cell to its two anchors."""
    tall, wide = [130.0, 95.0, 170.0, 215.0], [75.0, 120.0, 225.0, 180.0]
    third = [125.0, 85.0, 175.0, 225.0]  # tall as well, in the same cell
    two, three = np.array([tall, wide], np.float32), np.array([tall, wide, third], np.float32)
    overlaps = shape_iou(three[:, 2:] - three[:, :2], np.array([TALL, WIDE]))
    of_two, _ = encode(two, [0, 0], [TALL, WIDE])
    of_three, _ = encode(three, [0, 1, 0], [TALL, WIDE])
    alone, _ = encode(two, [0, 1], [(100.0, 100.0)])
    return Worked(
        [
            step("IoU of shapes: objects by the anchors tall and wide", overlaps),
            step("two objects in one cell, both persons", of_two[1, 1]),
            step("without anchors one of them is lost", alone[1, 1]),
            step("a third object, tall too: two answer, one is lost", of_three[1, 1]),
        ],
        {
            "numbers_a_cell": (float(of_two[1, 1].size), "2 anchors, 3 classes; must be 16"),
            "kept_of_two": (float(of_two[..., 0].sum()), "objects in the target; must be 2"),
            "kept_without_anchors": (float(alone[..., 0].sum()), "of two; must be 1"),
            "lost_of_three": (3 - float(of_three[..., 0].sum()), "collisions; must be 1"),
            "tall_shape_iou": (float(overlaps[0, 0]), "tall object, tall anchor; must be 1"),
        },
        lambda: {
            "anchors": figures.boxes(
                {
                    "three objects of one cell": [
                        (tall, "tall", figures.COLOURS[0], "-"),
                        (wide, "wide", figures.COLOURS[1], "-"),
                        (third, "tall, lost", "#808080", "--"),
                    ]
                },
                cells=float(SIDE),
                extent=(float(GRID * SIDE), float(GRID * SIDE)),
            )
        },
    )


def localisation_loss(config: WorkedExamplesConfig) -> Worked:
    """Computes the lecture's squared errors, and counts the outputs of landmarks."""
    wanted = jnp.array([[1.0, 0, 1, 0, 0.5, 0.7, 0.3, 0.4], [0.0] + [7.0] * 7])
    said = wanted + 0.1

    def loss(outputs: Any) -> Any:
        return squared_localisation_loss(outputs, wanted)

    values, gradient = np.asarray(loss(said)), np.asarray(jax.grad(lambda x: loss(x).sum())(said))
    shapes = jax.eval_shape(
        Localiser(points=64).init, jax.random.key(0), jnp.zeros((1, 64, 64, 3))
    )["params"]["head"]["bias"].shape
    landmarks = float(shapes[0])
    return Worked(
        [
            step("wanted: p_c, c1, c2, c3, b_x, b_y, b_h, b_w; an object, and none", wanted),
            step("every output is off by 0.1; loss of each", values),
            step("gradient: without an object, p_c's alone", gradient),
            step(f"64 landmarks: 1 + 64 x 2 = {landmarks:g} outputs"),
        ],
        {
            "target_entries": (float(wanted.shape[1]), "3 classes; must be 8"),
            "loss_with_object": (float(values[0]), "must be 0.08"),
            "loss_without": (float(values[1]), "must be 0.01"),
            "dont_care_gradient": (
                float(np.abs(gradient[1, 1:]).max()),
                "of the other seven without an object; must be 0",
            ),
            "landmark_outputs": (landmarks, "must be 129"),
        },
        lambda: {
            "localisation_loss": figures.grids(
                {"wanted": np.asarray(wanted), "gradient: no object, no don't-cares": gradient},
                across=1,
                side=4.0,
            )
        },
    )
