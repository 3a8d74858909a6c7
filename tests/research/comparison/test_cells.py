"""Cells: one process at a time, and a reason for each that failed."""

import json
import os
import subprocess
import sys

import pytest

from research.comparison.cells import (
    Cell,
    Failure,
    claimed,
    died,
    failure_from,
    failure_of,
    forget_failures,
    record,
)
from research.errors import NotFiniteError, UserError

# Holds a folder's lock as `claimed` does, until it is killed; without importing JAX.
HOLD = """
import fcntl, os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True)
with open(folder / ".lock", "a+") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    file.write(str(os.getpid()))
    file.flush()
    print("held", flush=True)
    time.sleep(300)
"""


def cell_in(folder, seed=0):
    return Cell("sgd", seed, folder / "sgd" / f"seed={seed}")


def test_a_cell_is_free_until_it_is_done_or_failed(tmp_path):
    cell = cell_in(tmp_path)
    assert cell.is_free and not cell.is_done and failure_of(cell.folder) is None
    cell.folder.mkdir(parents=True)
    record(cell.folder, Failure("error", "why"))
    assert failure_of(cell.folder) == Failure("error", "why") and not cell.is_free
    (cell.folder / "result.json").write_text("{}")  # it was tried again, and ended well
    assert failure_of(cell.folder) is None and cell.is_done and not cell.is_free


def test_only_one_holds_a_cell(tmp_path):
    cell, other = cell_in(tmp_path), cell_in(tmp_path, 1)
    with claimed(cell) as first, claimed(cell) as second, claimed(other) as third:
        assert first is not None and second is None and third is not None
    (cell.folder / ".lock").write_text("123")  # as a process leaves it that died
    with claimed(cell) as again:
        assert again is not None
        assert (cell.folder / ".lock").read_text() == str(os.getpid())


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (NotFiniteError("the loss is nan at step 3"), "not_finite", "the loss is nan at step 3"),
        (UserError("the data have changed"), "error", "the data have changed"),
        (ValueError("two\nlines"), "error", "ValueError: two lines"),
        (AssertionError(), "error", "AssertionError"),
        (MemoryError(), "out_of_memory", "MemoryError"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 4 bytes"), "out_of_memory", ""),
    ],
)
def test_a_failure_says_of_what_kind_it_is(error, kind, said):
    failure = failure_from(error)
    assert failure.kind == kind and failure.reason.startswith(said) and "\n" not in failure.reason
    assert failure.is_final == (kind == "not_finite")
    assert bool(failure.traceback) != isinstance(error, UserError)


def test_failures_that_need_not_repeat_are_forgotten(tmp_path):
    cells = [cell_in(tmp_path, seed) for seed in range(3)]
    for cell, kind in zip(cells, ("not_finite", "died", "out_of_memory"), strict=True):
        cell.folder.mkdir(parents=True)
        record(cell.folder, Failure(kind, "why"))
    with claimed(cells[2]):  # is being tried by another process just now
        forget_failures(cells)
    assert [cell.is_free for cell in cells] == [False, True, False]


def test_the_cell_of_a_process_that_died_is_found_and_recorded(tmp_path):
    cells = [cell_in(tmp_path, seed) for seed in range(2)]
    with subprocess.Popen([sys.executable, "-c", HOLD, cells[1].folder], stdout=-1) as process:
        process.stdout.readline()
        with claimed(cells[1]) as claim:
            assert claim is None
        process.kill()
    assert died(cells, process.pid, "killed") == cells[1]
    assert failure_of(cells[1].folder) == Failure("died", "killed")
    assert died(cells, process.pid, "killed") is None  # once
    with claimed(cells[0]):
        pass  # ended well, and so leaves no trace of this process
    assert died(cells, os.getpid(), "killed") is None


def test_a_failure_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "failure.json").write_text(json.dumps({"sort": "error"}))
    with pytest.raises(UserError, match=r"failure\.json: cannot be read"):
        failure_of(tmp_path)
