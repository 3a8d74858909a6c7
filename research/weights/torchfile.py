"""Reads PyTorch checkpoints without PyTorch and without trusting them.

A `.pth` file is a pickle, and a pickle is a program. The reader here knows the functions with
which torch rebuilds a tensor or a parameter, its storages, `OrderedDict`, `Size` and `device`, and
has stand-ins for them; a file that names anything else is refused, and nothing is imported.

Two layouts exist, both described in torch/serialization.py: a zip archive of `data.pkl` and one
record for each storage (since version 1.6), and before it a row of pickles followed by storages.
"""

import io
import math
import os
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from research.errors import UserError
from research.weights.unpickle import RefusedError, unpickle

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001

# A storage class by name -> the element type of its bytes, which are little-endian.
STORAGES: Mapping[str, np.dtype] = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class Storage(NamedTuple):
    """A flat row of numbers that is yet to be read; tensors are views of it."""

    key: str
    dtype: np.dtype
    size: int  # in elements
    offset: int = 0  # in elements, within the storage of that key


class Tensor(NamedTuple):
    """The elements of a storage that make up a tensor; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(
    storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> Tensor:
    """Stands for torch._utils._rebuild_tensor_v2; gradients and hooks are ignored."""
    if not isinstance(storage, Storage) or not len(shape) == len(strides) <= 8:
        raise RefusedError("a tensor without a storage")
    if not all(isinstance(n, int) and n >= 0 for n in (offset, *shape, *strides)):
        raise RefusedError("a tensor with a negative size")
    # An expanded tensor repeats its storage: a few bytes in the file could ask for any memory.
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    elements = math.prod(map(int, shape))
    if elements > storage.size or (elements and last >= storage.size):
        raise RefusedError("a tensor larger than its storage")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _ordered_dict(*items: Any) -> dict[str, Any]:
    """Stands for collections.OrderedDict(), with a list of its items, or with items that follow."""
    return {key: value for key, value in items[0] if isinstance(key, str)} if items else {}


# All names that a checkpoint may use: of functions to call on its content, and of storages.
KNOWN: Mapping[str, Callable[..., Any] | str] = {
    "collections OrderedDict": _ordered_dict,
    "torch._utils _rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils _rebuild_tensor": _rebuild_tensor,
    "torch._utils _rebuild_parameter": lambda data, *_: data,
    "torch Size": tuple,
    "torch device": lambda *_: None,
    **{f"torch {name}": name for name in STORAGES},
}


def _storage(pid: Any) -> Storage:
    """Returns the storage that torch's persistent id describes."""
    tag, kind, key, _location, size, *view = pid
    if tag != "storage" or kind not in STORAGES or not isinstance(size, int):
        raise RefusedError("a persistent object that is no storage")
    # Files of the first layout may place a storage within another one: (key, offset, size).
    _, offset, size = view[0] if view and view[0] is not None else (None, 0, size)
    return Storage(str(key), STORAGES[kind], int(size), int(offset))


def load_torch(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the state dict in a `.pth` or `.pt` file.

    A checkpoint that keeps its state dict beside other things, as {"state_dict": ...} or
    {"model": ...}, gives that.

    Raises:
      UserError: the file is missing, cut short, damaged, of another format, or names anything but
        tensors and plain containers.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            content, storages = _read_zip(file) if is_zip else _read_legacy(file)
        return {name: _array(tensor, storages) for name, tensor in _state_dict(content).items()}
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}.") from error
    except RefusedError as error:
        raise UserError(
            f"{path}: refused, for it contains {error}, and weights are names and tensors alone. "
            "Save the model's state_dict() and load that."
        ) from error
    # A damaged pickle can fail anywhere in the unpickler, with almost any exception.
    except Exception as error:
        raise UserError(
            f"{path}: no PyTorch checkpoint, cut short or damaged ({type(error).__name__}: {error})"
            "; fetch the file again."
        ) from error


def _read_zip(file: io.BufferedReader) -> tuple[Any, dict[str, bytes]]:
    """Reads the layout of torch 1.6 and later: NAME/data.pkl, NAME/data/KEY and NAME/byteorder."""
    with zipfile.ZipFile(file) as archive:
        members = {member.filename: member for member in archive.infolist()}
        root = next((name[: -len("data.pkl")] for name in members if name.endswith("data.pkl")), "")
        if f"{root}constants.pkl" in members:
            raise RefusedError("a TorchScript program")
        # torch stores without compression; a compressed record could unpack to any size.
        if any(member.compress_type != zipfile.ZIP_STORED for member in members.values()):
            raise RefusedError("compressed records")
        if f"{root}byteorder" in members and archive.read(f"{root}byteorder") != b"little":
            raise RefusedError("big-endian numbers")
        content = unpickle(io.BytesIO(archive.read(f"{root}data.pkl")), KNOWN, _storage)
        records = f"{root}data/"
        return content, {
            name[len(records) :]: archive.read(member)  # checks the record's CRC-32
            for name, member in members.items()
            if name.startswith(records)
        }


def _read_legacy(file: io.BufferedReader) -> tuple[Any, dict[str, bytes]]:
    """Reads the layout before torch 1.6: magic, version, machine, content, keys, storages."""

    widths: dict[str, int] = {}  # bytes an element of each storage; the file counts elements

    def storage(pid: Any) -> Storage:
        found = _storage(pid)
        widths[found.key] = found.dtype.itemsize
        return found

    magic, version = unpickle(file, {}, storage), unpickle(file, {}, storage)
    if (magic, version) != (LEGACY_MAGIC, LEGACY_VERSION):
        raise ValueError("neither a zip archive nor torch's magic number")
    if not unpickle(file, {}, storage).get("little_endian", True):
        raise RefusedError("big-endian numbers")
    content = unpickle(file, KNOWN, storage)
    storages = {}
    for key in unpickle(file, {}, storage):
        (size,) = struct.unpack("<q", file.read(8))
        length = size * widths[key]
        storages[key] = file.read(length)
        if len(storages[key]) != length:
            raise EOFError(f"storage {key} has {len(storages[key])} of {length} bytes")
    return content, storages


def _state_dict(content: Any) -> dict[str, Tensor]:
    """Finds the mapping from names to tensors within a checkpoint's content."""
    if not isinstance(content, Mapping):
        raise RefusedError(f"a {type(content).__name__} where a state dict should be")
    for wrapper in ("state_dict", "model", "model_state_dict", "net"):
        if isinstance(content.get(wrapper), Mapping):
            return _state_dict(content[wrapper])
    odd = next((k for k, v in content.items() if not isinstance(v, Tensor)), None)
    if odd is not None or not content:
        raise RefusedError(f"{odd!r}, which is no tensor" if content else "no tensors")
    return {str(name): tensor for name, tensor in content.items()}


def _array(tensor: Tensor, storages: Mapping[str, bytes]) -> np.ndarray:
    """Copies a tensor out of its storage."""
    storage = tensor.storage
    flat = np.frombuffer(
        storages[storage.key],
        storage.dtype,
        storage.size,
        storage.offset * storage.dtype.itemsize,
    )
    view = np.lib.stride_tricks.as_strided(
        flat[tensor.offset :],
        tensor.shape,
        [stride * storage.dtype.itemsize for stride in tensor.strides],
    )
    return np.array(view)  # contiguous, writable, and free of the file's buffer
