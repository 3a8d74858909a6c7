"""NumPy's .npz files of anybody: no pickle in them is opened, and their size is bounded."""

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

MOST_BYTES = 2**33  # of all arrays, unpacked
# What NumPy and zipfile raise of files that are damaged, or were made to do harm.
DAMAGE = (
    OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError,
    RuntimeError, SyntaxError, MemoryError, TypeError, AttributeError, IndexError, OverflowError,
)  # fmt: skip


def load(path: Path, wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
    """Reads the arrays of a file whose names are wanted.

    Raises:
      FileNotFoundError: there is no file.
      One of DAMAGE: it is damaged, is none of NumPy's, is too large, or holds Python objects.
    """
    with zipfile.ZipFile(path) as packed:
        size = sum(member.file_size for member in packed.infolist())
    if size > MOST_BYTES:
        raise ValueError(f"has {size:,} bytes unpacked; {MOST_BYTES:,} at most are read")
    with np.load(path, allow_pickle=False) as file:
        found = {name: file[name] for name in file.files if wanted(name)}
    for name, value in found.items():  # what is no array of NumPy's comes as bytes
        if not isinstance(value, np.ndarray):
            raise ValueError(f"{name} is no array")
    return found
