"""folder:PATH: a person's own pictures, one subfolder a class."""

import dataclasses
import os
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from research.data.files import at_home, composed, count_line, find, natural, subfolders
from research.data.images.reading import EXTENSIONS, WHITE, Reduce, read, white_of
from research.data.sources.division import how_drawn
from research.data.sources.examples import Example
from research.data.sources.splits import Dataset, Labelled, with_test
from research.errors import UserError
from research.record.progress import console

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
MOST_CHECKED = 50_000  # files that are decoded before training


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSplit:
    """Image files and their classes."""

    files: tuple[str, ...]
    labels: np.ndarray  # int32 [file]
    white: int = WHITE  # see `images.read`
    reduce: Reduce | None = None  # likewise

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        return self.files[index]

    def __getitem__(self, index: int, /) -> Example:
        return {
            "image": read(self.files[index], self.white, self.reduce),
            "label": np.asarray(self.labels[index]),
        }


def load(
    location: str | Path,
    *,
    skip_corrupt: bool = False,
    split_seed: int = 0,
    by_class: bool = False,
    most_checked: int = MOST_CHECKED,
) -> Dataset:
    """Opens PATH/CLASS/*.png, or PATH/train/CLASS/*.png beside test/ or val/ of the same form.

    Class names sort naturally (2 before 10). Without test/ and val/, a fifth of
    each class becomes the test split: of its files in natural order, the middle one of each five,
    or drawn.
    Every file is decoded once to see that it can be; of more than most_checked files, only when
    skip_corrupt asks for it (others are named when training meets them). What is hidden, of the
    system or of a tool is passed over, links are followed, and a folder that holds nothing but one
    other, as archives have it, stands for that one; see `files.find`.

    Args:
      split_seed: draws the fifth; 0: evenly spaced.
      by_class: for tasks that are tested on classes they never trained on: test/ and val/ may have
        classes of their own, and without either, everything is left in train.

    Raises:
      UserError: no images, one class only, a file that is no image or is damaged, a class that
        only the test split has.
    """
    given = at_home(location)
    where = f"--dataset=folder:{given}"
    if not given.is_dir():
        raise UserError(f"{where}: no such folder")
    path, parts = _parts(given)
    if parts and "train" not in parts:
        raise UserError(f"{where}: holds {_listed(parts)} but no train folder")
    if not parts:
        parts = {"train": path}
    else:
        others = [f.name for f in _subfolders(path) if f not in parts.values()]
        if others:
            raise UserError(
                f"{where}: beside {_listed(parts)} there is {others[0]!r}, which "
                "is neither a split nor in one; move it away"
            )
    folders = {split: _classes(part) for split, part in parts.items()}
    class_names = _class_names(where, parts, folders, by_class)
    left_out: Counter[str] = Counter()
    found = {}
    for split, part in parts.items():
        files, labels = [], []
        for label, name in enumerate(class_names):
            if name in folders[split]:
                here = find(folders[split][name])
                left_out.update(here.left_out)
                files += [str(file) for file in here.files]
                labels += [label] * len(here.files)
        left_out["in no folder of a class"] += len(find(part, EXTENSIONS, deep=False).files)
        if not files:
            raise UserError(f"{part}: holds no images ({', '.join(EXTENSIONS)})")
        found[split] = files, labels
    count = sum(len(files) for files, _ in found.values())
    total = count + left_out.total()
    if skip_corrupt or count <= most_checked:
        found, left_out["unreadable"] = readable(found, skip_corrupt)
    counts = count_line(total, left_out)
    console().print(f"folder:{given}: {counts}", markup=False)
    note = f"your own pictures; {counts}"
    if path != given:
        note += f"; all of them in {path.relative_to(given)}"
    splits: dict[str, Labelled] = {
        split: FolderSplit(tuple(files), np.array(labels, np.int32))
        for split, (files, labels) in found.items()
    }
    if list(splits) == ["train"] and not by_class:
        splits = with_test(splits, where, split_seed)
        note += f"; a fifth of each class, {how_drawn(split_seed)}, is the test split"
    white = white_of(file for files, _ in found.values() for file in files)
    return Dataset(f"folder:{given}", splits, class_names, (None, None, None), note, white)


