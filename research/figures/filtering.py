"""Pictures of filters and of their effect on images."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Num
from matplotlib.figure import Figure

from research.spacing import spaced


def filters(
    kernels: Mapping[str, Float[np.ndarray, "rows columns"]],
    pictures: Mapping[str, Num[np.ndarray, "n _ _ 1"]],
    most: int = 6,
) -> Figure:
    """Draws kernels with their numbers above rows of images: negative blue, positive red.

    Args:
      pictures: the same images, before and after; the first are grey, 0..255.
    """
    shown = spaced(len(next(iter(pictures.values()))), most)
    count = len(shown)
    figure = Figure(figsize=(1.5 * count + 0.5, 3.0 + 1.5 * len(pictures)), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[3.0, 1.5 * len(pictures)], squeeze=False)[
        :, 0
    ]
    for panel, (name, kernel) in zip(
        above.subplots(1, len(kernels), squeeze=False)[0], kernels.items(), strict=True
    ):
        reach = float(np.abs(kernel).max())
        panel.imshow(kernel, cmap="RdBu_r", vmin=-reach, vmax=reach)
        for (i, j), value in np.ndenumerate(kernel):
            colour = "white" if abs(value) > 0.6 * reach else "black"
            panel.text(
                j,
                i,
                f"{round(float(value), 3) + 0.0:.3f}",
                ha="center",
                va="center",
                color=colour,
                fontsize=9,
            )
        panel.set_title(name, fontsize=11)
        panel.set_axis_off()
    grid = below.subplots(len(pictures), count, squeeze=False)
    for row, (name, images) in zip(grid, pictures.items(), strict=True):
        signed = images.dtype != np.uint8
        reach = float(np.abs(images[shown]).max()) or 1.0
        for panel, image in zip(row, images[shown], strict=True):
            if signed:
                panel.imshow(image[..., 0], cmap="RdBu_r", vmin=-reach, vmax=reach)
            else:
                panel.imshow(image[..., 0], cmap="gray", vmin=0, vmax=255)
            panel.set_xticks([])
            panel.set_yticks([])
        row[0].set_ylabel(name, fontsize=10)
    return figure
