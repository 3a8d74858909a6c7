"""What a saved figure shows, so that tests need not judge pictures by the size of their files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text


class Shown(NamedTuple):
    """What lies on a figure.

    Attributes:
      texts: every visible text that is not empty, numbers beside axes included.
      images: the arrays of its images, in the order in which they were drawn.
      lines: the points [n, 2] of its lines, in data coordinates.
      points: those of its scatter plots.
    """

    texts: list[str]
    images: list[np.ndarray]
    lines: list[np.ndarray]
    points: list[np.ndarray]

    def has(self, *texts: str) -> bool:
        """Whether each of these is part of some text."""
        return all(any(text in shown for shown in self.texts) for text in texts)


def shown(figure: Figure) -> Shown:
    texts = [text.get_text() for text in figure.findobj(Text) if text.get_visible()]
    return Shown(
        [text for text in texts if text.strip()],
        [np.asarray(image.get_array()) for image in figure.findobj(AxesImage)],
        [np.asarray(line.get_xydata()) for ax in figure.axes for line in ax.get_lines()],
        [np.asarray(dots.get_offsets()) for dots in figure.findobj(PathCollection)],
    )


@contextmanager
def saved() -> Iterator[dict[Path, Shown]]:
    """Notes what each figure shows that is saved as a file meanwhile."""
    found: dict[Path, Shown] = {}
    save = Figure.savefig

    def noting(figure, file, *args, **options):
        save(figure, file, *args, **options)
        if isinstance(file, (str, Path)):
            found[Path(file)] = shown(figure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", noting)
        yield found
