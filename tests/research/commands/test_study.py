"""A study: what fails is recorded and the rest goes on; what is done is not done again."""

import dataclasses
import json
import os
import signal
import types

import pytest

from research.commands.study import run_study, shared
from research.comparison.cells import claimed, failure_of
from research.comparison.study import Study, read_study
from research.errors import NotFiniteError, UserError
from research.experiment import Look
from research.record.report import metrics_report
from research.training.config import TrainingConfig
from research.training.interrupts import Stopped

STUDY = Study("toy", {"low": ("--steps=1",), "high": ("--steps=2",)}, (0, 1, 2))


class Toy(types.ModuleType):
    """An experiment that only looks, and so takes no time; `actions` happen instead at times.

    Attributes:
      looked: (steps, seed) of each look.
      actions: {(steps, seed): what happens}.
    """

    def __init__(self):
        super().__init__("toy")
        self.looked, self.actions, self.Config = [], {}, TrainingConfig

    def build(self, config):
        def report():
            at = (config.steps, config.seed)
            self.looked.append(at)
            self.actions.get(at, lambda: None)()
            return metrics_report({"test/n": 1.0 * config.steps}, {"n": "a count"}, {})

        return Look(report, kept=config.steps > 0)


@pytest.fixture
def toy():
    return Toy()


def run(toy, folder, study=STUDY, share="", **changes):
    config = TrainingConfig(workdir=str(folder), batch_size=8, **changes)
    steps = {name: int(flags[0].partition("=")[2]) for name, flags in study.variants.items()}
    variants = {name: dataclasses.replace(config, steps=n) for name, n in steps.items()}
    return run_study(study, toy, config, variants, share=share)


def fail(error):
    def action():
        raise error

    return action


def test_each_variant_is_run_with_each_seed_once(toy, tmp_path, capsys):
    assert run(toy, tmp_path / "S") == 0
    assert toy.looked == [(1, 0), (2, 0), (1, 1), (2, 1), (1, 2), (2, 2)]
    config = json.loads((tmp_path / "S" / "high" / "seed=2" / "config.json").read_text())["config"]
    assert (config["steps"], config["seed"]) == (2, 2)
    assert read_study(tmp_path / "S") == STUDY
    assert "6 of 6 runs complete, 0 failed" in capsys.readouterr().out
    assert run(toy, tmp_path / "S") == 0 and len(toy.looked) == 6


def test_what_fails_is_recorded_and_what_need_not_repeat_is_tried_again(toy, tmp_path, capsys):
    toy.actions = {
        (1, 0): fail(NotFiniteError("the loss is nan at step 3")),
        (2, 0): fail(RuntimeError("RESOURCE_EXHAUSTED: out of memory")),
        (1, 1): fail(KeyError("cat")),
    }
    assert run(toy, tmp_path / "S") == 3
    assert len(toy.looked) == 6, "the others go on"
    said = capsys.readouterr().out
    assert "3 of 6 runs complete, 3 failed (1 not_finite, 1 out_of_memory, 1 error)" in said
    assert "failed   low, seed=0: the loss is nan at step 3" in said
    kinds = {
        str(file.parent.relative_to(tmp_path / "S")): json.loads(file.read_text())["kind"]
        for file in (tmp_path / "S").rglob("failure.json")
    }
    assert kinds == {
        "low/seed=0": "not_finite",
        "high/seed=0": "out_of_memory",
        "low/seed=1": "error",
    }
    assert "KeyError" in failure_of(tmp_path / "S" / "low" / "seed=1").traceback

    toy.looked.clear()
    toy.actions.pop((1, 1))
    assert run(toy, tmp_path / "S") == 3
    assert toy.looked == [(2, 0), (1, 1)]
    assert "4 of 6 runs complete, 2 failed" in capsys.readouterr().out


def test_a_full_disk_ends_the_study(toy, tmp_path):
    toy.actions = {(2, 0): fail(OSError(28, "No space left on device"))}
    with pytest.raises(OSError, match="No space"):
        run(toy, tmp_path / "S")
    assert toy.looked == [(1, 0), (2, 0)] and not list(tmp_path.rglob("failure.json"))
    toy.actions.clear()
    assert run(toy, tmp_path / "S") == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_between_two_runs_ends_the_study_and_the_same_command_goes_on(
    toy, tmp_path, number, capsys
):
    toy.actions = {(2, 0): lambda: os.kill(os.getpid(), number)}
    with pytest.raises(Stopped) as stopped:
        run(toy, tmp_path / "S")
    assert stopped.value.signal is number
    assert toy.looked == [(1, 0), (2, 0)]
    assert f"2 of 6 runs complete; the same command with --workdir={tmp_path / 'S'} goes on" in (
        capsys.readouterr().out
    )
    toy.actions.clear()
    assert run(toy, tmp_path / "S") == 0 and len(toy.looked) == 6


def test_a_changed_configuration_is_refused_before_any_run_starts(toy, tmp_path):
    toy.actions = {(2, 0): lambda: os.kill(os.getpid(), signal.SIGTERM)}
    with pytest.raises(Stopped):
        run(toy, tmp_path / "S")
    with pytest.raises(UserError, match=r"--learning_rate=0\.001 there, 0\.5 here"):
        run(toy, tmp_path / "S", learning_rate=0.5)
    with pytest.raises(UserError, match="holds a study already"):
        run(toy, tmp_path / "S", resume="never")
    assert len(toy.looked) == 2
    with pytest.raises(UserError, match="holds a run"):
        run(toy, tmp_path / "S" / "low" / "seed=0")


def test_what_cannot_be_compared_is_refused_before_anything_is_written(toy, tmp_path):
    for flags, said in (("--steps=0", "variant b: keeps no result"),):
        with pytest.raises(UserError, match=said):
            run(toy, tmp_path / "S", STUDY._replace(variants={"a": ("--steps=1",), "b": (flags,)}))
    with pytest.raises(UserError, match="does not divide by 8 devices"):
        config = TrainingConfig(
            workdir=str(tmp_path / "S"), batch_size=3, steps=1, parallel="jit", seed=0
        )
        run_study(STUDY, toy, config, {"low": config, "high": config})
    assert not list(tmp_path.iterdir())


def test_shares_are_all_runs_once(toy, tmp_path, capsys):
    cells = STUDY.cells(tmp_path)
    for count in (1, 2, 4, 9):
        parts = [shared(cells, f"{i}/{count}") for i in range(1, count + 1)]
        assert sorted(cell for part in parts for cell in part) == sorted(cells)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for wrong in ("0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3"):
        with pytest.raises(UserError, match="I from 1 to N"):
            shared(cells, wrong)
    assert run(toy, tmp_path / "S", share="2/4") == 0
    assert toy.looked == [(2, 0), (2, 2)]
    assert not (tmp_path / "S" / "compare.csv").exists()
    assert run(toy, tmp_path / "S", share="next") == 0 and len(toy.looked) == 6
    assert run(toy, tmp_path / "S") == 0 and len(toy.looked) == 6
    assert (tmp_path / "S" / "compare.csv").exists()


def test_a_run_that_another_process_holds_is_left_to_it(toy, tmp_path, capsys):
    with claimed(STUDY.cells(tmp_path / "S")[1]):
        assert run(toy, tmp_path / "S") == 0
    assert (2, 0) not in toy.looked and len(toy.looked) == 5
    assert "5 of 6 runs complete, 0 failed, 1 not finished" in capsys.readouterr().out
