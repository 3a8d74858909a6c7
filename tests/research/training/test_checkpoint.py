import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toys

from research.errors import UserError
from research.training import checkpoint as checkpoint_lib
from research.training import parallel as parallel_lib
from research.training.checkpoint import Checkpointer, open_checkpoint

METADATA = {"experiment": "toy", "config": {}, "facts": {}, "metrics": {"a": 1.0}, "seconds": 1.0}


def make_state(averaged=True, step=0, optimizer=None):
    experiment = toys.experiment(optimizer=optimizer or optax.adamw(1e-3))
    state = toys.new_state(experiment, averaged)
    return state._replace(step=jnp.int32(step))


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


def test_a_newer_schema_is_refused(tmp_path):
    with Checkpointer(tmp_path, keep=1) as checkpointer:
        checkpointer.save(make_state(step=1), METADATA, best=False)
    file = tmp_path / "latest" / "1" / "metadata" / "metadata"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema": 99}))
    with pytest.raises(UserError, match=r"newer version .schema 99"):
        open_checkpoint(tmp_path)


def test_a_checkpoint_of_another_optimizer_is_refused_in_one_line(tmp_path):
    with Checkpointer(tmp_path, keep=1) as checkpointer:
        checkpointer.save(make_state(step=1), METADATA, best=False)
        checkpointer.wait()
        with pytest.raises(UserError, match="do not fit") as error:
            checkpointer.restore(make_state(optimizer=optax.sgd(0.1, momentum=0.9)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_where_there_is_no_checkpoint_the_path_is_named(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=name):
        open_checkpoint(tmp_path / name)
