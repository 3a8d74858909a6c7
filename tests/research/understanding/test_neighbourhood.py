"""Neighbours and maps of a set that is ordered by class, as folders are."""

import numpy as np
import pytest

from research.data.sources.examples import Arrays
from research.data.sources.source import Source
from research.understanding import neighbourhood
from research.understanding.config import InputOptimizationConfig
from research.understanding.network import ImageNetwork
from research.understanding.question import Question

SIZES = (220, 180, 50, 1600)  # of four classes, one after the other


@pytest.fixture(scope="module")
def ordered():
    """The first class is easy: all its images are alike. The others lie among each other."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), SIZES).astype("i")
    images = rng.integers(0, 200, (len(labels), 2, 2, 3))
    images[labels == 0] = 230 + rng.integers(0, 20, (SIZES[0], 2, 2, 3))
    return Arrays({"image": images.astype(np.uint8), "label": labels})


def question(ordered, method):
    asked = {"method": method, "layer": "outputs", "count": 3, "map": "pca", "seed": 0}
    config = InputOptimizationConfig(**asked, parallel="single", batch_size=500)
    network = ImageNetwork(
        lambda variables, x: x.reshape(len(x), -1), {"params": {}}, (), (2, 2, 3)
    )
    blank = np.zeros((0, 2, 2, 3), np.uint8)
    source = Source(ordered, 500)
    return Question(config, network, blank, [], (), np.zeros(3, "f"), lambda: source), source


def test_neighbours_are_asked_of_images_from_the_whole_set(ordered):
    asked, source = question(ordered, "neighbours")
    report = neighbourhood.neighbours(asked)()
    (row,) = [row for row in report.rows if row["metric"] == "data/same_class_features"]
    found = row["value"]

    x = ordered.fields["image"].reshape(len(source.examples), -1).astype("f")
    labels, right = ordered.fields["label"], []
    for i in range(len(x)):  # every image against all others, in a plain loop
        away = ((x - x[i]) ** 2).sum(1)
        away[i] = np.inf
        right.append(labels[away.argmin()] == labels[i])
    assert np.mean(right[:200]) == 1.0 and np.mean(right) < 0.85
    assert abs(found - np.mean(right)) < 0.05
    positions = [int((2 * k + 1) * len(x) / 400) for k in range(200)]
    assert found == pytest.approx(np.mean(np.array(right)[positions]), abs=0.011)  # ties
    assert "200 of 2,050 images, evenly spaced" in row["protocol"]


def test_a_map_shows_images_from_the_whole_set(ordered, monkeypatch):
    asked, seen = question(ordered, "map")[0], {}
    draw = lambda *given: seen.update(given=given)
    monkeypatch.setattr(neighbourhood.figures, "thumbnails", draw)
    report = neighbourhood.plane(asked)()
    places, images, title = seen["given"]
    chosen = [int((2 * k + 1) * 2050 / 3000) for k in range(1500)]
    np.testing.assert_array_equal(np.stack(images), ordered.fields["image"][chosen])
    assert len(places) == 1500 and "1,500 of 2,050 images" in title
    assert "1,500 of 2,050 images, evenly spaced" in report.rows[0]["protocol"]
