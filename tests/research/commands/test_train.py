"""What only looks leaves in its folder: all that a run does, or nothing at all."""

import json
import types

import numpy as np
import pytest

from research.commands import train
from research.errors import UserError
from research.experiment import Look
from research.record.report import Report, metrics_report
from research.training.config import TrainingConfig

PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


def looked(tmp_path, report, kept=True):
    """The result of --mode=train, and the run's folder."""
    module = types.ModuleType("toy")
    module.build = lambda config: Look(report, kept)
    path = tmp_path / "RUN"
    return train.train_to_end("toy", module, TrainingConfig(workdir=str(path)), path), path


def test_a_report_is_kept_as_a_run_is_and_not_made_twice(tmp_path):
    made = []

    def report():
        made.append(1)
        return metrics_report(
            {"inputs/n": 2.0}, {"n": "a count"}, {"inputs/x": PIXELS}, ["a.png: 2"]
        )

    first, path = looked(tmp_path, report)
    assert looked(tmp_path, report)[0] == first == json.loads((path / "result.json").read_text())
    assert len(made) == 1
    assert first["metrics"] == {"inputs/n": 2.0} and first["protocol"] == {"n": "a count"}
    assert first["notes"] == ["a.png: 2"] and first["step"] == 0
    assert json.loads((path / "config.json").read_text())["experiment"] == "toy"
    assert "--experiment=toy" in (path / "flags.txt").read_text().splitlines()
    assert (path / "figures" / "inputs" / "x.png").exists()


def test_a_report_that_is_refused_late_leaves_no_folder(tmp_path):
    def report():
        raise UserError("not here")

    with pytest.raises(UserError, match="not here"):
        looked(tmp_path, report)
    assert not list(tmp_path.iterdir())


def test_what_is_not_kept_is_printed_alone(tmp_path, capsys):
    result, _ = looked(tmp_path, lambda: Report([{"layer": "c1"}], "c1, 3 x 3"), kept=False)
    assert result is None and "c1, 3 x 3" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
