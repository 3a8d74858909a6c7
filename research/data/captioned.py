"""captions:IMAGES_DIR:FILE: a person's own pictures and sentences about them.

FILE is one of

    Flickr8k's token file   1000268201.jpg#0 <tab> A child climbs the stairs .
    CSV                     a header with image and caption (perhaps split), a line a caption
    JSON                    {"a.jpg": ["A child ...", ...]}
                            [{"image": "a.jpg", "captions": [...], "split": "train"}, ...]
                            COCO's {"images": ..., "annotations": ...}
                            Karpathy's {"images": [{"filename", "split", "sentences"}, ...]}
"""

import csv
import dataclasses
import io
import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from research.data.files import find, natural
from research.data.folders import SPLITS
from research.data.images import EXTENSIONS, WHITE, read, white_of
from research.data.source import Example
from research.data.splits import Dataset, Labelled, with_test
from research.data.tokens import words
from research.errors import UserError
from research.progress import console

_TEST_SHARE = 0.2
_TOKEN = re.compile(r"(.+)#\d+\t(.*)")
_IMAGE = ("image", "image_name", "file_name", "filename", "file", "name")
_CAPTION = ("captions", "caption", "sentences", "comment", "sentence", "text", "raw")
_LISTS = {"trainImages": "train", "devImages": "validation", "testImages": "test"}  # Flickr8k's


class Line(NamedTuple):
    """One sentence: where it stands (for messages), its image, itself, its split or ""."""

    where: str
    image: str
    caption: str
    split: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class CaptionedSplit:
    """Image files and the sentences about each."""

    files: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]
    white: int = WHITE  # see `images.read`

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int, /) -> Example:
        image = read(self.files[index], self.white)
        return {"image": image, "captions": np.array(self.captions[index])}

    @property
    def labels(self) -> np.ndarray:
        return np.zeros(len(self.files), np.int32)


def load(rest: str, *, skip_corrupt: bool = False) -> Dataset:
    """Opens IMAGES_DIR:FILE.

    Splits are those that FILE names, or that lie beside it as Flickr8k's lists
    (Flickr_8k.trainImages.txt); else a fifth of the images, evenly spaced in natural order, is the
    test split.

    Args:
      skip_corrupt: leave out captions without image, images without caption and images that cannot
        be read, and say how many, instead of stopping.

    Raises:
      UserError: what is not there, not UTF-8, of none of the forms, or a caption without words.
    """
    folder, colon, name = rest.rpartition(":")
    images, file = Path(folder).expanduser(), Path(name).expanduser()
    flag = f"--dataset=captions:{rest}"
    if not colon or not folder or not name:
        raise UserError(f"{flag}: write --dataset=captions:IMAGES_DIR:FILE")
    if not images.is_dir():
        raise UserError(f"{flag}: {images} is no folder of images")
    by_image: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    for line in lines(file):
        if not words(line.caption):
            raise UserError(f"{line.where}: the caption of {line.image} is empty; take it out")
        by_image.setdefault(line.image, []).append(line.caption)
        if splits.setdefault(line.image, line.split) != line.split:
            raise UserError(
                f"{line.where}: {line.image} is in the split {line.split or 'none'} here, and in "
                f"{splits[line.image] or 'none'} before"
            )
    if not by_image:
        raise UserError(f"{file}: holds no captions")
    by_image, left_out = _matched(images, file, by_image, skip_corrupt)
    if not any(splits.values()):
        splits |= _listed(file)
        listed = {image: texts for image, texts in by_image.items() if splits[image]}
        if listed:
            left_out += len(by_image) - len(listed)
            by_image = listed
    note = "your own pictures"
    note += f"; {left_out} images or captions without the other left out" if left_out else ""
    parts: dict[str, list[str]] = {}
    for image in sorted(by_image, key=natural):
        parts.setdefault(splits[image] or "train", []).append(image)
    if "train" not in parts:
        raise UserError(f"{file}: names {' and '.join(parts)} images, but none to train on")
    opened: dict[str, Labelled] = {
        split: CaptionedSplit(
            tuple(str(images / image) for image in parts[split]),
            tuple(tuple(by_image[image]) for image in parts[split]),
        )
        for split in ("train", "validation", "test")
        if split in parts
    }
    if list(opened) == ["train"]:
        note += "; a fifth of the images, evenly spaced in natural order, is the test split"
    opened = with_test(opened, str(file))
    white = white_of(images / image for image in by_image)
    return Dataset(f"captions:{rest}", opened, (), (None, None, None), note, white)


def _matched(
    images: Path, file: Path, by_image: dict[str, list[str]], skip: bool
) -> tuple[dict[str, list[str]], int]:
    """The captions whose image is there and can be read, and how many were left out."""
    hint = "(--skip_corrupt leaves such {} out)"
    missing = [image for image in by_image if not (images / image).is_file()]
    if missing and not skip:
        raise UserError(
            f"{file}: {len(missing)} captioned images are not in {images}, the first is "
            f"{missing[0]} {hint.format('captions')}"
        )
    there = {f.relative_to(images).as_posix() for f in find(images, EXTENSIONS).files}
    silent = sorted(there - by_image.keys(), key=natural)
    if silent and not skip:
        raise UserError(
            f"{file}: has no caption for {len(silent)} images of {images}, the first is "
            f"{silent[0]} {hint.format('images')}"
        )
    kept = [image for image in by_image if image not in set(missing)]
    broken = 0
    if skip:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            good = list(pool.map(_is_readable, [images / image for image in kept]))
        broken = good.count(False)
        kept = [image for image, is_good in zip(kept, good, strict=True) if is_good]
        if missing or silent or broken:
            console().print(
                f"{len(missing)} captions without image, {len(silent)} images without caption and "
                f"{broken} unreadable images left out",
                markup=False,
            )
    if not kept:
        raise UserError(f"{file}: none of its images lies in {images}")
    return {image: by_image[image] for image in kept}, len(missing) + len(silent) + broken


