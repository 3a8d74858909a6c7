"""Runs that were stopped, killed or left, and went on: they end as those that were not."""

import dataclasses
import json
import os
import shutil
import signal

import pytest
from toy_runs import CONFIG, interrupted, lines, run

from research.record.progress import TrainingProgress
from research.training.checkpoint import open_checkpoint
from research.training.interrupts import Stopped


def check_cost(folder, result, starts):
    """Asserts what a run of 12 steps of 16 examples says that it cost, in parts from `starts`."""
    begun = json.loads((folder / "config.json").read_text())["fingerprint"]
    assert {name: result[name] for name in begun} == begun
    # A convolution of 3 x 3 x 3 to 8 channels, its normalisation, 8 to 5 classes.
    assert result["parameters"] == 27 * 8 + 2 * 8 + 8 * 5 + 5
    # Forward, and the gradient of the kernel, at 64 places less what meets padding; little else.
    assert 2 * 2 * 27 * 8 * 64 * 16 * 0.8 < result["flops"] < 2 * 2 * 27 * 8 * 64 * 16 * 1.5
    assert [part["start"] for part in result["parts"]] == starts
    assert all(part["cores"] >= 1 and part["threads"] >= 1 for part in result["parts"])
    assert result["compile_seconds"] > 0 and result["peak_memory"] > 2**26
    assert result["peak_memory_of"] == "process"  # CPUs do not say
    spent = open_checkpoint(folder).metadata["spending"]
    # Each step once, and each of the evaluations after 5, 10 and 12, whatever was lost between.
    assert spent["examples"]["training"] == 12 * 16
    rates = result["examples_per_second"]
    assert rates["training"] == pytest.approx(12 * 16 / spent["seconds"]["training"], rel=0.5)
    assert rates["evaluation"] == pytest.approx(3 * 21 / spent["seconds"]["evaluation"], rel=0.01)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder and the result of a run that was not stopped."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, run(folder).result


def test_a_run_that_broke_off_ends_bit_for_bit_as_one_that_did_not(tmp_path, capsys):
    whole = run(tmp_path / "whole")

    def fail():
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path / "broken", experiment=interrupted(9, fail))
    steps = [row["step"] for row in lines(tmp_path / "broken")]
    assert steps and max(steps) < 12
    # Batches are made ahead of the steps: what was saved before one failed is a matter of luck.
    latest = (tmp_path / "broken" / "checkpoints" / "latest").glob("*")
    saved = sorted(int(path.name) for path in latest if path.name.isdecimal())
    resumed = run(tmp_path / "broken")
    assert resumed.result["fingerprint"] == whole.result["fingerprint"]
    assert resumed.result["metrics"] == whole.result["metrics"]
    check_cost(tmp_path / "whole", whole.result, [0])
    check_cost(tmp_path / "broken", resumed.result, [0, *saved[-1:]])
    # The log reads as if nothing had happened: each step once, with the same numbers.
    assert lines(tmp_path / "broken") == lines(tmp_path / "whole")
    assert [row["step"] for row in lines(tmp_path / "whole")] == [3, 4, 5, 6, 8, 9, 10, 12]

    # So too where the last checkpoint is damaged, and training goes on from the one before.
    file = tmp_path / "whole" / "checkpoints" / "latest" / "12" / "optimizer" / "manifest.ocdbt"
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    shutil.rmtree(tmp_path / "whole" / "checkpoints" / "best")
    again = run(tmp_path / "whole")
    said = capsys.readouterr().out
    assert "latest/12: is damaged (optimizer/manifest.ocdbt" in said
    assert "Going on from latest/8." in said
    assert again.result["fingerprint"] == whole.result["fingerprint"]
    assert lines(tmp_path / "whole") == lines(tmp_path / "broken")
    assert open_checkpoint(tmp_path / "whole").metadata["step"] == 12


@pytest.mark.parametrize(
    ("number", "step"), [(signal.SIGTERM, 5), (signal.SIGINT, 6), (signal.SIGUSR1, 10)]
)
def test_a_signal_saves_and_the_next_run_goes_on(tmp_path, monkeypatch, undisturbed, number, step):
    """Evaluations are due after 5 and 10: the one that may be the best is not left out."""
    folder, whole = undisturbed
    handler = signal.getsignal(number)
    advance = TrainingProgress.advance

    def stop(self, done):
        advance(self, done)
        if done == step:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patched:
        patched.setattr(TrainingProgress, "advance", stop)
        with pytest.raises(Stopped) as stopped:
            run(tmp_path / "stopped")
    assert stopped.value.signal is number
    assert signal.getsignal(number) is handler
    assert open_checkpoint(tmp_path / "stopped").metadata["step"] == step
    resumed = run(tmp_path / "stopped")
    for name in ("fingerprint", "metrics", "best_checkpoint"):
        assert resumed.result[name] == whole[name]
    assert lines(tmp_path / "stopped") == lines(folder)
    check_cost(tmp_path / "stopped", resumed.result, [0, step])


def test_a_run_that_was_left_on_the_way_ends_bit_for_bit_as_one_that_was_not(tmp_path, undisturbed):
    _, whole = undisturbed
    measured = {}
    for share, step in ((0.25, 3), (0.6, 7), (0.6, 7), (0.25, 7)):  # what is done is not undone
        left = run(tmp_path / "left", dataclasses.replace(CONFIG, stop_after=share))
        assert (left.result["step"], left.complete) == (step, False)
        assert open_checkpoint(tmp_path / "left").metadata["step"] == step
        assert left.result["metrics"] == measured.setdefault(step, left.result["metrics"])
    ended = run(tmp_path / "left")
    assert ended.complete
    for name in ("fingerprint", "metrics", "weights", "best_checkpoint", "step"):
        assert ended.result[name] == whole[name]
    rows = {row["step"]: row for row in lines(tmp_path / "left")}
    assert "test/accuracy" in rows[3] and "test/accuracy" in rows[7]
    assert set(rows) == {3, 4, 5, 6, 7, 8, 9, 10, 12}
