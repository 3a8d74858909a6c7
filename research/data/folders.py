"""folder:PATH: a person's own pictures, one subfolder a class."""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from research.data.files import natural
from research.data.images import EXTENSIONS, read
from research.data.source import Example
from research.data.splits import Dataset, Labelled, with_test
from research.errors import UserError
from research.progress import console

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
_MOST_CHECKED = 50_000
_SYSTEM_FILES = ("thumbs.db", "desktop.ini")


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSplit:
    """Image files and their classes."""

    files: tuple[str, ...]
    labels: np.ndarray  # int32 [file]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int, /) -> Example:
        return {"image": read(self.files[index]), "label": np.asarray(self.labels[index])}


def load(location: str | Path, *, skip_corrupt: bool = False, by_class: bool = False) -> Dataset:
    """Opens PATH/CLASS/*.png, or PATH/train/CLASS/*.png beside test/ or val/ of the same form.

    Class names sort naturally (2 before 10). Where there is neither test/ nor val/, a fifth of
    each class becomes the test split: of its files in natural order, the middle one of each five.
    Every file is decoded once to see that it can be; of more than 50,000 files, only when
    skip_corrupt asks for it (others are named when training meets them).

    Args:
      by_class: for tasks that are tested on classes they never trained on: test/ and val/ may have
        classes of their own, and where there is neither, everything is left in train.

    Raises:
      UserError: no images, one class only, a file that is no image or is damaged, a class that
        only the test split has.
    """
    path = Path(location).expanduser()
    if not path.is_dir():
        raise UserError(f"--dataset=folder:{path}: no such folder")
    parts = {
        SPLITS[folder.name.lower()]: folder
        for folder in _subfolders(path)
        # A folder of pictures called "train" is a class, of vehicles perhaps.
        if folder.name.lower() in SPLITS and _subfolders(folder)
    }
    if parts and "train" not in parts:
        raise UserError(f"--dataset=folder:{path}: holds {_listed(parts)} but no train folder")
    if not parts:
        parts = {"train": path}
    else:
        others = [f.name for f in _subfolders(path) if f not in parts.values()]
        if others:
            raise UserError(
                f"--dataset=folder:{path}: beside {_listed(parts)} there is {others[0]!r}, which "
                "is neither a split nor in one; move it away"
            )
    class_names = _class_names(path, parts, by_class)
    found = {split: _files(folder, class_names) for split, folder in parts.items()}
    for split, (files, _) in found.items():
        if not files:
            raise UserError(f"{parts[split]}: holds no images ({', '.join(EXTENSIONS)})")
    note = "your own pictures"
    if skip_corrupt or sum(len(files) for files, _ in found.values()) <= _MOST_CHECKED:
        found, skipped = _readable(found, skip_corrupt)
        note += f"; {skipped} unreadable files left out" if skipped else ""
    splits: dict[str, Labelled] = {
        split: FolderSplit(tuple(files), np.array(labels, np.int32))
        for split, (files, labels) in found.items()
    }
    if list(splits) == ["train"] and not by_class:
        splits = with_test(splits, f"--dataset=folder:{path}")
        note += "; a fifth of each class, evenly spaced in natural order, is the test split"
    return Dataset(f"folder:{path}", splits, class_names, (None, None, None), note)


def _listed(parts: dict[str, Path]) -> str:
    return " and ".join(f"{folder.name}/" for folder in parts.values())


def _subfolders(path: Path) -> list[Path]:
    try:
        return sorted(
            (f for f in path.iterdir() if f.is_dir() and f.name[0] not in "._"),
            key=lambda f: natural(f.name),
        )
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _class_names(path: Path, parts: dict[str, Path], by_class: bool) -> tuple[str, ...]:
    names = tuple(folder.name for folder in _subfolders(parts["train"]))
    if not names:
        raise UserError(
            f"--dataset=folder:{path}: {parts['train']} holds no subfolders; "
            "put the images of each class into a subfolder named after it"
        )
    if len(names) == 1:
        raise UserError(
            f"--dataset=folder:{path}: {parts['train']} holds one class only, {names[0]!r}; "
            "there is nothing to tell apart"
        )
    if by_class:
        everywhere = {folder.name for part in parts.values() for folder in _subfolders(part)}
        return tuple(sorted(everywhere, key=natural))
    for folder in parts.values():
        for other in _subfolders(folder):
            if other.name not in names:
                raise UserError(
                    f"{other}: the class {other.name!r} is not in {parts['train']}, which has "
                    f"{', '.join(names[:10])}{', ...' if len(names) > 10 else ''}"
                )
    return names


def _files(folder: Path, class_names: tuple[str, ...]) -> tuple[list[str], list[int]]:
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        here = [
            str(file)
            for file in (folder / name).rglob("*")
            if file.is_file()
            and not file.name.startswith(".")
            and file.name.lower() not in _SYSTEM_FILES
        ]
        files += sorted(here, key=natural)
        labels += [label] * len(here)
    return files, labels


def _readable(
    found: dict[str, tuple[list[str], list[int]]], skip: bool
) -> tuple[dict[str, tuple[list[str], list[int]]], int]:
    """The files that can be decoded, and the number of others; stops at one unless skip is set."""

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
    if skipped:
        console().print(f"{len(skipped)} unreadable files left out:", markup=False)
        for message in skipped[:5]:
            console().print(f"  {message}", markup=False)
    return kept, len(skipped)
