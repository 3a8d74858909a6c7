"""Metrics of embeddings on a whole split, on the host, as --experiment=embedding reports them."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score

from research.experiment import Score
from research.metrics.bias import Bias, Ratio
from research.metrics.recognition import (
    EPISODES,
    MOST_WAYS,
    episode_accuracy,
    growing,
    recognition,
    run_errors,
    ways_of,
)
from research.metrics.sampling import Embeddings, Labels
from research.metrics.verification import (
    FALSE_ACCEPTANCE,
    FOLDS,
    MOST_PAIRS,
    best_threshold,
    draw_pairs,
    pair_distances,
    pair_folds,
    threshold_accuracy,
    verification,
)
from research.spacing import spaced
from research.vectors.neighbours import Metric, nearest

MOST_QUERIES = 5_000
MOST_CLUSTERED = 20_000
RECALLS = (1, 5, 10)


def retrieval(x: Embeddings, labels: Labels, metric: Metric = "euclidean") -> dict[str, Score]:
    """Computes recall_at_k and map_at_r of each example against all others, with its weight.

    mAP@R: Musgrave et al., "A metric learning reality check", 2020, section 3.2. Queries are the
    examples of classes with at least two, or MOST_QUERIES of these, evenly spaced.
    """
    number = np.unique(labels, return_inverse=True)[1]
    relevant = np.bincount(number)[number] - 1
    queries = np.flatnonzero(relevant)
    if not len(queries):
        return {}
    queries = queries[spaced(len(queries), MOST_QUERIES)]
    count = min(max(int(relevant[queries].max()), max(RECALLS)), len(x) - 1)
    _, found = nearest(x[queries], x, count, metric, others=queries)
    right = labels[found] == labels[queries][:, None]
    r = relevant[queries]
    precision = np.cumsum(right, 1) / np.arange(1, count + 1)
    inside = np.arange(count) < r[:, None]
    scores = {f"recall_at_{k}": right[:, :k].any(1) for k in RECALLS if k <= count}
    scores["map_at_r"] = (precision * right * inside).sum(1) / r
    weights = np.zeros(len(x))
    weights[queries] = 1

    def of_all(values: np.ndarray) -> np.ndarray:
        every = np.zeros(len(x))
        every[queries] = values
        return every

    return {name: (of_all(values), weights) for name, values in scores.items()}


def cluster_agreement(x: Embeddings, labels: Labels) -> float:
    """Returns the normalised mutual information of classes and as many k-means clusters."""
    chosen = spaced(len(x), MOST_CLUSTERED)
    x, labels = x[chosen], labels[chosen]
    kmeans = KMeans(len(np.unique(labels)), n_init=1, random_state=0)
    return float(normalized_mutual_info_score(labels, kmeans.fit_predict(x)))


class Norms(NamedTuple):
    """Euclidean lengths of embeddings: 1 where they are normalised.

    Attributes:
      mean, error: their mean and its standard error; the error of one embedding is NaN.
      of_mean: the length of the mean embedding; of unit vectors 0 if they are spread evenly, 1 if
        all are equal.
    """

    mean: float
    error: float
    of_mean: float


def norms(x: Embeddings) -> Norms:
    """Measures the length of embeddings, and whether they crowd on one side."""
    lengths = np.linalg.norm(x.astype(np.float64), axis=1)
    error = lengths.std(ddof=1) / np.sqrt(len(x)) if len(x) > 1 else np.nan
    of_mean = np.linalg.norm(x.mean(0, dtype=np.float64))
    return Norms(float(lengths.mean()), float(error), float(of_mean))


def bias(x: Embeddings, *, normalised: bool) -> Bias:
    """Compares the length of embeddings with 1, and warns if they crowd on one side.

    Args:
      normalised: whether their length is meant to be 1; a Siamese classifier's need not be.
    """
    found = norms(x)
    also = {"length of the mean embedding": found.of_mean}
    if normalised:
        return Bias("length of embeddings", {"norm": Ratio(found.mean, found.error)}, also)
    return Bias("embeddings", {}, {"norm": found.mean, **also})


def protocols() -> dict[str, str]:
    """Returns how each metric is computed, for episodes of any number of classes.

    A split's number of classes may change, also when trained classes are left out.
    """
    return {name: line for ways in range(2, MOST_WAYS + 1) for name, line in protocol(ways).items()}


def protocol(ways: int) -> dict[str, str]:
    """Returns how each metric is computed, for episodes of `ways` classes."""
    episodes = f"{EPISODES} episodes of {ways} classes not trained on, one query a class"
    return {
        f"accuracy_{ways}way_1shot": f"{episodes}; nearest single support",
        f"accuracy_{ways}way_5shot": f"{episodes}; nearest mean of 5 supports",
        f"pixel_accuracy_{ways}way_1shot": "the same episodes, by the pixels of grey images of "
        "28 x 28: the baseline",
        f"cross_accuracy_{ways}way_1shot": "supports of one domain (typeface family, drawer), "
        "queries of another",
        "recognition_accuracy": "1:K, nearest of K classes with one image each; K is all there are",
        "verification_auc": f"area under the ROC curve of pairs, at most {MOST_PAIRS:,} a kind",
        "equal_error_rate": "of the same pairs, where false acceptance equals false rejection",
        "true_acceptance": f"of the same pairs, at a false acceptance of {FALSE_ACCEPTANCE:g}",
        "verification_accuracy": "balanced, at a threshold chosen on pairs of other classes; "
        f"{FOLDS} folds by class",
        "verification_threshold": "the distance of the best balanced accuracy on all pairs",
        "recall_at_1": "nearest other example is of the same class",
        "recall_at_5": "one of the 5 nearest others is of the same class",
        "recall_at_10": "one of the 10 nearest others is of the same class",
        "map_at_r": "mean average precision of the R nearest; R others are of the class",
        "nmi": "normalised mutual information with as many k-means clusters as classes",
        "one_shot_error": "20-way, within an alphabet, on the published runs of Lake et al. 2015",
        "pixel_one_shot_error": "the same runs, by the pixels of grey images of 28 x 28",
    }


def score(
    x: Embeddings,
    pixels: Float[np.ndarray, "n pixel"],
    labels: Labels,
    domains: Labels | None = None,
    metric: Metric = "euclidean",
) -> dict[str, Score]:
    """Computes a split's metrics, see `protocol`; those that need a larger split are left out.

    Args:
      x: embeddings.
      pixels: the images themselves, flattened, which are compared by Euclidean distance.
      domains: typeface family, drawer or the like of each example.
    """
    scores: dict[str, Score] = {}
    if (ways := ways_of(labels)) > 1:
        scores[f"accuracy_{ways}way_1shot"] = episode_accuracy(x, labels, ways, 1, metric)
        scores[f"accuracy_{ways}way_5shot"] = episode_accuracy(x, labels, ways, 5, metric)
        scores[f"pixel_accuracy_{ways}way_1shot"] = episode_accuracy(pixels, labels, ways)
        if domains is not None:
            scores[f"cross_accuracy_{ways}way_1shot"] = episode_accuracy(
                x, labels, ways, 1, metric, domains=domains
            )
        scores["recognition_accuracy"] = recognition(x, labels, growing(labels)[-1:], metric)[0]
        pairs = draw_pairs(labels)
        distance = pair_distances(x, pairs, metric)
        scores |= verification(distance, pairs.same)
        folds = pair_folds(labels, pairs)
        scores["verification_accuracy"] = threshold_accuracy(distance, pairs.same, folds)
        scores["verification_threshold"] = best_threshold(distance, pairs.same)
        scores |= retrieval(x, labels, metric)
    if 1 < len(np.unique(labels)) < len(labels):  # else every clustering agrees
        scores["nmi"] = cluster_agreement(x, labels)
    return {k: x for k, x in scores.items() if isinstance(x, tuple) or np.isfinite(x)}


def score_split(
    x: Embeddings,
    thumbnails: UInt8[np.ndarray, "n height width"],
    targets: Mapping[str, np.ndarray],
    metric: Metric = "euclidean",
) -> dict[str, Score]:
    """Computes `score` of a split, or the error on its published one-shot runs, if it has them."""
    pixels = thumbnails.reshape(len(thumbnails), -1).astype(np.float32) / 255
    labels = targets["label"]
    if "run" in targets and targets["run"].all():
        runs = targets["run"], targets["is_query"]
        return {
            "one_shot_error": run_errors(x, labels, *runs, metric),
            "pixel_one_shot_error": run_errors(pixels, labels, *runs),
        }
    return score(x, pixels, labels, targets.get("domain"), metric)
