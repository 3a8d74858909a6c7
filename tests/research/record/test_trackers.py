import importlib.util
import json
import sqlite3
import struct

import pytest

import launch
from research.record import trackers
from research.record.trackers import Follower


class Kept:
    """A tracker that keeps what it is sent in a list of the test's."""

    def __init__(self, lines, broken=False):
        self.lines, self.broken = lines, broken

    def send(self, step, metrics, warning):
        if self.broken:
            raise OSError("no connection")
        self.lines.append((step, dict(metrics), warning))

    def close(self):
        pass


def write(folder, steps):
    lines = [{"step": step, "train/loss": 1 / step} for step in steps]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def append(folder, step, **more):
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": step, "train/loss": 1 / step, **more}) + "\n")


def test_a_run_that_goes_on_sends_every_line_once(tmp_path, monkeypatch):
    lines, told = [], []

    def start(package, run):
        told.append(run)
        return Kept(lines)

    monkeypatch.setitem(trackers.TRACKERS, "json", start)  # any module that can be imported
    write(tmp_path, [10])
    first = Follower("json", tmp_path, {"seed": 3})
    first.catch_up()
    append(tmp_path, 20, warning="a warning")
    first.catch_up()
    append(tmp_path, 30)
    first.catch_up()
    # Killed, with its last checkpoint after step 20: step 30 is logged a second time.
    write(tmp_path, [10, 20])
    second = Follower("json", tmp_path, {"seed": 3})
    for step in (30, 40):
        append(tmp_path, step)
        second.catch_up()
    assert [step for step, _, _ in lines] == [10, 20, 30, 40]
    assert lines[1] == (20, {"train/loss": 0.05}, "a warning")
    assert told[0] == told[1] and told[0].config == {"seed": 3}
    assert told[0].name == tmp_path.name


def test_a_service_that_fails_stops_no_training_and_gets_the_rest_later(
    tmp_path, monkeypatch, capsys
):
    lines = []
    kept = Kept(lines)
    monkeypatch.setitem(trackers.TRACKERS, "json", lambda package, run: kept)
    write(tmp_path, [10])
    follower = Follower("json", tmp_path, {})
    follower.catch_up()
    kept.broken = True
    for step in (20, 30):
        append(tmp_path, step)
        follower.catch_up()
    assert capsys.readouterr().out.count("nothing is sent any more: no connection") == 1
    kept.broken = False
    Follower("json", tmp_path, {}).catch_up()
    assert [step for step, _, _ in lines] == [10, 20, 30]


def test_a_tracker_that_cannot_start_is_refused_before_anything_is_written(
    tmp_path, monkeypatch, capsys
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "mlflow" else find(name, *a)
    )
    given = ["--steps=1", f"--data_dir={tmp_path}", f"--workdir={tmp_path / 'run'}"]
    flags = ["--experiment=filtering", "--tracker=mlflow", "--compilation_cache=", *given]
    assert launch.main(["x", *flags]) == 2
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().err == (
        "error: --tracker=mlflow: its package is not installed; pip install mlflow\n"
    )


def follow_twice(name, folder):
    """Sends three lines, the last of them twice, as a run does that was killed and went on."""
    write(folder, [10, 20])
    first = Follower(name, folder, {"seed": 3, "betas": [0.9, 0.99]})
    first.catch_up()
    first.close()
    append(folder, 30)
    second = Follower(name, folder, {"seed": 3, "betas": [0.9, 0.99]})
    second.catch_up()
    second.close()


def records(data):
    """The records of a .wandb file: LevelDB's log format after seven bytes, in blocks of 32 KiB."""
    at, whole = 7, b""
    while at + 7 <= len(data):
        if 2**15 - at % 2**15 < 7:  # no header begins in the last bytes of a block
            at += 2**15 - at % 2**15
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # complete: a full record, or the last part of one
            yield whole
            whole = b""


@pytest.mark.processes
def test_wandb_keeps_each_step_once_without_a_network(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    follow_twice("wandb", tmp_path)
    assert wandb.run is None
    from wandb.proto.wandb_internal_pb2 import Record

    steps, runs = [], set()
    for file in sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb")):
        for data in records(file.read_bytes()):
            record = Record.FromString(data)
            if record.HasField("history"):
                steps.append(record.history.step.num)
                items = {"".join(x.nested_key) or x.key: x.value_json for x in record.history.item}
                assert float(items["train/loss"]) == pytest.approx(1 / steps[-1])
            if record.HasField("run"):
                runs.add(record.run.run_id)
    assert steps == [10, 20, 30]
    assert len(runs) == 1  # it goes on under the same identity


@pytest.mark.processes
def test_trackio_keeps_each_step_once_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "kept"))
    trackio = pytest.importorskip("trackio")
    monkeypatch.setattr(trackio.utils, "TRACKIO_DIR", tmp_path / "kept")
    run = tmp_path / "run"
    run.mkdir()
    follow_twice("trackio", run)
    [file] = (tmp_path / "kept").glob("*.db")
    with sqlite3.connect(file) as database:
        rows = list(database.execute("select run_name, step, metrics from metrics order by step"))
    assert [step for _, step, _ in rows] == [10, 20, 30]
    assert len({name for name, _, _ in rows}) == 1
    assert [json.loads(text)["train/loss"] for _, _, text in rows] == [1 / 10, 1 / 20, 1 / 30]


@pytest.mark.processes
def test_mlflow_keeps_each_step_once_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'kept'}")
    mlflow = pytest.importorskip("mlflow")
    run = tmp_path / "run"
    run.mkdir()
    follow_twice("mlflow", run)
    # A metric and those of classes beneath it; the names of classes are a person's own.
    append(run, 40, **{"test/accuracy": 0.5, "test/accuracy/a/b": 0.25, "test/accuracy/1 é?": 0.75})
    third = Follower("mlflow", run, {"seed": 3})
    third.catch_up()
    third.close()
    client = mlflow.MlflowClient()
    [experiment] = [x for x in client.search_experiments() if x.name == trackers.PROJECT]
    [kept] = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(kept.info.run_id, "train/loss")
    assert [(m.step, m.value) for m in history] == [(step, 1 / step) for step in (10, 20, 30, 40)]
    assert kept.info.status == "FINISHED" and kept.data.params["betas"] == "[0.9, 0.99]"
    values = {name: kept.data.metrics[name] for name in kept.data.metrics if name[:4] == "test"}
    assert values == {
        "test/accuracy": 0.5,
        "test/accuracy.a.b": 0.25,
        "test/accuracy.1 é.": 0.75,
    }
