"""Feature maps of a frozen encoder, computed once and kept on disk."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from research.data.config import Augmentation
from research.data.images.preprocessing import Mapped
from research.data.own.captions import CaptionedSplit
from research.data.sources.examples import Arrays, Example, Examples, read_many
from research.data.sources.source import Source
from research.data.sources.splits import Subset
from research.data.stored.sets import PreparedSplit
from research.data.text.captions import Tokenised, tokens_of
from research.errors import UserError
from research.experiment import Batch, Variables
from research.hardware.target import target
from research.record import checksums
from research.record.checksums import DamagedError
from research.record.progress import console
from research.record.run_folder import fingerprint
from research.spacing import spaced

Encode = Callable[
    [UInt8[np.ndarray, "batch height width channel"]], Float[np.ndarray, "batch rows columns map"]
]
_BATCH = 32
_SAY_EVERY = 50  # batches
_LOOKED_AT = 8  # images whose pixels are compared, beside the bytes of all files


class Encoder(NamedTuple):
    """A compiled network that makes maps of images.

    Attributes:
      encode: compiled for 32 images at a time; rows depend on their own image alone.
      identity: names everything that its maps depend on.
    """

    encode: Encode
    identity: str


def encoder_of(
    maps: Callable[[Variables, Batch], Array], variables: Variables, blank: Batch
) -> Encoder:
    """Returns the encoder (variables, batch) -> maps, for batches of 32.

    Its identity is a digest of the program that JAX makes of it (the network's layers, its
    preprocessing, its precision) and of every variable, batch statistics too.

    Args:
      variables: those that the encoder uses, and no others.
      blank: a batch of one image, of which only the shape matters.
    """
    image = blank["image"]
    batch = {"image": jax.ShapeDtypeStruct((_BATCH, *image.shape[1:]), image.dtype)}
    program = jax.jit(maps).lower(variables, batch)
    text = sha256(program.as_text().encode()).hexdigest()
    compiled = functools.cache(program.compile)  # only where maps are not there yet

    def encode(images: np.ndarray) -> np.ndarray:
        return np.asarray(compiled()(variables, {"image": images}))

    return Encoder(encode, f"{target().platform} {text} {fingerprint(variables)}")


def below(module: str, variables: Variables) -> dict[str, Any]:
    """Returns the variables of one submodule, in their places: {"params": {module: ...}, ...}."""
    return {name: {module: tree[module]} for name, tree in variables.items() if module in tree}


def check(
    options: Augmentation, encoder: Mapping[str, Any], frozen: Callable[[str], bool] | None
) -> None:
    """Raises UserError where an image's maps change during training.

    Args:
      encoder: its parameters, by their place in the network, such as {"backbone": ...}.
      frozen: path of a parameter -> whether it is frozen.
    """
    paths = (
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree.leaves_with_path(encoder)
    )
    if frozen is None or not all(map(frozen, paths)):
        raise UserError("--cache_features: the encoder changes; add --freeze=^backbone/.")
    for name in (f.name for f in dataclasses.fields(Augmentation) if f.name != "elastic_sigma"):
        if getattr(options, name):
            raise UserError(f"--cache_features: --{name} changes the maps; leave one of them out.")


def features(
    examples: Examples, encoder: Encoder, folder: Path
) -> Float[np.ndarray, "n rows columns map"]:
    """Returns the map of every example, float16, from a file in `folder` if it is there already.

    The array is mapped into memory, not read: a batch reads its own maps alone. Another encoder,
    and other images, have another file.

    Args:
      examples: not decoded yet. Their image files are read to identify them, and some are decoded,
        because the way of reading and resizing images may change too. Captions have no part in it:
        where one changes, the maps stay.

    Raises:
      DamagedError: where the file is not what was written.
      UserError: where the folder cannot be written.
    """
    state = sha256(encoder.identity.encode() + b"".join(image_digests(examples)))
    for example in read_many(examples, spaced(len(examples), _LOOKED_AT).tolist()):
        state.update(np.ascontiguousarray(example["image"]).tobytes())
    name = state.hexdigest()[:16]
    # Those of earlier versions have no checksum in their names.
    path = next((p for form in (f"{name}-*.npy", f"{name}.npy") for p in folder.glob(form)), None)
    if path is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = _write(folder / name, examples, encoder.encode)
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror})") from None
    _check(path, path.stat().st_mtime_ns)
    return np.load(path, mmap_mode="r")


@functools.cache
def _check(path: Path, written: int) -> None:
    """Compares maps, once in a process, with the sha256 in their name; another time is another."""
    _, _, digest = path.stem.partition("-")
    if digest and checksums.of_file(path)["sha256"] != digest:
        raise DamagedError(f"{path}: is damaged (is not what was written); delete it, and go on.")


def _write(place: Path, examples: Examples, encode: Encode) -> Path:
    """Writes PLACE-SHA256.npy, under another name first: a half-written file is never read."""
    unfinished = place.with_suffix(f".{os.getpid()}.npy")
    console().print(f"encoding {len(examples):,} images into {place}-*.npy, once", markup=False)
    # Decodes the next while one is encoded; each of several processes needs all of them.
    source = Source(examples, _BATCH, cache_bytes=0, part=(0, 1))
    array = None
    try:
        for number, batch in enumerate(source.iterate(), 1):
            maps = encode(batch["image"]).astype(np.float16)
            if array is None:
                shape = (len(examples), *maps.shape[1:])
                array = np.lib.format.open_memmap(unfinished, "w+", np.float16, shape)
            array[batch["index"][batch["mask"]]] = maps[batch["mask"]]
            if number % _SAY_EVERY == 0:
                console().print(f"encoded {number * _BATCH:,} images", markup=False)
        assert array is not None, "a split has at least one example"
        array.flush()
        del array
        digest = checksums.of_file(unfinished)["sha256"]
        return unfinished.rename(f"{place}-{digest}.npy")
    finally:
        unfinished.unlink(missing_ok=True)


@dataclasses.dataclass(frozen=True, eq=False)
class WithFeatures:
    """Examples with the field "features" added: their maps."""

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
    splits: Mapping[str, Examples], encoder: Encoder, folder: Path
) -> dict[str, Examples]:
    """Adds "features", the maps of a frozen encoder, to splits of captions; see `features`.

    The training split then has no images, so none is decoded again; other splits keep theirs, for
    pictures.
    """
    found: dict[str, Examples] = {}
    for name, examples in splits.items():
        maps = features(examples, encoder, folder)
        if name == "train":
            found[name] = Arrays({"features": maps, "tokens": tokens_of(examples)})
        else:
            found[name] = WithFeatures(examples, maps)
    return found


def image_digests(examples: Examples) -> list[bytes]:
    """Returns the sha256 of the encoded image of every example, without decoding one."""
    if isinstance(examples, Mapped | Tokenised):
        return image_digests(examples.examples)
    if isinstance(examples, Subset):
        whole = image_digests(examples.examples)
        return [whole[position] for position in examples.positions]
    if isinstance(examples, PreparedSplit):
        return examples.scan(lambda f: sha256(f["image"].bytes_list.value[0]).digest())
    assert isinstance(examples, CaptionedSplit), "no encoded images"
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda file: sha256(Path(file).read_bytes()).digest(), examples.files))
