import math
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.errors import UserError
from research.training.optimizers import OPTIMIZERS, SCHEDULES, make, schedule

RATE, MOMENTUM, DECAY = 0.05, 0.9, 0.1
MATRIX, VECTOR = np.array([[1.0, -2.0, 0.5], [3.0, -0.1, 0.7]]), np.zeros(3)
START = {"kernel": MATRIX, "bias": VECTOR, "flat kernel": MATRIX, "flat bias": VECTOR}
# The losses are sum c (p - o)² / 2. Some are flat: their gradients are near 1e-6.
CURVATURE = {
    "kernel": np.array([[1.0, 10.0, 3.0], [0.5, 2.0, 7.0]]),
    "bias": np.array([4.0, 0.5, 1.0]),
}
CURVATURE |= {f"flat {name}": 1e-6 * value for name, value in CURVATURE.items()}
OPTIMUM = np.array([0.25, -0.4, 0.4])


def gradient(params):
    return {name: CURVATURE[name] * (value - OPTIMUM) for name, value in params.items()}


def published(name, steps, decay):
    """The equations as their papers print them, in float64, one tensor at a time.

    Vectors do not decay, and LAMB's trust ratio is not applied to them, as in its authors' code
    (exclude_from_layer_adaptation: biases and normalisation).
    """
    p = {k: START[k].copy() for k in START}
    v, s = ({k: np.zeros_like(START[k]) for k in START} for _ in range(2))
    for t in range(1, steps + 1):
        for k, g in gradient(p).items():
            own_decay = decay * (p[k].ndim > 1)
            if name not in ("adamw", "lamb"):
                g = g + own_decay * p[k]
            if name == "sgd":
                update = g
            elif name == "momentum":
                v[k] = MOMENTUM * v[k] + g
                update = v[k]
            elif name == "nesterov":
                v[k] = MOMENTUM * v[k] + g
                update = g + MOMENTUM * v[k]
            elif name == "adagrad":
                s[k] = s[k] + g * g
                update = g / (np.sqrt(s[k]) + 1e-10)
            elif name == "rmsprop":
                s[k] = 0.9 * s[k] + 0.1 * g * g
                update = g / (np.sqrt(s[k]) + 1e-8)
            else:
                v[k] = 0.9 * v[k] + 0.1 * g
                s[k] = 0.999 * s[k] + 0.001 * g * g
                eps = 1e-6 if name == "lamb" else 1e-8
                update = (v[k] / (1 - 0.9**t)) / (np.sqrt(s[k] / (1 - 0.999**t)) + eps)
                if name in ("adamw", "lamb"):
                    update = update + own_decay * p[k]
                if name == "lamb" and p[k].ndim > 1:
                    update = update * np.linalg.norm(p[k]) / np.linalg.norm(update)
            p[k] = p[k] - RATE * update
    return p


