"""Verification 1:1, whether two examples are of one class: pairs, the ROC curve, thresholds."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.metrics import auc, roc_curve

from research.metrics.sampling import Embeddings, Labels, between, class_members, parts, random
from research.spacing import spaced
from research.vectors.neighbours import Metric

MOST_PAIRS = 200_000  # of each kind
FOLDS = 10
FALSE_ACCEPTANCE = 1e-3


class Pairs(NamedTuple):
    """Pairs of examples: positions of both, and whether they are of one class."""

    first: Int[np.ndarray, " pair"]
    second: Int[np.ndarray, " pair"]
    same: Bool[np.ndarray, " pair"]


def draw_pairs(labels: Labels, most: int = MOST_PAIRS) -> Pairs:
    """Returns all pairs of one class and all others; of each kind at most `most`, a fair sample.

    Classes that would give many times `most` pairs are reduced to evenly spaced members.
    """
    groups = class_members(labels)
    each = max(int((8 * most / len(groups)) ** 0.5), 2)  # members: 4 `most` pairs in all
    positive = []
    for members in groups:
        members = members[spaced(len(members), each)]
        i, j = np.triu_indices(len(members), 1)
        positive.append(np.stack([members[i], members[j]], 1))
    same = np.concatenate(positive) if positive else np.zeros((0, 2), int)
    if len(same) > most:
        same = same[random(0).permutation(len(same))[:most]]
    n = len(labels)
    if n * (n - 1) // 2 <= 4 * most:
        other = np.stack(np.triu_indices(n, 1), 1)
    else:
        other = random(1).randint(0, n, (2 * most, 2))
        other = np.unique(np.sort(other, 1), axis=0)
    other = other[labels[other[:, 0]] != labels[other[:, 1]]]
    if len(other) > most:
        other = other[random(2).permutation(len(other))[:most]]
    pairs = np.concatenate([same, other])
    return Pairs(pairs[:, 0], pairs[:, 1], np.arange(len(pairs)) < len(same))


def pair_distances(x: Embeddings, pairs: Pairs, metric: Metric) -> Float[np.ndarray, " pair"]:
    """Returns the distance of each pair."""
    return np.concatenate(
        [
            between(x[pairs.first[part], None], x[pairs.second[part], None], metric)[:, 0, 0]
            for part in parts(len(pairs.same), 8192)
        ]
    )


def verification(
    distance: Float[np.ndarray, " pair"], same: Bool[np.ndarray, " pair"]
) -> dict[str, float]:
    """Computes the ROC curve's area, equal error rate, true acceptance at FALSE_ACCEPTANCE."""
    false, true, _ = roc_curve(same, -distance, drop_intermediate=False)
    rate = np.interp(0.0, false + true - 1.0, false)  # where false acceptance = false rejection
    accepted = true[np.flatnonzero(false <= FALSE_ACCEPTANCE)[-1]]
    return {
        "verification_auc": float(auc(false, true)),
        "equal_error_rate": float(rate),
        "true_acceptance": float(accepted),
    }


def best_threshold(distance: Float[np.ndarray, " pair"], same: Bool[np.ndarray, " pair"]) -> float:
    """Returns the threshold of distances with the highest balanced accuracy of "same".

    Balanced: both kinds of pairs weigh the same, however many there are. It lies halfway to the
    next distance, so that rounding does not decide over pairs at the threshold.
    """
    false, true, thresholds = roc_curve(same, -distance, drop_intermediate=False)
    best = int((true - false).argmax())
    if best == 0:
        return float(distance.min())
    following = thresholds[min(best + 1, len(thresholds) - 1)]
    return float(-(thresholds[best] + following) / 2)


def threshold_accuracy(
    distance: Float[np.ndarray, " pair"],
    same: Bool[np.ndarray, " pair"],
    folds: Int[np.ndarray, " pair"],
) -> float:
    """Returns balanced accuracy of each fold at the threshold chosen on the other folds."""
    right = np.zeros(len(same), bool)
    used = np.zeros(len(same), bool)
    for fold in np.unique(folds[folds >= 0]):
        here, elsewhere = folds == fold, (folds != fold) & (folds >= 0)
        if len(np.unique(same[elsewhere])) == 2:
            threshold = best_threshold(distance[elsewhere], same[elsewhere])
            right[here] = (distance[here] < threshold) == same[here]
            used |= here
    kinds = [right[used & (same == kind)] for kind in (True, False)]
    return float(np.mean([kind.mean() for kind in kinds])) if all(map(len, kinds)) else np.nan


def pair_folds(labels: Labels, pairs: Pairs) -> Int[np.ndarray, " pair"]:
    """Divides pairs into folds that share no class: by class modulo FOLDS; -1 for pairs across.

    There are fewer folds for few classes, so that each has pairs of both kinds.
    """
    number = np.unique(labels, return_inverse=True)[1]
    fold = number % max(min(FOLDS, (number.max() + 1) // 2), 1)
    first, second = fold[pairs.first], fold[pairs.second]
    return np.where(first == second, first, -1)
