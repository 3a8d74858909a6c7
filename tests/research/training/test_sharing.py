"""What devices share out and exchange: messages counted, bytes measured, results the same."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toys

from research.errors import UserError
from research.hardware.collectives import count_collectives
from research.hardware.target import compiled_for
from research.nn.normalisation import BatchNorm
from research.random import step_key, stream
from research.training import parallel as parallel_lib
from research.training.config import TrainingConfig
from research.training.programs import train_steps

BATCHES = toys.batches(3)
# A state of the parameters' size, and a norm over all of them.
CLIPPED = optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1, momentum=0.9))


def trained(shard="none", mode="jit", own=False, batches=BATCHES, optimizer=None):
    """The state after a step on each batch, its first shardings, and the compiled program."""
    experiment = toys.experiment(optimizer or CLIPPED)
    parallel = parallel_lib.create(mode, 16, shard=shard, by_device=own)
    state = parallel.put(toys.new_state(experiment))
    steps = train_steps(experiment.training, TrainingConfig(), parallel)
    step = parallel.compile(steps, state, parallel.put_batch(batches[0]))
    first = state
    for batch in batches:
        (state, _), _ = step(state, parallel.put_batch(batch))
    return state, first, step


def alike(a, b):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6),
        jax.device_get(a),
        jax.device_get(b),
    )


def bytes_a_device(tree):
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def whole():
    return trained()


@pytest.mark.parametrize("shard", ["state", "params"])
def test_shared_out_is_the_same_state_in_less_memory(shard, whole):
    state, first, _ = trained(shard)
    alike(state, whole[0])
    for now in (first, state):  # as it was placed, and as a step returns it
        assert bytes_a_device(now.opt_state) < 0.3 * bytes_a_device(whole[0].opt_state)
        shared = bytes_a_device(now.params) < 0.3 * bytes_a_device(whole[0].params)
        assert shared == (shard == "params")


def test_statistics_of_the_whole_batch_are_one_message_each_way(whole):
    alike(trained(mode="single")[0], whole[0])
    found, _ = count_collectives(whole[2].as_text())
    gathered = found["all-gather"]
    # Mean and variance of 8 channels from each of 8 devices. (And without padding's first row.)
    assert gathered.number == 1 and gathered.bytes == 8 * 2 * 8 * 4


def test_a_layer_s_gradient_is_one_message():
    parallel = parallel_lib.create("jit", 16)
    layer, x = BatchNorm(train=True), jnp.linspace(-1.0, 3.0, 16 * 5 * 4).reshape(16, 5, 4) ** 2
    variables = layer.init(jax.random.key(0), x)

    def value(variables, x):
        y, _ = layer.apply(variables, x, mutable=["batch_stats"])
        return (jnp.sin(y) * jnp.arange(4.0)).sum()

    gradient = jax.value_and_grad(value, argnums=(0, 1))
    expected = jax.jit(gradient)(variables, x)
    with compiled_for(parallel.target):
        shared = jax.jit(
            lambda *a: gradient(*a), in_shardings=(parallel.replicated, parallel.split)
        ).lower(variables, x)
    compiled = shared.compile()
    alike(compiled(parallel.put(variables), jax.device_put(x, parallel.split)), expected)
    found, _ = count_collectives(compiled.as_text())
    assert found["all-gather"].number == 1
    # Of mean, factor and shift of four channels, and in the same message the value itself.
    assert found["all-reduce"] == (1, (3 * 4 + 1) * 4)


def by_hand(batches):
    """A step on each batch by the rule of --batch_statistics=device, device by device."""
    experiment = toys.experiment(optax.sgd(0.1))
    state = toys.new_state(experiment)

    @partial(jax.jit, static_argnums=3)
    def of_device(state, whole, key, device):
        rows = {k: x[2 * device : 2 * device + 2] for k, x in whole.items()}

        def loss(params):
            variables = {"params": params, **state.model_state}
            values, after, _ = experiment.training.loss(variables, rows, stream(key, "loss"), None)
            return values.sum() / 16, after

        return jax.grad(loss, has_aux=True)(state.params)

    for batch in batches:
        key = step_key(state.seed, state.step)
        whole = experiment.training.augment(stream(key, "augment"), batch, None)
        found = [of_device(state, whole, key, device) for device in range(8)]
        grads = jax.tree.map(lambda *x: sum(x), *[grads for grads, _ in found])
        mean = jax.tree.map(lambda *x: sum(x) / 8, *[after for _, after in found])
        params = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, grads)
        state = state._replace(params=params, model_state=mean, step=state.step + 1)
    return state


def test_each_device_s_own_statistics_are_averaged_and_exchange_nothing(monkeypatch):
    monkeypatch.setattr(toys, "Net", partial(toys.Net, dropout=0.0))
    full = toys.batches(2, ragged=16)
    state, _, step = trained(own=True, batches=full, optimizer=optax.sgd(0.1))
    expected = by_hand(full)
    alike((state.params, state.model_state), (expected.params, expected.model_state))
    found, _ = count_collectives(step.as_text())
    assert found["all-reduce"].number <= 3
    mapped, _, _ = trained(mode="pmap", own=True, batches=full, optimizer=optax.sgd(0.1))
    alike(mapped.params, expected.params)
    other = trained(batches=full, optimizer=optax.sgd(0.1))[0]
    changed = jax.tree.map(lambda a, b: float(abs(a - b).max()), state.params, other.params)
    assert max(jax.tree.leaves(changed)) > 1e-4  # it is not the whole batch's


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_frozen_statistics_stay_to_the_bit_on_three_devices(mode):
    """A third of a number, three times, is not the number in a third of all cases."""
    experiment, (batch,) = toys.experiment(optax.sgd(0.1)), toys.batches(1, size=12, ragged=12)
    loss = experiment.training.loss

    def frozen(variables, batch, key, axis):
        values, _, extra = loss(variables, batch, key, axis)
        return values, {"batch_stats": variables["batch_stats"]}, extra

    experiment = toys.replaced(experiment, loss=frozen)
    three = parallel_lib.create(mode, 12, over=jax.devices()[:3], by_device=True)
    state = toys.new_state(experiment)
    before = jax.tree.map(lambda x: np.linspace(0.1, 1.7, x.size, dtype="f"), state.model_state)
    state = three.put(state._replace(model_state=before))
    steps = train_steps(experiment.training, TrainingConfig(), three)
    step = three.compile(steps, state, three.put_batch(batch))
    for _ in range(2):
        (state, _), _ = step(state, three.put_batch(batch))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.model_state), before)


def test_flags_reach_the_step_and_the_evaluation():
    config = TrainingConfig(
        batch_size=16, parallel="jit", shard="params", batch_statistics="device"
    )
    training = parallel_lib.for_training(config)
    assert (training.shard, training.by_device, training.target.by_device) == ("params", True, True)
    evaluation = parallel_lib.for_evaluation(config)
    assert (evaluation.shard, evaluation.by_device) == ("params", False)
    plain = parallel_lib.for_training(TrainingConfig(batch_size=16, parallel="jit"))
    assert (plain.shard, plain.by_device) == ("none", False)


def test_pmap_shares_nothing_out():
    with pytest.raises(UserError, match="--shard=state: is not for --parallel=pmap"):
        parallel_lib.create("pmap", 16, shard="state")
