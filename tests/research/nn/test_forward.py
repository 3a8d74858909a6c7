import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from research.nn.forward import forward
from research.nn.mobile import InvertedResidual
from research.nn.regularisation import Dropout

IMAGES = jax.random.normal(jax.random.key(7), (4, 8, 8, 3))


@pytest.fixture
def variables():
    return toys.Net().init(jax.random.key(0), IMAGES)


def test_bfloat16_is_used_inside_and_float32_comes_out(variables):
    full, _ = forward(toys.Net(), variables, IMAGES)
    half, _ = forward(toys.Net(), variables, IMAGES, precision="bfloat16")
    assert half.dtype == jnp.float32
    np.testing.assert_array_equal(half, half.astype(jnp.bfloat16))  # eight bits of mantissa
    assert 0 < np.abs(half - full).max() < 0.05 * np.abs(full).max()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_updates_statistics_in_float32_and_evaluation_leaves_them(variables, precision):
    key = jax.random.key(1)
    _, trained = forward(toys.Net(), variables, IMAGES, precision=precision, train=True, key=key)
    _, evaluated = forward(toys.Net(), variables, IMAGES, precision=precision)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(trained))
    mean = lambda state: state["batch_stats"]["bn"]["mean"]
    assert not np.allclose(mean(trained), mean(variables))
    np.testing.assert_array_equal(mean(evaluated), mean(variables))


def test_gradients_of_bfloat16_arrive_in_float32(variables):
    def loss(params):
        outputs, _ = forward(
            toys.Net(),
            {**variables, "params": params},
            IMAGES,
            precision="bfloat16",
            train=True,
            key=jax.random.key(1),
        )
        return (outputs**2).sum()

    grads = jax.grad(loss)(variables["params"])
    assert all(g.dtype == jnp.float32 and np.any(g) for g in jax.tree.leaves(grads))


def test_what_is_frozen_gets_no_gradient_and_costs_no_backward_pass(variables):
    def gradients(frozen):
        def loss(params):
            outputs, _ = forward(
                toys.Net(),
                {**variables, "params": params},
                IMAGES,
                train=True,
                key=jax.random.key(1),
                frozen=frozen,
            )
            return (outputs**2).sum()

        return jax.jit(jax.grad(loss)).lower(variables["params"]).compile()

    part = gradients(lambda path: not path.startswith("Dense_0"))
    found = part(variables["params"])
    for layer, leaves in found.items():
        assert all(np.any(x) == (layer == "Dense_0") for x in jax.tree.leaves(leaves)), layer
    flops = [x.cost_analysis()["flops"] for x in (part, gradients(None))]
    assert flops[0] < 0.8 * flops[1]


class Regularised(nn.Module):
    """Stochastic depth inside a backbone, and dropout before the classifier."""

    axis: str | None = None

    @nn.compact
    def __call__(self, x, train=False):
        x = InvertedResidual(6, 3, drop_path=0.5, axis=self.axis, name="backbone")(x, train)
        self.sow("intermediates", "map", x)
        x = Dropout(0.5, self.axis)(x.mean((1, 2)), train)
        self.sow("intermediates", "dropped", x)
        return nn.Dense(5, name="head")(x)


def test_nothing_random_happens_inside_a_frozen_module_and_dropout_before_a_trained_one_stays():
    shapes = jax.eval_shape(Regularised().init, jax.random.key(0), IMAGES)
    variables = toys.drawn({name: shapes[name] for name in ("params", "batch_stats")})

    def seen(frozen, keys):
        def one(key):
            state = {**variables, "intermediates": {}}
            train = {"train": True, "key": key, "frozen": frozen}
            return forward(Regularised(), state, IMAGES, **train)[1]["intermediates"]

        return jax.jit(jax.vmap(one))(keys)

    evaluate = lambda x: Regularised().apply(variables, x, mutable="intermediates")[1]
    (expected,) = jax.jit(evaluate)(IMAGES)["intermediates"]["map"]
    keys = jax.random.split(jax.random.key(1), 4)
    found = seen(lambda path: path.startswith("backbone/"), keys)
    for maps in found["map"][0]:
        np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-5)
    assert (np.asarray(found["dropped"][0]) == 0).any()  # the head learns from noisy maps
    # A module of which a part learns is trained as any other.
    maps = np.asarray(seen(lambda path: path.startswith("backbone/block_0"), keys)["map"][0])
    assert np.abs(maps - maps[0]).max() > 1e-3
