"""yolo:DIR or yolo:FILE, a text file an image: https://docs.ultralytics.com/datasets/detect .

A line is `class x y width height`: the class's number, the box's centre and its sides, in shares of
the image's width and height. `class x1 y1 x2 y2 x3 y3 ...` is a polygon; its box is the one around.
Where data.yaml says kpt_shape, key points follow the box, and are passed over.
"""

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from research.data.files import at_home, by_name, few, find, natural, read_text
from research.data.images.objects import Objects
from research.data.images.reading import EXTENSIONS
from research.data.own.annotations import Annotated, Annotations, darknet, data_yaml
from research.data.own.annotations.data_yaml import DataYaml
from research.errors import UserError

_SPLITS = {"train": "train", "val": "validation", "valid": "validation", "test": "test"}


class _Part(NamedTuple):
    """Images of a split, and the text file of each that has one, by the names of both."""

    images: dict[str, Path]
    texts: dict[str, Path]
    where: str


def read(location: str) -> Annotations:
    """Reads what data.yaml or obj.data names, or else images/ and labels/ of DIR.

    These may lie in folders of each split (train/images, train/labels), hold one (images/train,
    labels/train), or be one folder. A folder `images` in a path of data.yaml has its `labels`
    beside it; without, text files lie beside images, as those of a list may. Classes are named by
    data.yaml, obj.data or classes.txt. An image without a text file, or with an empty one, holds no
    objects.

    Raises:
      UserError: for text files without image, images that are all without, lines that are no boxes
        or may be something else, class numbers that are not in the list, and as `data_yaml` does.
    """
    root = at_home(location)
    if root.is_file() and root.suffix.lower() in (".yaml", ".yml", ".data"):
        reader = darknet if root.suffix.lower() == ".data" else data_yaml
        described: DataYaml | None = reader.read(root)
        root = root.parent
    elif root.is_dir():
        described = _described(root)
    else:
        raise UserError(
            f"--dataset=yolo:{location}: no such folder, and no .yaml file nor obj.data"
        )
    class_names = described.names if described else _class_names(root)
    left_out: Counter[str] = Counter()
    parts: dict[str, list[_Part]] = {}
    if described and described.splits:
        for split, places in described.splits.items():
            parts[split] = [_named(place, described.root, left_out) for place in places]
    else:
        for split, (pictures, labels) in _folders(root).items():
            parts[split] = [_below(pictures, labels, left_out)]
    lines = _Lines(len(class_names), described)
    splits: dict[str, list[Annotated]] = {}
    notes = list(described.notes) if described else []
    for split, pieces in parts.items():
        rows: dict[Path, Annotated] = {}
        without: list[str] = []
        for piece in pieces:
            for name, image in piece.images.items():
                text = piece.texts.get(name)
                place = Path(os.path.abspath(image))  # links are pictures of their own
                if place in rows:
                    left_out["listed twice"] += 1
                    continue
                if text is None:
                    without.append(name)
                objects = lines.read(text) if text else Objects.of([], [])
                rows[place] = Annotated(image, str(text or image), None, objects)
        if without and len(without) == len(rows):
            raise UserError(f"{pieces[0].where}: no image of {split} has a text file")
        if without:
            notes.append(
                f"{len(without)} of {len(rows)} images of {split} have no text file and so no "
                f"objects: {few(without)}"
            )
        splits[split] = list(rows.values())
    lines.refuse_what_may_be_other()
    if twice := left_out.pop("listed twice", 0):
        notes.append(f"images listed twice, taken once: {twice}")
    return Annotations(class_names, splits, tuple(notes), left_out)


def _described(root: Path) -> DataYaml | None:
    """Reads the file in a folder that says what is in it; returns None if there is none."""
    found, other = data_yaml.find(root), root / darknet.NAME
    if not other.is_file():
        return found
    if found:
        raise UserError(
            f"--dataset=yolo:{root}: holds {found.file.name} and {other.name}; write which by "
            f"--dataset=yolo:{found.file} or --dataset=yolo:{other}"
        )
    return darknet.read(other)


def _named(place: Path, root: Path, left_out: Counter[str]) -> _Part:
    """Finds the images that one path of data.yaml means."""
    if place.is_dir():
        if (place / "images").is_dir() and (place / "labels").is_dir():
            return _below(place / "images", place / "labels", left_out)
        return _below(place, _beside(place, root), left_out)
    listed = data_yaml.read_list(place, root)
    images = {str(file): file for file in listed}
    left_out["listed twice"] += len(listed) - len(images)
    texts = {}
    for name, file in images.items():
        for candidate in (file, _beside(file, root)):
            if candidate.with_suffix(".txt").is_file():
                texts[name] = candidate.with_suffix(".txt")
    return _Part(images, texts, str(place))


def _beside(path: Path, root: Path) -> Path:
    """Returns a path with its last folder `images` called `labels`; itself if it has none."""
    base = root if path.is_relative_to(root) else Path(path.anchor)
    parts = list(path.relative_to(base).parts)
    if "images" not in parts:
        return path
    last = len(parts) - 1 - parts[::-1].index("images")
    return base.joinpath(*parts[:last], "labels", *parts[last + 1 :])


