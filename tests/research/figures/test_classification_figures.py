import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from research.figures.classification import MATRIX_CLASSES, confusions, predictions, reliability


def example(n=40, classes=10, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    probabilities = rng.dirichlet(np.full(classes, 0.3), n)
    return probabilities.astype("f"), labels, tuple(f"class {k}" for k in range(classes))


def pixels(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


def texts(figure):
    return [t.get_text() for ax in figure.axes for t in ax.texts]


@pytest.mark.parametrize(("n", "channels"), [(1, 1), (7, 3), (40, 3)])
def test_predictions_mark_each_mistake_and_show_the_surest_first(n, channels):
    probabilities, labels, names = example(n)
    images = np.random.default_rng(0).integers(0, 256, (n, 8, 8, channels), np.uint8)
    figure = predictions(images, probabilities, labels, names, most=40)
    assert pixels(figure).std() > 0
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    wrong = np.flatnonzero(predicted != labels)
    captions = [ax.get_xlabel() for ax in figure.axes]
    marked = [caption for caption in captions if "true: " in caption]
    assert marked == captions[: len(marked)]
    order = wrong[np.argsort(-confidence[wrong], kind="stable")][: len(marked)]
    for caption, i in zip(marked, order, strict=True):
        assert caption.startswith(f"{names[predicted[i]]} · ")
        assert caption.endswith(f"true: {names[labels[i]]}")
    counted = figure.get_suptitle()
    assert counted.startswith(f"{len(wrong)} of {n} images wrong") if n > 1 else not counted
    if len(figure.axes) == n:
        assert len(marked) == len(wrong)


def test_a_persons_own_pictures_have_no_true_class():
    probabilities, _, names = example(3)
    images = np.full((3, 8, 8, 3), 128, np.float32)
    figure = predictions(images, probabilities, None, names)
    assert len(figure.axes) == 3 and figure.get_suptitle() == ""
    assert not any("true" in ax.get_xlabel() for ax in figure.axes)


def test_the_matrix_has_each_count_in_its_cell():
    probabilities, labels, names = example(300, 4)
    figure = confusions(probabilities, labels, names)
    pixels(figure)
    ax = figure.axes[0]
    shown = {
        (round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in ax.texts
    }
    predicted = probabilities.argmax(1)
    for i in range(4):
        for j in range(4):
            count = sum((labels == i) & (predicted == j))
            assert shown.get((i, j), "0") == str(count)


def test_many_classes_become_a_list_of_pairs():
    probabilities, labels, names = example(400, MATRIX_CLASSES + 30)
    figure = confusions(probabilities, labels, names)
    pixels(figure)
    predicted = probabilities.argmax(1)
    (ax,) = figure.axes
    first, numbers = ax.get_yticklabels()[0].get_text(), texts(figure)[0].strip()
    true, taken_for = (names.index(name) for name in first.split(" → "))
    count = sum((labels == true) & (predicted == taken_for))
    assert numbers == f"{count} of {sum(labels == true)}" and true != taken_for
    pairs = list(zip(labels.tolist(), predicted.tolist(), strict=True))
    assert count == max(pairs.count(pair) for pair in pairs if pair[0] != pair[1])


def test_no_mistakes_is_a_picture_too():
    labels = np.arange(40)
    names = tuple(f"class {k}" for k in labels)
    figure = confusions(np.eye(40, dtype="f"), labels, names)
    pixels(figure)
    (ax,) = figure.axes
    assert ax.get_title(loc="left").endswith("of 40 classes (40 of 40 right)")
    assert not ax.patches and not ax.get_yticklabels() and texts(figure) == []
    # Few classes: all counts lie on the diagonal.
    figure = confusions(np.eye(4, dtype="f"), labels[:4], names[:4])
    pixels(figure)
    assert [(*text.get_position(), text.get_text()) for text in figure.axes[0].texts] == [
        (k, k, "1") for k in range(4)
    ]
    # Sure, and always right: one full bar at the end, without a gap.
    figure = reliability(np.eye(40, dtype="f"), labels)
    pixels(figure)
    accuracy, gap = figure.axes[0].containers
    assert [(bar.get_x(), bar.get_height()) for bar in accuracy] == [(pytest.approx(14 / 15), 1)]
    assert [bar.get_height() for bar in gap] == [pytest.approx(0)]
    assert "0.00 %" in figure.axes[0].get_title()


def test_reliability_bars_are_the_accuracies_of_the_bins():
    probabilities = np.array([[0.3, 0.7]] * 4 + [[0.05, 0.95]] * 5, np.float32)
    labels = np.array([1, 1, 1, 0, 1, 1, 1, 1, 0])
    figure = reliability(probabilities, labels)
    pixels(figure)
    bars = figure.axes[0].containers[0]
    np.testing.assert_allclose([bar.get_height() for bar in bars], [0.75, 0.8])
    np.testing.assert_allclose([bar.get_x() for bar in bars], [10 / 15, 14 / 15])
    error = (4 * 0.05 + 5 * 0.15) / 9
    assert f"{100 * error:.2f} %" in figure.axes[0].get_title()
