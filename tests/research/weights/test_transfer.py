import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from research.data.images.preprocessing import Preprocessing
from research.data.sources.examples import Arrays
from research.data.sources.source import Source
from research.errors import UserError
from research.experiment import Data
from research.models import Entry
from research.nn.forward import forward
from research.record.run_folder import RunFolder
from research.training import optimizers
from research.training import parallel as parallel_lib
from research.training.checkpoint import open_checkpoint
from research.training.config import TrainingConfig
from research.training.loop import train
from research.weights import transfer
from research.weights.naming import out_of
from research.weights.trained import Trained, channels_of, open_trained, trained_on


def trained_tensors(classes=7):
    """Weights of the toy network, for another number of classes, as PyTorch would name them."""
    rng = np.random.default_rng(0)
    return {
        "Conv_0.weight": rng.normal(size=(8, 3, 3, 3)).astype("f"),
        "bn.weight": rng.normal(size=8).astype("f"),
        "bn.bias": rng.normal(size=8).astype("f"),
        "bn.running_mean": rng.normal(size=8).astype("f"),
        "bn.running_var": rng.uniform(1, 2, size=8).astype("f"),
        "Dense_0.weight": rng.normal(size=(classes, 8)).astype("f"),
        "Dense_0.bias": rng.normal(size=classes).astype("f"),
    }


@pytest.fixture
def variables():
    return toys.Net().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


def test_a_head_for_other_classes_starts_fresh_and_the_rest_is_loaded(variables):
    state = trained_tensors()
    trained = Trained("w.safetensors", state, Preprocessing((8, 8)))
    start = transfer.start_from(trained, variables)
    assert not start.is_loaded("Dense_0/kernel") and start.is_loaded("Conv_0/kernel")
    started = start.fill(variables)
    kernel = state["Conv_0.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(started["params"]["Conv_0"]["kernel"], kernel)
    np.testing.assert_array_equal(started["batch_stats"]["bn"]["var"], state["bn.running_var"])
    np.testing.assert_array_equal(
        started["params"]["Dense_0"]["kernel"], variables["params"]["Dense_0"]["kernel"]
    )


def test_what_is_loaded_learns_at_its_own_rate():
    rate = transfer.rates(transfer.InitialWeights(dict, "body/kernel".__eq__), 0.1)
    optimizer, _ = optimizers.from_config(
        TrainingConfig(
            optimizer="sgd", learning_rate=1.0, schedule="constant", warmup=0.0, weight_decay=0.0
        ),
        10,
        rate=rate,
    )
    params = {"head": {"kernel": jnp.ones((2, 2))}, "body": {"kernel": jnp.ones((2, 2))}}
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    np.testing.assert_allclose(updates["head"]["kernel"], -1.0)
    np.testing.assert_allclose(updates["body"]["kernel"], -0.1, rtol=1e-6)
    assert transfer.rates(None, 0.1) is None


def test_frozen_layers_keep_every_bit_and_their_statistics(tmp_path):
    """A whole run: only the head moves, whatever weight decay and batch statistics would do."""
    frozen = transfer.matcher("Conv_0|bn")
    config = TrainingConfig(steps=4, batch_size=16, parallel="single", weight_decay=0.1)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(32, 8, 8, 3)).astype("f")
    arrays = Arrays({"image": images, "label": rng.integers(0, 5, 32).astype("i")})
    base = toys.experiment(data=lambda: Data(Source(arrays, 16, 0), {"test": Source(arrays, 16)}))

    def loss(variables, batch, key, axis):
        logits, state = forward(
            toys.Net(dropout=0.0),
            variables,
            batch["image"],
            train=True,
            key=key,
            axis=axis,
            frozen=frozen,
        )
        ce = -jnp.take_along_axis(nn.log_softmax(logits), batch["label"][:, None], 1)[:, 0]
        return ce, state, {}

    optimizer, _ = optimizers.from_config(config, 4, frozen)
    experiment = toys.replaced(base, loss=loss, optimizer=optimizer)
    parallel = parallel_lib.create("single", 16)
    before = jax.device_get(toys.new_state(experiment))
    with RunFolder(tmp_path, "toy", config) as run:
        train(experiment, config, parallel, run)
    after = open_checkpoint(tmp_path).variables
    for layer in ("Conv_0", "bn"):
        jax.tree.map(np.testing.assert_array_equal, before.params[layer], after["params"][layer])
    jax.tree.map(
        np.testing.assert_array_equal, before.model_state["batch_stats"], after["batch_stats"]
    )
    assert np.any(before.params["Dense_0"]["kernel"] != after["params"]["Dense_0"]["kernel"])


