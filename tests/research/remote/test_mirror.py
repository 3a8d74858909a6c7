"""Runs whose folder is in a store: whole at every moment, and the bits of any other run."""

import hashlib
import itertools
import json
import os
import shutil
import signal
import time

import pytest
import toys
from toy_runs import CONFIG, data, interrupted

from research.distributed.folder import open_run
from research.errors import FailedError, UserError
from research.record import checksums
from research.remote import lease, store
from research.remote.copies import copied_runs
from research.remote.mirror import Mirror
from research.remote.outputs import sent_at_end
from research.remote.sets import copied_set
from research.remote.store import Store, StoreError, work_folder
from research.training import parallel as parallel_lib
from research.training.checkpoint import open_checkpoint
from research.training.interrupts import Stopped
from research.training.loop import train

ADDRESS, FOLDER = "gs://bucket/runs/a", "bucket/runs/a"
LATEST = "checkpoints/latest"
LOG = "metrics.jsonl"


def run(folder, held=None, saved=lambda: None, experiment=None):
    """Trains the smallest experiment to its end, in a folder of this machine."""
    parallel = parallel_lib.create(CONFIG.parallel, CONFIG.batch_size, CONFIG.accumulate)
    with open_run(folder, "toy", CONFIG, None, held, saved) as record:
        experiment = experiment or toys.experiment(data=data)
        record.finish(train(experiment, CONFIG, parallel, record).result)


def remote(experiment=None):
    with Mirror(ADDRESS) as mirror:
        run(mirror.path, mirror.lock, mirror.push, experiment)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What a run holds that was never disturbed and lies on a disk."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder)
    return told(lambda name: (folder / name).read_bytes())


def told(read):
    """Returns the bits of a finished run's state, and its log."""
    result = json.loads(read("result.json"))
    rows = [json.loads(line) for line in read("metrics.jsonl").splitlines()]
    return result["fingerprint"], [{k: v for k, v in r.items() if k != "seconds"} for r in rows]


def parts(stores):
    return json.loads(stores.lie(FOLDER)["result.json"])["parts"]


@pytest.fixture
def on(monkeypatch, tmp_path):
    """Makes this another machine: its cache is elsewhere."""
    return lambda name: monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))


def finished(files):
    """Returns the checkpoints that have their list."""
    return {n for n in files if n.startswith("checkpoints/") and n.endswith(checksums.NAME)}


def broken_promises(files):
    """Yields what lists promise that is not there, by a plain look at each."""
    for name in [n for n in files if n.rpartition("/")[2] == checksums.NAME]:
        folder = name.removesuffix(checksums.NAME)
        for file, entry in json.loads(files[name])["files"].items():
            content = files.get(folder + file)
            if content is None:
                if file not in ("result.json", "stopped.json"):  # listed before they are written
                    yield f"{folder + file} is missing"
                continue
            if file == "metrics.jsonl":
                content = content[: entry["size"]]
            if hashlib.sha256(content).hexdigest() != entry["sha256"]:
                yield f"{folder + file} differs"


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


def begun():
    """Leaves a run of two files in the store, and returns its folder."""
    with Mirror(ADDRESS) as mirror:
        (mirror.path / "config.json").write_text("{}")
        (mirror.path / LOG).write_text("1\n")
    return mirror.path


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


def test_a_run_that_another_process_writes_is_refused(stores, on):
    begun()
    with Mirror(ADDRESS) as first:
        with pytest.raises(UserError, match="another process is running in it"):
            Mirror(ADDRESS).__enter__()  # on this machine, by its lock
        on("another")
        for _ in range(2):
            with pytest.raises(
                UserError, match=rf"^--workdir={ADDRESS}: process \d+ on .* running"
            ):
                Mirror(ADDRESS).__enter__()
            first.push()
    with Mirror(ADDRESS) as mirror:  # given back at the end
        assert (mirror.path / LOG).read_text() == "1\n"


def test_a_lease_is_given_back_where_a_run_cannot_be_brought(stores):
    begun()
    stores.files[f"{FOLDER}/{checksums.NAME}"] = b"{"
    with pytest.raises(UserError, match=r"is damaged \(checksums.json cannot be read"):
        Mirror(ADDRESS).__enter__()
    assert json.loads(stores.files[f"{FOLDER}/{lease.FILE}"])["until"] < time.time()


def test_a_lease_that_ran_out_is_taken_over_and_its_holder_writes_no_more(stores, on, monkeypatch):
    begun()
    first = Mirror(ADDRESS).__enter__()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + lease.LASTS + 1)
    on("another")
    with Mirror(ADDRESS) as second:
        (second.path / LOG).write_text("1\n2\n")
        (first.path / LOG).write_text("1\n3\n")
        with pytest.raises(FailedError, match=rf"taken it over.* is in {first.path}\.$") as lost:
            first.push()
    first.__exit__(lost.type, lost.value, None)
    assert stores.lie(FOLDER)[LOG] == b"1\n2\n"
    # Back on the first machine, what only it has is put aside, not lost.
    on("machine")
    with Mirror(ADDRESS) as again:
        assert (again.path / LOG).read_text() == "1\n2\n"
    assert (work_folder("aside", ADDRESS) / LOG).read_text() == "1\n3\n"


