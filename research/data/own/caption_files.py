"""Readers of files of sentences about images, in all common forms:

Flickr8k's token file   1000268201.jpg#0 <tab> A child climbs the stairs .
CSV                     a header with image and caption (perhaps split), a line a caption
JSON                    {"a.jpg": ["A child ...", ...]}
                        [{"image": "a.jpg", "captions": [...], "split": "train"}, ...]
                        COCO's {"images": ..., "annotations": ...}
                        Karpathy's {"images": [{"filename", "split", "sentences"}, ...]}
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from research.data.files import read_json, read_text
from research.data.own.folders import SPLITS
from research.errors import UserError

_TOKEN = re.compile(r"(.+)#\d+\t(.*)")
_IMAGE = ("image", "image_name", "file_name", "filename", "file", "name")
_CAPTION = ("captions", "caption", "sentences", "comment", "sentence", "text", "raw")
# The beginning of a row: a file and what separates it from what follows.
_ROW = re.compile(r"\s*\"?[^,;|\t]+\.[A-Za-z]{3,4}\"?\s*[,;|\t]")


class Line(NamedTuple):
    """A sentence of a file: its place (for messages), image, text, and split or ""."""

    where: str
    image: str
    caption: str
    split: str = ""


def lines(file: Path) -> Iterator[Line]:
    """Yields every sentence of a file, in its order; see the top of this module for the forms.

    Raises:
      UserError: for a file of none of them, and the first line that does not fit.
    """
    text = read_text(file).replace("\r\n", "\n").replace("\r", "\n")
    first = text.lstrip()[:1]
    if not first:
        raise UserError(f"{file}: is empty")
    if first in "{[":
        yield from _from_json(file, read_json(file, table=lambda rows: _table(file, rows)))
    elif _TOKEN.fullmatch(text.lstrip().splitlines()[0]):
        for number, row in enumerate(text.split("\n"), 1):
            if row.strip():
                match = _TOKEN.fullmatch(row)
                if match is None:
                    raise UserError(f"{file}: line {number} is not IMAGE#NUMBER <tab> CAPTION")
                yield Line(f"{file}: line {number}", match[1], match[2])
    else:
        yield from _from_csv(file, text)


def _table(file: Path, rows: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(rows)
    if len(found) < len(rows):
        repeated = next(key for key, n in Counter(key for key, _ in rows).items() if n > 1)
        raise UserError(f"{file}: {repeated!r} is there twice; put what both say under one")
    return found


def _from_csv(file: Path, text: str) -> Iterator[Line]:
    header = text.lstrip().splitlines()[0]
    delimiter = max(",;|\t", key=header.count)
    rows = _rows(file, text, delimiter)
    named = next((row for _, row in rows if any(cell.strip() for cell in row)), [])
    names = [name.strip().lower() for name in named]
    image = next((names.index(n) for n in _IMAGE if n in names), None)
    caption = next((names.index(n) for n in _CAPTION if n in names), None)
    if image is None or caption is None:
        raise UserError(
            f"{file}: is no JSON, has no lines IMAGE#NUMBER <tab> CAPTION, and its first line "
            f"names no columns image and caption: {header[:60]!r}"
        )
    split = names.index("split") if "split" in names else None
    raw = text.split("\n")
    for number, row in rows:
        where = f"{file}: line {number}"
        if not any(cell.strip() for cell in row):
            continue
        if len(row) < len(names):
            raise UserError(f"{where} has {len(row)} columns, the first line {len(names)}")
        # An unquoted comma is part of the caption, if the caption is the last column.
        if len(row) > len(names) and (caption < len(names) - 1 or '"' in raw[number - 1]):
            raise UserError(
                f"{where} has {len(row)} columns, the first line {len(names)}; write captions with "
                f"{delimiter!r} in them between quotation marks"
            )
        said = delimiter.join(row[caption:]) if caption == len(names) - 1 else row[caption]
        part = "" if split is None else _split(row[split], where)
        # A mark that is not closed takes in the rows that follow.
        if any(_ROW.match(line) for line in said.split("\n")[1:]):
            raise UserError(
                f"{where}: a caption goes on over lines; is a quotation mark not closed?"
            )
        yield Line(where, row[image].strip(), " ".join(said.split("\n")), part)


def _rows(file: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows of a CSV file, each with the number of its last line."""
    # Flickr30k's file has | between columns, and marks that enclose nothing.
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "|" else csv.QUOTE_MINIMAL
    rows = csv.reader(
        io.StringIO(text),
        delimiter=delimiter,
        quoting=quoting,
        skipinitialspace=delimiter == "|",
        strict=True,
    )
    try:
        for row in rows:
            yield rows.line_num, row
    except csv.Error as error:
        raise UserError(
            f"{file}: line {rows.line_num} is no CSV ({error}); is a quotation mark not closed?"
        ) from None


def _from_json(file: Path, content: Any) -> Iterator[Line]:
    if isinstance(content, dict) and "annotations" in content and "images" in content:
        if not isinstance(content["images"], list) or not isinstance(content["annotations"], list):
            raise UserError(f"{file}: its images and annotations are no lists")
        names: dict[Any, str] = {}
        for number, row in enumerate(content["images"]):
            if not isinstance(row, dict) or not {"id", "file_name"} <= row.keys():
                raise UserError(f"{file}: image {number} needs an id and a file_name")
            if not isinstance(row["id"], int | str) or not isinstance(row["file_name"], str):
                raise UserError(f"{file}: image {number}: its id or file_name is no number or text")
            if row["id"] in names:
                raise UserError(
                    f"{file}: image {number}, {row['file_name']}: has the id {row['id']!r}, as "
                    f"{names[row['id']]} before it"
                )
            names[row["id"]] = row["file_name"]
        for number, row in enumerate(content["annotations"]):
            where = f"{file}: annotation {number}"
            key = row.get("image_id") if isinstance(row, dict) else None
            known = isinstance(key, int | str) and key in names
            if not known or not isinstance(row.get("caption"), str):
                raise UserError(f"{where} needs a caption and the image_id of one of the images")
            yield Line(where, names[key], row["caption"])
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
        folder = row.get("filepath") or ""  # Karpathy's COCO has folders apart
        if not isinstance(folder, str):
            raise UserError(f"{where}: the filepath of {image} is no text")
        inside = Path(folder) / image
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
