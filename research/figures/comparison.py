"""Pictures that compare several runs."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure


class Curve(NamedTuple):
    """A logged number at each of its steps."""

    steps: Sequence[float]
    values: Sequence[float]


def curves(runs: Mapping[str, Mapping[str, Curve]]) -> Figure:
    """Draws a panel for each name: its values by step, a line a run. Losses are logarithmic.

    Args:
      runs: {label: {name: curve}}, the same names for each label.
    """
    names = list(next(iter(runs.values())))
    figure = Figure(figsize=(5.2 * len(names), 4.2 + 0.18 * len(runs)), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for panel, name in zip(panels, names, strict=True):
        for number, (label, found) in enumerate(runs.items()):
            curve = found[name]
            style = "-" if number < 10 else "--"  # matplotlib has ten colours
            marker = "o" if len(curve.steps) < 12 else None
            panel.plot(curve.steps, curve.values, style, marker=marker, markersize=3, label=label)
        positive = all(v > 0 for found in runs.values() for v in found[name].values)
        if "loss" in name and positive:
            panel.set_yscale("log")
        panel.set_title(name, fontsize=11)
        panel.set_xlabel("step")
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", frameon=False, fontsize=9, ncols=2)
    return figure
