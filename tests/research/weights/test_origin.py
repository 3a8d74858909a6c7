"""What weights expect, against what torchvision and timm state and do.

tests/fixtures/generate_published_preprocessing.py says where the expected numbers come from.
"""

import functools
import gzip
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from research import models
from research.data.images.preprocessing import fit
from research.errors import UserError
from research.weights.origin import TIMM, origin_of
from research.weights.timm import with_epsilon

FIXTURES = Path(__file__).parents[2] / "fixtures"
spec = importlib.util.spec_from_file_location(
    "generate_published_preprocessing", FIXTURES / "generate_published_preprocessing.py"
)
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)
PUBLISHED = json.loads(gzip.decompress(reference.FILE.read_bytes()))

FIRST = {"timm": ("conv_stem.weight", "blocks.0.0.bn1.weight"), "torchvision": ("fc.weight",)}
MOBILE = ("mobile", "efficient")


def origin(file, model, layout="timm", init_as=""):
    return origin_of(Path(file), FIRST[layout], model, models.available()[model], init_as)


@functools.cache
def made(preprocessing):
    """What the fixture keeps of the images that it prepared."""
    pictures = [reference.image(*size) for size in reference.SIZES]
    prepared = [preprocessing.standardise(fit(picture, preprocessing)) for picture in pictures]
    return [x.transpose(2, 0, 1).ravel()[:: reference.STEP] for x in prepared]


def assert_as_published(preprocessing, row):
    """To a tenth of what one step of an 8-bit value is."""
    for numbers, expected in zip(
        made(preprocessing), PUBLISHED["numbers"][row["numbers"]], strict=True
    ):
        np.testing.assert_allclose(numbers, expected, atol=1.5e-3)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_every_published_set_of_weights_gets_its_own_preprocessing(tmp_path, library):
    rows = [row for row in PUBLISHED["rows"] if row["library"] == library]
    assert len(rows) == {"torchvision": 27, "timm": 98}[library]
    for row in rows:
        network = row["network"]
        if library == "torchvision":
            found = origin(tmp_path / row["file"], network, "torchvision")
            assert found.epsilon is None
            assert_as_published(found.preprocessing, row)
            continue
        model = TIMM[network].model
        layout = "timm" if network.removeprefix("tf_").startswith(MOBILE) else "torchvision"
        (tmp_path / "config.json").write_text(json.dumps(row["config"]))
        found = origin(tmp_path / "model.safetensors", model, layout)
        assert_as_published(found.preprocessing, row)
        assert found.said == f"timm's {network}"
        # The epsilon of timm's: PyTorch's own, and TensorFlow's in what comes from there.
        if layout == "timm":
            assert found.epsilon == (1e-3 if network.startswith("tf_") else 1e-5)
        if row["default"]:  # of which the name alone is known
            assert_as_published(origin("w.pth", model, layout, network).preprocessing, row)


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("mobilenet_v3_small", "mobilenetv3_small_100 and of its tf_mobilenetv3_small_100"),
        ("efficientnet_b6", "efficientnet_b6 and of its tf_efficientnet_b6"),
        ("efficientnet_lite0", "efficientnet_lite0 and of its tf_efficientnet_lite0"),
    ],
)
def test_what_cannot_be_told_apart_is_refused_until_a_flag_says_it(model, names):
    for name in (
        "weights.pth",
        "tf_efficientnet_b0.in1k/w.pth",
        "mobilenetv3_small_100.safetensors",
    ):
        with pytest.raises(UserError, match=f"has the tensors of timm's {names}.*--init_as"):
            origin(name, model)
    ours = models.available()[model]
    own = next(name for name, network in TIMM.items() if network.model == model)
    assert origin("weights.pth", model, init_as=own).said == f"timm's {own}"
    assert ours.twin == ""


