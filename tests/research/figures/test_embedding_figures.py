import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from research.figures import embedding as figures
from research.spacing import spaced


def example(classes=6, each=5, seed=0):
    """Clear clusters, whose images say nothing: noise."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes) + 3, each)
    x = np.eye(classes, 8)[labels - 3] + 0.05 * rng.normal(size=(len(labels), 8))
    return x.astype("f"), rng.integers(0, 256, (len(labels), 9, 9), np.uint8), labels


def pixels(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


def test_a_split_is_shown_as_map_neighbours_roc_and_recognition():
    drawn = figures.of_split(*example())
    assert set(drawn) == {"map", "neighbours", "roc", "recognition"}
    for figure in drawn.values():
        assert pixels(figure).std() > 0
    left, right = drawn["map"].axes
    assert len(left.artists) == len(right.artists) == 30
    ax = drawn["recognition"].axes[0]
    curves = {line.get_label(): line.get_ydata() for line in ax.lines}
    assert list(ax.lines[0].get_xdata()) == [2, 5, 6]
    np.testing.assert_allclose(curves["embeddings"], 1.0)
    np.testing.assert_allclose(curves["chance"], [1 / 2, 1 / 5, 1 / 6])
    assert max(curves["raw pixels"]) < 0.9


def test_frames_say_which_neighbours_are_right():
    x, thumbnails, labels = example()
    figure = figures.neighbours(x, thumbnails, labels, rows=3, count=4)
    grid = np.array(figure.axes).reshape(3, 11)
    frames = [[to_hex(ax.spines["left"].get_edgecolor()) for ax in row] for row in grid]
    for row in frames:  # by embedding all four others of the class come first
        assert row[2:6] == [figures.RIGHT] * 4
    assert "100 % right" in grid[0, 2].get_title(loc="left")
    assert figures.WRONG in frames[0][7:]


def test_a_map_has_some_of_each_of_a_few_classes():
    labels = np.repeat(np.arange(50), 40)
    chosen = figures.few_classes(labels)
    assert len(np.unique(labels[chosen])) == 20 and len(chosen) == 320
    assert np.ptp(chosen[:16]) > 35  # from all over the class
    assert len(figures.few_classes(np.array([4, 4, 9]))) == 3


@pytest.mark.parametrize("count", [1, 5, 30])
def test_matches_beyond_the_threshold_are_unknown(count):
    images = np.zeros((count, 4, 4), np.uint8)
    distances = np.linspace(0.1, 1.0, count).astype("f")
    figure = figures.matches(images, images, ["ann"] * count, distances, threshold=0.5)
    said = [ax.get_xlabel().splitlines()[0] for ax in figure.axes if ax.get_xlabel()]
    want = ["ann" if d <= 0.5 else "unknown" for d in distances[spaced(count, 24)]]
    assert sorted(said) == sorted(want) and pixels(figure).std() > 0
