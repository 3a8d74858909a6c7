"""Pictures that compare several runs."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from research.comparison.curves import Curve, band

COSTS = {
    "seconds": "seconds of a run",
    "flops": "FLOPs of training",
    "parameters": "parameters",
}


class Variant(NamedTuple):
    """The final values of a variant's runs, and their mean with its interval; NaN: not known."""

    values: Sequence[float]
    mean: float
    low: float = math.nan
    high: float = math.nan
    failed: int = 0


class Curves(NamedTuple):
    """A variant's curves of one name: of the runs that finished, and of those that did not."""

    finished: Sequence[Curve] = ()
    failed: Sequence[Curve] = ()


def curves(variants: Mapping[str, Mapping[str, Curves]]) -> Figure:
    """Draws a row for each name, by step and by seconds: mean and standard deviation of runs.

    A run that did not finish is a thin line that ends in a cross. Losses are logarithmic.

    Args:
      variants: {label: {name: curves}}, the same names for each label.
    """
    names = list(next(iter(variants.values())))
    figure = Figure(
        figsize=(11, 3.6 * len(names) + 0.18 * len(variants) + 0.4), layout="constrained"
    )
    rows = figure.subplots(len(names), 2, squeeze=False, sharey="row")
    for name, row in zip(names, rows, strict=True):
        for panel, axis in zip(row, ("steps", "seconds"), strict=True):
            for number, (label, found) in enumerate(variants.items()):
                _curves(panel, found[name], axis, label, number)
            panel.set_xlabel("step" if axis == "steps" else "seconds")
            _plain(panel)
        row[0].set_title(name, fontsize=11, loc="left")
        drawn = [
            c.values
            for found in variants.values()
            for c in (*found[name].finished, *found[name].failed)
        ]
        positive = all((values > 0).all() for values in drawn)
        if "loss" in name and drawn and positive:
            row[0].set_yscale("log")
    legend: dict[str, Artist] = {}
    for panel in rows.flat:
        handles, labels = panel.get_legend_handles_labels()
        legend |= dict(zip(labels, handles, strict=True))
    _legend(figure, legend)
    return figure


def values(
    variants: Mapping[str, Variant], name: str, baseline: str, difference: float | None = None
) -> Figure:
    """Draws every final value as a point, with the mean of each variant and its 95 % interval.

    Args:
      name: what is on the axis.
      difference: the smallest of interest, drawn as a stripe about the baseline's mean.
    """
    figure = Figure(figsize=(8, 1.3 + 0.42 * len(variants)), layout="constrained")
    panel = figure.subplots()
    centre = variants[baseline].mean
    if math.isfinite(centre):
        panel.axvline(centre, color="0.6", linewidth=0.8, zorder=0)
        if difference is not None:
            panel.axvspan(centre - difference, centre + difference, color="0.93", zorder=-1)
    for row, (number, one) in enumerate(reversed(list(enumerate(variants.values())))):
        colour = f"C{number % 10}"
        panel.plot(one.values, [row] * len(one.values), "o", color=colour, alpha=0.45, markersize=5)
        panel.plot([one.mean], [row + 0.22], "D", color=colour, markersize=5)
        if math.isfinite(one.low):
            panel.plot([one.low, one.high], [row + 0.22] * 2, "-", color=colour, linewidth=2)
    names = [
        label + (f" ({one.failed} failed)" if one.failed else "")
        for label, one in reversed(list(variants.items()))
    ]
    panel.set_yticks(range(len(variants)), names)
    panel.set_ylim(-0.6, len(variants) - 0.4)
    panel.set_xlabel(f"{name}: each run, mean and 95 % interval")
    _plain(panel)
    return figure


def costs(
    variants: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], name: str
) -> Figure | None:
    """Draws quality against each kind of cost, a point a run and a diamond a variant's mean.

    Args:
      variants: {label: {kind of COSTS: [(cost, value) of each run]}}.
      name: what is on the vertical axis.

    Returns:
      None where no cost is known, or each is the same for all runs.
    """
    known = {
        kind: {point[0] for found in variants.values() for point in found.get(kind) or ()}
        for kind in COSTS
    }
    kinds = [kind for kind, different in known.items() if len(different) > 1]
    if not kinds:
        return None
    figure = Figure(figsize=(4.6 * len(kinds), 3.8 + 0.18 * len(variants)), layout="constrained")
    panels = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for kind, panel in zip(kinds, panels, strict=True):
        for number, (label, found) in enumerate(variants.items()):
            points = np.array(found.get(kind) or np.zeros((0, 2)), float)
            colour = f"C{number % 10}"
            panel.plot(points[:, 0], points[:, 1], "o", color=colour, alpha=0.35, markersize=4)
            if len(points):
                panel.plot(
                    *points.mean(0), _marker(number), color=colour, markersize=8, label=label
                )
        if max(known[kind]) > 8 * min(known[kind]) > 0:
            panel.set_xscale("log")
        panel.set_xlabel(COSTS[kind])
        _plain(panel)
    panels[0].set_ylabel(name)
    handles, labels = panels[0].get_legend_handles_labels()
    _legend(figure, dict(zip(labels, handles, strict=True)))
    return figure


def _curves(panel: Axes, found: Curves, axis: str, label: str, number: int) -> None:
    """Draws one variant's mean, its band, and the runs that failed."""
    colour = f"C{number % 10}"  # matplotlib has ten colours
    style = "-" if number < 10 else "--"
    if found.finished:
        mean = band(found.finished)
        x = getattr(mean, axis)
        marker = "o" if len(x) < 12 else None
        panel.plot(x, mean.mean, style, color=colour, marker=marker, markersize=3, label=label)
        if len(found.finished) > 1:
            low, high = mean.mean - mean.deviation, mean.mean + mean.deviation
            panel.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    for one in found.failed:
        x = getattr(one, axis)
        panel.plot(x, one.values, style, color=colour, linewidth=0.8)
        said = None if found.finished else label
        panel.plot(x[-1:], one.values[-1:], "x", color=colour, markersize=7, label=said)


def _legend(figure: Figure, handles: Mapping[str, Artist]) -> None:
    """Draws one legend below all panels."""
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        frameon=False,
        fontsize=9,
        ncols=2,
    )


def _marker(number: int) -> str:
    return "Ds^v"[number // 10 % 4]


def _plain(panel: Axes) -> None:
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(alpha=0.25)
