"""Maps of a frozen encoder, computed once and kept on disk."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from research.data.captions import tokens_of
from research.data.source import Arrays, Example, Examples, digest, read_many
from research.errors import UserError
from research.progress import console

Encode = Callable[
    [UInt8[np.ndarray, "batch height width channel"]], Float[np.ndarray, "batch rows columns map"]
]
_BATCH = 32
_SAY_EVERY = 50  # batches


def features(
    examples: Examples, encode: Encode, folder: Path, identity: str
) -> Float[np.ndarray, "n rows columns map"]:
    """encode(images) of every example, float16, from a file of `folder` where it lies already.

    The array is mapped into memory, not read: a batch costs what it touches.

    Args:
      encode: compiled for 32 images at a time; rows depend on their own image alone.
      identity: names the encoder: another one, or other images, have another file.

    Raises:
      UserError: where the folder cannot be written.
    """
    name = hashlib.sha256(f"{identity} {digest(examples)}".encode()).hexdigest()[:16]
    path = folder / f"{name}.npy"
    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write(path, examples, encode)
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror})") from None
    return np.load(path, mmap_mode="r")


def _write(path: Path, examples: Examples, encode: Encode) -> None:
    """Writes beside the file and renames: a half-written one is never read."""
    unfinished = path.with_suffix(f".{os.getpid()}.npy")
    console().print(f"encoding {len(examples):,} images into {path}, once", markup=False)
    array = None
    try:
        for number, start in enumerate(range(0, len(examples), _BATCH)):
            indices = [*range(start, min(start + _BATCH, len(examples)))]
            images = np.stack([example["image"] for example in read_many(examples, indices)])
            full = np.concatenate([images, np.repeat(images[-1:], _BATCH - len(images), axis=0)])
            maps = encode(full)[: len(images)].astype(np.float16)
            if array is None:
                shape = (len(examples), *maps.shape[1:])
                array = np.lib.format.open_memmap(unfinished, "w+", np.float16, shape)
            array[start : start + len(maps)] = maps
            if number and number % _SAY_EVERY == 0:
                console().print(f"encoded {start + len(maps):,} images", markup=False)
        assert array is not None, "a split has at least one example"
        array.flush()
        del array
        unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)


@dataclasses.dataclass(frozen=True, eq=False)
class WithFeatures:
    """Examples with their map beside their image."""

    examples: Examples
    maps: np.ndarray

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int, /) -> Example:
        return self.examples[index] | {"features": self.maps[index]}

    def __getitems__(self, indices: Sequence[int], /) -> list[Example]:
        read = read_many(self.examples, indices)
        return [e | {"features": self.maps[i]} for i, e in zip(indices, read, strict=True)]


def split_features(
    splits: Mapping[str, Examples], encode: Encode, folder: Path, identity: str
) -> dict[str, Examples]:
    """Splits of captioned images with "features", the maps of a frozen encoder; see `features`.

    What is trained on has no images any more, so none is decoded again; the others keep theirs,
    for pictures.
    """
    found: dict[str, Examples] = {}
    for name, examples in splits.items():
        maps = features(examples, encode, folder, identity)
        if name == "train":
            found[name] = Arrays({"features": maps, "tokens": tokens_of(examples)})
        else:
            found[name] = WithFeatures(examples, maps)
    return found
