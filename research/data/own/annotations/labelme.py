"""labelme:DIR, a JSON file an image, as labelme saves them (github.com/wkentaro/labelme).

A rectangle or polygon is the box around it; a circle is its centre and a point of it. Shapes of one
label and group are parts of one object.
"""

import math
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from research.data.files import at_home, by_name, few, find, natural, read_json, subfolders
from research.data.images.objects import Objects
from research.data.images.reading import EXTENSIONS
from research.data.own.annotations import Annotated, Annotations, shown, side_of
from research.data.own.folders import SPLITS
from research.errors import UserError

_WITH_AREA = ("polygon", "rectangle", "circle", "mask")

Box = list[float]


class _Shapes(NamedTuple):
    """One JSON file: height and width; class name and box of each object; shapes without area."""

    size: tuple[int, int]
    objects: list[tuple[str, Box]]
    without_area: int


def read(location: str) -> Annotations:
    """Reads DIR/*.json beside images of the same names, at any depth.

    train/, val/ and test/ in DIR are splits. The classes are the labels of training images. An
    image without a JSON file was not looked at, and is left out.

    Raises:
      UserError: for JSON files that are not labelme's, or without image, and classes that training
        images lack.
    """
    root = at_home(location)
    if not root.is_dir():
        raise UserError(f"--dataset=labelme:{location}: no such folder")
    inner = {SPLITS[f.name.lower()]: f for f in subfolders(root) if f.name.lower() in SPLITS}
    places = inner if "train" in inner else {"train": root}
    left_out: Counter[str] = Counter()
    images: dict[str, dict[str, Path]] = {}
    shapes: dict[str, dict[str, tuple[Path, _Shapes]]] = {}
    for split, folder in places.items():
        found = find(folder, EXTENSIONS)
        left_out.update(found.left_out)
        images[split] = by_name(found.files, folder)
        files = by_name(find(folder, (".json",)).files, folder)
        if not files:
            raise UserError(f"--dataset=labelme:{location}: {folder} holds no .json files")
        alone = sorted(files.keys() - images[split].keys(), key=natural)
        if alone:
            raise UserError(
                f"{files[alone[0]]}: has no image beside it ({len(alone)} of {len(files)} files "
                f"have none: {few(alone)})"
            )
        left_out["without .json file"] += len(images[split].keys() - files.keys())
        shapes[split] = {name: (file, _read(file)) for name, file in files.items()}
    labels = {label for _, read_file in shapes["train"].values() for label, _ in read_file.objects}
    class_names = tuple(sorted(labels, key=natural))
    numbers = {name: number for number, name in enumerate(class_names)}
    splits = {
        split: [
            _annotated(file, images[split][name], s, numbers) for name, (file, s) in rows.items()
        ]
        for split, rows in shapes.items()
    }
    lost = sum(s.without_area for rows in shapes.values() for _, s in rows.values())
    notes = (f"points and lines, which have no box, left out: {lost}",) if lost else ()
    return Annotations(class_names, splits, notes, left_out)


def _annotated(file: Path, image: Path, shapes: _Shapes, numbers: dict[str, int]) -> Annotated:
    for label, _ in shapes.objects:
        if label not in numbers:
            raise UserError(f"{file}: the class {label!r} is not in training: {', '.join(numbers)}")
    boxes = [box for _, box in shapes.objects]
    classes = [numbers[label] for label, _ in shapes.objects]
    return Annotated(image, str(file), shapes.size, Objects.of(boxes, classes))


def _read(file: Path) -> _Shapes:
    content = read_json(file)
    rows = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not {"imageHeight", "imageWidth"} <= content.keys():
        raise UserError(f"{file}: is not labelme's; it has no shapes, imageHeight and imageWidth")
    size = side_of(content, "imageHeight", str(file)), side_of(content, "imageWidth", str(file))
    objects: list[tuple[str, Box]] = []
    groups: dict[tuple[str, Any], int] = {}
    without_area = 0
    for number, row in enumerate(rows, 1):
        try:
            label, kind = row["label"], row.get("shape_type") or "polygon"
            points = [(float(x), float(y)) for x, y in row["points"]]
            group = row.get("group_id")
            if not isinstance(label, str) or not label.strip() or not points:
                raise ValueError
            if not isinstance(group, int | str | None):
                raise UserError(
                    f"{file}: shape {number}: its group_id is {shown(group)}, no number"
                )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise UserError(f"{file}: shape {number} has no label, or no points") from None
        if kind not in _WITH_AREA:
            without_area += 1
            continue
        box = _box(kind, points)
        if group is not None and (label, group) in groups:
            a, b = objects[groups[label, group]][1], box
            box = [min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])]
            objects[groups[label, group]] = label, box
            continue
        if group is not None:
            groups[label, group] = len(objects)
        objects.append((label, box))
    return _Shapes(size, objects, without_area)


def _box(kind: str, points: list[tuple[float, float]]) -> Box:
    if kind == "circle" and len(points) == 2:
        (x, y), radius = points[0], math.dist(*points)
        return [x - radius, y - radius, x + radius, y + radius]
    xs, ys = zip(*points, strict=True)
    return [min(xs), min(ys), max(xs), max(ys)]
