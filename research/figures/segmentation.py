"""Pictures of segmentation: image, truth, prediction and errors; each class's score."""

import numpy as np
from jaxtyping import Float, Num, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from research.data.images.masks import IGNORE, palette
from research.spacing import worst_first

QUIET = "#707070"
WRONG, RIGHT = np.array([192, 57, 43], np.uint8), np.array([232, 236, 240], np.uint8)
UNKNOWN = np.array([255, 255, 255], np.uint8)  # where the class is unknown
MOST_CLASSES = 12  # in the legend


def colour_labels(labels: UInt8[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width 3"]:
    """Paints class numbers in the colours of mask files; white for pixels without one."""
    colours = palette()
    colours[IGNORE] = UNKNOWN
    return colours[labels]


def predictions(
    images: Num[np.ndarray, "n height width channel"],
    predicted: UInt8[np.ndarray, "n height width"],
    labels: UInt8[np.ndarray, "n height width"] | None,
    class_names: tuple[str, ...],
    most: int = 8,
) -> Figure:
    """Draws a row an image: the image, its truth, the prediction, and the wrong pixels (red).

    Rows with the largest share of wrong pixels come first. Without truth: image and prediction.

    Args:
      images: values in 0..255.
      labels: 255 where the class is unknown.
      most: rows, at most.
    """
    share = np.zeros(len(images))
    if labels is not None:
        known = labels != IGNORE
        wrong = (predicted != labels) & known
        share = wrong.sum((1, 2)) / np.maximum(known.sum((1, 2)), 1)
    shown = worst_first(share, most)
    count = len(shown)
    titles = (
        ["image", "prediction"] if labels is None else ["image", "truth", "prediction", "wrong"]
    )
    height, width = images.shape[1:3]
    tile = 1.9  # inches
    figure = Figure(
        figsize=(tile * len(titles) + 1.6, tile * count * height / width + 0.5),
        dpi=120,
        layout="constrained",
    )
    axes = figure.subplots(count, len(titles), squeeze=False)
    present: set[int] = set()
    for row, i in zip(axes, shown, strict=True):
        pictures = [np.clip(images[i], 0, 255).astype(np.uint8)]
        numbers = [predicted[i]] if labels is None else [labels[i], predicted[i]]
        pictures += [colour_labels(x) for x in numbers]
        present |= {int(k) for x in numbers for k in np.unique(x)}
        if labels is not None:
            colours = np.where(wrong[i][..., None], WRONG, RIGHT)
            pictures.append(np.where(known[i][..., None], colours, UNKNOWN))
        for ax, picture in zip(row, pictures, strict=True):
            _show(ax, picture)
        if labels is not None:
            row[-1].set_xlabel(f"{100 * share[i]:.1f} % wrong", fontsize=8, color=QUIET)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=10, color=QUIET)
    colours = palette() / 255
    named = sorted(present - {IGNORE})[:MOST_CLASSES]
    handles = [Patch(facecolor=tuple(colours[k]), label=class_names[k][:20]) for k in named]
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _show(ax: Axes, picture: np.ndarray) -> None:
    grey = picture.shape[-1] != 3
    ax.imshow(picture[..., 0] if grey else picture, cmap="gray" if grey else None, vmin=0, vmax=255)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_color("#d0d0d0")


def class_scores(scores: dict[str, float], class_names: tuple[str, ...], most: int = 40) -> Figure:
    """Draws the IoU of each class, or the lowest `most`; the line is the mean of all.

    Args:
      scores: of `research.metrics.segmentation.score`.
    """
    values: list[tuple[float, str]] = [
        (scores[f"iou/{name}"], name) for name in class_names if f"iou/{name}" in scores
    ]
    if len(values) > most:
        values = sorted(values)[:most]
    iou: Float[np.ndarray, " n"] = np.array([value for value, _ in values])
    figure = Figure(figsize=(6.5, 1.2 + 0.26 * len(values)), dpi=120, layout="constrained")
    ax = figure.add_subplot()
    bars = ax.barh(range(len(values)), iou, color="#8fb3d9", height=0.7)
    ax.bar_label(bars, [f" {x:.3f}" for x in iou], fontsize=9, color=QUIET)
    ax.set_yticks(range(len(values)), [name[:20] for _, name in values], fontsize=9)
    ax.invert_yaxis()
    ax.axvline(scores["mIoU"], color=QUIET, linewidth=1, linestyle="--")
    ax.set_xlim(0, 1.1)
    ax.set_xticks([0, 0.5, 1])
    ax.tick_params(length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.set_xlabel("intersection over union")
    ax.set_title(f"mIoU {scores['mIoU']:.3f}", color=QUIET, fontsize=11)
    return figure
