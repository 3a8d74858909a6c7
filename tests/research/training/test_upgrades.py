"""Weights of older checkpoints under today's names."""

import jax.numpy as jnp
import numpy as np
import pytest
import toys

from research.errors import UserError
from research.training.checkpoint import open_checkpoint
from research.training.checkpointer import Checkpointer
from research.training.upgrades import upgrade

OLD = {
    "params": {"head0_conv": {"kernel": 1.0}, "head0_bn": {"scale": 2.0}},
    "model_state": {"batch_stats": {"head0_bn": {"mean": 3.0}, "stem": {"mean": 4.0}}},
}


def metadata(*strides, experiment="detection"):
    return {"experiment": experiment, "config": {"strides": list(strides)}}


def test_a_head_s_shared_normalisation_is_copied_to_each_stride():
    new, said = upgrade(OLD, metadata("8", "16"))
    assert "shared one batch normalisation" in said and "train anew" in said
    assert new == {
        "params": {
            "head0_conv": {"kernel": 1.0},
            "head0_bn_stride8": {"scale": 2.0},
            "head0_bn_stride16": {"scale": 2.0},
        },
        "model_state": {
            "batch_stats": {
                "head0_bn_stride8": {"mean": 3.0},
                "head0_bn_stride16": {"mean": 3.0},
                "stem": {"mean": 4.0},
            }
        },
    }
    assert upgrade(new, metadata("8", "16")) == (new, "")


@pytest.mark.parametrize("described", [metadata("8"), metadata("8", "16", experiment="captioning")])
def test_other_checkpoints_stay_as_they_are(described):
    assert upgrade(OLD, described) == (OLD, "")


def test_an_old_checkpoint_on_several_strides_opens_and_is_not_trained_on(tmp_path, capsys):
    state = toys.new_state(toys.experiment())
    head = {"scale": jnp.ones(3)}
    state = state._replace(step=jnp.int32(1), params={**state.params, "head0_bn": head})
    with Checkpointer(tmp_path / "checkpoints", keep=1) as checkpointer:
        checkpointer.save(state, {**metadata("4", "8"), "metrics": {}}, best=False)
        checkpointer.wait()
        with pytest.raises(UserError, match=r"shared one batch .* in another --workdir"):
            checkpointer.restore(state)
    opened = open_checkpoint(tmp_path)
    assert {"head0_bn_stride4", "head0_bn_stride8"} < set(opened.variables["params"])
    np.testing.assert_array_equal(opened.variables["params"]["head0_bn_stride8"]["scale"], 1.0)
    assert "train anew" in " ".join(capsys.readouterr().out.split())
