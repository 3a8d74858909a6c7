"""Surveys of a set that is ordered by class, as folders are."""

import types

import numpy as np
import pytest
from toys import experiment, replaced

from research.data.source import Arrays, Source
from research.training import parallel as parallel_lib
from research.training.evaluation import make_evaluate
from research.understanding import surveyed
from research.understanding.answers import Question
from research.understanding.network import Network

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
    config = types.SimpleNamespace(method=method, layer="outputs", count=3, map="pca", seed=0)
    network = Network(lambda variables, x: x.reshape(len(x), -1), {"params": {}}, (), (2, 2, 3))
    blank = np.zeros((0, 2, 2, 3), np.uint8)
    source = Source(ordered, 500)
    return Question(config, network, blank, [], (), np.zeros(3, "f"), lambda: source), source


def evaluated(answer, source):
    made = experiment(score=answer.score, draw_split=answer.draw_split)
    made = replaced(made, predict=answer.predict, measure=answer.measure)
    return make_evaluate(made.evaluation, parallel_lib.create("single", 500))(
        {"params": {}}, source
    )


def test_neighbours_are_asked_of_images_from_the_whole_set(ordered):
    asked, source = question(ordered, "neighbours")
    answer = surveyed.neighbours(asked)
    found = evaluated(answer, source).metrics["same_class_features"]

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
    assert "200 of 2,050 images, evenly spaced" in answer.protocol["same_class_features"]


def test_a_map_shows_images_from_the_whole_set(ordered, monkeypatch):
    asked, source = question(ordered, "map")
    answer, seen = surveyed.plane(asked), {}
    monkeypatch.setattr(surveyed.figures, "thumbnails", lambda *given: seen.update(given=given))
    found = evaluated(answer, source)
    answer.draw_split(found.held["labels"], found.targets)
    places, images, title = seen["given"]
    chosen = [int((2 * k + 1) * 2050 / 3000) for k in range(1500)]
    np.testing.assert_array_equal(np.stack(images), ordered.fields["image"][chosen])
    assert len(places) == 1500 and "1,500 of 2,050 images" in title
    assert "1,500 of 2,050 images, evenly spaced" in answer.protocol["examples"]
