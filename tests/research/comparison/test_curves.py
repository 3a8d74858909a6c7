"""Curves are thinned where they lie in common, and their band is the runs' own."""

import json

import numpy as np
import pytest
from run_folders import write_run

from research.comparison.curves import Curve, band, read_curves


def log_lines(folder, rows):
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_short_curve_is_whole_and_each_name_has_its_own_steps(tmp_path):
    folder = write_run(tmp_path / "a", 0.9, steps=20, seconds=40.0)
    found = read_curves(folder, ["train/loss", "test/accuracy", "test/iou"])
    assert sorted(found) == ["test/accuracy", "train/loss"]
    np.testing.assert_array_equal(found["train/loss"].steps, np.arange(1, 21))
    np.testing.assert_allclose(found["train/loss"].seconds, 2.0 * np.arange(1, 21))
    np.testing.assert_allclose(found["train/loss"].values, np.linspace(2, 1, 20))
    np.testing.assert_array_equal(found["test/accuracy"].steps, [5, 10, 15, 20])


@pytest.mark.parametrize("lines", [401, 1999, 2000, 10_000])
def test_a_long_curve_keeps_few_points_its_last_and_steps_in_common(tmp_path, lines):
    def thinned(name, count):
        rows = [{"step": 50 * i, "train/loss": i / 7, "seconds": i} for i in range(1, count + 1)]
        return read_curves(log_lines(tmp_path / name, rows), ["train/loss"])["train/loss"]

    curve, shorter = thinned("long", lines), thinned("short", lines // 3)
    assert 200 <= len(curve.steps) <= 401 and curve.steps[-1] == 50 * lines
    np.testing.assert_allclose(curve.values, curve.steps / 50 / 7)
    assert (np.diff(curve.steps) > 0).all()
    assert len(np.intersect1d(curve.steps, shorter.steps)) >= 50


def test_names_that_begin_alike_are_not_confused(tmp_path):
    rows = [{"step": 1, "test/accuracy/cat": 0.1}, {"step": 2, "test/accuracy": 0.2}]
    found = read_curves(log_lines(tmp_path / "a", rows), ["test/accuracy"])
    np.testing.assert_array_equal(found["test/accuracy"].values, [0.2])


def test_a_band_is_mean_and_deviation_at_the_steps_that_all_runs_have():
    a = Curve(np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 3, 4]))
    b = Curve(np.array([2.0, 4, 6]), np.array([4.0, 8, 12]), np.array([4.0, 0, 9]))
    found = band([a, b])
    np.testing.assert_array_equal(found.steps, [2, 4])
    np.testing.assert_array_equal(found.seconds, [3, 6])
    np.testing.assert_array_equal(found.mean, [3, 2])
    np.testing.assert_allclose(found.deviation, [np.std([2, 4], ddof=1), np.std([4, 0], ddof=1)])
    assert np.isnan(band([a]).deviation).all() and band([a]).mean is not None
