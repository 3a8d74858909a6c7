"""Recognition 1:K among known identities: episodes of few classes with few supports each."""

from collections.abc import Mapping

import numpy as np

from research.metrics.sampling import Embeddings, Labels, between, class_members, parts, random
from research.vectors.neighbours import Metric

EPISODES = 1000
MOST_WAYS = 20


def episode_accuracy(
    x: Embeddings,
    labels: Labels,
    ways: int,
    shots: int = 1,
    metric: Metric = "euclidean",
    *,
    domains: Labels | None = None,
    episodes: int = EPISODES,
) -> float:
    """Returns the share of queries whose nearest class mean is their own class's, N-way k-shot.

    Each episode draws `ways` classes, and of each `shots` supports and one other image as query.
    With `domains`, all supports of an episode are of one domain and all queries of another.
    NaN where no episode can be drawn.
    """
    if domains is None:
        able = [m for m in class_members(labels) if len(m) > shots]
        rows = [_draw(able, ways, shots, random(ways, shots, e)) for e in range(episodes)]
    else:
        tables = {k: class_members(labels, domains == k) for k in np.unique(domains).tolist()}
        rows = [_draw_across(tables, ways, shots, random(ways, shots, e)) for e in range(episodes)]
    chosen = [row for row in rows if row is not None]
    if not chosen:
        return float("nan")
    support, query = (np.stack(part) for part in zip(*chosen, strict=True))  # [E, N, k], [E, N]
    right = 0
    for part in parts(len(chosen), max(4096 // ways, 1)):
        means = x[support[part]].mean(2)  # [E, N, d]
        nearest_class = between(x[query[part]], means, metric).argmin(2)
        right += int((nearest_class == np.arange(ways)).sum())
    return right / query.size


Episode = tuple[np.ndarray, np.ndarray]  # positions of supports [ways, shots], of queries [ways]


def _draw(
    members: list[np.ndarray], ways: int, shots: int, draws: np.random.RandomState
) -> Episode | None:
    """Draws an episode of classes with more than `shots` examples; None if these are too few."""
    if len(members) < ways:
        return None
    drawn = [draws.permutation(members[k]) for k in draws.permutation(len(members))[:ways]]
    return np.stack([m[:shots] for m in drawn]), np.array([m[shots] for m in drawn])


def _draw_across(
    tables: Mapping[int, list[np.ndarray]], ways: int, shots: int, draws: np.random.RandomState
) -> Episode | None:
    """Draws an episode whose supports are of one domain and whose queries of another."""
    kinds = sorted(tables)
    if len(kinds) < 2:
        return None
    one, other = (tables[kinds[k]] for k in draws.permutation(len(kinds))[:2])
    both = [(a, b) for a, b in zip(one, other, strict=True) if len(a) >= shots and len(b)]
    if len(both) < ways:
        return None
    drawn = [both[k] for k in draws.permutation(len(both))[:ways]]
    support = np.stack([draws.permutation(a)[:shots] for a, _ in drawn])
    return support, np.array([b[draws.randint(len(b))] for _, b in drawn])


def run_errors(
    x: Embeddings, labels: Labels, runs: Labels, is_query: Labels, metric: Metric = "euclidean"
) -> float:
    """Returns the share of queries of given one-shot runs that are nearest to a wrong support.

    Args:
      runs: the run of each example; queries are compared with the supports of their run.
      is_query: 1 for queries, 0 for supports.
    """
    wrong, count = 0, 0
    for run in np.unique(runs):
        support = np.flatnonzero((runs == run) & (is_query == 0))
        query = np.flatnonzero((runs == run) & (is_query == 1))
        found = between(x[query][None], x[support][None], metric)[0].argmin(1)
        wrong += int((labels[support[found]] != labels[query]).sum())
        count += len(query)
    return wrong / count


def ways_of(labels: Labels) -> int:
    """Returns N of the N-way episodes: 20, or the number of classes of two or more examples."""
    return min(MOST_WAYS, sum(len(members) > 1 for members in class_members(labels)))


def growing(labels: Labels) -> list[int]:
    """Returns numbers K of identities, up to the number of classes of two or more examples."""
    most = sum(len(members) > 1 for members in class_members(labels))
    sizes = [k for k in (2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if k < most]
    return [*sizes, most] if most > 1 else []


def recognition(
    x: Embeddings, labels: Labels, sizes: list[int], metric: Metric = "euclidean"
) -> list[float]:
    """Computes 1:K accuracy for these numbers K, with about 20 EPISODES queries each, or fewer."""
    episodes = [min(max(EPISODES * 20 // size, 5), EPISODES) for size in sizes]
    return [
        episode_accuracy(x, labels, size, 1, metric, episodes=number)
        for size, number in zip(sizes, episodes, strict=True)
    ]
