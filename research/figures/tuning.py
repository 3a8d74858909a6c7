"""Pictures of a tuning: the metric against each flag that was searched."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from research.comparison.search import Range, Space
from research.comparison.tuning import Trial
from research.config import show

COLUMNS = 3
MARGIN = 0.04  # beside a range, as a share of it
SPREAD = 0.12  # of the points of one choice, so that those with the same value are seen


def searched(space: Space, trials: Sequence[Trial], metric: str) -> Figure:
    """Draws a panel for each flag, with a point for each trial at its value and its metric.

    Ranges by factors get a logarithmic axis. Trials that were left on the way are hollow, with the
    share of their steps beside; those that failed are crosses below; the best is a star.

    Args:
      trials: ranked.
      metric: the name on the vertical axis.
    """
    columns = min(COLUMNS, len(space))
    rows = math.ceil(len(space) / columns)
    figure = Figure(figsize=(4.4 * columns, 3.4 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for (flag, dimension), panel in zip(space.items(), panels.flat, strict=False):
        if isinstance(dimension, Range):
            panel.set_xscale(dimension.scale)
            panel.set_xlim(
                *(dimension._replace(whole=False).at(place) for place in (-MARGIN, 1 + MARGIN))
            )
            at = [float(trial.flags[flag]) for trial in trials]
        else:
            names = [show(value) for value in dimension.values]
            panel.set_xticks(range(len(names)), names, rotation=20 if len(names) > 4 else 0)
            panel.set_xlim(-0.5, len(names) - 0.5)
            at = _beside([(names.index(show(trial.flags[flag])), trial.name) for trial in trials])
        _points(panel, at, trials)
        panel.set_xlabel(flag)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25)
    for panel in list(panels.flat)[len(space) :]:
        panel.set_visible(False)
    for row in panels:
        row[0].set_ylabel(metric)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", frameon=False, fontsize=9, ncols=len(labels)
    )
    return figure


def _beside(at: Sequence[tuple[int, str]]) -> list[float]:
    """Spreads the points of each choice evenly about it, in the order of their names."""
    found = []
    for value, name in at:
        names = sorted(other for place, other in at if place == value)
        within = 2 * names.index(name) / (len(names) - 1) - 1 if len(names) > 1 else 0.0
        found.append(value + SPREAD * within)
    return found


def _points(panel: Axes, at: Sequence[float], trials: Sequence[Trial]) -> None:
    """Draws all trials in one panel, the best last."""
    placed = list(zip(at, trials, strict=True))
    good = [(x, trial) for x, trial in placed if not trial.failure]
    for share in sorted({trial.share for _, trial in good}):
        x, y = zip(*((x, trial.value) for x, trial in good if trial.share == share), strict=True)
        whole = share == 1.0
        panel.plot(
            x,
            y,
            "o",
            color="C0",
            fillstyle="full" if whole else "none",
            markersize=6 if whole else 4 + 3 * share,
            alpha=0.8,
            label="all steps" if whole else f"left after {share:.2g} of its steps",
        )
    if good:
        best, trial = good[0]
        panel.plot([best], [trial.value], "*", color="C1", markersize=14, label="best")
    failed = [x for x, trial in placed if trial.failure]
    if failed:
        panel.plot(
            failed,
            [0.03] * len(failed),
            "x",
            color="C3",
            transform=panel.get_xaxis_transform(),
            label="failed",
        )
