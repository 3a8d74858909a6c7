import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toys
from toys import train

from research.random import step_key, stream
from research.training import parallel as parallel_lib
from research.training.step import make_eval_step, make_train_step, masked_sum


def assert_close(a, b, rtol=1e-4, atol=2e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


@pytest.mark.parametrize("batch_wide", [False, True], ids=["cross-entropy", "batch-wide loss"])
@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_eight_devices_train_the_same_network_as_one(mode, batch_wide):
    """With batch normalisation, dropout, augmentation and a ragged batch (promise 2)."""
    assert jax.device_count() == 8
    experiment = toys.experiment(batch_wide=batch_wide)
    alone, alone_rows = train(experiment, "single", toys.batches(4))
    many, many_rows = train(experiment, mode, toys.batches(4))
    assert_close((alone.params, alone.model_state), (many.params, many.model_state))
    assert_close(alone_rows, many_rows)


@pytest.mark.parametrize("mode", ["single", "jit", "pmap"])
def test_totals_count_real_examples_once(mode):
    _, rows = train(toys.experiment(), mode, toys.batches(2))
    assert [row["loss"][1] for row in rows] == [13, 16]
    assert [row["accuracy"][1] for row in rows] == [13, 16]


def padded_with(image, label, index):
    """A batch of 13 real rows of 16, and what stands in the others."""
    (batch,) = toys.batches(1)
    batch["image"][13:], batch["label"][13:], batch["index"][13:] = image, label, index
    return batch


PADDINGS = [padded_with(np.nan, -1, 2**31 - 1), padded_with(7.0, 3, 5)]


@pytest.mark.parametrize(("mode", "accumulate"), [("single", 2), ("jit", 1), ("pmap", 1)])
def test_padding_has_no_part_in_a_step_even_when_it_is_nan(mode, accumulate):
    """Not in gradients, nor in batch statistics; the last device has nothing but padding."""
    experiment = toys.experiment()
    parallel = parallel_lib.create(mode, 16, accumulate)
    state = parallel.put(toys.new_state(experiment))
    placed = [parallel.put_batch(batch) for batch in PADDINGS]
    step = parallel.compile(
        lambda axis: make_train_step(experiment.training, axis, accumulate), state, placed[0]
    )
    a, b = (jax.device_get(step(state, batch)[0]) for batch in placed)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(a))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert masked_sum(jnp.array([1.0, jnp.nan]), jnp.array([2.0, 0.0])) == 2.0


def test_padding_counts_for_nothing_in_a_step_without_batch_statistics():
    """As if the batch held the real rows alone: 13 rows against 13 and 3 of NaN."""

    def loss(variables, batch, key, axis):
        rows = batch["image"].reshape(len(batch["image"]), -1)
        far = jnp.linalg.norm(rows @ variables["params"]["w"] - batch["label"][:, None], axis=-1)
        return far, {}, {}

    experiment = toys.replaced(
        toys.experiment(optimizer=optax.sgd(0.1)),
        init=lambda key: {"params": {"w": jnp.ones((192, 3)) / 192}},
        loss=loss,
    )
    (padded,) = PADDINGS[:1]
    alone = {name: value[:13] for name, value in padded.items()}
    (a, rows), (b, others) = (train(experiment, "single", [batch]) for batch in (padded, alone))
    assert_close(a.params, b.params, rtol=1e-6)
    assert_close(rows, others, rtol=1e-6)


def test_padding_counts_for_nothing_in_an_evaluation_even_when_it_is_nan():
    """Not compiled: XLA turns NaN x mask into a choice, and the maximum of NaN and 0 into 0."""
    experiment = toys.experiment()

    def measure(outputs, batch):
        return {"value": (outputs[:, 0], jnp.abs(batch["image"]).mean((1, 2, 3)))}

    step = make_eval_step(toys.replaced(experiment, measure=measure).evaluation, None)
    variables = toys.new_state(experiment).variables
    (totals, rows), (others, _) = (
        step(variables, jax.tree.map(jnp.asarray, batch)) for batch in PADDINGS
    )
    outputs = rows.outputs
    value, weight = totals["value"]
    assert np.isfinite(outputs).all() and (value, weight) == others["value"]
    expected = np.abs(PADDINGS[0]["image"][:13]).mean((1, 2, 3))
    np.testing.assert_allclose(weight, expected.sum(), rtol=1e-5)
    np.testing.assert_allclose(value, (outputs[:13, 0] * expected).sum(), rtol=1e-5)
    # Of single rows: padding counts for nothing there, too.
    each, weights = rows.measured["value"]
    np.testing.assert_array_equal(each, np.where(rows.mask, outputs[:, 0], 0))
    np.testing.assert_allclose(weights[:13], expected, rtol=1e-5)
    assert not weights[13:].any() and rows.example[:13].tolist() == list(range(13))


