"""The examples that are held out, as positions: pure functions of labels, groups and --split_seed.

Without a seed they are evenly spaced in the order of the examples; with one they are drawn. The
seed of the run has no part in it, so that runs of several seeds are measured on the same examples.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from research.data.sources.source import permutation
from research.errors import UserError
from research.spacing import spaced


class Fold(NamedTuple):
    """One of several parts of equal size, each of which is held out in a run of its own."""

    number: int  # 1 is the first
    of: int


def parse_fold(text: str) -> Fold:
    """Reads the I/K of --fold. Raises UserError unless K is 2 or more, and I is one of 1 to K."""
    number, _, of = text.partition("/")
    if number.isdecimal() and of.isdecimal() and int(of) >= 2 and 1 <= int(number) <= int(of):
        return Fold(int(number), int(of))
    raise UserError(f"--fold={text}: I/K is needed, such as 1/5, the first of five parts.")


def how_drawn(seed: int, order: str = "evenly spaced in natural order") -> str:
    """Says how examples were chosen; `order` is for those that no seed draws."""
    return f"drawn by --split_seed={seed}" if seed else order


def draw(n: int, count: int, seed: int) -> Int[np.ndarray, " chosen"]:
    """Returns positions of `count` of n things, in rising order: evenly spaced if the seed is 0."""
    return np.sort(permutation(n, seed, 0)[:count]) if seed else spaced(n, count)


def stratified(
    labels: Int[np.ndarray, " n"],
    share: float,
    seed: int = 0,
    groups: Int[np.ndarray, " n"] | None = None,
) -> tuple[Int[np.ndarray, " kept"], Int[np.ndarray, " held"]]:
    """Returns the positions to keep and the positions to hold out, each in rising order.

    Of the n examples of a class round(share n) are held out. A class of two or more keeps one and
    holds one out. Drawn groups stay whole, and then classes come as near to this as groups allow.

    Args:
      seed: 0: evenly spaced, without regard to groups; else drawn with it.
      groups: the number of each example's group.
    """
    held = np.zeros(len(labels), bool)
    classes, counts = np.unique(labels, return_counts=True)
    wanted = np.array([_count(n, share) for n in counts.tolist()], int)
    if seed and groups is not None:
        return _whole_groups(np.searchsorted(classes, labels), wanted, groups, seed)
    for label, count in zip(classes, wanted.tolist(), strict=True):
        members = np.flatnonzero(labels == label)
        if seed:
            order = permutation(len(labels), seed, 0)
            held[order[labels[order] == label][:count]] = True
        else:
            held[members[spaced(len(members), count)]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def _count(n: int, share: float) -> int:
    """Returns how many of a class of n examples are held out."""
    count = round(share * n)
    return min(max(count, 1), n - 1) if n > 1 and share else count


def _whole_groups(
    labels: Int[np.ndarray, " n"],
    wanted: Int[np.ndarray, " classes"],
    groups: Int[np.ndarray, " n"],
    seed: int,
) -> tuple[Int[np.ndarray, " kept"], Int[np.ndarray, " held"]]:
    """Holds groups out in a drawn order, each that brings the classes nearer to `wanted`."""
    table, numbers = _by_group(labels, groups)
    lacking, chosen = wanted.copy(), np.zeros(len(table), bool)
    for group in permutation(len(table), seed, 0):
        left = lacking - table[group]
        if np.abs(left).sum() < np.abs(lacking).sum():
            lacking, chosen[group] = left, True
    if wanted.any() and len(table) > 1 and not chosen.any():  # all are larger than the part
        chosen[np.argmin(np.abs(wanted - table).sum(1))] = True
    held = chosen[numbers]
    return np.flatnonzero(~held), np.flatnonzero(held)


def deal(
    labels: Int[np.ndarray, " n"],
    folds: int,
    seed: int = 0,
    groups: Int[np.ndarray, " n"] | None = None,
) -> Int[np.ndarray, " n"]:
    """Returns the fold of each example, 0 to folds - 1, stratified by class.

    Sizes of two folds differ by one at most, and so do their examples of one class; where groups
    stay whole, they are as even as these allow.

    Args:
      seed: 0: examples are dealt in their own order; else in a drawn one.

    Raises:
      UserError: where there are fewer examples, or groups, than folds.
    """
    count = len(labels) if groups is None else len(np.unique(groups))
    if count < folds:
        what = "examples" if groups is None else "groups, which stay whole,"
        raise UserError(f"--fold: {folds} parts of {count} {what} cannot be made; choose fewer.")
    order = permutation(count, seed, 0) if seed else np.arange(count)
    if groups is not None:
        return _deal_groups(labels, folds, order, groups)
    dealt = np.empty(len(labels), np.int64)
    dealt[order[np.argsort(labels[order], kind="stable")]] = np.arange(len(labels)) % folds
    return dealt


def _deal_groups(
    labels: Int[np.ndarray, " n"],
    folds: int,
    order: Int[np.ndarray, " groups"],
    groups: Int[np.ndarray, " n"],
) -> Int[np.ndarray, " n"]:
    """Gives each group, the largest first, to the fold that has least of its classes."""
    table, numbers = _by_group(np.unique(labels, return_inverse=True)[1], groups)
    shares = table / table.sum(0)  # of each class
    have, taken = np.zeros((folds, table.shape[1])), np.zeros(folds, int)
    dealt = np.empty(len(table), np.int64)
    for group in order[np.argsort(-table.sum(1)[order], kind="stable")]:
        fold = np.lexsort((taken, have @ shares[group]))[0]
        dealt[group] = fold
        have[fold] += shares[group]
        taken[fold] += table[group].sum()
    return dealt[numbers]


def _by_group(
    labels: Int[np.ndarray, " n"], groups: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, "groups classes"], Int[np.ndarray, " n"]]:
    """Counts each group's examples of each class; returns each example's row, too."""
    numbers = np.unique(groups, return_inverse=True)[1]
    table = np.zeros((numbers.max(initial=-1) + 1, labels.max(initial=-1) + 1), int)
    np.add.at(table, (numbers, labels), 1)
    return table, numbers
