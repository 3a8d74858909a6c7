"""Studies as a person and a queue run them: processes that are killed, shares of an array."""

import contextlib
import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "JAX_PLATFORMS": "cpu", "COLUMNS": "200"}
ENVIRONMENT.pop("XLA_FLAGS", None)  # those of the tests' own process
STUDY = """
question = "One layer or two?"
experiment = "classification"
metric = "test/accuracy"
difference = 0.25
baseline = "one"
repeats = 2

[flags]
dataset = "xor"
batch_size = 4
optimizer = "adam"
learning_rate = 0.05
schedule = "constant"
weight_decay = 0
steps = 400
eval_every = 100
log_every = 5
rotation = 0
scale = 0
shift = 0

[variants.one]
model = "linear"

[variants.two]
model = "xor"
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "xor.toml").write_text(STUDY)
    return tmp_path


def command(place, folder, *flags):
    where = [f"--data_dir={place / 'data'}", f"--compilation_cache={place / 'cache'}"]
    study = ["--mode=study", f"--study={place / 'xor.toml'}", f"--workdir={place / folder}"]
    return [sys.executable, str(ROOT / "launch.py"), *study, *where, *flags]


def begin(place, folder, *flags):
    """Starts a study as the leader of a group of processes."""
    return subprocess.Popen(
        command(place, folder, *flags),
        env=ENVIRONMENT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def logged(folder):
    """How many lines all runs of a study have logged."""
    return sum(file.read_bytes().count(b"\n") for file in folder.glob("*/seed=*/metrics.jsonl"))


def until_more_is_logged(process, folder, lines):
    """Waits until a study has logged some lines more; returns whether it still runs."""
    before = logged(folder)
    while process.poll() is None and logged(folder) < before + lines:
        time.sleep(0.05)
    return process.poll() is None


def group(number):
    """The processes of a group that live, by /proc; what only waits to be reaped does not."""
    stats = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            stats.append(file.read_text().rpartition(")")[2].split())
    return [stat for stat in stats if stat[2] == str(number) and stat[0] not in "ZX"]


def until_none_is_left(number, seconds):
    """Waits until no process of a group lives; returns those that still do."""
    ended = time.monotonic() + seconds
    while group(number) and time.monotonic() < ended:
        time.sleep(0.1)
    return group(number)


def table(folder):
    """What was found, without what it cost: each run's metrics."""
    with open(folder / "compare.csv") as file:
        return [
            {k: v for k, v in row.items() if "/" in k or k in ("variant", "seed", "failure")}
            for row in csv.DictReader(file)
        ]


@pytest.mark.processes
def test_a_study_that_was_killed_three_times_ends_with_the_table_of_one_that_was_not(place):
    whole = begin(place, "WHOLE", "--jobs=2")
    assert whole.wait(600) == 0
    killed = 0
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        process = begin(place, "CUT", "--jobs=2")
        if until_more_is_logged(process, place / "CUT", 20):
            killed += 1
        os.killpg(process.pid, number)
        assert process.wait(120) == (143 if number == signal.SIGTERM else -number)
        assert not until_none_is_left(process.pid, 10), "no worker is left behind"
    assert killed == 3
    assert begin(place, "CUT", "--jobs=2").wait(600) == 0
    assert table(place / "CUT") == table(place / "WHOLE") and len(table(place / "CUT")) == 4


@pytest.mark.processes
def test_workers_end_saved_when_what_started_them_is_killed(place):
    process = begin(place, "ALONE", "--jobs=2", "--steps=100000")
    assert until_more_is_logged(process, place / "ALONE", 10)
    os.kill(process.pid, signal.SIGKILL)  # the supervisor alone
    process.wait()
    if until_none_is_left(process.pid, 60):
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError("workers go on without a supervisor")
    assert "SIGTERM: saved after step" in "".join(
        log.read_text() for log in (place / "ALONE" / "logs").iterdir()
    )


@pytest.mark.processes
def test_the_array_of_a_queue_does_each_run_once(place):
    """cluster/study.sbatch itself; stand-ins for srun and scontrol run, or note, what they get."""
    tools = place / "tools"
    tools.mkdir()
    for name, text in (
        ("srun", 'exec "$@"'),
        ("scontrol", f'echo "$@" >> {place / "requeued"}'),
        ("python", f'exec {sys.executable} "$@"'),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    variables = {
        **ENVIRONMENT,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "STUDY": str(place / "xor.toml"),
        "FOLDER": str(place / "ARRAY"),
        "SLURM_ARRAY_JOB_ID": "7",
        "SLURM_ARRAY_TASK_COUNT": "2",
    }
    script = ROOT / "cluster" / "study.sbatch"
    where = [f"--data_dir={place / 'data'}", f"--compilation_cache={place / 'cache'}"]

    def task(number, *flags):
        return subprocess.Popen(
            ["bash", str(script), *where, *flags],
            cwd=ROOT,
            env={**variables, "SLURM_ARRAY_TASK_ID": str(number)},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    tasks = [task(1), task(2)]
    said = [process.communicate(timeout=600)[0] for process in tasks]
    assert [process.returncode for process in tasks] == [0, 0]
    assert all("2 of 2 runs complete" in text for text in said)
    assert len(list((place / "ARRAY").rglob("result.json"))) == 4
    done = subprocess.run(command(place, "ARRAY"), env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0 and "step " not in done.stdout
    assert len(table(place / "ARRAY")) == 4

    shutil.rmtree(place / "ARRAY")
    process = task(1, "--steps=100000")
    assert until_more_is_logged(process, place / "ARRAY", 5)
    # --signal=TERM@120 goes to the processes of srun, not to the script.
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 143
    assert (place / "requeued").read_text() == "requeue 7_1\n"


@pytest.mark.processes
def test_halving_that_was_killed_ends_with_the_ranks_of_one_that_was_not(place):
    def tune(folder):
        flags = ["--mode=tune", "--experiment=classification", "--model=linear", "--steps=45"]
        flags += ["--search=learning_rate=1e-3..1e-1", "--trials=9", "--strategy=halving"]
        flags += ["--validation=0.1", f"--workdir={place / folder}", "--jobs=2", "--log_every=1"]
        flags += [f"--data_dir={place / 'data'}", f"--compilation_cache={place / 'cache'}"]
        return subprocess.Popen(
            [sys.executable, str(ROOT / "launch.py"), *flags],
            env=ENVIRONMENT,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def ranks(folder):
        with open(place / folder / "tune.csv") as file:
            return [
                {k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)
            ]

    assert tune("WHOLE").wait(600) == 0
    for number, lines in ((signal.SIGKILL, 20), (signal.SIGTERM, 35)):  # in both rungs before last
        process = tune("CUT")
        assert until_more_is_logged(process, place / "CUT", lines)
        os.killpg(process.pid, number)
        process.wait(120)
        assert not until_none_is_left(process.pid, 10)
    assert tune("CUT").wait(600) == 0
    assert ranks("CUT") == ranks("WHOLE")
    assert [row["trained"] for row in ranks("CUT")].count("1.0") == 1
