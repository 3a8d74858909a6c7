"""One writer of a run in a store: whoever comes second, too late, or on a copy of the machine."""

import json
import shutil
import time

import pytest
from mirrored import ADDRESS, FOLDER, LOG, ahead, begun, killed

from research.errors import FailedError, UserError
from research.record import checksums
from research.remote import lease, store
from research.remote.mirror import Mirror
from research.remote.store import Store, StoreError, work_folder


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
