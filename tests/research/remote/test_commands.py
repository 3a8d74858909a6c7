"""The launcher's flags, where they name what lies in a store."""

import glob
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import launch
from research.data import datasets
from research.errors import UserError
from research.record import checksums
from research.remote.copies import copied_run, copied_runs
from research.remote.outputs import sent_at_end
from research.remote.sets import copied_set
from research.remote.store import PACKAGES, StoreError, cache

SMALL = ["--experiment=classification", "--model=mlp", "--steps=2", "--batch_size=32"]


def command(*flags):
    return launch.main(["x", *map(str, flags), "--compilation_cache="])


@pytest.fixture
def afresh():
    """Forgets what this process has copied."""
    for copied in (copied_run, copied_set):
        copied.cache_clear()


def put(stores, folder, address):
    for path in folder.rglob("*"):
        if path.is_file():
            name = f"{address.partition('://')[2]}/{path.relative_to(folder).as_posix()}"
            stores.files[name] = path.read_bytes()


@pytest.mark.families
def test_a_run_is_trained_evaluated_used_and_compared_from_the_store(
    stores, afresh, tmp_path, monkeypatch, capsys
):
    datasets.prepare_builtin("digits", tmp_path / "sets")
    put(stores, tmp_path / "sets", "s3://bucket/sets")
    where = ["--data_dir=s3://bucket/sets"]
    for seed in (0, 1):
        run = f"--workdir=s3://bucket/runs/mlp-{seed}"
        assert command(*SMALL, *where, f"--seed={seed}", run) == 0
    trained = json.loads(stores.lie("bucket/runs/mlp-0")["result.json"])
    assert "s3://bucket/sets" in stores.lie("bucket/runs/mlp-0")["flags.txt"].decode()
    assert list((cache("sets", "s3://bucket/sets")).iterdir())

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    capsys.readouterr()
    run = "--checkpoint=s3://bucket/runs/mlp-0"
    assert command("--mode=evaluate", run, "--workdir=s3://bucket/evaluated") == 0
    evaluated = stores.lie("bucket/evaluated")
    assert json.loads(evaluated["result.json"])["metrics"] == pytest.approx(trained["metrics"])
    for name, entry in json.loads(evaluated[checksums.NAME])["files"].items():
        assert checksums.of_bytes(evaluated[name]) == entry
    assert command("--mode=evaluate", run, "--workdir=s3://bucket/evaluated") == 2
    assert "s3://bucket/evaluated: holds files already" in capsys.readouterr().err

    assert command("--mode=check", run, "--experiment=classification") == 0
    runs = ["--runs=a=s3://bucket/runs/mlp-0", "--runs=b=s3://bucket/runs/*-1"]
    assert command("--mode=compare", *runs, f"--workdir={tmp_path / 'compared'}") == 0
    table = (tmp_path / "compared/compare.csv").read_text()
    assert {line.partition(",")[0] for line in table.splitlines()[1:]} == {"a", "b"}


