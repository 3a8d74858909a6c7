"""A sheet of many small pictures, each with a line above it."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
import PIL.Image
from jaxtyping import UInt8
from matplotlib.figure import Figure

from research.figures import saving

WIDTH = 15.0  # inches
ACROSS = 6  # pictures in a row, of those that are not wide


def sheet(pictures: Sequence[Mapping[str, Figure | np.ndarray]], lines: Sequence[str]) -> Figure:
    """Draws a grid, row by row, of one tile for each line.

    Args:
      pictures: of each tile, by name; several stand one below the other.
    """
    tiles = [_below([_pixels(picture) for picture in one.values()]) for one in pictures]
    shapes = np.array([tile.shape[:2] for tile in tiles], float)
    tall = float(np.median(shapes[:, 0] / shapes[:, 1]))  # height of a tile of width 1
    across = min(len(tiles), ACROSS if tall > 0.7 else ACROSS // 2 if tall > 0.35 else 2)
    down = -(-len(tiles) // across)
    side = WIDTH / max(across, 2)
    figure = Figure(figsize=(across * side, down * (side * tall + 0.3)), dpi=120)
    figure.set_layout_engine("constrained", w_pad=0.03, h_pad=0.03)
    for place, (tile, line) in enumerate(zip(tiles, lines, strict=True), 1):
        ax = figure.add_subplot(down, across, place)
        ax.imshow(tile)
        ax.set_axis_off()
        ax.set_title(line, fontsize=7, loc="left", pad=2)
    return figure


def _pixels(picture: Figure | np.ndarray) -> UInt8[np.ndarray, "height width 3"]:
    """Returns a picture as RGB."""
    if isinstance(picture, np.ndarray):
        return np.broadcast_to(picture, (*picture.shape[:2], 3))
    file = io.BytesIO()
    saving.save(picture, file, dpi=90, bbox_inches="tight")
    return np.asarray(PIL.Image.open(file).convert("RGB"))


def _below(pictures: Sequence[np.ndarray]) -> UInt8[np.ndarray, "height width 3"]:
    """Puts pictures one below the other, on white."""
    if not pictures:
        return np.full((1, 1, 3), 255, np.uint8)
    width = max(picture.shape[1] for picture in pictures)
    wide = [
        np.pad(x, ((0, 0), (0, width - x.shape[1]), (0, 0)), constant_values=255) for x in pictures
    ]
    return np.concatenate(wide)
