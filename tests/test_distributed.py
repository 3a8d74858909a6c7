"""Several processes: their result is one process', and none hangs where another is gone."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import toy_runs
import toys

from research.record import outcomes
from research.training.checkpoint import open_checkpoint

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENT = toys.experiment(data=toy_runs.data, batch_wide=True)
ENVIRONMENT = {**os.environ, "JAX_PLATFORMS": "cpu", "COLUMNS": "200"}


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def together(work, cwd, count=2, codes=()):
    """Two processes of two devices each, as tests/two_processes.py; what each of them printed."""
    address, command = (
        f"127.0.0.1:{free_port()}",
        [sys.executable, str(ROOT / "tests" / "two_processes.py")],
    )
    begun = [
        subprocess.Popen(
            [*command, f"{address},{count},{i}", json.dumps(work)],
            cwd=cwd,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(count)
    ]
    printed = [one.communicate(timeout=300)[0] for one in begun]
    for one, text, code in zip(begun, printed, codes or [0] * count, strict=True):
        assert one.returncode == code, text
    return printed


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Runs with batch statistics and a loss over the whole batch: of one process, and of two."""
    folder = tmp_path_factory.mktemp("toy")
    alone = toy_runs.run(folder / "alone", experiment=EXPERIMENT)
    together({"toy": [str(folder / "together")]}, folder)
    return folder, alone


def check_same_run(alone, found):
    """Compares what two runs logged, and the weights they ended with; one may have stopped."""
    expected, logged = toy_runs.lines(alone), toy_runs.lines(found)
    assert [row["step"] for row in logged] == [row["step"] for row in expected]
    close(expected, [{name: b[name] for name in a} for a, b in zip(expected, logged, strict=True)])
    close(open_checkpoint(alone).variables, open_checkpoint(found).variables)


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), a, b)


def test_two_processes_end_as_one_does(toy):
    check_same_run(toy[0] / "alone", toy[0] / "together")


@pytest.mark.processes
def test_a_run_goes_on_in_more_and_in_fewer_processes(toy):
    folder, _ = toy
    half = dataclasses.replace(toy_runs.CONFIG, stop_after=0.5)
    toy_runs.run(folder / "split", half, EXPERIMENT)
    together({"toy": [str(folder / name) for name in ("split", "joined-0.5")]}, folder)
    toy_runs.run(folder / "joined-0.5", experiment=EXPERIMENT)
    check_same_run(folder / "alone", folder / "split")
    check_same_run(folder / "alone", folder / "joined-0.5")


@pytest.mark.processes
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("labels", "has another data of test"),
        ("checkpoints", "has another newest checkpoint"),
        ("damage", "has another step to go on from"),
    ],
)
def test_processes_that_see_other_data_or_checkpoints_are_refused(what, said, toy):
    folder = toy[0] / what
    toy_runs.run(folder, dataclasses.replace(toy_runs.CONFIG, stop_after=0.67), EXPERIMENT)
    printed = together({"toy": [str(folder)], "unlike": [1, what]}, toy[0], codes=(2, 2))
    assert all("process 1 of 2 (" in text and said in text for text in printed)


@pytest.mark.processes
def test_one_that_works_alone_for_long_is_waited_for(tmp_path):
    together({"busy": 5}, tmp_path)


def test_each_example_is_evaluated_once_and_as_in_one_process(toy):
    folder, alone = toy
    expected = alone.evaluations["test"].outcomes
    found = outcomes.read(outcomes.path_of(folder / "together/outcomes", "test"))
    np.testing.assert_array_equal(found.index, expected.index)
    for name, values in expected.values.items():
        close(found.values[name], values)


def test_both_processes_know_the_same_result_and_one_writes(toy):
    folder, alone = toy
    first, second = (json.loads((folder / f"together/result-{i}.json").read_text()) for i in (0, 1))
    for name in ("metrics", "fingerprint", "data_order", "initial_parameters", "step"):
        assert first[name] == second[name]
    assert first["data_order"] == alone.result["data_order"]
    assert first["initial_parameters"] == alone.result["initial_parameters"]
    # Of the whole batch's step; a mesh adds some operations of its own.
    assert first["flops"] == pytest.approx(alone.result["flops"], rel=0.02)
    # Each process wrote its share of the arrays.
    weights = folder / "together/checkpoints/latest/12/weights"
    assert {"ocdbt.process_0", "ocdbt.process_1"} <= {path.name for path in weights.iterdir()}
