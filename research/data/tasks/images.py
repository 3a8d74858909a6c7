"""Images alone: {"image": uint8 [h, w, c]}, for experiments that need no labels."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from research.data.files import at_home, count_line, find, subfolders
from research.data.images.reading import (
    EXTENSIONS,
    WHITE,
    Reduce,
    decode_image,
    read,
    white_of,
    with_channels,
)
from research.data.own import folders
from research.data.sources.division import how_drawn
from research.data.sources.examples import Example
from research.data.sources.splits import Dataset, Labelled, looked_at, with_test
from research.data.tasks import Own, Stored, Task
from research.data.tasks.classification import unreadable
from research.errors import UserError
from research.record.progress import console


@dataclasses.dataclass(frozen=True)
class EncodedImage:
    """An encoded image."""

    key: str
    channels: int | None
    reduce: Reduce | None = None  # see `images.read`

    def example(self, features: Mapping[str, Any], where: str) -> Example:
        image = decode_image(features[self.key].bytes_list.value[0], where, reduce=self.reduce)
        return {"image": with_channels(image, self.channels)}

    def label(self, features: Mapping[str, Any]) -> int:
        return 0


def find_images(info: Any) -> Stored | None:
    """Finds the image of a TFDS set: its feature "image", or its only image feature."""
    import tensorflow_datasets as tfds

    found = {k: f for k, f in dict(info.features).items() if isinstance(f, tfds.features.Image)}
    key = "image" if "image" in found else next(iter(found), None)
    if key is None or (len(found) > 1 and key != "image"):
        return None
    return Stored(EncodedImage(key, found[key].shape[-1]), (), tuple(found[key].shape))


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFiles:
    """The encoded images of files."""

    files: tuple[str, ...]
    white: int = WHITE  # see `images.read`
    reduce: Reduce | None = None  # likewise

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        return self.files[index]

    def __getitem__(self, index: int, /) -> Example:
        return {"image": read(self.files[index], self.white, self.reduce)}

    @property
    def labels(self) -> np.ndarray:
        """Returns class 0 for all examples, as stratified splits need labels."""
        return np.zeros(len(self.files), np.int32)


def load(
    location: str | Path,
    *,
    skip_corrupt: bool = False,
    split_seed: int = 0,
    most_checked: int = folders.MOST_CHECKED,
) -> Dataset:
    """Opens all images below PATH; or those below PATH/train and PATH/test, and PATH/val.

    Without these folders a fifth is the test split, evenly spaced in natural order (of 10 files the
    third and the eighth), or drawn with a split_seed. Every file is decoded once, to find those
    that cannot be; of more than most_checked files, only when skip_corrupt asks for it.

    Raises:
      UserError: for a folder without images, a file that is no image or is damaged, and images
        beside the folders of splits.
    """
    path = at_home(location)
    where = f"--dataset=folder:{path}"
    if not path.is_dir():
        raise UserError(f"{where}: no such folder")
    parts = _parts(path, where)
    below = {split: find(part, EXTENSIONS) for split, part in parts.items()}
    for split, found in below.items():
        if not found.files:
            raise UserError(f"{parts[split]}: holds no images ({', '.join(EXTENSIONS)})")
    left_out: Counter[str] = Counter()
    for found in below.values():
        left_out.update(found.left_out)
    named = {
        split: ([str(file) for file in found.files], [0] * len(found.files))
        for split, found in below.items()
    }
    total = sum(len(files) for files, _ in named.values()) + left_out.total()
    if skip_corrupt or sum(len(files) for files, _ in named.values()) <= most_checked:
        named, left_out["unreadable"] = folders.readable(named, skip_corrupt)
    counts = count_line(total, left_out)
    console().print(f"folder:{path}: {counts}", markup=False)
    white = white_of(file for files, _ in named.values() for file in files)
    splits: dict[str, Labelled] = {
        split: ImageFiles(tuple(files), white) for split, (files, _) in named.items()
    }
    note = f"your own pictures; {counts}"
    if list(splits) == ["train"]:
        splits = with_test(splits, where, split_seed)
        note += f"; a fifth, {how_drawn(split_seed)}, is the test split"
    return Dataset(f"folder:{path}", splits, (), (None, None, None), note, white)


def _parts(path: Path, where: str) -> dict[str, Path]:
    """Finds {split: its folder}; all is "train" where no folder is called train or the like."""
    inner = subfolders(path)
    parts: dict[str, Path] = {}
    for folder in inner:
        split = folders.SPLITS.get(folder.name.lower())
        if split in parts:
            raise UserError(
                f"{where}: {parts[split].name}/ and {folder.name}/ are the same split; join them"
            )
        if split is not None:
            parts[split] = folder
    if not parts:
        return {"train": path}
    listed = " and ".join(f"{folder.name}/" for folder in parts.values())
    if "train" not in parts:
        raise UserError(f"{where}: holds {listed} but no train/; add it, or rename the others")
    beside = list(find(path, EXTENSIONS, deep=False).files)
    for folder in inner:
        if folder not in parts.values():
            beside += find(folder, EXTENSIONS).files
    if beside:
        raise UserError(
            f"{where}: {beside[0].relative_to(path)} lies beside {listed}, in no split; move it"
        )
    return parts


def inspect(dataset: Dataset) -> list[str]:
    """Lists a data set's faults, one line each: images that cannot be read."""
    return [
        f"{dataset.name}, {split}: {message}"
        for split, examples in dataset.splits.items()
        for message in unreadable(looked_at(examples, dataset.sample))
    ]


TASK = Task(
    noun="set of images",
    find=find_images,
    own={"folder": Own(load, "PATH", "all images below a folder, or below train/ and test/", True)},
)
