import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.nn.recurrent import CELLS, Cell, Recurrent

IN, HIDDEN, BATCH, TIME = 5, 7, 3, 6


def sequence(seed=0, features=IN):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(BATCH, TIME, features)), "f")


def randomised(variables, seed=0):
    """All parameters random: biases that start at zero would hide where they are added."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.5, x.shape), "f"), variables)


def as_flax(kind, params):
    """Our side-by-side matrices, taken apart under the names of Flax's own cells."""
    gates = CELLS[kind].gates
    w, u, b = (np.split(params[k], gates, -1) for k in ("kernel", "recurrent", "bias"))
    if kind == "rnn":
        return {"i": {"kernel": w[0], "bias": b[0]}, "h": {"kernel": u[0]}}
    if kind == "lstm":
        flax = {f"i{n}": {"kernel": w[k]} for k, n in enumerate("ifgo")}
        return flax | {f"h{n}": {"kernel": u[k], "bias": b[k]} for k, n in enumerate("ifgo")}
    d = np.split(params["recurrent_bias"], 3, -1)
    flax = {f"i{n}": {"kernel": w[k], "bias": b[k]} for k, n in enumerate("rzn")}
    for k, n in enumerate("rz"):  # Flax has one bias for these gates: ours are summed
        flax[f"i{n}"]["bias"] = b[k] + d[k]
        flax[f"h{n}"] = {"kernel": u[k]}
    return flax | {"hn": {"kernel": u[2], "bias": d[2]}}


FLAX = {"rnn": nn.SimpleCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}


@pytest.mark.parametrize("kind", sorted(CELLS))
def test_every_cell_equals_flaxs_own(kind):
    model = Recurrent(kind, IN, HIDDEN)
    x = sequence()
    variables = randomised(model.init(jax.random.key(0), x))
    outputs, ((h, *rest),) = model.apply(variables, x)

    cell = FLAX[kind](HIDDEN)
    weights = {"params": as_flax(kind, variables["params"]["cells_0"])}
    carry = cell.initialize_carry(jax.random.key(0), (BATCH, IN))
    for t in range(TIME):
        carry, y = cell.apply(weights, carry, x[:, t])
        np.testing.assert_allclose(outputs[:, t], y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(h, y, rtol=1e-5, atol=1e-6)
    if kind == "lstm":
        np.testing.assert_allclose(rest[0], carry[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", sorted(CELLS))
def test_one_step_at_a_time_is_the_scan(kind):
    model = Recurrent(kind, IN, HIDDEN, layers=3)
    x = sequence()
    variables = randomised(model.init(jax.random.key(0), x))
    whole, last = model.apply(variables, x)
    states = model.apply(variables, BATCH, method="initial")
    for t in range(TIME):
        states, h = model.apply(variables, states, x[:, t], method="step")
        np.testing.assert_allclose(whole[:, t], h, rtol=1e-5, atol=5e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=5e-6), states, last)


@pytest.mark.parametrize("kind", sorted(CELLS))
def test_what_comes_after_the_end_of_a_ragged_sequence_changes_nothing(kind):
    model = Recurrent(kind, IN, HIDDEN, layers=2)
    x, lengths = sequence(), np.array([6, 1, 4])
    mask = jnp.arange(TIME)[None] < lengths[:, None]
    variables = randomised(model.init(jax.random.key(0), x))
    outputs, final = model.apply(variables, x, None, mask)
    for i, length in enumerate(lengths):
        alone, last = model.apply(variables, x[i : i + 1, :length])
        np.testing.assert_allclose(outputs[i, :length], alone[0], rtol=1e-5, atol=1e-6)
        pairs = zip(jax.tree.leaves(final), jax.tree.leaves(last), strict=True)
        for padded, cut in pairs:
            np.testing.assert_allclose(padded[i], cut[0], rtol=1e-5, atol=1e-6)
    noise = jnp.where(mask[..., None], x, np.nan)
    np.testing.assert_array_equal(model.apply(variables, noise, None, mask)[0], outputs)


@pytest.mark.parametrize("kind", sorted(CELLS))
def test_every_parameter_gets_a_gradient(kind):
    model = Recurrent(kind, IN, HIDDEN, layers=2)
    x = sequence()
    variables = model.init(jax.random.key(0), x)
    grads = jax.grad(lambda v: (model.apply(v, x)[0] ** 2).sum())(variables)
    for path, g in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(g).all() and np.any(g), path


def test_parameters_are_counted_as_the_equations_have_them():
    for kind, gates in {"rnn": 1, "lstm": 4, "gru": 3}.items():
        shapes = jax.eval_shape(Recurrent(kind, IN, HIDDEN).init, jax.random.key(0), sequence())
        expected = gates * (IN * HIDDEN + HIDDEN * HIDDEN + HIDDEN)
        expected += 3 * HIDDEN if kind == "gru" else 0  # d
        assert sum(x.size for x in jax.tree.leaves(shapes)) == expected


def test_a_fresh_lstm_remembers_and_each_gates_matrix_is_orthogonal():
    cell = Cell("lstm", IN, HIDDEN)
    state = (jnp.zeros((BATCH, HIDDEN)),) * 2
    params = cell.init(jax.random.key(0), state, sequence()[:, 0])["params"]
    np.testing.assert_array_equal(params["bias"], np.repeat([0, 1, 0, 0], HIDDEN))
    for u in np.split(np.asarray(params["recurrent"]), 4, -1):
        np.testing.assert_allclose(u @ u.T, np.eye(HIDDEN), atol=1e-5)


def test_bfloat16_stays_bfloat16_through_the_scan():
    model = Recurrent("lstm", IN, HIDDEN)
    x = jnp.asarray(sequence(), jnp.bfloat16)
    variables = model.init(jax.random.key(0), x)
    half = jax.tree.map(lambda v: v.astype(jnp.bfloat16), variables)
    outputs, _ = model.apply(half, x)
    assert outputs.dtype == jnp.bfloat16
