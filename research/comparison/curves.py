"""Curves of runs: logged numbers by step and by seconds, and their mean over a variant's runs."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from research.comparison.runs import log_lines, parsed

MOST_POINTS = 400  # of a curve: more than a picture is wide


class Curve(NamedTuple):
    """A logged number: its value at each step, and how many seconds the run had taken by then."""

    steps: Float[np.ndarray, " point"]
    seconds: Float[np.ndarray, " point"]
    values: Float[np.ndarray, " point"]


class Band(NamedTuple):
    """The mean over runs and their standard deviation, NaN for a single run, at common steps."""

    steps: Float[np.ndarray, " point"]
    seconds: Float[np.ndarray, " point"]  # their mean
    mean: Float[np.ndarray, " point"]
    deviation: Float[np.ndarray, " point"]


def read_curves(folder: Path, names: Iterable[str], most: int = MOST_POINTS) -> dict[str, Curve]:
    """Reads the curves of some logged numbers; those that were never logged are not there.

    A long curve is thinned to its points at multiples of a power of two, and its last: runs that
    logged at the same steps, however many, keep some steps in common.
    """
    lines = log_lines(folder)
    curves = {}
    for name in names:
        # Only what is kept is parsed: most of the time would go into the rest.
        having = [line for line in lines if f'"{name}":' in line]
        stride = 1
        while len(having) > most * stride:
            stride *= 2
        kept = having[stride - 1 :: stride]
        if having and (not kept or kept[-1] is not having[-1]):
            kept.append(having[-1])
        rows = [row for row in map(parsed, kept) if name in row]
        if rows:
            columns = ("step", "seconds", name)
            curves[name] = Curve(
                *(
                    np.array([row.get(column, math.nan) for row in rows], float)
                    for column in columns
                )
            )
    return curves


def band(curves: Sequence[Curve]) -> Band:
    """Returns the mean of several runs' curves, at the steps that all of them have."""
    steps = curves[0].steps
    for curve in curves[1:]:
        steps = np.intersect1d(steps, curve.steps)
    at = [np.searchsorted(curve.steps, steps) for curve in curves]
    values = np.array([curve.values[i] for curve, i in zip(curves, at, strict=True)])
    seconds = np.array([curve.seconds[i] for curve, i in zip(curves, at, strict=True)])
    alone = len(curves) == 1
    deviation = np.full(len(steps), math.nan) if alone else values.std(0, ddof=1)
    return Band(steps, seconds.mean(0), values.mean(0), deviation)
