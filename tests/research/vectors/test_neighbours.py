import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from research.vectors.neighbours import StoredVectors, nearest
from research.vectors.projection import two_coordinates

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("metric", ["euclidean", "cityblock"])
def test_nearest_neighbours_are_those_of_scikit_learn(metric, monkeypatch):
    monkeypatch.setattr("research.vectors.neighbours.QUERY_BLOCK", 16)
    monkeypatch.setattr("research.vectors.neighbours.VECTOR_BLOCK", 32)
    vectors, queries = (RNG.normal(size=(n, 4)).astype("f") for n in (101, 37))
    theirs = NearestNeighbors(n_neighbors=5, metric=metric, algorithm="brute").fit(vectors)
    distances, positions = theirs.kneighbors(queries)
    found, place = nearest(queries, vectors, 5, metric)
    np.testing.assert_allclose(found, distances, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(place, positions)
    _, others = nearest(vectors, vectors, 1, metric, others=np.arange(101))
    np.testing.assert_array_equal(others[:, 0], theirs.kneighbors(n_neighbors=1)[1][:, 0])
    assert nearest(queries, vectors[:3], 5, metric)[0].shape == (37, 3)


def test_of_equally_distant_rows_the_first_comes_first():
    vectors = np.repeat(np.eye(3, dtype="f"), 4, axis=0)
    for block in (1, 5, 12):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("research.vectors.neighbours.VECTOR_BLOCK", block)
            found = nearest(vectors[:1], vectors, 6)[1]
        assert found.tolist() == [[0, 1, 2, 3, 4, 5]]


def test_photographs_that_differ_in_a_few_pixels_are_told_apart():
    """Their squared length is 10^9, of which float32 cannot hold the difference."""
    vectors = RNG.integers(0, 256, (30, 100_000)).astype("f")
    for i in range(1, 12):  # nearest last
        vectors[i] = vectors[0]
        vectors[i, : 13 - i] = (vectors[0, : 13 - i] + 1) % 256
    distance, found = nearest(vectors[:1], vectors, 5, others=np.zeros(1, int))
    assert found[0].tolist() == [11, 10, 9, 8, 7]
    full = np.sqrt(((vectors[:1, None].astype("d") - vectors) ** 2).sum(-1))
    np.testing.assert_allclose(distance, np.take_along_axis(full, found, 1), rtol=1e-5)


def test_vectors_may_be_read_as_they_are_needed(monkeypatch):
    """Whole images, a few at a time, each once."""
    monkeypatch.setattr("research.vectors.neighbours.BLOCK_NUMBERS", 6 * 9)
    images, seen = RNG.integers(0, 255, (20, 3, 3, 1), np.uint8), []

    def read(start, stop):
        seen.append((start, stop))
        return images[start:stop]

    flat = images.reshape(20, -1).astype("f")
    distance, found = nearest(flat[:2], StoredVectors(read, 20))
    assert found.ravel().tolist() == [0, 1] and not distance.any()
    once = [(0, 6), (6, 12), (12, 18), (18, 20)]
    assert seen == 2 * once  # once more, with care, as images were found that are the same
    others = nearest(flat[:2], StoredVectors(read, 20), 3, others=np.arange(2))[1]
    assert seen == 3 * once
    full = ((flat[:2, None] - flat[None]) ** 2).sum(-1)
    np.testing.assert_array_equal(others, np.argsort(full, 1)[:, 1:4])


@pytest.mark.parametrize("kind", ["pca", "tsne"])
def test_groups_stay_together_on_the_plane(kind):
    points = RNG.normal(size=(30, 20)).astype("f")
    points[15:, 0] += 30
    places, title = two_coordinates(points, kind)
    inside = max(np.linalg.norm(p - p.mean(0), axis=1).mean() for p in (places[:15], places[15:]))
    assert np.linalg.norm(places[:15].mean(0) - places[15:].mean(0)) > 2 * inside
    assert title.startswith({"pca": "PCA, 9", "tsne": "t-SNE, perplexity 10"}[kind])


@pytest.mark.parametrize("shape", [(5, 1), (1, 4), (1, 1)])
def test_a_single_feature_or_example_has_a_place_too(shape):
    points = RNG.normal(size=shape).astype("f")
    for kind in ("pca", "tsne"):
        places = two_coordinates(points, kind).points
        assert places.shape == (shape[0], 2)
        np.testing.assert_allclose(places[:, 0], (points - points.mean(0))[:, 0])
