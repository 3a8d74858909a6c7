"""Runs whose folder is in a store: whole at every moment, and the bits of any other run."""

import json
import os
import signal
import time

import pytest
from mirrored import (
    ADDRESS,
    FOLDER,
    LATEST,
    LOG,
    broken_promises,
    finished,
    flipped,
    remote,
    run,
    told,
)
from toy_runs import interrupted

from research.errors import FailedError, UserError
from research.record import checksums
from research.remote import lease
from research.remote.mirror import Mirror
from research.remote.store import work_folder
from research.training.checkpoint import open_checkpoint
from research.training.interrupts import Stopped


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What a run holds that was never disturbed and lies on a disk."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder)
    return told(lambda name: (folder / name).read_bytes())


def parts(stores):
    return json.loads(stores.lie(FOLDER)["result.json"])["parts"]


def test_a_run_goes_on_on_another_machine_and_the_store_is_whole_at_every_moment(
    stores, undisturbed, on
):
    with pytest.raises(Stopped):
        remote(interrupted(6, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    stopped = stores.lie(FOLDER)
    assert "result.json" not in stopped and finished(stopped)
    on("another")
    remote()
    assert told(stores.lie(FOLDER).__getitem__) == undisturbed
    (first, second) = parts(stores)
    assert first["start"] == 0 < second["start"]
    local = work_folder("runs", ADDRESS)
    here = {p.relative_to(local).as_posix(): p for p in local.rglob("*") if p.is_file()}
    copied = {name: path.read_bytes() for name, path in here.items() if name[0] != "."}
    assert stores.lie(FOLDER) == copied  # old checkpoints are gone from both

    moments = [stores.lie(FOLDER, then) for then in stores.history]
    assert len(moments) > 200
    assert [found for files in moments for found in broken_promises(files)] == []
    counts = [len(finished(files)) for files in moments]
    assert 0 not in counts[counts.index(1) :]
    # So it goes on elsewhere, wherever its process was killed: here while it was taken up again.
    killed = next(i for i, files in enumerate(moments) if f"{LATEST}/8/{checksums.NAME}" in files)
    stores.files.clear()
    stores.files.update(stores.history[killed - 5])
    del stores.files[f"{FOLDER}/{lease.FILE}"]  # as if it had run out
    on("a third")
    remote()
    assert told(stores.lie(FOLDER).__getitem__) == undisturbed


def test_what_cannot_be_sent_stays_and_is_gone_on_from(stores, undisturbed, monkeypatch):
    def gone(what, name):
        if what == "write" and f"{LATEST}/8/" in name:
            raise ConnectionError("no route to host")

    stores.refuses = gone
    folder = work_folder("runs", ADDRESS)
    with pytest.raises(
        FailedError, match=rf"cannot be written \(no route .* in {folder}, and the "
    ):
        remote()
    assert open_checkpoint(folder).metadata["step"] == 8
    steps = {name.split("/")[2] for name in finished(stores.lie(FOLDER))}
    assert steps == {"4", "5"}
    assert json.loads(stores.files[f"{FOLDER}/{lease.FILE}"])["until"] > time.time()
    # The same machine need not wait until the lease runs out.
    stores.refuses = lambda what, name: None
    remote()
    assert told(stores.lie(FOLDER).__getitem__) == undisturbed
    assert not [*broken_promises(stores.lie(FOLDER))]
    assert [part["start"] for part in parts(stores)] == [0, 8]


def test_what_is_written_again_breaks_no_promise(stores):
    with Mirror(ADDRESS) as mirror:
        checkpoint = mirror.path / f"{LATEST}/4"
        checkpoint.mkdir(parents=True)
        (mirror.path / "config.json").write_text("{}")
        for log, weights in (("1\n2\n", "first"), ("1\n3\n4\n", "second")):
            (mirror.path / LOG).write_text(log)
            (checkpoint / "weights").write_text(weights)
            checksums.write(checkpoint)
            (mirror.path / "stopped.json").write_text(log)
            of = {name: checksums.of_file(mirror.path / name) for name in (LOG, "stopped.json")}
            checksums.write(mirror.path, of)
            mirror.push()
    moments = [stores.lie(FOLDER, then) for then in stores.history]
    assert [found for files in moments for found in broken_promises(files)] == []
    assert moments[-1][LOG] == b"1\n3\n4\n" and moments[-1][f"{LATEST}/4/weights"] == b"second"
    assert {checksums.NAME, f"{LATEST}/4/{checksums.NAME}"} < moments[-1].keys()


def test_a_run_of_which_a_byte_flipped_in_the_store_is_refused(stores, on):
    remote()
    for name, said in (
        ("config.json", "is damaged .config.json is not what was written"),
        (LOG, f"is damaged .{LOG} is not what was written"),
    ):
        whole = stores.files[f"{FOLDER}/{name}"]
        stores.files[f"{FOLDER}/{name}"] = flipped(whole)
        on(f"after {name}")
        with pytest.raises(UserError, match=said):
            remote()
        stores.files[f"{FOLDER}/{name}"] = whole
    names = [n for n in stores.lie(FOLDER) if f"{LATEST}/12/weights" in n]
    largest = max(names, key=lambda name: len(stores.lie(FOLDER)[name]))
    name = f"{FOLDER}/{largest}"
    stores.files[name] = flipped(stores.files[name])
    with pytest.raises(UserError, match=r"latest/12: is damaged \(weights.* is not what was"):
        open_checkpoint(ADDRESS)
    assert open_checkpoint(f"{ADDRESS}/checkpoints/best").metadata["best"]
