"""One bit that flipped in what a run, or a prepared set, is read from again is an error."""

import contextlib
import json
import os
import random
import shutil

import pytest
import toys
from toy_runs import CONFIG, data, lines, run

from research.commands.compile import read_measured
from research.commands.intact import check_runs, check_set
from research.commands.reproduce import finished_run
from research.comparison.curves import read_curves
from research.comparison.reproduction import compare_runs
from research.comparison.runs import read_run
from research.data.stored.sets import check_intact
from research.errors import UserError
from research.record import checksums, outcomes, run_folder, sealing
from research.record.checksums import NAME, DamagedError, read
from research.record.run_folder import RunFolder, check_workdir, read_result
from research.training import parallel as parallel_lib
from research.training.checkpoint import open_checkpoint, verify
from research.training.evaluation import save_outcomes
from research.training.loop import train

FLIPS = 100
WRITERS = {"checksums.json": (checksums, "write_json"), "stopped.json": (run_folder, "write_text")}


def finished(folder):
    """A run as --mode=train leaves it."""
    parallel = parallel_lib.create(CONFIG.parallel, CONFIG.batch_size, CONFIG.accumulate)
    with RunFolder(folder, "toy", CONFIG) as record:
        found = train(toys.experiment(data=data), CONFIG, parallel, record)
        record.finish({**found.result, "examples": save_outcomes(folder, found.evaluations)})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sealed") / "run"
    finished(folder)
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def read_again(run):
    """Opens a run as each mode that reads one does."""
    read_run(run)  # compare
    finished_run(run)  # reproduce
    assert compare_runs(run, run).identical
    read_measured(str(run))  # compile
    read_curves(run, ("train/loss",))
    for file in (run / sealing.EXAMPLES).glob("*.npz"):
        outcomes.read(file)
    open_checkpoint(run)  # evaluate
    for folder in (run / "checkpoints").glob("*/*"):
        verify(folder)  # going on reads the newest that is intact
    check_workdir(run, "toy", CONFIG)
    return read_result(run)


def flip(file, chance):
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


def test_a_flipped_bit_in_any_file_that_is_read_again_is_noticed(copy):
    assert read_again(copy)["metrics"]
    chance = random.Random(0)
    files = sorted(f for f in copy.rglob("*") if f.is_file() and f.stat().st_size)
    files = [f for f in files if "tfevents" not in f.name]
    assert {"result.json", "metrics.jsonl", "config.json", NAME} <= {f.name for f in files}
    own = [f for f in files if "checkpoints" not in f.parts]
    silent = []
    for number in range(FLIPS):  # every other in the run's own files, which are the fewer
        file = chance.choice(own if number % 2 else files)
        before = file.read_bytes()
        flip(file, chance)
        try:
            read_again(copy)
            silent.append(file)
        except DamagedError as error:
            assert file.name in str(error) or file.name in (NAME, "checksums.json")
        file.write_bytes(before)
    assert not silent
    assert read_again(copy)["metrics"]


@pytest.mark.parametrize(
    "read",
    [
        read_run,
        finished_run,
        lambda run: compare_runs(run, run),
        lambda run: read_measured(str(run)),
    ],
)
def test_every_reader_of_a_run_notices(read, copy):
    read(copy)
    flip(copy / "result.json", random.Random(0))
    with pytest.raises(DamagedError, match=r"result\.json"):
        read(copy)


