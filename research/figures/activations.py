"""Pictures of a network's activations and gradients."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

PANELS = {  # of a row: title, whether the axis is logarithmic
    "std": ("standard deviation of activations", True),
    "saturated": ("share that is flat: saturated, or zeros of ReLU", False),
    "dead": ("share of dead units", False),
    "gradient": ("norm of the kernel's gradient", True),
}
SMALLEST = 1e-12  # zeros are drawn here, at the foot of a logarithmic axis


def signals(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws statistics by depth: a row of panels a nonlinearity, a line an initialiser."""
    activations = list(dict.fromkeys(row["activation"] for row in rows))
    initialisers = list(dict.fromkeys(row["initialiser"] for row in rows))
    size = (4.2 * len(PANELS), 3.4 * len(activations) + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(activations), len(PANELS), squeeze=False, sharex=True)
    for panels, activation in zip(grid, activations, strict=True):
        for panel, (name, (title, logarithmic)) in zip(panels, PANELS.items(), strict=True):
            for initialiser in initialisers:
                found = [
                    row
                    for row in rows
                    if (row["activation"], row["initialiser"]) == (activation, initialiser)
                ]
                values = [max(row[name], SMALLEST) if logarithmic else row[name] for row in found]
                depths = [row["depth"] for row in found]
                panel.plot(depths, values, marker="o", markersize=3, label=initialiser)
            if logarithmic:
                panel.set_yscale("log")
            else:
                panel.set_ylim(-0.03, 1.03)
            panel.set_title(f"{activation}: {title}", fontsize=10)
            panel.spines[["top", "right"]].set_visible(False)
            panel.grid(alpha=0.25)
    for panel in grid[-1]:
        panel.set_xlabel("depth, layers with a kernel")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", frameon=False, ncols=len(labels))
    return figure