def _below(pictures: Path, labels: Path, left_out: Counter[str]) -> _Part:
    """Finds the images below a folder, with the text files below another."""
    if not labels.is_dir():
        raise UserError(f"{labels}: no such folder; the labels of {pictures}")
    found = find(pictures, EXTENSIONS)
    left_out.update(found.left_out)
    images = by_name(found.files, pictures)
    files = [file for file in find(labels, (".txt",)).files if file.name != "classes.txt"]
    texts = by_name(files, labels)
    alone = sorted(texts.keys() - images.keys(), key=natural)
    if alone:
        raise UserError(
            f"{texts[alone[0]]}: has no image in {pictures} ({len(alone)} of {len(texts)} "
            f"files have none: {few(alone)})"
        )
    return _Part(images, texts, str(labels))


def _folders(root: Path) -> dict[str, tuple[Path, Path]]:
    """Finds the folders of each split: {split: (folder of images, folder of labels)}."""
    whole = root / "images", root / "labels"
    inside = {name: (whole[0] / name, whole[1] / name) for name in _SPLITS}
    beside = {name: (root / name / "images", root / name / "labels") for name in _SPLITS}
    for candidates in (inside, beside, {"train": whole}):
        found = {_SPLITS[n]: pair for n, pair in candidates.items() if pair[0].is_dir()}
        if "train" in found:
            return found
    if any(file.suffix.lower() in EXTENSIONS for file in root.iterdir()):
        return {"train": (root, root)}
    raise UserError(
        f"--dataset=yolo:{root}: needs images/ and labels/, with or without train/, val/ and "
        "test/ in them, or train/ with images/ and labels/, or a .yaml file or obj.data that names "
        "train"
    )


def _class_names(root: Path) -> tuple[str, ...]:
    for file in (root / "classes.txt", root / "labels" / "classes.txt"):
        if file.is_file():
            names = tuple(line.strip() for line in read_text(file).splitlines() if line.strip())
            if not names:
                raise UserError(f"{file}: is empty; write a class a line")
            if len(set(names)) < len(names):
                raise UserError(f"{file}: names two classes alike")
            return names
    raise UserError(f"--dataset=yolo:{root}: needs data.yaml with names, or classes.txt")


class _Lines:
    """A reader of lines of text files; it remembers whether polygons may be something else."""

    def __init__(self, classes: int, described: DataYaml | None) -> None:
        self._classes = classes
        points = described.key_points if described else None
        self._wanted = None if points is None else 4 + points[0] * points[1]
        self._sure = described is not None and described.task in ("segment", "obb")
        self._first = ""
        self._lengths: set[int] = set()
        # What all polygons until here may be: a box with a track, or with points of 2 or 3 numbers.
        self._tracked, self._points = True, {2, 3}

    def read(self, file: Path) -> Objects:
        boxes, numbers = [], []
        for number, line in enumerate(read_text(file).splitlines(), 1):
            if line.strip():
                label, box = self._box(line, f"{file}, line {number}")
                boxes.append(box)
                numbers.append(label)
        return Objects.of(boxes, numbers)

    def _box(self, line: str, where: str) -> tuple[int, list[float]]:
        try:
            label, *values = map(float, line.split())
        except ValueError:
            raise UserError(f"{where}: {line[:40]!r} is not made of numbers") from None
        if not 0 <= label < self._classes or label != int(label):
            raise UserError(
                f"{where}: class {label:g} is not in the list; the numbers of {self._classes} "
                f"classes are 0 to {self._classes - 1}"
            )
        if self._wanted is not None and len(values) != self._wanted:
            raise UserError(
                f"{where}: has {len(values)} numbers after the class; 4 and the key points of "
                f"kpt_shape are {self._wanted}"
            )
        if self._wanted is not None or len(values) == 4:
            x, y, width, height = values[:4]
            return int(label), [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        if len(values) < 6 or len(values) % 2:
            raise UserError(
                f"{where}: has {len(values)} numbers after the class, not 4, nor the pairs of a "
                "polygon; take a confidence away, and say of key points kpt_shape in data.yaml"
            )
        self._remember(values, where)
        xs, ys = values[::2], values[1::2]
        return int(label), [min(xs), min(ys), max(xs), max(ys)]

    def _remember(self, values: list[float], where: str) -> None:
        if self._sure:
            return
        strange = next((value for value in values if not -0.5 <= value <= 1.5), None)
        if strange is not None:
            raise UserError(
                f"{where}: {strange:g} is no share of the image, so that this is no polygon; take "
                "confidence and track away, and say of key points kpt_shape in data.yaml"
            )
        self._first = self._first or where
        self._lengths.add(len(values))
        self._tracked &= len(values) == 6 and values[5] == int(values[5])
        self._points = {size for size in self._points if _may_be_points(values, size)}

    def refuse_what_may_be_other(self) -> None:
        """Raises UserError if all polygons may be boxes with a track or key points."""
        if len(self._lengths) != 1 or not (self._tracked or self._points):
            return
        (length,) = self._lengths
        other = (
            "a confidence and a track"
            if self._tracked
            else f"{(length - 4) // min(self._points)} key points"
        )
        raise UserError(
            f"{self._first}: each line of {length} numbers after the class may be a polygon, or a "
            f"box and {other}; write task: segment, or kpt_shape, into data.yaml, or take away "
            "what follows the box"
        )


def _may_be_points(values: list[float], size: int) -> bool:
    """Returns whether numbers may be a box and key points in it, of `size` numbers each."""
    if (len(values) - 4) % size:
        return False
    x, y, width, height = values[:4]
    points = np.array(values[4:]).reshape(-1, size)
    if size == 3 and not np.isin(points[:, 2], (0, 1, 2)).all():
        return False
    marked = points[(points[:, :2] != 0).any(1), :2]  # those that nobody marked are 0, 0
    return bool((np.abs(marked - (x, y)) <= (width / 2 + 1e-3, height / 2 + 1e-3)).all())