def test_of_two_that_take_a_free_lease_at_once_one_gets_it(stores, monkeypatch):
    file = f"{FOLDER}/{lease.FILE}"
    by = {"owner": "other", "by": "process 1 on other", "host": "other"}

    def meanwhile(seconds):
        stores.files[file] = json.dumps({**by, "until": time.time() + 60}).encode()

    monkeypatch.setattr(lease.time, "sleep", meanwhile)
    with pytest.raises(UserError, match="process 1 on other is running in it"):
        lease.Lease(Store(ADDRESS), "one").take()


def test_a_lease_is_renewed_while_its_holder_works(stores, monkeypatch):
    monkeypatch.setattr(lease, "RENEWED", 0.01)
    file = f"{FOLDER}/{lease.FILE}"
    held = lease.Lease(Store(ADDRESS), "one")
    held.take()
    first = stores.files[file]
    until = time.monotonic() + 10
    while stores.files[file] == first and time.monotonic() < until:
        time.sleep(0.01)
    held.stop_renewing()
    assert json.loads(stores.files[file])["until"] > json.loads(first)["until"]


def test_a_network_that_is_gone_for_a_moment_is_waited_for(stores):
    failures = iter([ConnectionError("gone"), TimeoutError("gone")])

    def refuse(what, name):
        if LOG in name and (error := next(failures, None)):
            raise error

    stores.refuses = refuse
    begun()
    assert stores.lie(FOLDER)[LOG] == b"1\n"
    assert next(failures, None) is None


def test_what_may_not_be_written_is_said_at_once(stores):
    def refuse(what, name):
        if what == "write":
            raise PermissionError("Access Denied")

    stores.refuses = refuse
    with pytest.raises(
        UserError, match=rf"{ADDRESS}: may not be written \(Access Denied\)"
    ) as error:
        Mirror(ADDRESS).__enter__()
    assert error.value.exit_code == 2


def test_a_folder_that_is_no_run_is_left_alone(stores):
    stores.files[f"{FOLDER}/thesis/chapter.tex"] = b"years of work"
    folder = begun()
    assert not (folder / "thesis").exists()
    assert stores.files[f"{FOLDER}/thesis/chapter.tex"] == b"years of work"


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


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def killed(mirror):
    """Ends a mirror as kill -9 would: nothing is copied, and the lease stays."""
    mirror._lease.stop_renewing()
    mirror.lock.close()


def ahead(log, monkeypatch, after=0.0):
    """Leaves a folder whose log the store does not have, and its lease, which may have run out."""
    mirror = Mirror(ADDRESS).__enter__()
    (mirror.path / "config.json").write_text("{}")
    mirror.push()
    (mirror.path / LOG).write_text(log)
    killed(mirror)
    if after:
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + after)
    return mirror.path


def test_a_start_that_is_cut_off_lets_no_old_work_overwrite_newer(stores, on, monkeypatch):
    ahead("1\nold\n", monkeypatch, after=lease.LASTS + 1)
    on("another")
    with Mirror(ADDRESS) as second:
        (second.path / LOG).write_text("1\nnew\n")
    on("machine")
    with monkeypatch.context() as cut, pytest.raises(StoreError, match="no route"):
        cut.setattr(Store, "files", lambda *_, **__: (_ for _ in ()).throw(StoreError("no route")))
        Mirror(ADDRESS).__enter__()
    with Mirror(ADDRESS) as again:
        assert (again.path / LOG).read_text() == "1\nnew\n"
    assert stores.lie(FOLDER)[LOG] == b"1\nnew\n"
    assert (work_folder("aside", ADDRESS) / LOG).read_text() == "1\nold\n"


def test_going_on_after_a_kill_keeps_what_others_put_below_the_run(stores, on, monkeypatch):
    ahead("1\n2\n", monkeypatch)
    on("another")
    with sent_at_end(f"{ADDRESS}/evaluated") as folder:
        (folder / "result.json").write_text("hours of work")
        checksums.write(folder)
    put = stores.lie(f"{FOLDER}/evaluated")
    on("machine")
    with Mirror(ADDRESS) as again:
        assert (again.path / LOG).read_text() == "1\n2\n"
    assert stores.lie(f"{FOLDER}/evaluated") == put and len(put) == 2
    assert stores.lie(FOLDER)[LOG] == b"1\n2\n"


