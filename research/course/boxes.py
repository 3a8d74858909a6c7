"""Boxes: overlap, suppression step by step, sliding windows.

The lecture suppresses boxes whose IoU is at least the threshold, this library, like torchvision and
the detectors that were published with it, those whose IoU is above it. `at_least` says the
lecture's rule to the library: what is at least t is above the next smaller number.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from research.course.config import WorkedExamplesConfig
from research.course.worked import Worked, step
from research.errors import UserError
from research.figures import course as figures
from research.geometry.boxes import iou
from research.geometry.nms import nms
from research.nn.convolution import output_size


def at_least(threshold: float) -> float:
    """Returns the threshold for "above" that takes what is at least `threshold`, in float32."""
    if threshold <= 0:
        return -1.0  # the next number below 0 is one that XLA takes for 0
    return float(np.nextafter(np.float32(threshold), np.float32(-1)))


def overlap(config: WorkedExamplesConfig) -> Worked:
    """Computes the IoU of pairs of boxes."""
    pairs = {
        "half": ((0, 0, 3, 1), (1, 0, 4, 1)),
        "seventh": ((0, 0, 2, 2), (1, 1, 3, 3)),
        "disjoint": ((0, 0, 1, 1), (2, 2, 3, 3)),
        "equal": ((0, 0, 2, 1), (0, 0, 2, 1)),
    }
    found = {
        name: float(iou(jnp.array(a, jnp.float32), jnp.array(b, jnp.float32)))
        for name, (a, b) in pairs.items()
    }
    blue, red = figures.COLOURS[:2]
    return Worked(
        [
            step(
                "intersection over union",
                *(f"{a} & {b}: {found[name]:.4f}" for name, (a, b) in pairs.items()),
                "0.5 or more counts as good",
            )
        ],
        {
            "iou_half": (found["half"], "of (0,0,3,1) and (1,0,4,1); must be 0.5"),
            "iou_seventh": (found["seventh"], "of (0,0,2,2) and (1,1,3,3); must be 1/7"),
            "iou_disjoint": (found["disjoint"], "must be 0"),
            "iou_equal": (found["equal"], "must be 1"),
        },
        lambda: {
            "iou": figures.boxes(
                {
                    f"{name}: IoU {found[name]:.3f}": [(a, "truth", blue, "-"), (b, "", red, "--")]
                    for name, (a, b) in pairs.items()
                },
                across=2,
            )
        },
    )


def read_boxes(text: str) -> tuple[Float[np.ndarray, "box 4"], Float[np.ndarray, " box"]]:
    """Reads "left top right bottom score; ...".

    Raises:
      UserError: for anything else, boxes without area, and scores outside 0 to 1.
    """
    said = "--boxes='left top right bottom score; ...'"
    rows = [row.replace(",", " ").split() for row in text.split(";") if row.strip()]
    if not rows:
        raise UserError(f"{said}: at least one box is needed.")
    for row in rows:
        try:
            left, top, right, bottom, score = map(float, row)
        except ValueError:
            raise UserError(f"{said}: {' '.join(row)!r} is not five numbers.") from None
        if not (left < right and top < bottom):
            raise UserError(f"{said}: {' '.join(row)!r} has no area.")
        if not 0 <= score <= 1:
            raise UserError(f"{said}: {' '.join(row)!r}, a score is between 0 and 1.")
    array = np.array(rows, np.float32)
    return array[:, :4], array[:, 4]


def suppression(config: WorkedExamplesConfig) -> Worked:
    """Keeps the best box and drops what overlaps it, again and again, with a picture of each step.

    Raises:
      UserError: for boxes that are none.
    """
    boxes, scores = read_boxes(config.boxes)
    threshold = at_least(config.nms_threshold)

    def kept_of(count: int, **options: Any) -> list[int]:
        run = nms(
            jnp.asarray(boxes),
            jnp.asarray(scores),
            count,
            threshold,
            least=config.score_threshold,
            **options,
        )
        return np.asarray(run.box)[np.asarray(run.valid)].tolist()

    kept = kept_of(len(boxes))
    overlaps = np.asarray(iou(jnp.asarray(boxes)[:, None], jnp.asarray(boxes)[None]))
    low = set(np.flatnonzero(scores <= np.float32(config.score_threshold)).tolist())
    steps = [
        step("boxes and scores", np.concatenate([boxes, scores[:, None]], axis=1)),
        step(
            f"scores not above {config.score_threshold:g} are dropped",
            *(f"box {i} of {scores[i]:g}" for i in sorted(low)),
        ),
    ]
    gone, panels = set(low), {}
    red, green, grey = figures.COLOURS[1], figures.COLOURS[2], "#a0a0a0"

    def drawn(best: set[int], now: set[int]) -> list[figures.Box]:
        colours = dict.fromkeys(gone, grey) | dict.fromkeys(best, green) | dict.fromkeys(now, red)
        black = figures.COLOURS[0]
        return [
            (b, f"{scores[i]:g}", colours.get(i, black), "--" if i in gone | now else "-")
            for i, b in enumerate(boxes)
        ]

    panels[f"step 1: not above {config.score_threshold:g}"] = drawn(set(), low)
    for turn, best in enumerate(kept):
        now = {
            i
            for i in range(len(boxes))
            if i not in gone and i not in kept and overlaps[best, i] > threshold
        }
        steps.append(
            step(
                f"box {best} of {scores[best]:g} is the best left: kept",
                *(f"box {i} of {scores[i]:g}: IoU {overlaps[best, i]:.2f}, dropped" for i in now),
            )
        )
        panels[f"step {turn + 2}: keep {scores[best]:g}"] = drawn(set(kept[: turn + 1]), now)
        gone |= now
    classes = jnp.arange(len(boxes))  # each box a class of its own
    return Worked(
        steps,
        {
            "boxes_given": (float(len(boxes)), "one object may be found many times"),
            "boxes_kept": (float(len(kept)), "of the lecture's four, must be 2"),
            "first_kept": (float(scores[kept[0]]) if kept else 0.0, "score; must be 0.9"),
            "second_kept": (float(scores[kept[1]]) if kept[1:] else 0.0, "score; must be 0.7"),
            "kept_of_own_classes": (
                float(len(kept_of(len(boxes), classes=classes))),
                "where every box is of another class, it runs for each class; must be 3",
            ),
        },
        lambda: {"suppression": figures.boxes(panels)},
    )


def windows(config: WorkedExamplesConfig) -> Worked:
    """Counts windows on 64x64 pixels, and how well the best of them fits an object."""
    size = 64
    counts = {side: output_size(size, side, 4) ** 2 for side in (8, 16, 32)}
    pixels = {side: count * side**2 for side, count in counts.items()}
    truth = jnp.array([13.0, 21.0, 31.0, 37.0])  # 18 wide, 16 high, off the grid
    best = {}
    for stride in (1, 4, 8):
        starts = jnp.arange(output_size(size, 16, stride)) * float(stride)
        corner = jnp.stack(jnp.meshgrid(starts, starts), -1).reshape(-1, 2)
        every = jnp.concatenate([corner, corner + 16], axis=1)
        overlaps = np.asarray(iou(every, truth[None]))
        best[stride] = (float(overlaps.max()), len(every), np.asarray(every[overlaps.argmax()]))
    blue, red = figures.COLOURS[:2]
    return Worked(
        [
            step(
                "64x64 pixels, a step of 4",
                *(f"{s:2}x{s:<2}: {n:3} windows, {pixels[s]:6,} pixels" for s, n in counts.items()),
                "larger windows are fewer, and each is dearer",
            ),
            step(
                "16x16 windows, an object of 18x16",
                *(f"step {s}: {n:4} windows, best IoU {o:.3f}" for s, (o, n, _) in best.items()),
            ),
        ],
        {
            "windows_of_8": (float(counts[8]), "must be 225"),
            "windows_of_16": (float(counts[16]), "must be 169"),
            "windows_of_32": (float(counts[32]), "must be 81"),
            "pixels_of_8": (float(pixels[8]), "must be 14,400"),
            "pixels_of_32": (float(pixels[32]), "must be 82,944"),
            "best_iou_step_1": (best[1][0], "no window fits; must be below 1"),
            "best_iou_step_8": (best[8][0], "of coarse steps; must be below that of step 1"),
        },
        lambda: {
            "windows": figures.boxes(
                {
                    f"step {s}: best IoU {o:.2f}": [
                        (np.asarray(truth), "object", blue, "-"),
                        (box, "", red, "--"),
                    ]
                    for s, (o, _, box) in best.items()
                },
                cells=8.0,
                extent=(64.0, 64.0),
            )
        },
    )