@pytest.mark.parametrize(
    ("file", "model", "network"),
    [
        # Where there is but one network with such tensors.
        ("weights.pth", "mobilenet_v1", "mobilenetv1_100"),
        ("weights.pth", "mobilenet_v2", "mobilenetv2_100"),
        # The model says it.
        ("weights.pth", "tf_efficientnet_b2", "tf_efficientnet_b2"),
        ("weights.pth", "timm_efficientnet_lite0", "efficientnet_lite0"),
        # As timm calls files and repositories.
        ("tf_efficientnet_b0_ns-c0e6a31c.pth", "tf_efficientnet_b0", "tf_efficientnet_b0"),
        ("efficientnet_b0.ra_in1k.safetensors", "efficientnet_b0", "efficientnet_b0"),
        (
            "hub/models--timm--tf_mobilenetv3_large_100.in1k/snapshots/0f/model.safetensors",
            "tf_mobilenet_v3_large",
            "tf_mobilenetv3_large_100",
        ),
    ],
)
def test_names_tell(file, model, network):
    found = origin(file, model)
    assert found.said == f"timm's {network}"
    assert found.preprocessing == TIMM[network].preprocessing


def test_widths_are_of_the_same_network():
    assert origin("w.pth", "mobilenet_v2", init_as="mobilenetv2_050").epsilon == 1e-5


@pytest.mark.parametrize(
    ("file", "model", "init_as", "said"),
    [
        ("tf_efficientnet_b0_ns-c0e6a31c.pth", "efficientnet_b0", "", "--model=tf_efficientnet_b0"),
        ("w.pth", "mobilenet_v3_small", "tf_mobilenetv3_small_100", "--model=tf_mobilenet_v3"),
        ("resnetblur50-84f4748f.pth", "resnet50", "", "give --model=resnetblur50, or --backbone"),
        ("models--timm--resnetaa50.a1h_in1k/model.safetensors", "resnet50", "", "not among them"),
        ("w.pth", "resnet50", "resnet5", "Did you mean 'resnet50'"),
    ],
)
def test_another_network_with_the_same_tensors_is_refused(file, model, init_as, said):
    with pytest.raises(UserError, match=said):
        origin(file, model, "torchvision" if "resnet" in model else "timm", init_as)


def test_config_json_and_flag_must_agree(tmp_path):
    file = tmp_path / "model.safetensors"
    stated = {"architecture": "tf_efficientnet_b0", "pretrained_cfg": {"mean": [0.5]}}
    (tmp_path / "config.json").write_text(json.dumps(stated))
    with pytest.raises(UserError, match=r"config\.json beside .* says tf_efficientnet_b0"):
        origin(file, "efficientnet_b0", init_as="efficientnet_b0")
    with pytest.raises(UserError, match=r"config\.json: says nothing that is understood"):
        origin(file, "tf_efficientnet_b0")
    # Of another program, or damaged: it says nothing of weights of timm's.
    for text in ('{"architectures": ["ResNet"]}', "[", "[1]", '{"architecture": "resnet50"}'):
        (tmp_path / "config.json").write_text(text)
        assert origin(file, "resnet50", "torchvision").said == "torchvision's resnet50"


def test_a_network_that_no_library_publishes_is_said_to_be_unknown():
    found = origin("w.pth", "lenet5", "torchvision")
    assert "not known" in found.said
    assert found.preprocessing.channels == len(found.preprocessing.mean) == 1


def test_another_epsilon_is_put_into_the_scales():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 4))
    tensors = {
        "bn.weight": rng.uniform(0.5, 1.5, 4).astype("f"),
        "bn.bias": rng.normal(size=4).astype("f"),
        "bn.running_mean": rng.normal(size=4).astype("f"),
        "bn.running_var": np.array([1e-6, 1e-3, 0.1, 2.0], "f"),
        "conv.weight": rng.normal(size=(4, 2, 1, 1)).astype("f"),
    }

    def normalised(t, epsilon):
        deviation = np.sqrt(t["bn.running_var"] + epsilon)
        return (x - t["bn.running_mean"]) / deviation * t["bn.weight"] + t["bn.bias"]

    changed = with_epsilon(tensors, 1e-5, 1e-3)
    np.testing.assert_allclose(normalised(changed, 1e-3), normalised(tensors, 1e-5), rtol=1e-5)
    assert changed["bn.weight"].dtype == np.float32
    assert {k for k in tensors if changed[k] is not tensors[k]} == {"bn.weight"}
