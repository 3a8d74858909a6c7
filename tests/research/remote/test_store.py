"""A store that fails, refuses or holds what is not the run's: nothing is lost."""

import itertools

import pytest
from mirrored import ADDRESS, FOLDER, LATEST, LOG, ahead, begun, killed

from research.errors import UserError
from research.record import checksums
from research.remote import lease
from research.remote.copies import copied_runs
from research.remote.mirror import Mirror
from research.remote.outputs import sent_at_end
from research.remote.sets import copied_set
from research.remote.store import Store, StoreError


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


def test_a_folder_that_is_no_run_is_left_alone(stores):
    stores.files[f"{FOLDER}/thesis/chapter.tex"] = b"years of work"
    folder = begun()
    assert not (folder / "thesis").exists()
    assert stores.files[f"{FOLDER}/thesis/chapter.tex"] == b"years of work"


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
