import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from research.neighbours import Stored, nearest
from research.projection import two_coordinates

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("metric", ["euclidean", "cityblock"])
def test_nearest_neighbours_are_those_of_scikit_learn(metric, monkeypatch):
    monkeypatch.setattr("research.neighbours.QUERY_BLOCK", 16)
    monkeypatch.setattr("research.neighbours.GALLERY_BLOCK", 32)
    gallery, queries = (RNG.normal(size=(n, 4)).astype("f") for n in (101, 37))
    theirs = NearestNeighbors(n_neighbors=5, metric=metric, algorithm="brute").fit(gallery)
    distances, positions = theirs.kneighbors(queries)
    found, place = nearest(queries, gallery, 5, metric)
    np.testing.assert_allclose(found, distances, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(place, positions)
    _, others = nearest(gallery, gallery, 1, metric, others=np.arange(101))
    np.testing.assert_array_equal(others[:, 0], theirs.kneighbors(n_neighbors=1)[1][:, 0])
    assert nearest(queries, gallery[:3], 5, metric)[0].shape == (37, 3)


def test_of_equally_distant_rows_the_first_comes_first():
    gallery = np.repeat(np.eye(3, dtype="f"), 4, axis=0)
    for block in (1, 5, 12):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("research.neighbours.GALLERY_BLOCK", block)
            found = nearest(gallery[:1], gallery, 6)[1]
        assert found.tolist() == [[0, 1, 2, 3, 4, 5]]


def test_a_gallery_may_be_read_as_it_is_needed(monkeypatch):
    """Whole images, a few at a time, each once."""
    monkeypatch.setattr("research.neighbours.BLOCK_NUMBERS", 6 * 9)
    images, seen = RNG.integers(0, 255, (20, 3, 3, 1), np.uint8), []

    def read(start, stop):
        seen.append((start, stop))
        return images[start:stop]

    flat = images.reshape(20, -1).astype("f")
    distance, found = nearest(flat[:2], Stored(read, 20))
    assert found.ravel().tolist() == [0, 1] and not distance.any()
    assert seen == [(0, 6), (6, 12), (12, 18), (18, 20)]
    others = nearest(flat[:2], Stored(read, 20), 3, others=np.arange(2))[1]
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
