"""Runs of an older state of the code open with today's; see tests/fixtures/generate_old_runs.py."""

import json
import math
import os
import runpy
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import experiments
import launch
from research.training.checkpoint import open_checkpoint

GENERATOR = Path(__file__).parent / "fixtures" / "generate_old_runs.py"
OLD = runpy.run_path(str(GENERATOR))
RUNS = OLD["RUNS"]
TRAINED = sorted(OLD["FLAGS"].keys() - {"input_optimization"})
PREDICTING = sorted(set(TRAINED) - {"filtering"})
# What compiles longer waits for `pytest -m families`.
LONG = {"captioning", "detection", "embedding", "filtering"}
EVALUATED = [pytest.param(name, marks=[pytest.mark.families] * (name in LONG)) for name in TRAINED]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what the runs were trained on, and copies of the runs."""
    folder = tmp_path_factory.mktemp("old")
    OLD["write_data"](folder / "own")
    for experiment in OLD["FLAGS"]:
        shutil.copytree(RUNS / experiment, folder / experiment)
    return folder


def main(folder, *given):
    """launch.main in a folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        return launch.main(["x", *given])
    finally:
        os.chdir(before)


def result(run):
    return json.loads((run / "result.json").read_text())


def test_every_experiment_of_then_has_a_run():
    assert {path.name for path in RUNS.iterdir()} == OLD["FLAGS"].keys()
    assert OLD["FLAGS"].keys() <= set(experiments.names())


@pytest.mark.parametrize("experiment", OLD["FLAGS"])
def test_its_checkpoint_restores_and_says_that_it_has_no_checksums(place, experiment, capsys):
    opened = open_checkpoint(place / experiment)
    assert opened.metadata["experiment"] == experiment and opened.metadata["schema"] == 1
    leaves = jax.tree.leaves(opened.variables)
    assert leaves and all(np.isfinite(leaf).all() for leaf in leaves)
    said = " ".join(capsys.readouterr().out.split())
    assert "was written before checkpoints had checksums" in said


@pytest.mark.parametrize("experiment", OLD["FLAGS"])
def test_its_flags_are_flags_still(place, experiment, monkeypatch):
    monkeypatch.chdir(place)
    command, _, config, _ = launch.parse(["x", f"--flagfile={experiment}/flags.txt"])
    assert command.experiment == experiment
    for name, value in json.loads((RUNS / experiment / "config.json").read_text())[
        "config"
    ].items():
        if name in vars(config) and name != "workdir":
            kept = getattr(config, name)
            assert (list(kept) if isinstance(kept, tuple) else kept) == value, name


@pytest.mark.parametrize("experiment", OLD["FLAGS"])
def test_the_finished_run_is_shown_and_not_repeated(place, experiment, capsys):
    before = (place / experiment / "result.json").read_bytes()
    assert main(place, f"--flagfile={experiment}/flags.txt", f"--workdir={experiment}") == 0
    assert (place / experiment / "result.json").read_bytes() == before
    assert not (place / experiment / "metrics.jsonl").exists()  # no step was logged
    name = next(iter(json.loads(before)["metrics"]))
    assert name in capsys.readouterr().out


@pytest.mark.parametrize("experiment", EVALUATED)
def test_it_is_evaluated_as_it_was_then(place, experiment):
    given = [f"--checkpoint={experiment}", f"--workdir=EVAL/{experiment}"]
    assert main(place, "--mode=evaluate", *given) == 0
    now, then = (result(place / folder)["metrics"] for folder in (f"EVAL/{experiment}", experiment))
    assert now and all(map(math.isfinite, now.values()))
    assert then and then.keys() <= now.keys()
    for name in then:
        assert now[name] == pytest.approx(then[name], rel=1e-3, abs=1e-3), name


@pytest.mark.parametrize("experiment", PREDICTING)
def test_it_predicts_where_its_data_set_is_not(place, tmp_path, experiment):
    inputs = place / "own" / ("text.txt" if experiment == "language" else "pictures/0.png")
    given = [f"--checkpoint={place / experiment}", f"--inputs={inputs}", "--workdir=OUT"]
    if experiment == "embedding":
        given.append(f"--gallery={place / 'own/characters/test'}")
    assert main(tmp_path, "--mode=predict", *given) == 0
    lines = (tmp_path / "OUT/predictions.jsonl").read_text().splitlines()
    assert len(lines) == 1 and json.loads(lines[0])


def test_what_looked_into_a_network_looks_again(place):
    assert main(place, "--flagfile=input_optimization/flags.txt", "--workdir=AGAIN") == 0
    now, then = (result(place / run)["metrics"] for run in ("AGAIN", "input_optimization"))
    assert then and then.keys() <= now.keys()
    for name in then:
        assert now[name] == pytest.approx(then[name], rel=1e-3, abs=1e-3), name
