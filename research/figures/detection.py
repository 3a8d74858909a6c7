"""Pictures of detection: boxes on images, precision against recall, confusions."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Stroke, withStroke

from research.figures.classification import MATRIX_CLASSES, QUIET, WRONG, matrix
from research.metrics.detection import average_precision, confusion, match, precision_recall
from research.spacing import spaced, worst_first

Arrays = Mapping[str, np.ndarray]

SHOWN = 0.4  # detections below this score are not drawn, nor counted as mistakes
_COLOURS = [colormaps["tab10"](k) for k in (1, 0, 2, 4, 6, 8, 9, 5, 3, 7)]


def colour(label: int) -> tuple[float, float, float, float]:
    """Returns the colour of a class, the same in every picture."""
    return _COLOURS[label % len(_COLOURS)]


def draw_boxes(
    ax: Axes,
    detections: Arrays,
    class_names: tuple[str, ...],
    least: float = SHOWN,
    size: float = 7.0,
) -> None:
    """Draws an image's detections with class and score, the surest on top, and landmarks."""
    chosen = np.flatnonzero(detections["valid"] & (detections["scores"] >= least))
    if "points" in detections and len(chosen):
        ax.plot(*detections["points"].T, "o", color="white", markersize=1.5)
    for k in chosen[np.argsort(detections["scores"][chosen], kind="stable")]:
        x0, y0, x1, y1 = (float(v) for v in detections["boxes"][k])
        label = int(detections["classes"][k])
        ax.add_patch(
            Rectangle(
                (x0, y0),
                x1 - x0,
                y1 - y0,
                fill=False,
                edgecolor=colour(label),
                linewidth=1.6,
                path_effects=[Stroke(linewidth=2.6, foreground="black", alpha=0.5), withStroke()],
            )
        )
        ax.text(
            x0,
            y0,
            f"{class_names[label]} {min(float(detections['scores'][k]), 0.99):.2f}",
            fontsize=size,
            color="black",
            va="bottom",
            clip_on=True,
            bbox={"facecolor": colour(label), "alpha": 0.85, "pad": 0.6, "linewidth": 0},
        )


def show(ax: Axes, image: np.ndarray) -> None:
    """Shows an image whose pixel (i, j) covers [j, j + 1] x [i, i + 1], as boxes count."""
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    height, width = pixels.shape[:2]
    pixels = pixels if pixels.shape[-1] == 3 else np.repeat(pixels[..., :1], 3, axis=-1)
    ax.imshow(pixels, extent=(0, width, height, 0))
    ax.set_xticks([])
    ax.set_yticks([])


def proposals(
    images: Sequence[np.ndarray] | np.ndarray,
    regions: Float[np.ndarray, "n region 4"],
    most: int = 8,
) -> Figure:
    """Draws the regions that a detector looks at, the surest first in yellow, the last in blue."""
    chosen = spaced(len(images), most)
    across = min(len(chosen), 4)
    down = -(-len(chosen) // across)
    figure = Figure(figsize=(2.6 * across, 2.7 * down), layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for ax in axes[len(chosen) :]:
        ax.set_axis_off()
    colours = colormaps["plasma_r"]
    for ax, i in zip(axes, chosen, strict=False):
        show(ax, images[i])
        boxes = [box for box in regions[i] if (box[2:] > box[:2]).all()]
        for k, (x0, y0, x1, y1) in reversed(list(enumerate(np.array(boxes, float).tolist()))):
            shade = colours(k / max(len(boxes) - 1, 1))
            ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=shade))
        ax.set_title(f"{len(boxes)} regions", fontsize=8)
    return figure