@pytest.mark.parametrize("mode", ["single", "jit", "pmap"])
def test_accumulated_gradients_are_those_of_the_whole_batch(mode):
    """Without what looks at the whole batch (batch statistics) or draws by part (dropout)."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 4)).astype("f"), rng.normal(size=32).astype("f")

    def loss(variables, batch, key, axis):
        return (batch["x"] @ variables["params"]["w"] - batch["y"]) ** 2, {}, {}

    experiment = toys.replaced(
        toys.experiment(optimizer=optax.sgd(0.1)),
        init=lambda key: {"params": {"w": jnp.ones(4)}},
        loss=loss,
        augment=lambda key, batch, axis: batch,
    )
    mask = np.arange(32) < 27
    batch = {"x": x, "y": y, "mask": mask, "index": np.arange(32, dtype="i")}
    state, rows = train(experiment, mode, [batch], accumulate=4)
    residual = x[mask] @ np.ones(4) - y[mask]
    expected = 1 - 0.1 * 2 * x[mask].T @ residual / 27
    np.testing.assert_allclose(state.params["w"], expected, rtol=1e-5)
    np.testing.assert_allclose(rows[0]["loss"][0], (residual**2).sum(), rtol=1e-5)
    assert rows[0]["loss"][1] == 27


@pytest.mark.parametrize(("mode", "accumulate"), [("single", 1), ("jit", 2), ("pmap", 2)])
def test_augmentation_depends_on_neither_devices_nor_accumulation(mode, accumulate):
    """Copies of an example included, wherever in the batch they stand."""
    index, occurrence = np.repeat(np.arange(8, dtype="i"), 2), np.tile(np.arange(2, dtype="i"), 8)
    order = np.random.default_rng(0).permutation(16)
    batch = {
        **toys.batches(1, ragged=16)[0],
        "index": index[order],
        "occurrence": occurrence[order],
    }
    batch["image"] = np.zeros((16, 8, 8, 3), "f")

    def loss(variables, batch, key, axis):
        drawn = batch["image"].mean((1, 2, 3))
        rows = jax.nn.one_hot(2 * batch["index"] + batch["occurrence"], 16)
        seen = {f"row {k}": drawn * rows[:, k] for k in range(16)}
        return drawn * variables["params"]["w"], {}, seen

    experiment = toys.replaced(
        toys.experiment(), init=lambda key: {"params": {"w": jnp.ones(())}}, loss=loss
    )
    _, rows = train(experiment, mode, [batch], accumulate=accumulate)
    found = [float(rows[0][f"row {k}"][0]) for k in range(16)]
    keys = [
        jax.random.fold_in(jax.random.fold_in(stream(step_key(0, 0), "augment"), k // 2), k % 2)
        for k in range(16)
    ]
    draw = jax.jit(lambda key: 0.1 * jax.random.normal(key, (8, 8, 3)).mean())
    expected = [draw(key) for key in keys]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert len(np.unique(np.round(found, 6))) == 16


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_accumulation_works_through_the_same_parts_on_every_device_count(mode):
    experiment = toys.experiment()
    alone, _ = train(experiment, "single", toys.batches(2, size=32, ragged=29), accumulate=2)
    many, _ = train(experiment, mode, toys.batches(2, size=32, ragged=29), accumulate=2)
    assert_close((alone.params, alone.model_state), (many.params, many.model_state))


def test_moving_average_is_the_recursion_written_out():
    experiment = toys.experiment()
    states = [train(experiment, "single", toys.batches(n), ema_decay=0.5)[0] for n in (1, 2, 3)]
    kernel = lambda variables: variables["params"]["Dense_0"]["kernel"]
    first = jax.device_get(toys.new_state(experiment, averaged=True))
    average = kernel(first.average)
    for t, state in enumerate(states):
        decay = min(0.5, (1 + t) / (10 + t))
        average = decay * average + (1 - decay) * kernel({"params": state.params})
    np.testing.assert_allclose(kernel(states[-1].variables), average, rtol=1e-5)
    assert not np.allclose(average, states[-1].params["Dense_0"]["kernel"])
    # Batch statistics are averaged with the weights they belong to.
    assert set(states[-1].average) == {"params", "batch_stats"}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_every_step_and_part_draws_its_own_numbers_and_the_same_ones_again(accumulate):
    """Of one batch, four times: what augmentation draws for an example, and the loss for a part."""
    (batch,) = toys.batches(1, ragged=16)
    batch["image"] = np.zeros((16, 8, 8, 3), "f")

    def loss(variables, batch, key, axis):
        changed = batch["image"].mean((1, 2, 3))
        drawn = jnp.full(len(changed), jax.random.uniform(key))
        seen = {f"row {k}": changed * (batch["index"] == k) for k in range(16)}
        return changed * variables["params"]["w"], {}, {**seen, "loss": drawn}

    experiment = toys.replaced(
        toys.experiment(), init=lambda key: {"params": {"w": jnp.ones(())}}, loss=loss
    )
    _, rows = train(experiment, "single", [batch] * 4, accumulate=accumulate)
    of_examples = [float(row[f"row {k}"][0]) for row in rows for k in range(16)]
    of_loss = [float(row["loss"][0]) for row in rows]
    assert len(np.unique(np.round(of_examples, 6))) == 4 * 16
    assert len(np.unique(np.round(of_loss, 5))) == 4
    keys = [stream(step_key(0, step), "loss") for step in range(4)]
    if accumulate > 1:  # a key for each part
        expected = [
            sum(8 * jax.random.uniform(jax.random.fold_in(key, part)) for part in range(2))
            for key in keys
        ]
    else:
        expected = [16 * jax.random.uniform(key) for key in keys]
    np.testing.assert_allclose(of_loss, expected, rtol=1e-5)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_batch_that_does_not_divide_is_refused_with_the_nearest_size(accumulate):
    from research.errors import UserError

    with pytest.raises(UserError, match=r"--batch_size=30 .* 8 devices.* nearest .* is 32"):
        parallel_lib.create("jit", 30, accumulate)


def test_other_shapes_are_refused_not_recompiled():
    parallel = parallel_lib.create("single", 16)
    experiment, (a, b) = toys.experiment(), (toys.batches(1)[0], toys.batches(1, size=8)[0])
    state = parallel.put(toys.new_state(experiment))
    step = parallel.compile(
        lambda axis: make_train_step(experiment.training, axis), state, parallel.put_batch(a)
    )
    with pytest.raises(TypeError):
        step(state, parallel.put_batch(b))
