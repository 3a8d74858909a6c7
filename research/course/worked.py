"""The contract of a worked example: what it prints, what it found, what it draws."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jax.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Worked(NamedTuple):
    """A worked example.

    Attributes:
      steps: texts that are printed, in order: the arrays of each step.
      found: {quantity: (its value, what it is and what must hold)}.
      draw: makes the pictures, by name.
    """

    steps: Sequence[str]
    found: Mapping[str, tuple[float, str]]
    draw: "Callable[[], Mapping[str, Figure]]"


def step(title: str, *arrays: ArrayLike | str) -> str:
    """Writes a step: its title, and below it small arrays as rows of numbers, or lines of text."""
    lines = [title]
    for array in arrays:
        text = array if isinstance(array, str) else numbers(array)
        lines += [f"    {line}" for line in text.splitlines()]
    return "\n".join(lines)


def numbers(values: ArrayLike, digits: int = 4) -> str:
    """Writes an array's numbers, without commas; at most two dimensions lie in a block."""
    array = np.asarray(values)
    if array.dtype.kind == "f":
        array = array.astype(float).round(digits) + 0.0  # -0.0 is 0
        array = array.astype(int) if (array == array.round()).all() else array
    text = np.array2string(
        array, max_line_width=110, floatmode="maxprec", suppress_small=True, precision=digits
    )
    return text.replace("[", " ").replace("]", " ").rstrip()


def largest_difference(a: ArrayLike, b: ArrayLike) -> float:
    """Returns the largest absolute difference of two arrays of one shape.

    Raises:
      ValueError: for arrays of different shapes.
    """
    first, second = np.asarray(a), np.asarray(b)
    if first.shape != second.shape:
        raise ValueError(f"shapes {first.shape} and {second.shape} differ")
    return float(np.abs(first - second).max())
