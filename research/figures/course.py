"""Pictures of worked examples: small arrays with their numbers, curves, boxes, paths."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

COLOURS = ("#1f4e79", "#c0392b", "#2e8b57", "#b8860b", "#7d3c98", "#707070")


def _panels(count: int, across: int, side: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """Makes a figure of `count` panels, at most `across` in a row, `side` inches each."""
    across = min(across, count)
    down = -(-count // across)
    figure = Figure(figsize=(across * side[0], down * side[1]), dpi=110, layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for ax in axes[count:]:
        ax.set_axis_off()
    return figure, axes[:count]


def grids(
    arrays: Mapping[str, Num[np.ndarray, "rows columns"]], across: int = 4, side: float = 2.6
) -> Figure:
    """Draws arrays as cells with their numbers: negative blue, 0 white, positive red."""
    tall = max(len(a) / a.shape[1] for a in arrays.values())  # a row needs no square
    figure, axes = _panels(len(arrays), across, (side, side * min(tall, 1.0) + 0.3))
    for ax, (title, array) in zip(axes, arrays.items(), strict=True):
        array = np.asarray(array, float)
        reach = float(np.abs(array).max()) or 1.0
        ax.imshow(array, cmap="RdBu_r", vmin=-reach, vmax=reach)
        for (i, j), value in np.ndenumerate(array) if array.size <= 100 else ():
            dark = abs(value) > 0.6 * reach
            text = f"{value:.3g}" if abs(value) > 1e-6 else "0"
            size = 9 if array.shape[1] < 6 else 7
            colour = "white" if dark else "black"
            ax.text(j, i, text, ha="center", va="center", color=colour, fontsize=size)
        ax.set_title(title, fontsize=9)
        ax.set_xticks([])
        ax.set_yticks([])
    return figure


Curve = tuple[Num[np.ndarray, " n"], Num[np.ndarray, " n"]]


def curves(
    panels: Mapping[str, Mapping[str, Curve]],
    labels: tuple[str | Sequence[str], str],
    logarithmic: bool = False,
    across: int = 3,
    ratios: bool = False,
) -> Figure:
    """Draws panels of named curves (x, y).

    Args:
      labels: of the axes; of the horizontal ones, one for all panels, or one for each.
      logarithmic: whether the vertical axis is.
      ratios: whether the horizontal axis is.
    """
    figure, axes = _panels(len(panels), across, (4.2, 3.2))
    below = [labels[0]] * len(panels) if isinstance(labels[0], str) else labels[0]
    for ax, label, (title, lines) in zip(axes, below, panels.items(), strict=True):
        for i, (name, (x, y)) in enumerate(lines.items()):
            style = "-" if i < len(COLOURS) else "--"
            ax.plot(x, y, style, color=COLOURS[i % len(COLOURS)], label=name, linewidth=1.6)
        if logarithmic:
            ax.set_yscale("log")
        if ratios:
            ax.set_xscale("log")
        ax.set_title(title, fontsize=10)
        ax.set_xlabel(label, fontsize=9)
        ax.set_ylabel(labels[1], fontsize=9)
        if len(lines) > 1:
            ax.legend(frameon=False, fontsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def bars(panels: Mapping[str, Mapping[str, int | float]], across: int = 2) -> Figure:
    """Draws panels of named bars with their values, from 0."""
    figure, axes = _panels(len(panels), across, (4.6, 3.0))
    for ax, (title, values) in zip(axes, panels.items(), strict=True):
        places = np.arange(len(values))
        ax.barh(places, list(values.values()), color=COLOURS[0], height=0.6)
        ax.set_yticks(places, list(values), fontsize=8)
        ax.invert_yaxis()
        for place, value in zip(places, values.values(), strict=True):
            shown = f" {value:,.0f}" if value >= 1000 else f" {value:.4g}"
            ax.text(value, float(place), shown, va="center", fontsize=8)
        ax.margins(x=0.25)
        ax.set_xticks([])
        ax.set_title(title, fontsize=10)
        ax.spines[["top", "right", "bottom"]].set_visible(False)
    return figure


# left, top, right, bottom; a line beside it; its colour; how its edge is drawn
Box = tuple[Num[np.ndarray, "4"] | Sequence[int | float], str, str, str]


def boxes(
    panels: Mapping[str, Sequence[Box]],
    cells: float = 0.0,
    across: int = 3,
    extent: tuple[float, float] | None = None,
) -> Figure:
    """Draws panels of boxes, each with a line beside it.

    Args:
      cells: side of the cells of a grid behind them; 0: none.
      extent: width and height of the image that they lie in; None: as much as they cover.
    """
    corners = np.array([np.asarray(b, float) for one in panels.values() for b, *_ in one])
    low, high = corners[:, :2].min(0), corners[:, 2:].max(0)
    if extent is not None:
        low, high = np.zeros(2), np.array(extent)
    if cells:
        low, high = np.floor(low / cells) * cells, np.ceil(high / cells) * cells
    ratio = float((high - low)[1] / (high - low)[0])
    tall = float(np.clip(ratio, 0.45, 1.2))
    margin = 0.06 * (high - low)
    figure, axes = _panels(len(panels), across, (4.4, 4.2 * tall + 0.5))
    for ax, (title, shown) in zip(axes, panels.items(), strict=True):
        for i, (box, text, colour, style) in enumerate(shown):
            left, top, right, bottom = map(float, box)
            size = (right - left, bottom - top)
            ax.add_patch(
                Rectangle((left, top), *size, fill=False, edgecolor=colour, linestyle=style, lw=2)
            )
            down = top + (0.18 + 0.22 * (i % 3)) * size[1]  # neighbours' lines do not meet
            behind = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8}
            at = left + 0.04 * size[0]
            if text:
                ax.text(at, down, text, color=colour, fontsize=8, va="center", bbox=behind)
        ax.set_xlim(low[0] - margin[0], high[0] + margin[0])
        ax.set_ylim(high[1] + margin[1], low[1] - margin[1])
        if ratio == tall:  # flat ones are stretched
            ax.set_aspect("equal")
        if cells:
            ax.set_xticks(np.arange(low[0], high[0] + cells / 2, cells))
            ax.set_yticks(np.arange(low[1], high[1] + cells / 2, cells))
            ax.grid(color="#cccccc")
        ax.tick_params(labelsize=7)
        ax.set_title(title, fontsize=9)
    return figure


def paths(
    height: Callable[[np.ndarray, np.ndarray], np.ndarray],
    walked: Mapping[str, Float[np.ndarray, "step 2"]],
    across: int = 3,
    end: tuple[float, float] = (0.0, 0.0),
) -> Figure:
    """Draws each path over the level lines of a function of two parameters."""
    figure, axes = _panels(len(walked), across, (4.2, 3.0))
    every = np.concatenate([*walked.values(), np.array([end])])
    low, high = every.min(0), every.max(0)
    pad = 0.1 * (high - low)
    x, y = np.meshgrid(
        np.linspace(low[0] - pad[0], high[0] + pad[0], 120),
        np.linspace(low[1] - pad[1], high[1] + pad[1], 120),
    )
    levels = height(x, y)
    for ax, (title, path) in zip(axes, walked.items(), strict=True):
        ax.contour(x, y, levels, 14, colors="#c8c8c8", linewidths=0.8)
        ax.plot(path[:, 0], path[:, 1], ".-", color=COLOURS[0], linewidth=1, markersize=3)
        ax.plot(*path[0], "o", color=COLOURS[1], markersize=6)
        ax.plot(*end, "*", color=COLOURS[2], markersize=11)
        ax.set_title(title, fontsize=10)
        ax.tick_params(labelsize=7)
    return figure


def heat(rows: Mapping[str, Float[np.ndarray, "time unit"]], letters: Sequence[str]) -> Figure:
    """Draws values of units over a text, one panel for each kind: blue -1, red 1."""
    figure, axes = _panels(len(rows), 3, (2.6, 2.6))
    for ax, (title, values) in zip(axes, rows.items(), strict=True):
        ax.imshow(values.T, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
        ax.set_xticks(range(len(letters)), letters, fontsize=10)
        ax.set_yticks([])
        ax.set_title(title, fontsize=9)
        ax.set_ylabel("units", fontsize=8)
    figure.suptitle("blue -1, white 0, red 1", fontsize=8)
    return figure


def images(
    pictures: Mapping[str, Num[np.ndarray, "height width *channel"]], across: int = 4
) -> Figure:
    """Draws pictures side by side; signed ones of one channel blue and red about 0."""
    figure, axes = _panels(len(pictures), across, (3.0, 3.0))
    for ax, (title, picture) in zip(axes, pictures.items(), strict=True):
        picture = picture[..., 0] if picture.ndim == 3 and picture.shape[-1] == 1 else picture
        if picture.dtype == np.uint8:
            ax.imshow(picture, cmap="gray", vmin=0, vmax=255)
        else:
            reach = float(np.abs(picture).max()) or 1.0
            ax.imshow(picture, cmap="RdBu_r", vmin=-reach, vmax=reach)
        ax.set_title(title, fontsize=9)
        ax.set_axis_off()
    return figure