def _parts(path: Path) -> tuple[Path, dict[str, Path]]:
    """Finds the folder that holds classes or splits, and {split: its folder}."""
    while True:
        inner = _subfolders(path)
        parts = {
            SPLITS[folder.name.lower()]: folder
            for folder in inner
            # A folder of pictures called "train" is a class, of vehicles perhaps.
            if folder.name.lower() in SPLITS and _subfolders(folder)
        }
        # An archive's own folder: of one class there is nothing to learn.
        if parts or len(inner) != 1 or len(_subfolders(inner[0])) < 2:
            break
        path = inner[0]
    words = [set(re.split(r"[^a-z]+", folder.name.lower())) & SPLITS.keys() for folder in inner]
    called = {
        SPLITS[min(found)]: folder for found, folder in zip(words, inner, strict=True) if found
    }
    if not parts and len(called) > 1 and all(map(_subfolders, called.values())):
        raise UserError(
            f"--dataset=folder:{path}: {_listed(called)} look like splits, not classes; call them "
            f"{' and '.join(called)}"
        )
    return path, parts


def _listed(parts: dict[str, Path]) -> str:
    return " and ".join(f"{folder.name}/" for folder in parts.values())


def _subfolders(path: Path) -> list[Path]:
    """Lists the folders that may be classes or splits.

    Notes and the like, which begin with _ and hold no images, are left out.
    """
    return [
        folder
        for folder in subfolders(path)
        if not folder.name.startswith("_") or find(folder, EXTENSIONS).files
    ]


def _classes(part: Path) -> dict[str, Path]:
    """Returns {class: its folder} of one split."""
    found: dict[str, Path] = {}
    for folder in _subfolders(part):
        name = composed(folder.name)
        if name in found:
            raise UserError(f"{folder}: {found[name]} has the same name; rename one")
        found[name] = folder
    return found


def _class_names(
    where: str, parts: dict[str, Path], folders: dict[str, dict[str, Path]], by_class: bool
) -> tuple[str, ...]:
    names = tuple(folders["train"])
    if not names:
        raise UserError(
            f"{where}: {parts['train']} holds no subfolders; "
            "put the images of each class into a subfolder named after it"
        )
    if len(names) == 1:
        raise UserError(
            f"{where}: {parts['train']} holds one class only, {names[0]!r}; "
            "there is nothing to tell apart"
        )
    if by_class:
        return tuple(sorted({name for part in folders.values() for name in part}, key=natural))
    for part in folders.values():
        for name, folder in part.items():
            if name not in names:
                raise UserError(
                    f"{folder}: the class {name!r} is not in {parts['train']}, which has "
                    f"{', '.join(names[:10])}{', ...' if len(names) > 10 else ''}"
                )
    return names


def readable(
    found: dict[str, tuple[list[str], list[int]]], skip: bool
) -> tuple[dict[str, tuple[list[str], list[int]]], int]:
    """Keeps files that can be decoded and counts the others; stops at one unless skip is set."""

    def problem(file: str) -> str | None:
        try:
            read(file)
        except UserError as error:
            return str(error)
        return None

    kept, skipped = {}, []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for split, (files, labels) in found.items():
            good = []
            for i, message in enumerate(pool.map(problem, files)):
                if message is None:
                    good.append(i)
                elif skip:
                    skipped.append(message)
                else:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise UserError(f"{message} (--skip_corrupt leaves such files out)")
            kept[split] = ([files[i] for i in good], [labels[i] for i in good])
            if not good:
                raise UserError(f"none of the {len(files)} files can be read; first: {skipped[0]}")
    for message in skipped[:5]:
        console().print(f"left out: {message}", markup=False)
    return kept, len(skipped)
