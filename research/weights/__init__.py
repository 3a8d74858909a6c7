"""Weights from elsewhere: files of other frameworks, and networks that packages ship."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import load_file

from research.errors import UserError, nearest
from research.weights.kerasfile import load_keras
from research.weights.naming import Loaded, into
from research.weights.pretrained import PRETRAINED, Pretrained
from research.weights.torchfile import load_torch

__all__ = ["PRETRAINED", "Loaded", "Pretrained", "into", "load", "unwrapped"]

# Prefixes of each name by torch.compile, data parallelism, a training framework and checkpoints.
PREFIXES = ("_orig_mod.", "module.", "model.", "state_dict.")


def load(path_or_name: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads tensors by their names, torch's, from a file or a name in PRETRAINED.

    Prefixes of wrappers around the saved network are removed from the names; see `PREFIXES`.

    Args:
      path_or_name: a `.safetensors` file, a PyTorch checkpoint (`.pth`, `.pt`, `.bin`) or a name.

    Raises:
      UserError: no such file or name, an unknown kind of file, or a file that is damaged or unsafe.
    """
    name = os.fspath(path_or_name)
    if name in PRETRAINED:
        known = PRETRAINED[name]
        file = known.file()
        tensors = load_keras(file) if file.suffix == ".h5" else load_torch(file)
        renamed = {known.rename(key): value for key, value in tensors.items()}
        return known.adapt({key: value for key, value in renamed.items() if key})
    path = Path(name)
    if not path.is_file():
        raise UserError(
            f"{name}: no such file, and no trained network by that name.{nearest(name, PRETRAINED)}"
        )
    if path.suffix in (".pth", ".pt", ".bin"):
        return unwrapped(load_torch(path))
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: weights are read from .safetensors, .pth, .pt or .bin files.")
    try:
        return unwrapped(load_file(path))
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(f"{path}: damaged or cut short ({error}); fetch it again.") from error


def unwrapped(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Removes all PREFIXES that the names of all tensors begin with."""
    found = dict(tensors)
    while found and (
        prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in found)), None)
    ):
        found = {key.removeprefix(prefix): value for key, value in found.items()}
    return found
