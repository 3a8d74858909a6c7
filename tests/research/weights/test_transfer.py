import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from research.data.preprocessing import Preprocessing
from research.data.source import Arrays, Source
from research.errors import UserError
from research.experiment import Data
from research.forward import forward
from research.record import RunFolder
from research.training import optimizers
from research.training import parallel as parallel_lib
from research.training.config import TrainingConfig
from research.training.loop import train
from research.weights import transfer
from research.weights.trained import Trained


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
    rate = transfer.rates(transfer.Start(dict, "body/kernel".__eq__), 0.1)
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
    from research.training.checkpoint import open_checkpoint

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
