import functools
import itertools
import json
import os
import random
import shutil
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import toys

from research.errors import UserError
from research.record import checksums
from research.record.checksums import DamagedError
from research.training import checkpoint as checkpoint_lib
from research.training import parallel as parallel_lib
from research.training.checkpoint import damage, open_checkpoint, steps
from research.training.checkpointer import Checkpointer

METADATA = {"experiment": "toy", "config": {}, "facts": {}, "metrics": {"a": 1.0}, "seconds": 1.0}


@functools.cache
def first_state(averaged, optimizer):
    return toys.new_state(toys.experiment(optimizer=optimizer), averaged)


def make_state(averaged=True, step=0, optimizer=optax.adamw(1e-3)):  # noqa: B008 (one for all)
    return first_state(averaged, optimizer)._replace(step=jnp.int32(step))


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("averaged", [True, False])
def test_a_checkpoint_of_eight_devices_opens_on_one_and_gives_back_every_bit(tmp_path, averaged):
    state = make_state(averaged, step=3)
    with Checkpointer(tmp_path / "checkpoints", keep=2) as checkpointer:
        checkpointer.save(parallel_lib.create("jit", 8).put(state), METADATA, best=False)
        checkpointer.wait()
        restored, metadata = checkpointer.restore(make_state(averaged))
    equal(state, restored)
    assert jax.tree.structure(state) == jax.tree.structure(restored)
    assert metadata["step"] == 3 and metadata["schema"] == checkpoint_lib.SCHEMA
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(restored))
    opened = open_checkpoint(tmp_path)
    equal(dict(opened.variables), dict(state.variables))
    assert opened.metadata["experiment"] == "toy"


def test_the_latest_are_kept_apart_from_the_best(tmp_path):
    with Checkpointer(tmp_path, keep=2) as checkpointer:
        for step in (1, 2, 3, 4):
            checkpointer.save(make_state(step=step), METADATA, best=step in (1, 2))
        checkpointer.wait()
        assert checkpointer.best_metrics() == {"a": 1.0}
    names = lambda folder: sorted(path.name for path in (tmp_path / folder).iterdir())
    assert names("latest") == ["3", "4"] and names("best") == ["2"]
    assert open_checkpoint(tmp_path).metadata["step"] == 4
    assert open_checkpoint(tmp_path / "best").metadata["step"] == 2
    assert open_checkpoint(tmp_path / "latest" / "3").metadata["step"] == 3


def test_a_best_checkpoint_that_a_killed_process_did_not_put_aside_is_not_lost(tmp_path):
    with Checkpointer(tmp_path, keep=2) as checkpointer:
        for step in (1, 2):
            checkpointer.save(make_state(step=step), METADATA, best=True)
        checkpointer.wait()
    # Killed between writing number 2 and putting it aside, and again while doing so.
    (tmp_path / "best" / "2").rename(tmp_path / "best" / ".2")
    with Checkpointer(tmp_path, keep=1) as checkpointer:
        checkpointer.save(make_state(step=3), METADATA, best=False)
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["2"]
    assert [path.name for path in (tmp_path / "latest").iterdir()] == ["3"]
    equal(dict(open_checkpoint(tmp_path / "best").variables), dict(make_state().variables))


def test_a_half_written_checkpoint_is_passed_over(tmp_path):
    with Checkpointer(tmp_path, keep=3) as checkpointer:
        for step in (1, 2):
            checkpointer.save(make_state(step=step), METADATA, best=False)
        checkpointer.wait()
    # What a process killed while saving leaves behind on file systems with and without rename.
    (tmp_path / "latest" / "2").rename(tmp_path / "latest" / "2.orbax-checkpoint-tmp")
    assert open_checkpoint(tmp_path).metadata["step"] == 1
    with Checkpointer(tmp_path, keep=3) as checkpointer:
        assert checkpointer.restore(make_state())[1]["step"] == 1


def set_schema(path, schema):
    """Makes a checkpoint one of another version; its list of files is as then."""
    file = path / "metadata" / "metadata"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema": schema}))
    (path / checksums.NAME).unlink(missing_ok=True)
    if schema > 2:
        checksums.write(path)


