"""Pictures of detection show every box, say what is wrong, and put the worst first."""

import io

import numpy as np
from matplotlib.patches import Rectangle

from research.figures import detection as figures

NAMES = ("cat", "dog", "owl")


def three_images():
    """One image without mistakes, one with a missed object, one with two and a made-up one."""
    boxes = np.array([[[2, 2, 12, 12], [18, 18, 30, 30]]] * 3, "f")
    targets = {
        "boxes": boxes,
        "classes": np.array([[0, 1]] * 3),
        "valid": np.ones((3, 2), bool),
        "crowd": np.zeros((3, 2), bool),
    }
    found = boxes.copy()
    found[2, 0] = [20, 2, 30, 8]
    detections = {
        "boxes": found,
        "classes": np.array([[0, 1]] * 3),
        "scores": np.array([[0.9, 0.8], [0.9, 0.1], [0.9, 0.1]], "f"),
        "valid": np.ones((3, 2), bool),
    }
    images = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3)).astype(np.uint8)
    return images, detections, targets


def test_predictions_are_drawn_with_the_worst_first():
    figure = figures.predictions(*three_images(), NAMES)
    assert figure.get_suptitle() == "2 of 3 images with mistakes, the worst first"
    assert [ax.get_xlabel() for ax in figure.axes] == ["2 missed, 1 of nothing", "1 missed", ""]
    # True boxes, and detections of a score that counts.
    patches = [[p for p in ax.patches if isinstance(p, Rectangle)] for ax in figure.axes]
    assert [len(p) for p in patches] == [2 + 1, 2 + 1, 2 + 2]
    assert {t.get_text() for t in figure.axes[2].texts} == {"cat 0.90", "dog 0.80"}
    figure.savefig(io.BytesIO())


def test_files_without_truth_are_drawn_in_their_own_proportions():
    images, detections, _ = three_images()
    assert figures.predictions(images, detections, None, NAMES).get_suptitle() == ""
    wide = np.zeros((20, 60, 1), np.uint8)
    one = {name: value[0] for name, value in detections.items()}
    figure = figures.one_image(wide, one, NAMES)
    width, height = figure.get_size_inches()
    assert width / height == 3
    assert len(figure.axes[0].patches) == 2 and not figure.axes[0].lines
    one["points"] = np.array([[1.0, 2], [3, 4]])
    (line,) = figures.one_image(wide, one, NAMES).axes[0].lines
    assert line.get_xydata().tolist() == [[1, 2], [3, 4]]


def test_curves_and_confusions_of_a_split():
    _, detections, targets = three_images()
    figure = figures.curves(detections, targets, NAMES)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert [label.split()[0] for label in labels] == ["cat", "dog"]  # owls: none to be found
    # The second cat detection in line is of nothing: 2 of 3 cats at precisions 1 or 2/3 later.
    assert 0.6 < float(labels[0].split()[1]) < 0.8
    assert figures.confusions(detections, targets, NAMES).axes[0].get_title().startswith("3 of 6")
    many = tuple(str(i) for i in range(80))
    assert figures.confusions(detections, targets, many) is None


def test_a_class_of_which_nothing_is_detected_has_a_curve_without_points():
    _, detections, targets = three_images()
    detections = {**detections, "classes": np.zeros((3, 2), int)}
    figure = figures.curves(detections, targets, NAMES)
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [7, 0]
    assert figure.axes[0].get_legend().get_texts()[1].get_text() == "dog  0.000"
    figure.savefig(io.BytesIO())