def predictions(
    images: Sequence[np.ndarray] | np.ndarray,
    detections: Arrays,
    targets: Arrays | None,
    class_names: tuple[str, ...],
    most: int = 20,
) -> Figure:
    """Draws a grid of images with detections; true boxes are white dashes. The worst come first.

    Mistakes are missed objects, detections of nothing, and wrong classes, at IoU 0.5 among
    detections of a score of `SHOWN` or more.

    Args:
      targets: boxes, classes, valid, crowd; None if they are unknown.
    """
    each = [{name: value[i] for name, value in detections.items()} for i in range(len(images))]
    notes, mistakes = [""] * len(images), np.zeros(len(images), int)
    if targets is not None:
        names = ("boxes", "classes", "valid", "crowd")
        for i, found in enumerate(each):
            truth = {name: targets[name][i] for name in names}
            pairs, extra, missed = match(found, truth, least=SHOWN)
            wrong = sum(found["classes"][k] != truth["classes"][j] for k, j in pairs)
            counts = {"missed": len(missed), "of nothing": len(extra), "wrong class": int(wrong)}
            notes[i] = ", ".join(f"{n} {what}" for what, n in counts.items() if n)
            mistakes[i] = sum(counts.values())
    order = worst_first(mistakes, most)
    columns = min(5, len(order))
    rows = -(-len(order) // columns)
    figure = Figure(figsize=(2.3 * columns, 2.5 * rows + 0.4), dpi=120)
    figure.set_layout_engine("constrained", w_pad=0.04, h_pad=0.04)
    if targets is not None and len(images) > 1:
        bad = int((mistakes > 0).sum())
        title = f"{bad} of {len(images)} images with mistakes" + ", the worst first" * bool(bad)
        figure.suptitle(title, color=QUIET, fontsize=11)
    for place, i in enumerate(order):
        ax = figure.add_subplot(rows, columns, place + 1)
        show(ax, images[i])
        if targets is not None:
            for j in np.flatnonzero(targets["valid"][i]):
                x0, y0, x1, y1 = (float(v) for v in targets["boxes"][i, j])
                style = {"fill": False, "edgecolor": "white", "linewidth": 1.0, "linestyle": "--"}
                ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, **style))  # type: ignore[arg-type]
        draw_boxes(ax, each[i], class_names)
        ax.set_xlabel(notes[i], fontsize=8, labelpad=3, color=WRONG)
        for spine in ax.spines.values():
            spine.set_edgecolor(WRONG if mistakes[i] else "#d0d0d0")
            spine.set_linewidth(2.0 if mistakes[i] else 0.8)
    return figure


def one_image(image: np.ndarray, detections: Arrays, class_names: tuple[str, ...]) -> Figure:
    """Draws one image in its own proportions, with its detections."""
    height, width = image.shape[:2]
    scale = 6.0 / max(height, width)
    figure = Figure(figsize=(max(width * scale, 1.0), max(height * scale, 1.0)), dpi=150)
    ax = figure.add_axes((0, 0, 1, 1))
    show(ax, image)
    ax.axis("off")
    draw_boxes(ax, detections, class_names, size=9.0)
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)
    return figure


def curves(detections: Arrays, targets: Arrays, class_names: tuple[str, ...]) -> Figure:
    """Draws each class's precision against recall at IoU 0.5, with the area under its envelope."""
    figure = Figure(figsize=(7.2, 5.0), dpi=120, layout="constrained")
    ax = figure.add_subplot()
    found = precision_recall(detections, targets, len(class_names))
    there = [k for k, curve in enumerate(found) if curve.objects]
    drawn = [there[i] for i in spaced(len(there), MATRIX_CLASSES)]
    for k in drawn:
        recall, precision = found[k].recall, found[k].precision
        area = average_precision(recall, precision)
        first = slice(0, 1)  # empty if no object of the class was detected
        ax.plot(
            np.concatenate([0.0 * recall[first], recall]),
            np.concatenate([precision[first], precision]),
            color=colour(k),
            linewidth=1.4,
            label=f"{class_names[k]}  {area:.3f}",
        )
    ax.set(xlim=(0, 1.01), ylim=(0, 1.01), xlabel="recall", ylabel="precision")
    ax.grid(color="#e8e8e8", linewidth=0.8)
    ax.spines[["top", "right"]].set_visible(False)
    if drawn:
        ax.legend(
            title="average precision", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False
        )
    title = "IoU 0.5, crowds and difficult objects left out"
    title += f"; {len(drawn)} of {len(there)} classes" if len(drawn) < len(there) else ""
    ax.set_title(title, color=QUIET, fontsize=11)
    return figure


def confusions(detections: Arrays, targets: Arrays, class_names: tuple[str, ...]) -> Figure | None:
    """Draws true against detected classes of boxes; None if the classes are too many to read."""
    if len(class_names) > MATRIX_CLASSES:
        return None
    counts = confusion(detections, targets, len(class_names), least=SHOWN)
    right = int(np.trace(counts[:-1, :-1]))
    title = f"{right} of {counts[:-1].sum()} objects right (IoU 0.5, score {SHOWN} or more)"
    return matrix(counts, (*class_names, "nothing"), title)