def test_a_newer_schema_is_refused(tmp_path):
    with Checkpointer(tmp_path, keep=1) as checkpointer:
        checkpointer.save(make_state(step=1), METADATA, best=False)
    set_schema(tmp_path / "latest" / "1", 99)
    with pytest.raises(UserError, match=r"newer version .schema 99"):
        open_checkpoint(tmp_path)


def test_a_checkpoint_of_another_optimizer_is_refused_in_one_line(tmp_path):
    with Checkpointer(tmp_path, keep=1) as checkpointer:
        checkpointer.save(make_state(step=1), METADATA, best=False)
        checkpointer.wait()
        with pytest.raises(
            UserError, match=r"do not fit .*opt_state/0/count is int32\[\]"
        ) as error:
            checkpointer.restore(make_state(optimizer=optax.sgd(0.1, momentum=0.9)))
    assert "\n" not in str(error.value) and not isinstance(error.value, DamagedError)


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_where_there_is_no_checkpoint_the_path_is_named(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=name):
        open_checkpoint(tmp_path / name)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run's checkpoints of steps 1 and 2, the first of which is the best."""
    folder = tmp_path_factory.mktemp("saved")
    with Checkpointer(folder, keep=2) as checkpointer:
        for step in (1, 2):
            checkpointer.save(make_state(step=step), METADATA, best=step == 1)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def flip(file, rng):
    """Flips one random bit."""
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def weights_file(path):
    """The largest file of the weights."""
    files = [file for file in (path / "weights").rglob("*") if file.is_file()]
    return max(files, key=lambda file: file.stat().st_size)


