"""What a run's folder says, whether it finished or not, and of whatever version."""

import json
import math

import pytest
from run_folders import write_run

from research.comparison.runs import is_run, read_run
from research.errors import UserError


def test_a_finished_run_has_its_metrics_and_its_last_training_numbers(tmp_path):
    run = read_run(write_run(tmp_path / "a", 0.9, seed=3, losses=[3.0, 2.0, 1.0]))
    assert run.failure == "" and run.best == ("test/accuracy", "max")
    assert run.numbers == {"train/loss": 1.0, "train/accuracy": 0.5, "test/accuracy": 0.9}
    assert run.value("test/accuracy") == 0.9 and math.isnan(run.value("test/iou"))
    assert run.flags["seed"] == 3 and run.begun["environment"]["python"] == "3.11.2"
    assert run.experiment == "classification"


def test_a_run_without_a_result_says_why(tmp_path):
    cut = write_run(tmp_path / "cut", steps=2000, losses=[2.0, 1.0])
    assert read_run(cut).failure == "unfinished: step 2 of 2,000"
    assert math.isnan(read_run(cut).value("train/loss"))  # what stopped early is no final value
    failed = write_run(tmp_path / "failed", failure="the loss is nan at step 3")
    assert read_run(failed).failure == "the loss is nan at step 3"
    (tmp_path / "empty").mkdir()
    assert read_run(tmp_path / "empty").failure == "not begun"
    assert is_run(cut) and is_run(failed) and not is_run(tmp_path / "empty")


def test_a_run_that_went_on_after_its_failure_is_finished(tmp_path):
    run = read_run(write_run(tmp_path / "a", 0.9, failure="out of memory"))
    assert run.failure == "" and run.value("test/accuracy") == 0.9


def test_the_last_line_is_the_last_whole_one(tmp_path):
    folder = write_run(tmp_path / "a", 0.9, losses=[2.0, 1.0])
    with open(folder / "metrics.jsonl", "a") as log:
        log.write('{"step": 3, "train/lo')  # as kill -9 leaves it
    assert read_run(folder).logged["train/loss"] == 1.0


@pytest.mark.parametrize("file", ["config.json", "result.json"])
def test_a_damaged_file_is_named(tmp_path, file):
    folder = write_run(tmp_path / "a", 0.9)
    for text in ('{"metrics": ', json.dumps([1])):
        (folder / file).write_text(text)
        with pytest.raises(UserError, match=f"a/{file}: .*leave its run out"):
            read_run(folder)
