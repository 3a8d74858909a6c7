"""Stated results measured again, by a launcher that measures what it is told; refusals."""

import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from research.commands import processes, reproduce
from research.comparison.stated import Stated
from research.errors import UserError
from research.training.config import TrainingConfig
from research.training.interrupts import Stopped

LAUNCHER = """
import json, pathlib, sys

given = dict(a.lstrip("-").split("=") for a in sys.argv[1:])
print("measuring")
if given["value"] == "none":
    sys.exit(2)
folder = pathlib.Path(given["workdir"])
folder.mkdir(parents=True)
(folder / "given.json").write_text(json.dumps(given))
(folder / "result.json").write_text(json.dumps({"metrics": {"test/m": float(given["value"])}}))
"""


def measured(tmp_path, *values, metric="test/m"):
    """The exit code, and the rows that are written, of results stated as 0.5 within 0.1."""
    (tmp_path / "fake.py").write_text(LAUNCHER)
    rows = [Stated(f"row{v}", (f"--value={v}",), metric, 0.5, 0.1) for v in values]
    config = TrainingConfig(workdir=str(tmp_path / "out"))
    command = [sys.executable, str(tmp_path / "fake.py")]
    code = reproduce.measure_again(rows, ("all",), command, ["--data_dir=here"], config)
    return code, json.loads((tmp_path / "out" / "reproduce.json").read_text())


def test_results_that_hold(tmp_path, capsys):
    code, rows = measured(tmp_path, "0.4", "0.6")
    assert code == 0 and [row["measured"] for row in rows] == [0.4, 0.6]
    assert all(row["holds"] and row["stated"] == 0.5 for row in rows)
    given = json.loads((tmp_path / "out" / "row0.4" / "given.json").read_text())
    assert given["data_dir"] == "here"
    assert (tmp_path / "out" / "row0.4.txt").read_text() == "measuring\n"
    assert capsys.readouterr().out.count("holds") == 2


def test_one_that_misses_or_does_not_run_is_told_and_the_others_are_measured(tmp_path, capsys):
    code, rows = measured(tmp_path, "0.39", "none", "0.0", "0.5")
    assert code == 1 and [row["holds"] for row in rows] == [False, False, False, True]
    assert [row["measured"] for row in rows] == [0.39, None, 0.0, 0.5]
    out = capsys.readouterr().out
    assert out.count("MISSES") == 2 and "exit code 2" in out and "0.0000" in out


def test_a_metric_that_is_not_measured_misses(tmp_path, capsys):
    code, rows = measured(tmp_path, "0.5", metric="test/other")
    assert code == 1 and rows[0]["measured"] is None
    assert "has no test/other" in capsys.readouterr().out


def test_what_cannot_be_repeated_is_refused(tmp_path):
    def said(environment=None, finished=True):
        (tmp_path / "flags.txt").touch()
        record = {"experiment": "x", "config": {"a": 1}, "environment": environment or {}}
        (tmp_path / "config.json").write_text(json.dumps(record))
        if finished:
            (tmp_path / "result.json").write_text('{"step": 1}')
        with pytest.raises(UserError) as error:
            reproduce.finished_run(tmp_path)
        return str(error.value)

    assert "is not finished; python launch.py --flagfile=" in said(finished=False)
    assert "was trained by 4 processes" in said({"processes": 4})
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match=r"config\.json: holds no JSON object"):
        reproduce.finished_run(tmp_path)


def test_a_process_computes_as_the_run_did(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "")
    monkeypatch.setenv("XLA_FLAGS", "--xla_other=1")
    then = {"devices": ["cpu: cpu"], "cores": 4, "threads": 2, "xla_flags": ["--xla_a=1"]}
    found = reproduce.variables_of(then)
    assert (found["JAX_PLATFORMS"], found["XLA_FLAGS"], found["NPROC"]) == ("cpu", "--xla_a=1", "2")
    then = {"devices": ["gpu: H100"], "cores": 4, "threads": 4}
    then["xla_flags"] = ["--xla_a=1", *reproduce.DETERMINISTIC]
    found = reproduce.variables_of(then)
    assert found["JAX_PLATFORMS"] == "" and found["XLA_FLAGS"] == "--xla_a=1"
    assert "NPROC" not in found
    assert reproduce.variables_of({})["XLA_FLAGS"] == "--xla_other=1"  # of an older run


def test_a_process_gets_its_cores_and_the_signals_of_this_one(tmp_path):
    mine, log = os.sched_getaffinity(0), tmp_path / "log.txt"
    program = "import os; print(sorted(os.sched_getaffinity(0)))"
    one = sorted(mine)[:1]
    assert processes.run_alone([sys.executable, "-c", program], os.environ, one, log) == 0
    assert json.loads(log.read_text()) == one and os.sched_getaffinity(0) == mine
    assert processes.run_alone([sys.executable, "-c", "exit(7)"], os.environ) == 7

    program = f"import pathlib, time; pathlib.Path({str(log)!r}).write_text('up'); time.sleep(60)"

    def when_up():
        while log.read_text() != "up":
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=when_up).start()
    with pytest.raises(Stopped) as stopped:
        processes.run_alone([sys.executable, "-c", program], os.environ)
    assert stopped.value.exit_code == 143 and Path(log).read_text() == "up"
