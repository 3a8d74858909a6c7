"""Activations computed again: the same numbers, fewer of them kept, dropout and statistics too."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.assembly.network import bind
from research.errors import UserError
from research.models.resnet import ResNet
from research.models.unet import UNetSame
from research.nn.forward import forward
from research.nn.rematerialisation import recomputing
from research.training.config import TrainingConfig

NETWORKS = {
    "resnet": partial(ResNet, num_classes=3, stages=(1, 1), width=8, small_images=True),
    "unet": partial(UNetSame, num_classes=3, width=4, depth=1, dropout=0.5),
}


def kept(function, params):
    """Bytes that the forward pass hands to the backward pass, parameters among them."""
    handed = jax.eval_shape(lambda p: jax.vjp(function, p)[1], params)
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(handed))


@pytest.mark.parametrize("name", ["resnet", pytest.param("unet", marks=pytest.mark.families)])
def test_numbers_stay_and_less_is_kept(name):
    model = NETWORKS[name]()
    images = jnp.array(np.random.default_rng(0).normal(size=(2, 16, 16, 3)), jnp.float32)
    variables = model.init(jax.random.key(0), images)
    state = {k: v for k, v in variables.items() if k != "params"}

    def loss(remat, params):
        y, new = forward(
            model,
            {"params": params, **state},
            images,
            train=True,
            key=jax.random.key(1),
            remat=remat,
        )
        return jnp.square(y - 1).mean(), new

    found, sizes = {}, {}
    for remat in ("none", "blocks", "full"):
        value = partial(loss, remat)
        found[remat] = jax.jit(jax.value_and_grad(value, has_aux=True))(variables["params"])
        sizes[remat] = kept(lambda p, value=value: value(p)[0], variables["params"])
    for remat in ("blocks", "full"):
        jax.tree.map(
            partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), found[remat], found["none"]
        )
    assert sizes["full"] < 0.7 * sizes["blocks"] < 0.7 * 0.9 * sizes["none"]


@pytest.mark.parametrize("remat", ["none", "blocks", "full"])
def test_the_flag_reaches_the_step(remat):
    images = jnp.zeros((2, 16, 16, 3))
    network = bind(TrainingConfig(remat=remat), NETWORKS["resnet"](), images)
    variables = jax.eval_shape(network.init, jax.random.key(0))

    def loss(params, key):
        y, _ = network.train({**variables, "params": params}, images, key=key, axis=None)
        return y.sum()

    variables = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), variables)
    found = jax.make_jaxpr(jax.grad(loss))(variables["params"], jax.random.key(0))
    # JAX's primitive of a function that is computed again.
    again = {"checkpoint", "remat", "remat2"} & {e.primitive.name for e in found.eqns}
    assert bool(again) == (remat != "none")


def test_a_network_without_blocks_refuses_the_flag():
    with pytest.raises(UserError, match="--remat=blocks: this network has no blocks"):
        bind(TrainingConfig(remat="blocks"), nn.Dense(3), jnp.zeros((2, 5)))


def test_every_block_is_met_once():
    model = NETWORKS["resnet"]()
    with recomputing("full") as blocks:
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    assert blocks == ["layer1_0", "layer2_0"]
