import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.models.language import CharacterModel


@pytest.fixture(scope="module")
def model_and_variables():
    model = CharacterModel(5, "gru", features=6, layers=2)
    return model, jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))


def tokens(count=3, time=6):
    return jnp.asarray(np.random.default_rng(0).integers(0, 5, (count, time)), jnp.int32)


def test_reading_and_going_on_step_by_step_is_the_whole_text(model_and_variables):
    model, variables = model_and_variables
    logits, hidden = model.apply(variables, tokens())
    lengths = np.array([4, 2, 1])
    mask = jnp.arange(6)[None] < lengths[:, None]
    states = model.apply(variables, tokens(), mask, method="read")
    following = tokens()[np.arange(3), lengths]
    states, step_logits = model.apply(variables, states, following, method="step")
    np.testing.assert_allclose(step_logits, logits[np.arange(3), lengths], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(states[-1][0], hidden[np.arange(3), lengths], rtol=1e-5, atol=1e-6)


def test_every_parameter_gets_a_gradient(model_and_variables):
    model, variables = model_and_variables
    loss = lambda v: -jax.nn.log_softmax(model.apply(v, tokens())[0])[..., 0].mean()
    for path, g in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(variables)):
        assert np.isfinite(g).all() and np.any(g), path


def test_a_character_does_not_see_those_after_it(model_and_variables):
    model, variables = model_and_variables
    before, _ = model.apply(variables, tokens())
    after, _ = model.apply(variables, tokens().at[:, 3].add(1) % 5)
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert np.any(before[:, 3] != after[:, 3])
