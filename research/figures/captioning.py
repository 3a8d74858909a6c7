"""Pictures of captioning: sentences below their images, and the attention of each word."""

import textwrap
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from research.spacing import spaced

QUIET = "#707070"
_MOST_WORDS = 20  # of a caption whose attention is drawn


def captions(
    images: Num[np.ndarray, "n height width channel"],
    sentences: Sequence[str],
    references: Sequence[str] | None = None,
    most: int = 12,
) -> Figure:
    """Draws a grid of images, each with its caption and, in grey, one by a person.

    Args:
      images: values in 0..255, RGB or grey.
      references: None if there are none.
      most: images in the grid, at most.
    """
    shown = spaced(len(images), most)
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.9 * max(columns, 2), 3.5 * rows), dpi=110, layout="constrained")
    for place, i in enumerate(shown):
        ax = figure.add_subplot(rows, columns, place + 1)
        _show(ax, images[i])
        ax.set_title(_wrapped(sentences[i]), fontsize=9, loc="left")
        if references is not None:
            ax.set_xlabel(_wrapped(references[i]), fontsize=8, color=QUIET, loc="left")
    return figure


def attention(
    image: Num[np.ndarray, "height width channel"],
    words: Sequence[str],
    maps: Float[np.ndarray, "length rows columns"],
) -> Figure:
    """Draws the image, and for each word the image lit up where the decoder attended before it.

    Args:
      words: of the caption; of many, the first 20 are drawn.
      maps: the attention to each place before each word; each map sums to 1.
    """
    words = [*words[:_MOST_WORDS]]
    columns = min(6, len(words) + 1)
    rows = -(-(len(words) + 1) // columns)
    figure = Figure(figsize=(1.7 * columns, 1.95 * rows), dpi=110, layout="constrained")
    _show(figure.add_subplot(rows, columns, 1), image)
    height, width = image.shape[:2]
    for i, (word, looked) in enumerate(zip(words, maps, strict=False)):
        ax = figure.add_subplot(rows, columns, i + 2)
        # Dark where attention is 0, as bright as the picture where it is highest.
        light = cv2.resize(looked / looked.max(), (width, height), interpolation=cv2.INTER_CUBIC)
        light = 0.15 + 0.85 * np.clip(light, 0, 1)
        _show(ax, image * light[:, :, None])
        ax.set_title(word, fontsize=9)
    return figure


def _show(ax: Axes, image: Num[np.ndarray, "height width channel"]) -> None:
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    grey = pixels.shape[-1] == 1
    ax.imshow(pixels[..., 0] if grey else pixels, cmap="gray", vmin=0, vmax=255)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_edgecolor("#d0d0d0")


def _wrapped(sentence: str) -> str:
    return textwrap.fill(sentence, 38)
