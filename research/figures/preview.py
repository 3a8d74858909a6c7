"""A sheet of training examples and their augmented versions, with what they teach."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from research.figures.detection import colour, show

IGNORE = 255  # of masks: pixels that do not count


def sheet(rows: Sequence[Sequence[Mapping[str, Any]]], words: Sequence[str]) -> Figure:
    """Draws a row an example: as it is, then its versions; boxes, masks and points as they moved.

    Args:
      rows: "image", and of "boxes" with "valid", "segmentation" and "points" what there is.
      words: said of each example, above its row.
    """
    across = max(len(row) for row in rows)
    figure = Figure(figsize=(1.7 * across, 1.9 * len(rows)), dpi=110, layout="constrained")
    grid = figure.subplots(len(rows), across, squeeze=False)
    for panels, row, said in zip(grid, rows, words, strict=True):
        for ax, example in zip(panels, row, strict=False):
            show(ax, np.asarray(example["image"]))
            _targets(ax, example)
        panels[0].set_title(said if len(said) < 40 else f"{said[:38]}..", fontsize=7, loc="left")
    for number, ax in enumerate(grid[-1]):
        ax.set_xlabel("as it is" if number == 0 else f"version {number}", fontsize=8)
    return figure


def _targets(ax: Any, example: Mapping[str, Any]) -> None:
    """Draws the boxes, the mask and the points of an example."""
    if "boxes" in example and "valid" in example:
        labels = example.get("classes", np.zeros(len(example["boxes"]), int))
        for box, valid, label in zip(example["boxes"], example["valid"], labels, strict=True):
            if valid:
                x0, y0, x1, y1 = map(float, box)
                edge = colour(int(label))
                ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=edge))
    if "segmentation" in example:
        mask = np.asarray(example["segmentation"])
        shown = np.ma.masked_where((mask == 0) | (mask == IGNORE), mask % 10)
        extent = (0, mask.shape[1], mask.shape[0], 0)
        ax.imshow(shown, cmap="tab10", vmin=0, vmax=9, alpha=0.5, extent=extent)
    if "points" in example:
        ax.plot(*np.asarray(example["points"]).T, ".", color="#ffcc00", markersize=2)