@pytest.mark.families
def test_the_package_that_is_missing_is_named_in_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for scheme, package in PACKAGES.items():
        if importlib.util.find_spec(package):
            pytest.skip(f"{package} is installed")
        run = f"{scheme}://bucket/run"
        said = f": {scheme}:// needs the package {package}; run pip install {package}."
        for flags in (
            [*SMALL, f"--workdir={run}"],
            ["--mode=evaluate", f"--checkpoint={run}"],
            ["--mode=predict", f"--checkpoint={run}"],
            ["--mode=compare", f"--runs={run}"],
            [*SMALL, f"--data_dir={run}", f"--workdir={tmp_path / 'run'}"],
        ):
            assert command(*flags) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith(f"error: {scheme}://bucket") and line.endswith(said)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([*SMALL, "--workdir=ftp://b/run"], "--workdir=ftp://b/run: a folder, or an address of gs"),
        ([*SMALL, "--workdir=gs://"], "gs://: names no folder; gs://BUCKET/FOLDER is needed."),
        ([*SMALL, "--workdir=gs://b/../c"], "gs://b/../c: names no folder"),
        (
            [*SMALL, "--mode=study", "--variant=--seed=1", "--workdir=gs://b/study"],
            "--workdir=gs://b/study: for --mode=study a folder of this machine is needed.",
        ),
        (
            ["--mode=prepare", "--dataset=mnist", "--data_dir=s3://b/sets"],
            "--data_dir=s3://b/sets: for --mode=prepare a folder of this machine is needed.",
        ),
        (["--mode=reproduce", "--run=gs://b/r"], "--run=gs://b/r: a folder of this machine is"),
        (
            [*SMALL, "--workdir=gs://b/r", "--distributed=127.0.0.1:1,2,0"],
            "--workdir=gs://b/r: is written by one process; several of --distributed need a folder",
        ),
        (["--mode=evaluate", "--checkpoint=gs://b/no"], "gs://b/no: holds no run, and no checkp"),
    ],
)
def test_what_cannot_be_done_in_a_store_is_said_in_one_line(stores, afresh, capsys, flags, said):
    assert command(*flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {said}")
    assert not stores.files


def test_a_set_is_copied_once_and_compared_with_its_checksums(stores, afresh, tmp_path):
    made = datasets.prepare_builtin("xor", tmp_path / "sets")
    put(stores, tmp_path / "sets", "gs://bucket/sets")
    there, here = (datasets.load("xor", d) for d in ("gs://bucket/sets", tmp_path / "sets"))
    for split, examples in here.splits.items():
        for number in range(len(examples)):
            one, same = examples[number], there.splits[split][number]
            assert one.keys() == same.keys()
            assert all(np.array_equal(one[name], same[name]) for name in one)
    # Once it is here, no more than its list is read.
    read = []
    stores.refuses = lambda what, name: what == "read" and read.append(name.rpartition("/")[2])
    copied_set.cache_clear()
    datasets.load("xor", "gs://bucket/sets")
    assert read == [checksums.NAME] * len(read)
    stores.refuses = lambda what, name: None
    with pytest.raises(UserError, match="mnist: is not in --data_dir=gs://bucket/sets; prepare it"):
        datasets.load("mnist", "gs://bucket/sets")
    # A byte that flipped in the store.
    largest = max(made.iterdir(), key=lambda path: path.stat().st_size)
    name = f"bucket/sets/{largest.relative_to(tmp_path / 'sets').as_posix()}"
    content = stores.files[name]
    stores.files[name] = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
    shutil.rmtree(cache("sets", "gs://bucket/sets"))
    copied_set.cache_clear()
    with pytest.raises(UserError, match=f"is damaged .{largest.name} is not what was written"):
        datasets.load("xor", "gs://bucket/sets")


def test_a_set_that_changed_in_the_store_is_copied_again(stores, afresh):
    def put(version, **files):
        for name, content in {"features.json": "{}", **files}.items():
            stores.files[f"bucket/sets/x/{version}/{name}"] = content.encode()

    def copied():
        copied_set.cache_clear()
        root = copied_set("gs://bucket/sets", "x")
        paths = [path for path in root.glob("x/*/*") if path.is_file()]
        return {f"{path.parent.name}/{path.name}": path.read_text() for path in paths}

    put("1.0.0", records="old", gone="1")
    first = {"1.0.0/features.json": "{}", "1.0.0/records": "old", "1.0.0/gone": "1"}
    assert copied() == first
    del stores.files["bucket/sets/x/1.0.0/gone"]  # no list of checksums says so
    put("1.0.0", records="longer", **{"dataset_info.json": "1"})
    put("1.0.0", **{"dataset_info.json": "2"})
    now = {"1.0.0/features.json": "{}", "1.0.0/records": "longer", "1.0.0/dataset_info.json": "2"}
    assert copied() == now
    put("1.0.0", **{"dataset_info.json": "3"})
    now["1.0.0/dataset_info.json"] = "3"
    assert copied() == now
    put("1.1.0", records="wrong")
    assert copied()["1.1.0/records"] == "wrong"
    for name in [name for name in stores.files if "/1.1.0/" in name]:
        del stores.files[name]  # withdrawn
    assert copied() == now
    stores.files.clear()
    assert copied() == {}


def test_runs_that_the_store_has_no_more_are_in_no_comparison(stores, afresh, tmp_path):
    for name in ("a-0", "a-1", "b-0", "inside/a-2"):
        stores.files[f"bucket/runs/{name}/config.json"] = name.encode()
    stores.files["bucket/runs/notes.txt"] = b"no run"

    def found(pattern):
        places = sorted(glob.glob(f"{copied_runs(pattern)}/**/config.json", recursive=True))
        return [Path(place).read_text() for place in places]

    assert found("gs://bucket/runs/a-*") == ["a-0", "a-1"]
    assert found("gs://bucket/runs/insid?") == ["inside/a-2"]
    del stores.files["bucket/runs/a-0/config.json"]
    copied_run.cache_clear()
    assert found("gs://bucket/runs/a-*") == ["a-1"]
    assert not stores.history  # who reads writes nothing


def test_what_a_mode_wrote_is_sent_even_if_it_failed(stores):
    with pytest.raises(UserError, match="halfway"), sent_at_end("gs://bucket/out") as folder:
        (folder / "figures").mkdir()
        (folder / "figures/one.png").write_bytes(b"1")
        (folder / checksums.NAME).write_text("{}")
        (folder / "rows.jsonl").write_text("{}")
        raise UserError("halfway")
    assert not folder.exists()
    assert [*stores.lie("bucket/out")][-1] == checksums.NAME
    assert {*stores.lie("bucket/out")} == {"figures/one.png", "rows.jsonl", checksums.NAME}


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (ConnectionError("no route to host"), StoreError, "no route to host"),
        (PermissionError("ExpiredToken"), UserError, "may not be written .ExpiredToken"),
    ],
)
def test_what_cannot_be_sent_stays_and_a_refusal_comes_before_the_work(stores, error, kind, said):
    def gone(what, name):
        if what == "write":
            raise error

    stated = pytest.raises(kind, match=rf"{said}.* what was made is in /.*\.$")
    with stated as raised, sent_at_end("gs://bucket/again") as folder:
        (folder / "rows.jsonl").write_text("{}")
        stores.refuses = gone
    assert type(raised.value) is kind
    assert (folder / "rows.jsonl").read_text() == "{}"
    assert not stores.files  # what was tried at the start is gone
    with pytest.raises(kind, match=said), sent_at_end("gs://bucket/other"):
        pytest.fail("the work has begun")