@pytest.mark.parametrize(
    ("pattern", "said"), [("conv9", "matches no parameter"), (".", "matches every parameter")]
)
def test_a_pattern_that_freezes_nothing_or_everything_is_refused(variables, pattern, said):
    optimizer, _ = optimizers.from_config(TrainingConfig(), 10, transfer.matcher(pattern))
    with pytest.raises(UserError, match=said):
        optimizer.init(variables["params"])


def test_what_is_no_regular_expression_is_refused():
    with pytest.raises(UserError, match=r"--freeze=\(: is no regular expression"):
        transfer.matcher("(")


class Headed(nn.Module):
    """The toy network below another head, as detectors have a backbone."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="head")(toys.Net(name="backbone")(x))


def test_a_run_of_one_s_own_gives_its_weights(tmp_path, capsys):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (32, 8, 8, 3), np.uint8).astype("f")
    arrays = Arrays({"image": images, "label": rng.integers(0, 5, 32).astype("i")})
    kept = Preprocessing((8, 8), 3, "stretch", mean=(9.0,), std=(2.0,))
    experiment = toys.experiment(
        data=lambda: Data(Source(arrays, 16, 0), {"test": Source(arrays, 16)})
    )._replace(facts={"preprocessing": kept.to_json()})
    config = TrainingConfig(steps=1, batch_size=16, parallel="single")
    with RunFolder(tmp_path, "toy", config) as run:
        train(experiment, config, parallel_lib.create("single", 16), run)
    told = open_trained(str(tmp_path), "anything")
    assert told.preprocessing == kept and f"weights of {tmp_path}" in capsys.readouterr().out
    assert channels_of(str(tmp_path), Entry(nn.Module, 8, channels=1)) == 3
    assert trained_on(str(tmp_path))[1].endswith("does not say what it was trained on")

    after = open_checkpoint(tmp_path).variables
    fresh = toys.Net().init(jax.random.key(7), jnp.zeros((1, 8, 8, 3)))
    jax.tree.map(
        np.testing.assert_array_equal, transfer.start_from(told, fresh).fill(fresh), dict(after)
    )
    # As a backbone, and of a model that has one.
    headed = Headed().init(jax.random.key(8), jnp.zeros((1, 8, 8, 3)))
    started = transfer.start_from(told, headed, "backbone").fill(headed)
    jax.tree.map(np.testing.assert_array_equal, started["params"]["backbone"], after["params"])
    assert started["params"]["head"] == headed["params"]["head"]
    other = Trained("run", out_of(headed), kept)
    start = transfer.start_from(other, headed, "backbone")
    assert start.is_loaded("head/kernel") and start.is_loaded("backbone/Conv_0/kernel")
    params = {"backbone": headed["params"]["backbone"], "another": headed["params"]["head"]}
    other = Trained("run", out_of({**headed, "params": params}), kept)
    again = transfer.start_from(other, headed, "backbone")
    assert not again.is_loaded("head/kernel") and again.is_loaded("backbone/Conv_0/kernel")


@pytest.mark.parametrize(("init_as", "message"), [("resnet50", "a run says"), ("", "no finished")])
def test_a_folder_that_is_no_run_is_named(init_as, message, tmp_path):
    with pytest.raises(UserError, match=message):
        open_trained(str(tmp_path), "resnet18", init_as)
