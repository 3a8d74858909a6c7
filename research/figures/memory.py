"""Pictures of the memory of recurrent networks."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

COLOURS = ("#c0392b", "#7fa7d1", "#1f4e79", "#707070")
_FLOOR = 1e-12  # smaller is nothing


@runtime_checkable
class GradientNorms(Protocol):
    """A recurrent cell's gradient norms; see research.understanding.memory.Memory."""

    @property
    def name(self) -> str: ...
    @property
    def fresh(self) -> np.ndarray: ...
    @property
    def trained(self) -> np.ndarray: ...
    @property
    def accuracy(self) -> float: ...


def gradient_by_distance(cells: Sequence[GradientNorms]) -> Figure:
    """Draws the gradient's norm against the number of steps before the end; logarithmic."""
    figure = Figure(figsize=(10, 4.2), dpi=110, layout="constrained")
    for ax, weights in zip(figure.subplots(1, 2, sharey=True), ("fresh", "trained"), strict=True):
        for cell, colour in zip(cells, COLOURS, strict=False):
            values = np.maximum(getattr(cell, weights), _FLOOR)
            label = cell.name
            if weights == "trained":
                label += f": {100 * cell.accuracy:.0f} % right"
            ax.semilogy(np.arange(len(values)), values, color=colour, label=label)
        ax.set_xlabel("steps before the end")
        ax.set_title(f"{weights} weights", fontsize=11)
        ax.legend(frameon=False, fontsize=9)
        ax.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("norm of the state's gradient")
    return figure


def next_character(
    text: Sequence[str],
    symbols: Sequence[str],
    probabilities: Float[np.ndarray, "time symbol"],
    hidden: Float[np.ndarray, "time unit"],
) -> Figure:
    """Draws the predicted next characters, and the hidden state that they are predicted from.

    Args:
      text: the characters that were read, and the one that came after the last.
      symbols: all characters, in the order of the columns of `probabilities`.
    """
    read, follows = list(map(_visible, text[:-1])), list(map(_visible, text[1:]))
    wide = 1.5 + 0.34 * len(read)
    tall = 1.2 + 0.22 * len(symbols) + 0.1 * min(hidden.shape[1], 40)
    figure = Figure(figsize=(max(wide, 4.0), tall), dpi=110, layout="constrained")
    ratios = [0.22 * len(symbols) + 0.4, 0.1 * min(hidden.shape[1], 40) + 0.4]
    upper, lower = figure.subplots(2, 1, height_ratios=ratios)
    upper.imshow(probabilities.T, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    upper.set_yticks(range(len(symbols)), list(map(_visible, symbols)), fontsize=8)
    upper.set_xticks(range(len(read)), read, fontsize=9)
    upper.xaxis.tick_top()
    for t, follower in enumerate(follows):
        row = list(map(_visible, symbols)).index(follower)
        dark = probabilities[t, row] > 0.6
        upper.text(t, row, "●", ha="center", va="center", color="white" if dark else "#1f4e79")
    upper.set_title("probability of the next character (● what came) after", fontsize=10)
    lower.imshow(hidden.T, cmap="RdBu", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    lower.set_xticks(range(len(read)), read, fontsize=9)
    lower.set_yticks([])
    lower.set_ylabel("hidden units")
    return figure


def _visible(character: str) -> str:
    return {" ": "␣", "\n": "⏎", "\t": "⇥"}.get(character, character)
