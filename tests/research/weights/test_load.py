import numpy as np
import pytest
from safetensors.numpy import save_file

from research.errors import UserError
from research.weights import load


def test_safetensors_are_read(tmp_path):
    saved = {"a.weight": np.arange(6, dtype="f").reshape(2, 3), "b": np.array([1, 2])}
    save_file(saved, tmp_path / "a.safetensors")
    loaded = load(tmp_path / "a.safetensors")
    assert loaded.keys() == saved.keys()
    for name, value in saved.items():
        np.testing.assert_array_equal(loaded[name], value)


@pytest.mark.parametrize("size", [0, 5, 50, -1])
def test_safetensors_cut_short_are_named(size, tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": np.zeros(9, "f")}, path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=r"a\.safetensors"):
        load(path)


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UserError, match="'efficientnet_lite0'"):
        load("efficientnet_lite_0")


def test_an_unknown_kind_of_file_is_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"")
    with pytest.raises(UserError, match=r"\.safetensors"):
        load(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "model.", "state_dict.", "module._orig_mod.", ""]
)
def test_what_wrapped_a_network_is_taken_off_its_names(prefix, tmp_path):
    # torch.compile, DataParallel and Lightning save so; made here.
    tensors = {"conv1.weight": np.ones((2, 1, 3, 3), "f"), "model.bias": np.zeros(2, "f")}
    save_file({prefix + k: v for k, v in tensors.items()}, tmp_path / "a.safetensors")
    assert load(tmp_path / "a.safetensors").keys() == tensors.keys()
