"""The processes of --jobs: their places, what becomes of those that die, signals passed on.

The workers are small scripts here; tests/test_studies.py starts real ones.
"""

import json
import os
import signal
import sys
import threading
import time

import pytest

from research.commands import jobs
from research.comparison.cells import failure_of
from research.comparison.study import Study
from research.errors import UserError
from research.training.interrupts import Stopped

STUDY = Study("toy", {"a": (), "b": ()}, (0, 1, 2))
# Takes each free cell in turn, as --share=next does; `ACTION` happens in the cell that FILE names.
WORKER = """
import fcntl, os, pathlib, signal, sys, time
assert sys.argv[-2:] == ["--jobs=1", "--share=next"]
stopped = []
signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
for folder in sys.argv[1:-2]:
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "result.json").exists() or (folder / "failure.json").exists():
        continue
    with open(folder / ".lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        if (folder / "result.json").exists() or (folder / "failure.json").exists():
            continue
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        # ACTION
        for _ in range(3):
            time.sleep(0.02)
        if stopped:
            file.truncate(0)
            print("saved", flush=True)
            sys.exit(143)
        (folder / "result.json").write_text(str(sorted(os.sched_getaffinity(0))))
        file.truncate(0)
"""


@pytest.fixture
def supervise(tmp_path, monkeypatch):
    """Runs workers with an action; returns {cell: what its result or failure says}."""
    monkeypatch.setattr(jobs, "WATCH", 0.02)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")

    def run(action="pass", count=2):
        file = tmp_path / "worker.py"
        file.write_text(WORKER.replace("# ACTION", action))
        cells = STUDY.cells(tmp_path / "S")
        folders = [str(cell.folder) for cell in cells]
        jobs.supervise([sys.executable, str(file), *folders], tmp_path / "S", cells, count)
        return {
            f"{cell.variant}{cell.seed}": failure.kind
            if (failure := failure_of(cell.folder))
            else json.loads((cell.folder / "result.json").read_text())
            for cell in cells
        }

    return run


def test_every_cell_is_run_and_each_worker_has_as_many_cores_as_the_others(supervise, capsys):
    found = supervise()
    assert len(found) == 6
    cores = len(os.sched_getaffinity(0))
    assert {len(used) for used in found.values()} == {max(1, cores // 2)}
    assert "6/6 runs  2 at a time" in capsys.readouterr().out


def test_a_worker_that_dies_leaves_its_cell_as_failed_and_another_goes_on(supervise, capsys):
    found = supervise(
        "if folder.parts[-2:] == ('b', 'seed=0'): os.kill(os.getpid(), signal.SIGKILL)", count=1
    )
    assert found.pop("b0") == "died" and all(isinstance(used, list) for used in found.values())
    said = capsys.readouterr().out
    assert "b, seed 0: its process died (SIGKILL, as where memory runs out)" in said
    assert "worker 1 starts anew" in said


def test_workers_that_cannot_begin_end_the_study_with_what_they_said(supervise):
    with pytest.raises(UserError, match=r"worker \d stopped \(exit code 2\): no such data"):
        supervise("file.truncate(0); print('error: no such data'); sys.exit(2)")


def test_a_signal_is_passed_on_and_no_cell_counts_as_failed(supervise, tmp_path, capsys):
    def send():
        while not list((tmp_path / "S").rglob("result.json")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=send)
    sender.start()
    with pytest.raises(Stopped) as stopped:
        supervise("time.sleep(0.1)", count=1)
    sender.join()
    assert stopped.value.exit_code == 143
    assert "SIGTERM: waiting until all runs are saved" in capsys.readouterr().out
    assert "saved" in (tmp_path / "S" / "logs" / "worker-1.txt").read_text()
    assert not list(tmp_path.rglob("failure.json"))
    assert len(supervise()) == 6  # the same command goes on


def test_places_are_a_device_each_or_equal_shares_of_the_cores(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    two = [place.environment for place in jobs.places(2)]
    assert two == [{"CUDA_VISIBLE_DEVICES": "2"}, {"CUDA_VISIBLE_DEVICES": "5"}]
    four = [place.environment for place in jobs.places(4)]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in four] == ["2", "5", "2", "5"]
    assert {one["XLA_PYTHON_CLIENT_MEM_FRACTION"] for one in four} == {"0.450"}
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    monkeypatch.setenv("TPU_VISIBLE_CHIPS", "0,1,2,3")
    assert [place.environment["TPU_VISIBLE_CHIPS"] for place in jobs.places(2)] == ["0", "1"]
    with pytest.raises(UserError, match="4 TPU chips"):
        jobs.places(5)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 3, 5, 7})
    assert [sorted(place.cores) for place in jobs.places(2)] == [[0, 2], [3, 5]]
    assert [sorted(place.cores) for place in jobs.places(7)] == [[0], [2], [3], [5], [7], [0], [2]]
    assert all(not place.environment for place in jobs.places(2))


def test_a_share_of_a_run_is_what_its_log_knows_of(tmp_path):
    assert jobs.share_done(tmp_path) == 0
    (tmp_path / "config.json").write_text(json.dumps({"plan": {"steps": 200}}))
    assert jobs.share_done(tmp_path) == 0
    (tmp_path / "metrics.jsonl").write_text('{"step": 50}\n{"step": 100}\n{"ste')
    assert jobs.share_done(tmp_path) == 0.5