def run(optimizer, params, steps, gradient):
    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(gradient(params), state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params


@pytest.mark.parametrize("decay", [0.0, DECAY], ids=["no decay", "decay"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_follows_its_published_equation(name, decay):
    optimizer = make(name, optax.constant_schedule(RATE), momentum=MOMENTUM, weight_decay=decay)
    with jax.enable_x64(True):  # what the flat losses change is below float32's rounding
        params = jax.device_get(run(optimizer, jax.tree.map(jnp.array, START), 20, gradient))
    for key, expected in published(name, 20, decay).items():
        way = expected - START[key]
        assert np.abs(way).min() > 0
        np.testing.assert_allclose(params[key] - START[key], way, rtol=1e-5, err_msg=key)


def steps_over_equal_gradients(name, count):
    """The step sizes of a learning rate of 1, where every gradient is 4."""
    optimizer = make(name, optax.constant_schedule(1.0))
    params = {"w": jnp.zeros(())}

    def step(state, _):
        updates, state = optimizer.update({"w": jnp.float32(4.0)}, state, params)
        return state, -updates["w"]

    return np.asarray(jax.lax.scan(step, optimizer.init(params), length=count)[1])


def test_over_equal_gradients_adagrads_step_falls_as_a_root_and_rmsprops_settles():
    t = np.arange(1, 1001)
    adagrad = steps_over_equal_gradients("adagrad", 1000)
    np.testing.assert_allclose(adagrad, 1 / np.sqrt(t), rtol=1e-5)
    # It falls, but does not stop: the way it has come grows as 2 sqrt(t).
    np.testing.assert_allclose(adagrad.sum(), 61.80, atol=0.01)
    rmsprop = steps_over_equal_gradients("rmsprop", 1000)
    np.testing.assert_allclose(rmsprop, 1 / np.sqrt(1 - 0.9**t), rtol=1e-4)
    np.testing.assert_allclose([rmsprop[0], rmsprop[-1]], [3.162, 1.0], atol=1e-3)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_spares_parameters_of_one_dimension(name):
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    optimizer = make(name, optax.constant_schedule(0.1), weight_decay=0.5)
    after = run(optimizer, params, 1, lambda p: jax.tree.map(jnp.zeros_like, p))
    np.testing.assert_array_equal(after["bias"], 1.0)
    assert (np.asarray(after["kernel"]) < 1).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_parameters_keep_every_bit_and_leave_the_rest_as_if_they_were_not_there(name):
    trained = {"kernel": jnp.array(START["kernel"]), "bias": jnp.array([0.3, -1.0])}
    # A negative zero: adding +0.0 would turn its sign.
    stem = {"conv": {"kernel": jnp.array([[-0.0, 1e-40, 3.0]])}}
    rate = optax.constant_schedule(RATE)
    alone = make(name, rate, weight_decay=0.1, clip_norm=1.0)
    both = make(
        name, rate, weight_decay=0.1, clip_norm=1.0, frozen=lambda path: path == "stem/conv/kernel"
    )
    after = run(both, {"head": trained, "stem": stem}, 5, lambda p: jax.tree.map(jnp.cos, p))
    expected = run(alone, {"head": trained}, 5, lambda p: jax.tree.map(jnp.cos, p))
    frozen = np.asarray(after["stem"]["conv"]["kernel"])
    assert frozen.tobytes() == np.asarray(stem["conv"]["kernel"]).tobytes()
    jax.tree.map(np.testing.assert_array_equal, after["head"], expected["head"])


def test_clipping_scales_the_whole_gradient_to_the_norm():
    gradient = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([[4.0]])}  # norm 5
    optimizer = make("sgd", optax.constant_schedule(1.0), clip_norm=1.0)
    zeros = jax.tree.map(jnp.zeros_like, gradient)
    after = run(optimizer, zeros, 1, lambda p: gradient)
    np.testing.assert_allclose(after["a"], [-0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(after["b"], [[-0.8]], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", {10: 1.0, 55: 1.0, 109: 1.0}),
        ("step", {10: 1.0, 59: 1.0, 60: 0.1, 84: 0.1, 85: 0.01, 109: 0.01}),
        ("exponential", {10: 1.0, 60: math.sqrt(0.001), 110: 0.001, 200: 0.001}),
        ("cosine", {10: 1.0, 60: 0.5005, 35: 0.001 + 0.999 * (2 + math.sqrt(2)) / 4, 110: 0.001}),
        ("one_cycle", {0: 0.04, 5: 0.52, 10: 1.0, 60: 0.5005, 110: 0.001, 200: 0.001}),
    ],
)
def test_schedules_at_key_steps(name, expected):
    """10 steps of warm-up, then 100."""
    rate = schedule(name, 2.0, 110, 10)
    for step, fraction in expected.items():
        np.testing.assert_allclose(rate(step), 2.0 * fraction, rtol=1e-5, err_msg=f"step {step}")


@pytest.mark.parametrize("warmup", [1, 7])
@pytest.mark.parametrize("name", SCHEDULES)
def test_warm_up_is_a_line_from_above_zero_that_ends_where_the_fall_begins(name, warmup):
    rates = np.array(jax.vmap(schedule(name, 0.3, 40, warmup))(jnp.arange(50)))
    rise = rates[: warmup + 1]
    assert rise[0] > 0
    np.testing.assert_allclose(np.diff(rise), (0.3 - rise[0]) / warmup, rtol=1e-4)
    np.testing.assert_allclose(rates[warmup], 0.3, rtol=1e-6)
    assert (np.diff(rates[warmup:]) <= 1e-8).all()
    np.testing.assert_array_equal(rates[40:], rates[40])


def test_one_cycle_without_warm_up_rises_for_three_tenths():
    rates = np.array(jax.vmap(schedule("one_cycle", 1.0, 100))(jnp.arange(100)))
    assert rates.argmax() == 30
    np.testing.assert_allclose(rates[[0, 15, 30]], [0.04, 0.52, 1.0], rtol=1e-5)


def test_a_schedule_is_stepped_by_the_optimizer():
    optimizer = make("sgd", schedule("constant", 1.0, 10, 3))
    after = run(optimizer, {"p": jnp.zeros(1)}, 4, lambda p: {"p": -jnp.ones(1)})
    np.testing.assert_allclose(after["p"], 0.25 + 0.5 + 0.75 + 1.0, rtol=1e-6)


def test_mistakes_are_named():
    with pytest.raises(UserError, match="'nesterov'"):
        make("nestrov", optax.constant_schedule(1.0))
    with pytest.raises(UserError, match="'cosine'"):
        schedule("cosin", 1.0, 10)
    with pytest.raises(UserError, match="10 steps"):
        schedule("cosine", 1.0, 10, 10)
    with pytest.raises(UserError, match="above 0"):
        schedule("exponential", 1.0, 10, final=0.0)


def test_the_flags_offer_exactly_these():
    from research.training import config

    assert set(typing.get_args(config.OptimizerName)) == set(OPTIMIZERS)
    assert set(typing.get_args(config.ScheduleName)) == set(SCHEDULES)
