"""Pictures of classification: predictions, confusions, calibration."""

import numpy as np
from jaxtyping import Float, Int, Num
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from research.metrics.classification import (
    CALIBRATION_BINS,
    calibration_bins,
    calibration_error,
    confusion_matrix,
)
from research.spacing import worst_first

RIGHT, WRONG, QUIET = "#8fb3d9", "#c0392b", "#707070"
MATRIX_CLASSES = 25  # with more, single cells cannot be read: pairs are listed instead


def predictions(
    images: Num[np.ndarray, "n height width channel"],
    probabilities: Float[np.ndarray, "n classes"],
    labels: Int[np.ndarray, " n"] | None,
    class_names: tuple[str, ...],
    most: int = 32,
) -> Figure:
    """Draws a grid of images with the most probable class and its probability.

    Mistakes are framed in red, name the true class, and come first, the most confident ahead. The
    title gives the numbers of mistakes and of all images.

    Args:
      images: values in 0..255; RGB, or else the first channel is shown in grey.
      labels: true classes; None if they are unknown.
      most: images in the grid, at most.
    """
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    wrong = np.zeros(len(images), bool) if labels is None else predicted != labels
    shown = worst_first(np.where(wrong, confidence, 0.0), most)

    longest = max(len(_short(class_names[k])) for k in predicted[shown])
    columns = min(8 if longest <= 6 else 6 if longest <= 12 else 5, len(shown))
    shown = shown[: max(len(shown) // columns, 1) * columns] if len(shown) == most else shown
    rows = -(-len(shown) // columns)
    figure = Figure(dpi=120)
    tile = 10.0 / max(columns, 5)  # inches
    figure.set_size_inches(max(columns * tile, 4.0), rows * (tile + 0.42) + 0.5)
    figure.set_layout_engine("constrained", w_pad=0.04, h_pad=0.04)
    if labels is not None and len(images) > 1:
        note = f"{wrong.sum()} of {len(images)} images wrong" + ", shown first" * bool(wrong.any())
        figure.suptitle(note, color=QUIET, fontsize=11)

    for place, i in enumerate(shown):
        ax = figure.add_subplot(rows, columns, place + 1)
        _show(ax, images[i])
        caption = f"{_short(class_names[predicted[i]])} · {_percent(float(confidence[i]))}"
        if labels is not None and wrong[i]:
            caption += f"\ntrue: {_short(class_names[labels[i]])}"
        ax.set_xlabel(caption, fontsize=9, labelpad=3, color=WRONG if wrong[i] else "black")
        for spine in ax.spines.values():
            spine.set_edgecolor(WRONG if wrong[i] else "#d0d0d0")
            spine.set_linewidth(2.5 if wrong[i] else 0.8)
    return figure


def _show(ax: Axes, image: Num[np.ndarray, "height width channel"]) -> None:
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    if pixels.shape[-1] == 3:
        ax.imshow(pixels)
    else:
        ax.imshow(pixels[..., 0], cmap="gray", vmin=0, vmax=255)
    ax.set_xticks([])
    ax.set_yticks([])


def _short(name: str) -> str:
    return name if len(name) <= 20 else name[:19] + "…"


def _percent(share: float) -> str:
    """Writes a share in percent, never "100 %" for a smaller one."""
    return f"{min(100 * share, 99.9):.1f} %" if 0.99 < share < 1 else f"{100 * share:.0f} %"


def confusions(
    probabilities: Float[np.ndarray, "n classes"],
    labels: Int[np.ndarray, " n"],
    class_names: tuple[str, ...],
) -> Figure:
    """Draws the confusion matrix; with many classes, the pairs most often confused."""
    counts = confusion_matrix(labels, probabilities.argmax(1), len(class_names))
    if len(class_names) <= MATRIX_CLASSES:
        return matrix(counts, class_names, f"{np.trace(counts)} of {counts.sum()} right")
    return _confused_pairs(counts, class_names)


def matrix(
    counts: Int[np.ndarray, "classes classes"], class_names: tuple[str, ...], title: str
) -> Figure:
    """Draws counts of true class (row) against predicted class (column), shaded by their share."""
    n = len(class_names)
    side = 2.2 + 0.48 * max(n, 5)
    figure = Figure(figsize=(side + 0.6, side), dpi=120, layout="constrained")
    ax = figure.add_subplot()
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    # The power makes a confusion of one in a hundred visible beside the diagonal.
    norm = PowerNorm(0.4, vmin=0, vmax=1)
    grid = ax.imshow(share, cmap="Blues", norm=norm)
    for i, j in zip(*np.nonzero(counts), strict=True):
        colour = "white" if norm(share[i, j]) > 0.6 else "black"
        ax.text(j, i, f"{counts[i, j]}", ha="center", va="center", color=colour, fontsize=9)
    names = [_short(name) for name in class_names]
    slant = max(map(len, names)) > 3
    ax.set_xticks(range(n), names, rotation=45 if slant else 0, ha="right" if slant else "center")
    ax.set_yticks(range(n), names)
    ax.set_xticks(np.arange(n + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="#e8e8e8", linewidth=0.8)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("predicted class")
    ax.set_ylabel("true class")
    bar = figure.colorbar(grid, ax=ax, shrink=0.75, ticks=[0, 0.01, 0.1, 0.3, 1])
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    ax.set_title(title, color=QUIET, fontsize=11)
    return figure


def _confused_pairs(
    counts: Int[np.ndarray, "classes classes"], class_names: tuple[str, ...], most: int = 25
) -> Figure:
    off_diagonal = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    order = np.argsort(-off_diagonal, axis=None, kind="stable")[:most]
    pairs = [divmod(int(k), len(counts)) for k in order if off_diagonal.flat[k] > 0]
    figure = Figure(figsize=(9.0, 1.4 + 0.28 * max(len(pairs), 3)), dpi=120, layout="constrained")
    ax = figure.add_subplot()
    number = [int(counts[pair]) for pair in pairs]
    bars = ax.barh(range(len(pairs)), number, color=WRONG, alpha=0.75, height=0.7)
    ax.bar_label(
        bars,
        [f" {counts[i, j]} of {counts[i].sum()}" for i, j in pairs],
        fontsize=9,
        color=QUIET,
    )
    ax.set_yticks(
        range(len(pairs)),
        [f"{_short(class_names[i])} → {_short(class_names[j])}" for i, j in pairs],
        fontsize=9,
    )
    ax.set_ylim(max(len(pairs), 1) - 0.4, -0.6)
    ax.tick_params(length=0)
    ax.set_xticks([])
    ax.margins(x=0.12)
    ax.spines[["top", "right", "bottom"]].set_visible(False)
    ax.set_title(
        f"Most confused pairs, true → predicted, of {len(class_names)} classes "
        f"({np.trace(counts)} of {counts.sum()} right)",
        color=QUIET,
        fontsize=11,
        loc="left",
    )
    return figure


def reliability(
    probabilities: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"]
) -> Figure:
    """Draws accuracy against confidence, in bins of confidence: Guo et al. 2017, figure 1."""
    count, confidence, accuracy = calibration_bins(probabilities, labels)
    edges = np.arange(CALIBRATION_BINS) / CALIBRATION_BINS
    width = 1 / CALIBRATION_BINS
    full = count > 0

    figure = Figure(figsize=(5.2, 6.2), dpi=120, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], linestyle="--", color=QUIET, linewidth=1, zorder=3)
    style = {"width": width, "align": "edge", "edgecolor": "white"}
    upper.bar(edges[full], accuracy[full], color=RIGHT, label="accuracy", **style)
    upper.bar(
        edges[full],
        (confidence - accuracy)[full],
        bottom=accuracy[full],
        label="gap to confidence",
        **{**style, "edgecolor": WRONG, "facecolor": "#c0392b40", "hatch": "///"},
    )
    upper.set_ylabel("accuracy")
    upper.set_ylim(0, 1)
    upper.legend(loc="upper left", frameon=False)
    error = calibration_error(probabilities, labels)
    upper.set_title(
        f"Expected calibration error {100 * error:.2f} %, {CALIBRATION_BINS} bins",
        color=QUIET,
        fontsize=11,
    )
    lower.bar(edges, count / count.sum(), color=QUIET, **style)
    lower.set_ylabel("share of images")
    lower.set_xlabel("confidence (highest probability)")
    lower.set_xlim(0, 1)
    for ax in (upper, lower):
        ax.spines[["top", "right"]].set_visible(False)
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure
