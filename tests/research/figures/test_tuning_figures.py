"""Pictures of tunings."""

import math

import numpy as np
import pytest
from pictures import shown

from research.comparison.search import Choices, Range
from research.comparison.tuning import Trial
from research.figures.tuning import searched


def test_each_flag_has_a_panel_with_every_trial_at_its_value_and_metric():
    space = {
        "learning_rate": Range(1e-4, 1.0, "log"),
        "warmup": Range(0.0, 0.2, "linear"),
        "optimizer": Choices(("sgd", "adam")),
    }
    rows = [(0.1, 0.1, "adam", 0.9, 1.0), (0.01, 0.0, "sgd", 0.95, 1 / 3), (0.5, 0.2, "sgd", 0, 0)]
    trials = [
        Trial(f"trial-{i}", dict(zip(space, row[:3], strict=True)), row[3] or math.nan, row[4], {},
              "" if row[3] else "the loss is nan")
        for i, row in enumerate(rows)
    ]  # fmt: skip
    figure = searched(space, trials, "validation/accuracy")
    assert [ax.get_xscale() for ax in figure.axes] == ["log", "linear", "linear"]
    assert [ax.get_xlabel() for ax in figure.axes] == list(space)
    first = {line.get_label(): line for line in figure.axes[0].lines}
    np.testing.assert_allclose(first["all steps"].get_xydata(), [[0.1, 0.9]])
    np.testing.assert_allclose(first["left after 0.33 of its steps"].get_xydata(), [[0.01, 0.95]])
    np.testing.assert_allclose(first["best"].get_xydata(), [[0.1, 0.9]])
    assert first["failed"].get_xdata() == pytest.approx([0.5])
    low, high = figure.axes[0].get_xlim()
    assert low < 1e-4 and high > 1, "the whole range is seen, with what no trial tried"
    # Two trials of one choice stand beside each other, about it.
    beside = {line.get_label(): line.get_xdata()[0] for line in figure.axes[2].lines}
    assert beside["best"] == 1
    assert (beside["left after 0.33 of its steps"] + beside["failed"]) / 2 == pytest.approx(0)
    assert shown(figure).has("sgd", "adam", "validation/accuracy", "failed")
