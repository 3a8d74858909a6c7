import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.nn.recurrent import CELLS, Cell
from research.understanding import memory

TIME, BATCH, HIDDEN = 7, 3, 4


def made(kind, seed=0):
    """A cell's step with random weights, its first state, and inputs."""
    cell = Cell(kind, 2, HIDDEN)
    keys = jax.random.split(jax.random.key(seed), 3)
    zeros = (jnp.zeros((BATCH, HIDDEN)),) * CELLS[kind].states
    x = jax.random.normal(keys[0], (TIME, BATCH, 2))
    variables = cell.init(keys[1], zeros, x[0])
    inputs = cell.apply(variables, x, method="project")
    return lambda state, step: cell.apply(variables, state, step, method="advance"), zeros, inputs


@pytest.mark.parametrize("kind", sorted(CELLS))
def test_gradients_of_states_are_those_of_a_nudge_at_each_step(kind):
    advance, zeros, inputs = made(kind)
    loss = lambda state: (state[0] ** 2).sum()

    def nudged(nudges):  # one nudge for the state after each step
        state = zeros
        for x, nudge in zip(inputs, nudges, strict=True):
            state = jax.tree.map(jnp.add, advance(state, x), nudge)
        return loss(state)

    none = [jax.tree.map(jnp.zeros_like, zeros) for _ in range(TIME)]
    gradients = jax.grad(nudged)(none)
    expected = [np.sqrt(sum((g**2).sum(-1) for g in step)) for step in reversed(gradients)]
    found = memory.state_gradients(advance, zeros, inputs, loss)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_an_lstm_that_forgets_nothing_hands_its_gradient_on_unchanged():
    """U = 0, so gates know the inputs alone; forget gates open, output gates as they are."""
    cell = Cell("lstm", 2, HIDDEN, forget_bias=30.0)
    zeros = (jnp.zeros((BATCH, HIDDEN)),) * 2
    x = jax.random.normal(jax.random.key(0), (TIME, BATCH, 2))
    params = dict(cell.init(jax.random.key(1), zeros, x[0])["params"])
    params["recurrent"] = jnp.zeros_like(params["recurrent"])
    variables = {"params": params}
    advance = lambda state, step: cell.apply(variables, state, step, method="advance")
    inputs = cell.apply(variables, x, method="project")
    norms = memory.state_gradients(advance, zeros, inputs, lambda state: state[1].sum())
    np.testing.assert_allclose(norms, np.full((TIME, BATCH), HIDDEN**0.5), rtol=1e-5)


def test_a_linear_network_shrinks_its_gradient_by_the_same_factor_each_step():
    advance = lambda state, x: (0.5 * state[0] + x,)
    norms = memory.state_gradients(
        advance, (jnp.zeros((1, 1)),), jnp.ones((5, 1, 1)), lambda state: state[0].sum()
    )
    np.testing.assert_allclose(norms[:, 0], 0.5 ** np.arange(5), rtol=1e-6)


@pytest.mark.families
def test_a_short_sequence_is_soon_remembered_and_reported():
    report = memory.compare(length=4, features=16, steps=150, seed=0)
    by_cell = {row["cell"]: row["accuracy"] for row in report.rows}
    assert len(by_cell) == 3 and min(by_cell.values()) > 0.6  # chance is 0.125
    assert len(report.rows) == 3 * 2 * 4
    assert report.table.row_count == 6 and set(report.figures) == {"gradient_by_distance"}