def test_no_folder_of_this_machine_lies_within_that_of_another_address(stores):
    with Mirror(ADDRESS) as outer:
        (outer.path / "config.json").write_text("{}")
    inner = Mirror(f"{ADDRESS}/b").__enter__()
    (inner.path / "config.json").write_text("{}")
    (inner.path / LOG).write_text("not sent yet\n")
    killed(inner)
    with sent_at_end(f"{ADDRESS}/evaluated") as folder:
        (folder / "rows.jsonl").write_text("half")
        with Mirror(ADDRESS) as outer:
            outer.push()
            assert not stores.lie(f"{FOLDER}/evaluated")
        (folder / "rows.jsonl").write_text("whole")
    assert stores.lie(f"{FOLDER}/evaluated") == {"rows.jsonl": b"whole"}
    assert (inner.path / LOG).read_text() == "not sent yet\n"
    # Data sets have a place that no comparison of runs clears.
    stores.files["bucket/sets/x/1.0.0/features.json"] = b"{}"
    root = copied_set("gs://bucket/sets", "x")
    copied_runs("gs://bucket/*")
    assert (root / "x/1.0.0/features.json").exists()


def test_a_push_that_stood_still_writes_no_more(stores, on, monkeypatch):
    first = Mirror(ADDRESS).__enter__()
    (first.path / "config.json").write_text("{}")
    first.push()
    for name in (LOG, "a", "b", "stopped.json"):
        (first.path / name).write_text("old")
    monkeypatch.setattr(store, "AT_ONCE", 1)

    def stands_still(what, name):
        if what == "write" and name == f"{FOLDER}/b":
            stores.refuses = lambda what, name: None
            now = time.time()
            monkeypatch.setattr(time, "time", lambda: now + lease.LASTS + 1)
            on("another")
            with Mirror(ADDRESS) as second:
                for kept in (LOG, "stopped.json"):
                    (second.path / kept).write_text("new")

    stores.refuses = stands_still
    with pytest.raises(FailedError, match="has taken it over"):
        first.push()
    killed(first)
    files = stores.lie(FOLDER)
    assert files.pop("b") == b"old"  # was on its way
    assert files == {"config.json": b"{}", "a": b"old", LOG: b"new", "stopped.json": b"new"}


def test_a_listing_that_fails_once_loses_nothing(stores, on):
    with Mirror(ADDRESS) as mirror:
        checkpoint = mirror.path / f"{LATEST}/4"
        checkpoint.mkdir(parents=True)
        (mirror.path / "config.json").write_text("{}")
        (mirror.path / LOG).write_text("1\n")
        (checkpoint / "weights").write_text("w")
        checksums.write(checkpoint)
    whole = stores.lie(FOLDER)
    number, failed = 0, True
    while failed:
        calls, failed = itertools.count(), False

        def refuse(what, name, calls=calls, number=number):
            nonlocal failed
            if what == "list" and next(calls) == number:
                failed = True
                raise ConnectionError("gone for a moment")

        stores.refuses = refuse
        with Mirror(ADDRESS) as mirror:
            assert {n: (mirror.path / n).read_bytes() for n in whole} == whole, number
        assert stores.lie(FOLDER) == whole, number
        number += 1
    assert number > 5


def test_what_lies_in_the_store_and_cannot_be_fetched_is_no_run_that_begins_anew(
    stores, monkeypatch
):
    path = begun()
    monkeypatch.setattr(Store, "fetch", lambda store, name, file: name != LOG)
    (path / LOG).unlink()
    with pytest.raises(StoreError, match=rf"^{ADDRESS}: {LOG} is there, and cannot be read"):
        Mirror(ADDRESS).__enter__()
    assert stores.lie(FOLDER)[LOG] == b"1\n"


def test_the_lease_is_renewed_while_the_last_files_are_copied(stores, monkeypatch):
    monkeypatch.setattr(lease, "RENEWED", 0.01)
    file = f"{FOLDER}/{lease.FILE}"
    renewed = []

    def slow(what, name):
        if what == "write" and name == f"{FOLDER}/{LOG}":
            first, until = stores.files[file], time.monotonic() + 5
            while stores.files[file] == first and time.monotonic() < until:
                time.sleep(0.01)
            renewed.append(stores.files[file] != first)

    stores.refuses = slow
    begun()
    assert renewed and all(renewed)
    assert json.loads(stores.files[file])["until"] == 0


def test_a_copy_of_a_machine_is_another_holder(stores, on, monkeypatch, tmp_path):
    with Mirror(ADDRESS) as first:
        (first.path / "config.json").write_text("{}")
        first.push()
        shutil.copytree(tmp_path / "machine", tmp_path / "clone")
        on("clone")
        with monkeypatch.context() as there:
            there.setattr(lease.socket, "gethostname", lambda: "clone")
            with pytest.raises(UserError, match="is running in it"):
                Mirror(ADDRESS).__enter__()
        first.push()


def test_where_the_work_is_is_said_when_credentials_expire(stores):
    def expired(what, name):
        if what == "write" and lease.FILE not in name:
            raise PermissionError("ExpiredToken")

    with Mirror(ADDRESS) as mirror:
        (mirror.path / "config.json").write_text("{}")
        stores.refuses = expired
        said = rf"may not be written \(ExpiredToken\); what was made is in {mirror.path}, and the"
        with pytest.raises(UserError, match=said):
            mirror.push()
        stores.refuses = lambda what, name: None