def _is_readable(file: Path) -> bool:
    try:
        read(file)
    except UserError:
        return False
    return True


def _listed(file: Path) -> dict[str, str]:
    """The split of each image that Flickr8k's lists beside the token file name."""
    found: dict[str, str] = {}
    for suffix, split in _LISTS.items():
        for path in file.parent.glob(f"*{suffix}.txt"):
            found |= {line.strip(): split for line in _text(path).splitlines() if line.strip()}
    return found


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file}: is not UTF-8 (byte {error.start}); convert it, as with "
            "iconv -f latin1 -t utf-8"
        ) from None


def lines(file: Path) -> Iterator[Line]:
    """Every sentence of a file, in its order; see the top of this module for the forms.

    Raises:
      UserError: for a file of none of them, and the first line that does not fit.
    """
    text = _text(file).replace("\r\n", "\n").replace("\r", "\n")
    first = text.lstrip()[:1]
    if not first:
        raise UserError(f"{file}: is empty")
    if first in "{[":
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{file}: line {error.lineno} is no JSON ({error.msg})") from None
        yield from _from_json(file, content)
    elif _TOKEN.fullmatch(text.lstrip().splitlines()[0]):
        for number, row in enumerate(text.split("\n"), 1):
            if row.strip():
                match = _TOKEN.fullmatch(row)
                if match is None:
                    raise UserError(f"{file}: line {number} is not IMAGE#NUMBER <tab> CAPTION")
                yield Line(f"{file}: line {number}", match[1], match[2])
    else:
        try:
            yield from _from_csv(file, text)
        except csv.Error as error:
            raise UserError(f"{file}: is no CSV ({error})") from None


def _from_csv(file: Path, text: str) -> Iterator[Line]:
    header = text.lstrip().splitlines()[0]
    delimiter = max(",;|\t", key=header.count)
    rows = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=delimiter == "|")
    named = next(row for row in rows if any(cell.strip() for cell in row))
    names = [name.strip().lower() for name in named]
    image = next((names.index(n) for n in _IMAGE if n in names), None)
    caption = next((names.index(n) for n in _CAPTION if n in names), None)
    if image is None or caption is None:
        raise UserError(
            f"{file}: is no JSON, has no lines IMAGE#NUMBER <tab> CAPTION, and its first line "
            f"names no columns image and caption: {header[:60]!r}"
        )
    split = names.index("split") if "split" in names else None
    for row in rows:
        where = f"{file}: line {rows.line_num}"
        if not any(cell.strip() for cell in row):
            continue
        if len(row) < len(names):
            raise UserError(f"{where} has {len(row)} columns, the first line {len(names)}")
        # A comma that nobody quoted is part of the caption, where that comes last.
        said = delimiter.join(row[caption:]) if caption == len(names) - 1 else row[caption]
        part = "" if split is None else _split(row[split], where)
        if "\n" in said:
            raise UserError(
                f"{where}: a caption goes on over lines; is a quotation mark not closed?"
            )
        yield Line(where, row[image].strip(), said, part)


def _from_json(file: Path, content: Any) -> Iterator[Line]:
    if isinstance(content, dict) and "annotations" in content and "images" in content:
        names: dict[Any, str] = {}
        for number, row in enumerate(content["images"]):
            if not isinstance(row, dict) or not {"id", "file_name"} <= row.keys():
                raise UserError(f"{file}: image {number} needs an id and a file_name")
            names[row["id"]] = str(row["file_name"])
        for number, row in enumerate(content["annotations"]):
            where = f"{file}: annotation {number}"
            known = isinstance(row, dict) and row.get("image_id") in names
            if not known or not isinstance(row.get("caption"), str):
                raise UserError(f"{where} needs a caption and the image_id of one of the images")
            yield Line(where, names[row["image_id"]], row["caption"])
        return
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        content = content["images"]
    if isinstance(content, dict):
        content = [{"image": image, "captions": texts} for image, texts in content.items()]
    for number, row in enumerate(content):
        where = f"{file}: entry {number}"
        image = _first(row, _IMAGE)
        texts = _first(row, _CAPTION)
        if not isinstance(image, str) or not isinstance(texts, str | list):
            raise UserError(f"{where} needs the keys image and captions")
        if not texts:
            raise UserError(f"{where}: {image} has no caption")
        inside = Path(row.get("filepath") or "") / image  # Karpathy's COCO has folders apart
        for said in [texts] if isinstance(texts, str) else texts:
            caption = _first(said, ("raw", *_CAPTION)) if isinstance(said, dict) else said
            split = _split(str(row.get("split") or ""), where)
            yield Line(where, inside.as_posix(), str(caption or ""), split)


def _first(row: Any, names: tuple[str, ...]) -> Any:
    return next((row[n] for n in names if n in row), None) if isinstance(row, dict) else None


def _split(name: str, where: str) -> str:
    known = {**SPLITS, "restval": "train", "dev": "validation", "": ""}
    if name.strip().lower() not in known:
        raise UserError(f"{where}: {name!r} is no split; train, validation and test are")
    return known[name.strip().lower()]
