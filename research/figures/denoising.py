"""Pictures with and without their noise."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from research.spacing import spaced


def rows(pictures: Mapping[str, Float[np.ndarray, "n _ _ _"]], most: int = 6) -> Figure:
    """Draws the same images in several states, a row each.

    Args:
      pictures: values in 0..1, of 1 or 3 channels; values outside are clipped.
    """
    shown = spaced(len(next(iter(pictures.values()))), most)
    size = (1.6 * len(shown) + 0.4, 1.6 * len(pictures))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(pictures), len(shown), squeeze=False)
    for row, (name, images) in zip(grid, pictures.items(), strict=True):
        for panel, image in zip(row, images[shown], strict=True):
            panel.imshow(np.clip(image.squeeze(), 0, 1), cmap="gray", vmin=0, vmax=1)
            panel.set_xticks([])
            panel.set_yticks([])
        row[0].set_ylabel(name, fontsize=10)
    return figure
