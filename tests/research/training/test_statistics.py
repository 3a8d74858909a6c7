"""Batch statistics that belong to the weights: estimated, frozen, the same on all devices."""

import jax
import numpy as np
import pytest
import toys

from research.data.sources.examples import Arrays
from research.data.sources.source import Source
from research.errors import UserError
from research.nn.forward import forward
from research.nn.normalisation import counting_values, own_statistics
from research.training import parallel as parallel_lib
from research.training.config import TrainingConfig
from research.training.statistics import batches_of, check_values, make_estimate

BATCHES = 3


def source():
    rows = [{k: v for k, v in b.items() if k in ("image", "label")} for b in toys.batches(4)]
    return Source(Arrays({k: np.concatenate([r[k] for r in rows]) for k in rows[0]}), 16, seed=0)


def estimated(mode="single", experiment=None, accumulate=1, variables=None, step=7):
    experiment = experiment or toys.experiment()
    parallel = parallel_lib.create(mode, 16, accumulate)
    variables = variables or toys.new_state(experiment).variables
    estimate = make_estimate(experiment.training, 0, parallel, source(), BATCHES, accumulate)
    return jax.device_get(estimate(parallel.put(variables), step))


def test_statistics_are_those_of_all_values_of_the_next_batches():
    experiment = toys.experiment()
    found = estimated()
    values = []
    for step in range(7, 7 + BATCHES):
        key = jax.random.fold_in(_stream(jax.random.key(0), "train"), step)
        batch = experiment.training.augment(_stream(key, "augment"), source().batch(step), None)
        kernel = found["params"]["Conv_0"]["kernel"]
        values.append(
            jax.lax.conv_general_dilated(
                batch["image"], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        )
    values = np.concatenate(values).reshape(-1, 8).astype(np.float64)
    np.testing.assert_allclose(found["batch_stats"]["bn"]["mean"], values.mean(0), rtol=2e-4)
    np.testing.assert_allclose(found["batch_stats"]["bn"]["var"], values.var(0), rtol=2e-4)


def _stream(key, name):
    import zlib

    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def test_what_was_there_before_leaves_no_bit():
    """So a run that was interrupted, and estimated once more often, ends with the same bits."""
    variables = toys.new_state(toys.experiment()).variables
    other = {"params": variables["params"], "batch_stats": {"bn": {"mean": 3.3, "var": 0.77}}}
    other["batch_stats"]["bn"] = {
        name: np.full(8, value, "f") for name, value in other["batch_stats"]["bn"].items()
    }
    a, b = estimated(variables=variables), estimated(variables=other)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(("mode", "accumulate"), [("jit", 1), ("pmap", 1), ("jit", 2)])
def test_eight_devices_estimate_what_one_does(mode, accumulate):
    one, many = estimated(accumulate=accumulate), estimated(mode, accumulate=accumulate)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one, many)


def test_frozen_statistics_keep_every_bit():
    def loss(variables, batch, key, axis):
        logits, state = forward(
            toys.Net(), variables, batch["image"], train=True, key=key, axis=axis,
            frozen=lambda path: path.startswith("bn"),
        )  # fmt: skip
        return logits.sum(-1), state, {}

    variables = toys.new_state(toys.experiment()).variables
    before = {"bn": {name: np.full(8, v, "f") for name, v in (("mean", 0.3), ("var", 1.7))}}
    found = estimated(
        experiment=toys.replaced(toys.experiment(), loss=loss),
        variables={**variables, "batch_stats": before},
    )
    jax.tree.map(np.testing.assert_array_equal, found["batch_stats"], before)


def test_a_layer_s_values_are_counted_on_all_devices_and_not_where_it_is_frozen():
    images = toys.batches(1)[0]["image"]
    variables = toys.Net().init(jax.random.key(0), images)
    count = lambda **options: (
        lambda x, axis=None: forward(
            toys.Net(), variables, x, train=True, key=jax.random.key(0), axis=axis, **options
        )[0]
    )
    with counting_values() as one:
        jax.eval_shape(count(), images)
    with counting_values() as split:
        jax.pmap(lambda x: count()(x, "data"), "data").lower(images.reshape(8, 2, 8, 8, 3))
    with counting_values() as none:
        jax.eval_shape(count(frozen=lambda path: path.startswith("bn")), images)
        jax.eval_shape(lambda x: forward(toys.Net(), variables, x)[0], images)
    assert one == split == {"bn": 16 * 8 * 8} and not none


def test_one_value_of_a_channel_is_refused_and_few_are_said():
    with pytest.raises(UserError, match=r"layer4/bn2 sees a single value .* lower --accumulate"):
        check_values({"bn1": 4, "layer4/bn2": 1}, accumulate=16)
    assert "bn1 sees 15 values" in check_values({"bn1": 15, "bn0": 400}, accumulate=1)
    assert check_values({"bn1": 16}, 1) is None and check_values({}, 1) is None


def test_evaluation_is_training_under_the_statistics_of_the_batch():
    images = toys.batches(1)[0]["image"]
    model = toys.Net()  # with dropout, which is off in both
    variables = model.init(jax.random.key(0), images)
    with own_statistics():
        trained, state = forward(model, variables, images, train=True, key=jax.random.key(0))
    evaluated, _ = forward(model, {"params": variables["params"], **state}, images)
    np.testing.assert_allclose(trained, evaluated, rtol=1e-5, atol=1e-6)


def test_statistics_are_of_8_batches_or_256_examples_where_nothing_is_said():
    of = lambda **options: batches_of(TrainingConfig(**options))
    assert of(batch_size=64) == 8 and of(batch_size=16) == 16 and of(batch_size=10) == 26
    assert of(batch_size=64, statistics_batches=3) == 3 and of(statistics_batches=-1) == 0
