"""Pictures of embeddings: maps, neighbours, ROC, recognition among more and more identities."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.ticker import PercentFormatter
from sklearn.metrics import roc_curve

from research.metrics.recognition import growing
from research.metrics.recognition import recognition as recognition_accuracy
from research.metrics.verification import draw_pairs, pair_distances
from research.spacing import spaced
from research.vectors.neighbours import Metric, nearest
from research.vectors.projection import two_coordinates

RIGHT, WRONG, QUIET = "#2e7d32", "#c0392b", "#707070"
Thumbnails = UInt8[np.ndarray, "n height width"]


def maps(
    x: Float[np.ndarray, "n d"],
    thumbnails: Thumbnails,
    groups: Int[np.ndarray, " n"] | None = None,
) -> Figure:
    """Draws the images on planes of the embeddings, by PCA and by t-SNE, framed by class."""
    figure = Figure(figsize=(15, 7.5), dpi=120, layout="constrained")
    planes = two_coordinates(x, "pca"), two_coordinates(x, "tsne")
    for ax, plane in zip(figure.subplots(1, 2), planes, strict=True):
        _scatter(ax, plane.points, thumbnails, groups)
        ax.set_title(plane.title, color=QUIET, fontsize=11)
    return figure


def few_classes(labels: Int[np.ndarray, " n"], classes: int = 20, each: int = 16) -> np.ndarray:
    """Returns positions of some examples of some classes, evenly spaced, for `maps`."""
    there = np.unique(labels)
    members = [np.flatnonzero(labels == k) for k in there[spaced(len(there), classes)]]
    return np.concatenate([rows[spaced(len(rows), each)] for rows in members])


def _scatter(
    ax: Axes,
    points: Float[np.ndarray, "n 2"],
    thumbnails: Thumbnails,
    groups: Int[np.ndarray, " n"] | None,
) -> None:
    ax.scatter(points[:, 0], points[:, 1], s=0)
    colours = colormaps["tab20"](np.arange(20))
    number = np.zeros(len(points), int)
    if groups is not None:
        number = np.unique(groups, return_inverse=True)[1]
    for point, thumbnail, k in zip(points, thumbnails, number, strict=True):
        image = OffsetImage(thumbnail, zoom=16 / max(thumbnail.shape), cmap="gray", clim=(0, 255))
        frame = {"edgecolor": colours[k % len(colours)], "linewidth": 1.2}
        ax.add_artist(AnnotationBbox(image, point, bboxprops=frame, pad=0.05))
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_edgecolor("#d0d0d0")


def neighbours(
    x: Float[np.ndarray, "n d"],
    thumbnails: Thumbnails,
    labels: Int[np.ndarray, " n"],
    metric: Metric = "euclidean",
    rows: int = 10,
    count: int = 6,
) -> Figure:
    """Draws the nearest images of some images by embedding (left) and by raw pixels (right).

    Green frames are of the same class. Of evenly spaced queries, those with the fewest neighbours
    of their class in pixels are drawn.
    """
    able = np.flatnonzero(
        np.isin(labels, [k for k in np.unique(labels) if (labels == k).sum() > 1])
    )
    query = able[spaced(len(able), 200)]
    pixels = thumbnails.reshape(len(thumbnails), -1).astype(np.float32) / 255
    count = min(count, len(x) - 1)
    places = [
        nearest(x[query], x, count, metric, others=query)[1],
        nearest(pixels[query], pixels, count, others=query)[1],
    ]
    right = [(labels[place] == labels[query][:, None]).mean(1) for place in places]
    order = np.lexsort((-right[0], right[1]))[:rows]
    figure = Figure(figsize=(0.62 * (2 * count + 3), 0.66 * len(order) + 0.8), dpi=120)
    grid = figure.subplots(len(order), 2 * count + 3, squeeze=False)
    for row, i in enumerate(order):
        cells = grid[row]
        _tile(cells[0], thumbnails[query[i]], "black")
        for start, place in ((2, places[0]), (count + 3, places[1])):
            for k, j in enumerate(place[i]):
                same = labels[j] == labels[query[i]]
                _tile(cells[start + k], thumbnails[j], RIGHT if same else WRONG)
        for gap in (cells[1], cells[count + 2]):
            gap.set_axis_off()
    style = {"color": QUIET, "fontsize": 10, "loc": "left"}
    grid[0][0].set_title("query", **style)
    grid[0][2].set_title(f"by embedding: {100 * right[0].mean():.0f} % right", **style)
    grid[0][count + 3].set_title(f"by pixels: {100 * right[1].mean():.0f} % right", **style)
    return figure


def _tile(ax: Axes, image: UInt8[np.ndarray, "height width"], colour: str) -> None:
    ax.imshow(image, cmap="gray", vmin=0, vmax=255)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_edgecolor(colour)
    ax.spines[:].set_linewidth(2)


def roc(distance: Float[np.ndarray, " pair"], same: Bool[np.ndarray, " pair"]) -> Figure:
    """Draws true against false acceptance; the logarithmic scale shows strict thresholds."""
    false, true, _ = roc_curve(same, -distance)
    figure = Figure(figsize=(5.6, 5.0), dpi=120, layout="constrained")
    ax = figure.add_subplot()
    least = max(1 / max((~same).sum(), 1), 1e-5)
    ax.plot(np.maximum(false, least), true, color="#1f5fa8", linewidth=2, label="embeddings")
    chance = np.geomspace(least, 1, 50)
    ax.plot(chance, chance, linestyle="--", color=QUIET, linewidth=1, label="chance")
    ax.set_xscale("log")
    ax.set_xlim(least, 1)
    ax.set_ylim(0, 1.005)
    ax.axvline(1e-3, color="#d0d0d0", linewidth=1, zorder=0)
    ax.set_xlabel("false acceptance: different pairs taken for the same")
    ax.set_ylabel("true acceptance: same pairs recognised")
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="lower right")
    ax.set_title(
        f"Verification, {same.sum():,} same and {(~same).sum():,} different pairs",
        color=QUIET,
        fontsize=11,
    )
    return figure


def recognition(sizes: Sequence[int], curves: Mapping[str, Sequence[float]]) -> Figure:
    """Draws curves of 1:K accuracy against the number K of identities; chance is 1 / K."""
    figure = Figure(figsize=(6.4, 4.4), dpi=120, layout="constrained")
    ax = figure.add_subplot()
    for name, values in curves.items():
        ax.plot(sizes, values, marker="o", linewidth=2, label=name)
    ax.plot(sizes, [1 / k for k in sizes], linestyle="--", color=QUIET, linewidth=1, label="chance")
    ax.set_xscale("log")
    ax.set_xticks(list(sizes), [str(k) for k in sizes])
    ax.minorticks_off()
    ax.set_ylim(0, 1.02)
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set_xlabel("known identities, one image each")
    ax.set_ylabel("nearest is the right one")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return figure


def matches(
    inputs: Thumbnails,
    found: Thumbnails,
    names: Sequence[str],
    distances: Float[np.ndarray, " n"],
    threshold: float,
    most: int = 24,
) -> Figure:
    """Draws inputs above their nearest known images; those beyond the threshold are grey."""
    shown = spaced(len(inputs), most)
    count = len(shown)
    columns = min(8, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(1.35 * columns, 3.0 * rows), dpi=120, layout="constrained")
    grid = figure.subplots(2 * rows, columns, squeeze=False)
    for ax in grid.flat:
        ax.set_axis_off()
    for place, i in enumerate(shown):
        row, column = divmod(place, columns)
        known = distances[i] <= threshold
        for ax, image in (
            (grid[2 * row][column], inputs[i]),
            (grid[2 * row + 1][column], found[i]),
        ):
            ax.set_axis_on()
            _tile(ax, image, RIGHT if known else "#c0c0c0")
        name = names[i] if known else "unknown"
        ax.set_xlabel(f"{name[:16]}\n{distances[i]:.2f}", fontsize=8, labelpad=2)
    figure.suptitle(f"Inputs above the nearest known; threshold {threshold:.2f}", fontsize=10)
    return figure


def of_split(
    x: Float[np.ndarray, "n d"],
    thumbnails: Thumbnails,
    labels: Int[np.ndarray, " n"],
    metric: Metric = "euclidean",
) -> dict[str, Figure]:
    """Draws all pictures of a whole split."""
    pixels = thumbnails.reshape(len(thumbnails), -1).astype(np.float32) / 255
    some = few_classes(labels)
    drawn = {"map": maps(x[some], thumbnails[some], labels[some])}
    sizes = growing(labels)
    if len(sizes) > 1:
        pairs = draw_pairs(labels)
        drawn["neighbours"] = neighbours(x, thumbnails, labels, metric)
        drawn["roc"] = roc(pair_distances(x, pairs, metric), pairs.same)
        curves = {
            "embeddings": recognition_accuracy(x, labels, sizes, metric),
            "raw pixels": recognition_accuracy(pixels, labels, sizes),
        }
        drawn["recognition"] = recognition(sizes, curves)
    return drawn
