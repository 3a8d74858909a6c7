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
import PIL.Image
import pytest
from safetensors.numpy import save_file

import launch
from research import models, weights
from research.data.images.preprocessing import fit
from research.models import googlenet, inception
from research.nn.initialisers import INITIALISERS
from research.weights.origin import origin_of
from research.weights.trained import in_conventions_of

FIXTURES = Path(__file__).parents[2] / "fixtures"


def generator(name):
    spec = importlib.util.spec_from_file_location(name, FIXTURES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = generator("generate_torchvision_logits")
published = generator("generate_published_preprocessing")

EXPECTED = json.loads(gzip.decompress(reference.FILE.read_bytes()))["models"]
PUBLISHED = json.loads(gzip.decompress(published.FILE.read_bytes()))
ANSWERS = PUBLISHED["answers"]
QUICK = {
    "resnet18",
    "resnet50",
    "alexnet",
    "googlenet",
    "mobilenet_v1",
    "mobilenet_v3_small",
    "mobilenet_v3_small@timm",
    "efficientnet_b0",
    "resnetblur18@timm",
}
HEADS = {"googlenet": googlenet.AuxiliaryHead, "inception_v3": inception.AuxiliaryHead}


def drawn_tensors(name):
    """The tensors that the reference had."""
    expected = EXPECTED[name]
    return {
        key: reference.draw(key, tuple(shape), expected["gain"])
        for key, shape in expected["shapes"].items()
    }


def load(name):
    """The model, its variables filled with these, and whose weights they are taken to be."""
    # Tracing random initialisers takes longer than all else here.
    here, _, library = name.partition("@")
    model = models.create(here, kernel_init=INITIALISERS["zeros"])
    if name == "inception_v3@timm":
        model = model.clone(auxiliary=False)
    network = reference.MODELS[name][0].removeprefix("timm:") if library else ""
    tensors, side = drawn_tensors(name), EXPECTED[name]["side"]
    origin = origin_of(Path("weights.pth"), tensors, here, models.available()[here], network)
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    filled, fresh, _ = weights.into(
        jax.eval_shape(model.init, jax.random.key(0), image),
        in_conventions_of(model, tensors, origin),
    )
    assert fresh == ()
    return model, filled, origin


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
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.families) for n in EXPECTED]
)
def test_logits_are_torchvisions(name):
    model, variables, _ = load(name)
    side = EXPECTED[name]["side"]
    assert_same(
        jax.jit(model.apply)(variables, drawn_map("image", (3, side, side))), EXPECTED[name]
    )
    # Auxiliary heads answer in training alone, so they are asked on their own.
    for head, expected in EXPECTED[name]["heads"].items():
        module = HEADS[name](1000, model.activation, model.kernel_init, None)
        own = {collection: tree[head] for collection, tree in variables.items()}
        maps = drawn_map(head, expected["shape"])
        assert_same(jax.jit(lambda v, x, m=module: m.apply(v, x, False))(own, maps), expected)


@pytest.mark.families
@pytest.mark.parametrize("name", published.ANSWERING)
def test_images_prepared_as_the_weights_expect_get_their_own_library_s_answer(name):
    model, variables, origin = load(name)
    image = fit(published.image(*published.SIZES[0]), origin.preprocessing)
    logits = jax.jit(model.apply)(variables, origin.preprocessing.standardise(image)[None])
    assert_same(logits, ANSWERS[name])


def test_predicting_a_file_gives_the_library_s_own_answer(tmp_path):
    """Weights, timm's config.json beside them and a picture: images go from -1 to 1, padding is
    TensorFlow's."""
    name = "tf_mobilenet_v3_small@timm"
    tensors = {k: v.astype(np.float32) for k, v in drawn_tensors(name).items()}
    save_file(tensors, tmp_path / "model.safetensors")
    (row,) = [r for r in PUBLISHED["rows"] if r["network"] == "tf_mobilenetv3_small_100"]
    (tmp_path / "config.json").write_text(json.dumps(row["config"]))
    PIL.Image.fromarray(published.image(*published.SIZES[0])).save(tmp_path / "a.png")
    command = [
        *("x", "--mode=predict", "--model=tf_mobilenet_v3_small", "--compilation_cache="),
        f"--init_from={tmp_path / 'model.safetensors'}",
        f"--inputs={tmp_path / 'a.png'}",
        f"--workdir={tmp_path / 'out'}",
    ]
    assert launch.main(command) == 0
    predicted = json.loads((tmp_path / "out" / "predictions.jsonl").read_text())["probabilities"]
    surest = {f"class {k}": p for k, p in ANSWERS[name]["surest"].items()}
    assert predicted == pytest.approx(surest, rel=2e-3)


@pytest.mark.parametrize("name", ["mobilenet_v2@timm", "efficientnet_b1@timm"])
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
