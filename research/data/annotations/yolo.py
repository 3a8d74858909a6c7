"""yolo:DIR, a text file an image: https://docs.ultralytics.com/datasets/detect .

A line is `class x y width height`: the class's number, the box's centre and its sides, in shares of
the image's width and height. `class x1 y1 x2 y2 x3 y3 ...` is a polygon; its box is the one around.
"""

from pathlib import Path
from typing import Any

import yaml

from research.data.annotations import Annotated, Annotations, few, images_by_name, read_text
from research.data.files import natural
from research.data.objects import Objects
from research.errors import UserError

_SPLITS = {"train": "train", "val": "validation", "valid": "validation", "test": "test"}


def read(location: str) -> Annotations:
    """Reads images/ and labels/ of DIR, where the files' names agree.

    Splits are subfolders of both (images/train, labels/train), or folders of DIR that hold both
    (train/images, train/labels). Classes are named by data.yaml or classes.txt. An image without a
    text file, or with an empty one, holds no objects.

    Raises:
      UserError: for text files without image, images that are all without, lines that are no boxes,
        and class numbers that are not in the list.
    """
    root = Path(location).expanduser()
    if not root.is_dir():
        raise UserError(f"--dataset=yolo:{location}: no such folder")
    class_names = _class_names(root)
    splits: dict[str, list[Annotated]] = {}
    notes = []
    for split, (pictures, folder) in _folders(root).items():
        images = images_by_name(pictures)
        texts = {
            file.relative_to(folder).with_suffix("").as_posix(): file
            for file in folder.rglob("*.txt")
            if file.name != "classes.txt"
        }
        alone = sorted(texts.keys() - images.keys(), key=natural)
        if alone:
            raise UserError(
                f"{texts[alone[0]]}: has no image in {pictures} ({len(alone)} of {len(texts)} "
                f"files have none: {few(alone)})"
            )
        if not texts:
            raise UserError(f"{folder}: holds no .txt files for the images of {pictures}")
        without = sorted(images.keys() - texts.keys(), key=natural)
        if without:
            notes.append(
                f"{len(without)} of {len(images)} images of {split} have no text file and so no "
                f"objects: {few(without)}"
            )
        splits[split] = []
        for name in sorted(images, key=natural):
            objects = Objects.of([], [])
            if name in texts:
                objects = _objects(texts[name], len(class_names))
            source = str(texts.get(name, images[name]))
            splits[split].append(Annotated(images[name], source, None, objects))
    return Annotations(class_names, splits, tuple(notes))


def _folders(root: Path) -> dict[str, tuple[Path, Path]]:
    """{split: (folder of images, folder of labels)}."""
    whole = root / "images", root / "labels"
    inside = {name: (whole[0] / name, whole[1] / name) for name in _SPLITS}
    beside = {name: (root / name / "images", root / name / "labels") for name in _SPLITS}
    for candidates in (inside, beside, {"train": whole}):
        found = {_SPLITS[n]: pair for n, pair in candidates.items() if pair[0].is_dir()}
        if "train" in found:
            for pictures, labels in found.values():
                if not labels.is_dir():
                    raise UserError(f"{labels}: no such folder; the labels of {pictures}")
            return found
    raise UserError(
        f"--dataset=yolo:{root}: needs images/ and labels/, with or without train/, val/ and "
        "test/ in them, or train/ with images/ and labels/"
    )


def _class_names(root: Path) -> tuple[str, ...]:
    for file in (root / "data.yaml", root / "data.yml", root / "dataset.yaml"):
        if file.is_file():
            return _names_of(file)
    for file in (root / "classes.txt", root / "labels" / "classes.txt"):
        if file.is_file():
            names = tuple(line.strip() for line in read_text(file).splitlines() if line.strip())
            if names:
                return names
            raise UserError(f"{file}: is empty; write a class a line")
    raise UserError(f"--dataset=yolo:{root}: needs data.yaml with names, or classes.txt")


def _names_of(file: Path) -> tuple[str, ...]:
    try:
        content: Any = yaml.safe_load(read_text(file))
    except yaml.YAMLError as error:
        raise UserError(f"{file}: is no YAML ({' '.join(str(error).split())})") from None
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{file}: needs names, a list or a table from 0 without gaps")
    return tuple(map(str, names))


def _objects(file: Path, classes: int) -> Objects:
    boxes, numbers = [], []
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            label, *values = map(float, line.split())
        except ValueError:
            raise UserError(f"{where}: {line[:40]!r} is not made of numbers") from None
        if not 0 <= label < classes or label != int(label):
            raise UserError(
                f"{where}: class {label:g} is not in the list; the numbers of {classes} classes "
                f"are 0 to {classes - 1}"
            )
        if len(values) == 4:
            x, y, width, height = values
            boxes.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
        elif len(values) >= 6 and len(values) % 2 == 0:
            xs, ys = values[::2], values[1::2]
            boxes.append([min(xs), min(ys), max(xs), max(ys)])
        else:
            raise UserError(f"{where}: has {len(values)} numbers after the class, not 4")
        numbers.append(int(label))
    return Objects.of(boxes, numbers)