def test_every_flip_of_the_list_itself_is_noticed(copy):
    file = copy / NAME
    before = file.read_bytes()
    for place in range(0, len(before) * 8, 29):
        content = bytearray(before)
        content[place // 8] ^= 1 << place % 8
        file.write_bytes(content)
        with pytest.raises(DamagedError):
            read_again(copy)


def test_the_check_names_what_is_damaged_and_goes_on(copy, capsys):
    check_runs([str(copy)])
    said = capsys.readouterr().out
    assert said.count("are as they were written") == 1 + len([*copy.glob("checkpoints/*/*")])
    flip(copy / "metrics.jsonl", random.Random(0))
    with pytest.raises(DamagedError, match=r"run: is damaged \(metrics.jsonl is not what was"):
        check_runs([str(copy)])
    said = capsys.readouterr().out
    assert said.count("DAMAGED") == 1 and said.count("are as they were written") >= 2
    shutil.rmtree(copy / "checkpoints")  # as where nothing is trained
    with pytest.raises(DamagedError, match=r"metrics\.jsonl"):
        check_runs([str(copy)])
    (copy / "config.json").unlink()
    with pytest.raises(DamagedError, match=r"config\.json"):
        check_runs([str(copy)])
    capsys.readouterr()
    (copy / NAME).unlink()  # as in runs of earlier versions
    check_runs([str(copy)])
    assert "before runs had checksums" in capsys.readouterr().out


def test_what_was_logged_after_the_last_checkpoint_is_logged_again(whole, tmp_path):
    """Killed after a save: the log is longer than its checksum says, and ends in half a line."""
    folder = tmp_path / "run"
    run(folder)
    shutil.rmtree(folder / "checkpoints" / "latest" / "12")
    shutil.rmtree(folder / "checkpoints" / "best", ignore_errors=True)
    with open(folder / "metrics.jsonl", "a") as log:
        log.write('{"step": 13, "train/lo')
    run(folder)
    assert lines(folder) == lines(whole)
    read_run(folder)


def test_a_run_that_was_killed_at_the_end_goes_on(copy):
    (copy / "result.json").unlink()  # its checksum is written before it
    check_workdir(copy, "toy", CONFIG)
    finished(copy)
    assert read_again(copy)["metrics"]


def test_damage_in_a_run_under_way_is_not_sealed_by_its_next_save(tmp_path):
    folder = tmp_path / "run"
    with RunFolder(folder, "toy", CONFIG) as record:
        record.begin(0, {})
        for name in ("config.json", "flags.txt", "requirements.lock"):
            before = (folder / name).read_bytes()
            flip(folder / name, random.Random(0))
            record.seal()
            with pytest.raises(DamagedError, match=name):
                sealing.verify(folder)
            (folder / name).write_bytes(before)
        record.leave({"step": 4})
    with RunFolder(folder, "toy", CONFIG) as record:
        flip(folder / "stopped.json", random.Random(0))
        record.begin(4, {})  # after what was verified when the folder was opened
        with pytest.raises(DamagedError, match=r"stopped\.json"):
            sealing.verify(folder)
        record.finish({})
    sealing.verify(folder)
    assert "stopped.json" not in {*os.listdir(folder), *read(folder)}


@pytest.mark.parametrize("written", WRITERS)
def test_a_run_that_was_killed_as_it_was_left_again_goes_on(written, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    for start, killed in ((0, False), (4, True)):
        with RunFolder(folder, "toy", CONFIG) as record:
            record.begin(start, {})
            if killed:  # in the place of the file that would be written next
                module, writes = WRITERS[written]
                monkeypatch.setattr(module, writes, None)
            with contextlib.suppress(TypeError):
                record.leave({"step": start + 4})
            monkeypatch.undo()
    check_workdir(folder, "toy", CONFIG)
    read_run(folder)


def test_a_log_is_kept_until_its_first_line_that_is_none(tmp_path):
    rows = [b'{"step": 1}\n', b'{"step": 2}\n', b'{"step": 3}\n']
    file = tmp_path / "metrics.jsonl"
    assert sealing.logged_until(file, 5) == b""
    for after in (b"", b'{"step": 4', b'{"step": 4}', b"4\n", b"[]\n", b'\xff\n{"step": 5}\n'):
        file.write_bytes(b"".join(rows) + after)
        assert sealing.logged_until(file, 5) == b"".join(rows)
        assert sealing.logged_until(file, 2) == b"".join(rows[:2])


def test_a_prepared_set_is_compared_when_it_is_opened(tmp_path, capsys):
    from research.data import datasets
    from research.data.tasks import classification

    datasets.load("xor", tmp_path, classification.TASK)
    (folder,) = (mark.parent for mark in tmp_path.rglob("features.json"))
    size = check_intact(folder)
    files = [f for f in folder.rglob("*") if f.is_file()]
    assert size == sum(f.stat().st_size for f in files if f.name != NAME)
    check_set("xor", str(tmp_path))
    assert f"{size:,} bytes are as they were prepared" in capsys.readouterr().out
    chance = random.Random(0)
    for _ in range(30):
        file = chance.choice(files)
        before, times = file.read_bytes(), file.stat()
        flip(file, chance)
        # A process compares a set once: another sees it with another time.
        os.utime(folder / "features.json", ns=(times.st_atime_ns, chance.randrange(10**18)))
        with pytest.raises(DamagedError, match=r"move the folder away and prepare the set anew"):
            datasets.load("xor", tmp_path, classification.TASK)
        file.write_bytes(before)
    assert check_intact(folder, most=0) == 0  # sizes alone
    flip(max(files, key=lambda f: f.stat().st_size), chance)
    check_intact(folder, most=10)
    with pytest.raises(UserError):
        check_intact(folder)
    (folder / NAME).write_text(json.dumps({"files": {}})[:-1])
    with pytest.raises(DamagedError, match=r"checksums.json cannot be read"):
        check_intact(folder, most=0)
