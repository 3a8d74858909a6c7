"""Every family answers as torchvision's does when both have the same weights.

tests/fixtures/generate_torchvision_logits.py says where the expected logits come from.
"""

import gzip
import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import run_quickly

from research import models, weights
from research.models import googlenet, inception
from research.nn.initialisers import INITIALISERS

FIXTURES = Path(__file__).parents[2] / "fixtures"
spec = importlib.util.spec_from_file_location(
    "generate_torchvision_logits", FIXTURES / "generate_torchvision_logits.py"
)
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)

EXPECTED = json.loads(gzip.decompress(reference.FILE.read_bytes()))["models"]
QUICK = {
    "resnet18",
    "resnet50",
    "alexnet",
    "vgg16_bn",
    "googlenet",
    "inception_v3",
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_small@timm",
    "efficientnet_b0",
}
OPTIONS = {"mobilenet_v3_small@timm": {"epsilon": 1e-5}}
HEADS = {"googlenet": googlenet.AuxiliaryHead, "inception_v3": inception.AuxiliaryHead}


def load(name):
    """The model, and its variables filled with the tensors that the reference had."""
    # Tracing random initialisers takes longer than all else here.
    options = {"kernel_init": INITIALISERS["zeros"], **OPTIONS.get(name, {})}
    model, expected = models.create(name.split("@")[0], **options), EXPECTED[name]
    image = jax.ShapeDtypeStruct((1, expected["side"], expected["side"], 3), jnp.float32)
    tensors = {
        key: reference.draw(key, tuple(shape), expected["gain"])
        for key, shape in expected["shapes"].items()
    }
    filled, fresh, _ = weights.into(jax.eval_shape(model.init, jax.random.key(0), image), tensors)
    assert fresh == ()
    return model, filled


def drawn_map(name, shape):
    return jnp.array(reference.draw_map(name, tuple(shape)).transpose(1, 2, 0)[None], jnp.float32)


def assert_same(logits, expected):
    """To 1e-4 of the largest logit."""
    assert logits.shape == (1, 1000)
    np.testing.assert_allclose(jnp.abs(logits).max(), expected["scale"], rtol=1e-4)
    np.testing.assert_allclose(
        logits[0, :: reference.STEP], expected["logits"], rtol=0, atol=1e-4 * expected["scale"]
    )


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in EXPECTED]
)
def test_logits_are_torchvisions(name):
    model, variables = load(name)
    side = EXPECTED[name]["side"]
    assert_same(
        run_quickly(model.apply, variables, drawn_map("image", (3, side, side))), EXPECTED[name]
    )
    # Auxiliary heads answer in training alone, so they are asked on their own.
    for head, expected in EXPECTED[name]["heads"].items():
        module = HEADS[name](1000, model.activation, model.kernel_init, None)
        own = {collection: tree[head] for collection, tree in variables.items()}
        maps = drawn_map(head, expected["shape"])
        assert_same(run_quickly(lambda v, x, m=module: m.apply(v, x, False), own, maps), expected)


@pytest.mark.parametrize("name", [name for name in EXPECTED if "@timm" in name])
def test_timms_names_fit_without_remainder(name):
    load(name)


def test_weights_with_auxiliary_heads_fit_a_model_without():
    shapes = EXPECTED["googlenet"]["shapes"]
    tensors = {key: np.zeros(shape) for key, shape in shapes.items()}
    model = models.create("googlenet", auxiliary=False)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    filled, _, _ = weights.into(variables, tensors, unused="aux")
    assert sum(x.size for x in jax.tree.leaves(filled["params"])) == 6_624_904
