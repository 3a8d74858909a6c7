"""captions:IMAGES_DIR:FILE: a person's own pictures and sentences about them; see caption_files."""

import dataclasses
import os
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from research.data.files import at_home, composed, count_line, find, inside, natural, read_text
from research.data.images.reading import EXTENSIONS, WHITE, Reduce, read, white_of
from research.data.own.caption_files import lines
from research.data.sources.division import how_drawn
from research.data.sources.examples import Example
from research.data.sources.splits import Dataset, Labelled, with_test
from research.data.text.tokens import is_unspaced, words
from research.errors import UserError
from research.record.progress import console

_LISTS = {"trainImages": "train", "devImages": "validation", "testImages": "test"}  # Flickr8k's


@dataclasses.dataclass(frozen=True, eq=False)
class CaptionedSplit:
    """Image files and the sentences about each."""

    files: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]
    white: int = WHITE  # see `images.read`
    reduce: Reduce | None = None  # likewise

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        return self.files[index]

    def __getitem__(self, index: int, /) -> Example:
        image = read(self.files[index], self.white, self.reduce)
        return {"image": image, "captions": np.array(self.captions[index])}

    @property
    def labels(self) -> np.ndarray:
        return np.zeros(len(self.files), np.int32)


def load(rest: str, *, skip_corrupt: bool = False, split_seed: int = 0) -> Dataset:
    """Opens IMAGES_DIR:FILE.

    Splits are those that FILE names, or that lie beside it as Flickr8k's lists
    (Flickr_8k.trainImages.txt); else a fifth of the images, evenly spaced in natural order, is the
    test split.

    Args:
      skip_corrupt: leave out captions without image, images without caption and images that cannot
        be read, and say how many, instead of stopping.
      split_seed: draws the fifth; 0: evenly spaced.

    Raises:
      UserError: what is not there, not UTF-8, of none of the forms, or a caption without words.
    """
    folder, colon, name = rest.rpartition(":")
    images, file = at_home(folder), at_home(name)
    flag = f"--dataset=captions:{rest}"
    if not colon or not folder or not name:
        raise UserError(f"{flag}: write --dataset=captions:IMAGES_DIR:FILE")
    if not images.is_dir():
        raise UserError(f"{flag}: {images} is no folder of images")
    found = find(images, EXTENSIONS)
    there = {composed(f.relative_to(images).as_posix()): f for f in found.files}
    by_image: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    for line in lines(file):
        if not words(line.caption):
            raise UserError(f"{line.where}: the caption of {line.image} is empty; take it out")
        image = _key(images, line.image, line.where)
        by_image.setdefault(image, []).append(line.caption)
        if splits.setdefault(image, line.split) != line.split:
            raise UserError(
                f"{line.where}: {line.image} is in the split {line.split or 'none'} here, and in "
                f"{splits[image] or 'none'} before"
            )
    if not by_image:
        raise UserError(f"{file}: holds no captions")
    left_out = Counter(found.left_out)
    count = sum(map(len, by_image.values()))
    by_image, lost = _matched(images, file, by_image, there, skip_corrupt)
    left_out.update(lost)
    total = len(there) + sum(found.left_out.values())
    captions_lost = {"without a readable image": count - sum(map(len, by_image.values()))}
    if not any(splits.values()):
        splits |= _listed(file)
        listed = {image: texts for image, texts in by_image.items() if splits[image]}
        if listed:
            left_out["in no list"] = len(by_image) - len(listed)
            captions_lost["in no list"] = sum(
                len(texts) for image, texts in by_image.items() if image not in listed
            )
            by_image = listed
    counts = [count_line(total, left_out), count_line(count, captions_lost, "captions")]
    unspaced = sum(is_unspaced(text) for texts in by_image.values() for text in texts)
    if unspaced:
        counts.append(f"captions without spaces, whose characters count as words: {unspaced}")
    for text in counts:
        console().print(f"captions:{rest}: {text}", markup=False)
    note = "; ".join(["your own pictures", *counts])
    parts: dict[str, list[str]] = {}
    for image in sorted(by_image, key=natural):
        parts.setdefault(splits[image] or "train", []).append(image)
    if "train" not in parts:
        raise UserError(f"{file}: names {' and '.join(parts)} images, but none to train on")
    opened: dict[str, Labelled] = {
        split: CaptionedSplit(
            tuple(str(there[image]) for image in parts[split]),
            tuple(tuple(by_image[image]) for image in parts[split]),
        )
        for split in ("train", "validation", "test")
        if split in parts
    }
    if list(opened) == ["train"]:
        note += f"; a fifth of the images, {how_drawn(split_seed)}, is the test split"
    opened = with_test(opened, str(file), split_seed)
    white = white_of(there[image] for image in by_image)
    return Dataset(f"captions:{rest}", opened, (), (None, None, None), note, white)


def _key(images: Path, name: str, where: str) -> str:
    """Returns a file's name as captions have it, with / between folders and accents composed."""
    inside(images, name, where)
    parts = composed(name).replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", "."))


def _matched(
    images: Path,
    file: Path,
    by_image: dict[str, list[str]],
    there: Mapping[str, Path],
    skip: bool,
) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Keeps the captions whose image is there and can be read, and counts the images left out."""
    hint = "(--skip_corrupt leaves such {} out)"
    missing = [image for image in by_image if image not in there]
    if missing and not skip:
        raise UserError(
            f"{file}: {len(missing)} captioned images are not in {images}, the first is "
            f"{missing[0]} {hint.format('captions')}"
        )
    silent = sorted(there.keys() - by_image.keys(), key=natural)
    if silent and not skip:
        raise UserError(
            f"{file}: has no caption for {len(silent)} images of {images}, the first is "
            f"{silent[0]} {hint.format('images')}"
        )
    kept = [image for image in by_image if image in there]
    broken = 0
    if skip:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            good = list(pool.map(_is_readable, [there[image] for image in kept]))
        broken = good.count(False)
        kept = [image for image, is_good in zip(kept, good, strict=True) if is_good]
    if not kept:
        raise UserError(f"{file}: none of its images lies in {images}")
    left_out = {"without caption": len(silent), "unreadable": broken}
    return {image: by_image[image] for image in kept}, left_out


def _is_readable(file: Path) -> bool:
    try:
        read(file)
    except UserError:
        return False
    return True


def _listed(file: Path) -> dict[str, str]:
    """Reads the split of each image from Flickr8k's lists beside the token file."""
    found: dict[str, str] = {}
    for suffix, split in _LISTS.items():
        for path in file.parent.glob(f"*{suffix}.txt"):
            found |= {
                composed(line.strip()): split
                for line in read_text(path).splitlines()
                if line.strip()
            }
    return found