def cut(file):
    """Takes away the second half of a file."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_one_bit_that_flipped_anywhere_is_noticed(copy):
    rng, path = random.Random(0), copy / "latest" / "2"
    files = [file for file in path.rglob("*") if file.is_file()]
    assert len(files) > 20 and path / checksums.NAME in files
    for file in files:
        intact = file.read_bytes()
        for _ in range(4):
            flip(file, rng)
            with pytest.raises(DamagedError, match=f"{path}: is damaged") as error:
                open_checkpoint(copy)
            if file.name != checksums.NAME:
                assert str(file.relative_to(path)) in str(error.value)
            file.write_bytes(intact)
    assert open_checkpoint(copy).metadata["step"] == 2


@pytest.mark.parametrize("harm", [cut, lambda file: file.unlink()], ids=["cut", "missing"])
def test_training_goes_on_from_the_one_before_a_damaged_one_and_says_so(copy, capsys, harm):
    harm(weights_file(copy / "latest" / "2"))
    with pytest.raises(DamagedError, match=r"latest/2: is damaged \(weights/.*"):
        open_checkpoint(copy)
    with Checkpointer(copy, keep=2) as checkpointer:
        state, metadata = checkpointer.restore(make_state())
        assert metadata["step"] == state.step == 1
        said = capsys.readouterr().out
        assert "latest/2: is damaged (weights/" in said and "Going on from latest/1." in said
        checkpointer.save(make_state(step=2), METADATA, best=False)
    assert open_checkpoint(copy).metadata["step"] == 2


def test_the_best_is_a_copy_and_is_gone_on_from_where_no_other_is_intact(copy, capsys):
    for step in (1, 2):
        cut(weights_file(copy / "latest" / str(step)))
    assert open_checkpoint(copy / "best").metadata["step"] == 1
    with Checkpointer(copy, keep=2) as checkpointer:
        assert checkpointer.restore(make_state())[1]["step"] == 1
        said = capsys.readouterr().out
        assert said.count("damaged") == 2 and said.count("Going on from best/1.") == 2
        # A step that comes before damaged ones takes their place as the newest.
        shutil.rmtree(copy / "latest" / "1")
        checkpointer.save(make_state(step=1), METADATA, best=False)
        checkpointer.wait()
        assert [path.name for path in (copy / "latest").iterdir()] == ["1"]
        cut(weights_file(copy / "latest" / "1"))
        cut(weights_file(copy / "best" / "1"))
        with pytest.raises(DamagedError, match=r"None that was saved is intact; .*begin anew"):
            checkpointer.restore(make_state())


def test_a_damaged_best_is_copied_again_or_given_up(copy, capsys):
    cut(copy / "best" / "1" / "metadata" / "metadata")
    with Checkpointer(copy, keep=2) as checkpointer:
        assert checkpointer.best_metrics() == {"a": 1.0}
    said = capsys.readouterr().out
    assert "best/1: is damaged" in said and "latest/1 takes its place" in said
    assert open_checkpoint(copy / "best").metadata["step"] == 1
    for folder in ("best", "latest"):
        cut(weights_file(copy / folder / "1"))
    with Checkpointer(copy, keep=2) as checkpointer:
        assert checkpointer.best_metrics() == {}
        assert "the next evaluation takes its place" in capsys.readouterr().out
        checkpointer.save(make_state(step=3), METADATA, best=True)
    assert [path.name for path in (copy / "best").iterdir()] == ["3"]


def test_a_checkpoint_without_its_list_is_unfinished_unless_it_is_of_old(copy):
    one, two = copy / "latest" / "1", copy / "latest" / "2"
    (two / checksums.NAME).unlink()
    assert open_checkpoint(copy).metadata["step"] == 1
    with pytest.raises(UserError, match="latest/2: is no checkpoint, or an unfinished one"):
        open_checkpoint(two)
    for path in (one, two):
        set_schema(path, 1)
    assert open_checkpoint(copy).metadata["schema"] == 1
    with Checkpointer(copy, keep=2) as checkpointer:
        assert checkpointer.restore(make_state())[1]["step"] == 2
        cut(weights_file(two))
        assert checkpointer.restore(make_state())[1]["step"] == 1
    with pytest.raises(DamagedError, match=r"latest/2: is damaged \(weights cannot be read"):
        open_checkpoint(copy)
    cut(two / "metadata" / "metadata")
    with pytest.raises(DamagedError, match=r"latest/2: is damaged \(metadata"):
        open_checkpoint(copy)


class Killed(BaseException):
    """Stands for kill -9."""


def killed_at(number, monkeypatch):
    """Stops before the operation on files of that number, or in the middle of it."""
    seen, under_way = [], []

    def stopping(name, real):
        def operation(path, *arguments, **options):
            if under_way or not threading.current_thread().name.startswith("checkpoint"):
                return real(path, *arguments, **options)
            seen.append(name)
            if len(seen) == number:
                # At worst the list is copied first, and removed last.
                for file in [file for file in Path(path).rglob("*") if file.is_file()]:
                    if name == "rmtree" and file.name != checksums.NAME:
                        os.unlink(file)
                    if name == "copytree" and file.name == checksums.NAME:
                        arguments[0].mkdir(parents=True)
                        (arguments[0] / file.name).write_bytes(file.read_bytes())
                raise Killed
            under_way.append(name)
            try:
                return real(path, *arguments, **options)
            finally:
                under_way.pop()

        return operation

    for owner, names in ((shutil, ("copytree", "rmtree")), (Path, ("rename", "unlink"))):
        for name in names:
            monkeypatch.setattr(owner, name, stopping(name, getattr(owner, name)))
    monkeypatch.setattr(os, "replace", stopping("replace", os.replace))


def test_a_process_killed_at_any_moment_leaves_whole_checkpoints_and_unfinished_ones(
    saved, tmp_path
):
    intact = lambda folder: [step for step in steps(folder) if not damage(folder / str(step))]

    def written(_, path, **__):
        """What Orbax leaves of step 3, without the time that it takes."""
        shutil.copytree(saved / "latest" / "1", path)
        os.unlink(path / checksums.NAME)
        metadata = json.loads((path / "metadata" / "metadata").read_text())
        (path / "metadata" / "metadata").write_text(json.dumps({**metadata, "step": 3}))

    finished = False
    for number in itertools.count(1):
        folder = shutil.copytree(saved, tmp_path / str(number))
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(ocp.AsyncCheckpointer, "save", written)
            killed_at(number, monkeypatch)
            try:
                with Checkpointer(folder, keep=2) as checkpointer:
                    checkpointer.save(make_state(step=3), METADATA, best=True)
                finished = True
            except Killed:
                pass
        latest, best = steps(folder / "latest"), steps(folder / "best")
        assert latest[-1] in (2, 3) and intact(folder / "latest") == latest, number
        assert best[-1] in (1, 3) and intact(folder / "best") == best, number
        with Checkpointer(folder, keep=2):  # the next process
            assert steps(folder / "best")[-1] == (3 if latest[-1] == 3 else 1)
        if finished:
            break
    assert number > 5 and latest == [2, 3] and best == [3]
