"""Reads weights that Keras 3 saved (`.weights.h5`) with h5py, without Keras and TensorFlow."""

import os

import h5py
import numpy as np

from research.errors import UserError


def load_keras(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads arrays by names such as "block1/layers/conv2d/vars/0"; kernels are [out, in, *sides].

    Raises:
      UserError: the file is missing, damaged, or no HDF5 file.
    """
    tensors: dict[str, np.ndarray] = {}

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            array = np.asarray(item)
            tensors[name] = np.moveaxis(array, (-1, -2), (0, 1)) if array.ndim > 1 else array

    try:
        with h5py.File(path) as file:
            file.visititems(visit)
    except OSError as error:
        raise UserError(f"{os.fspath(path)}: no weights of Keras, or damaged ({error}).") from error
    return tensors
