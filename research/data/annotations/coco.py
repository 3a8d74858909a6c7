"""coco:IMAGES_DIR:ANNOTATIONS.json, the format of https://cocodataset.org/#format-data ."""

import json
from pathlib import Path
from typing import Any

from research.data.annotations import Annotated, Annotations, few, read_text
from research.data.objects import Objects
from research.errors import UserError


def read(location: str) -> Annotations:
    """Reads IMAGES_DIR:TRAIN.json, or IMAGES_DIR:TRAIN.json:TEST.json.

    Images are looked for in IMAGES_DIR and in its subfolders of one level. An image without
    annotations holds no objects; image files that the JSON does not name are left alone.

    Raises:
      UserError: for files that are missing or no COCO annotations, and annotations of images or
        categories that are not in their lists.
    """
    parts = [Path(part).expanduser() for part in location.split(":")]
    if len(parts) not in (2, 3) or not all(location.split(":")):
        raise UserError(
            f"--dataset=coco:{location}: write coco:IMAGES_DIR:TRAIN.json, or "
            "coco:IMAGES_DIR:TRAIN.json:TEST.json"
        )
    folder, *files = parts
    if not folder.is_dir():
        raise UserError(f"--dataset=coco:{location}: {folder} is no folder")
    contents = [_load(file) for file in files]
    categories = [_categories(file, content) for file, content in zip(files, contents, strict=True)]
    if categories[0] != categories[-1]:
        raise UserError(f"{files[-1]}: its categories are not those of {files[0]}")
    numbers = {key: number for number, key in enumerate(categories[0])}
    places = {
        file.name: file
        for sub in sorted(folder.iterdir())
        if sub.is_dir()
        for file in sub.iterdir()
    }
    splits, notes = {}, []
    for split, file, content in zip(("train", "test"), files, contents, strict=False):
        splits[split] = _images(file, content, numbers, folder, places)
        without = sum(not len(image.objects.classes) for image in splits[split])
        if without:
            notes.append(f"{without} of {len(splits[split])} images in {file.name} hold no objects")
    return Annotations(tuple(categories[0].values()), splits, tuple(notes))


def _load(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise UserError(f"{file}: is no JSON (line {error.lineno}: {error.msg})") from None
    wanted = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in wanted):
        raise UserError(f"{file}: is no COCO file; it must hold lists {', '.join(wanted)}")
    return content


def _categories(file: Path, content: dict[str, Any]) -> dict[int, str]:
    """{id: name}, in the order of ids."""
    try:
        return {
            row["id"]: row["name"] for row in sorted(content["categories"], key=lambda r: r["id"])
        }
    except (KeyError, TypeError) as error:
        raise UserError(f"{file}: a category has no id or name ({error})") from None


def _images(
    file: Path,
    content: dict[str, Any],
    numbers: dict[int, int],
    folder: Path,
    places: dict[str, Path],
) -> list[Annotated]:
    try:
        rows = {row["id"]: row for row in content["images"]}
        found: dict[int, list[tuple[list[float], int, bool]]] = {key: [] for key in rows}
        for row in content["annotations"]:
            where = f"{file}: annotation {row['id']}"
            if row["image_id"] not in rows:
                raise UserError(f"{where} is of image {row['image_id']}, which is not in images")
            if row["category_id"] not in numbers:
                raise UserError(
                    f"{where} has category {row['category_id']}, which is not in categories"
                )
            x, y, width, height = row["bbox"]
            box = [x, y, x + width, y + height]
            crowd = bool(row.get("iscrowd", 0))
            found[row["image_id"]].append((box, numbers[row["category_id"]], crowd))
        paths = {key: folder / row["file_name"] for key, row in rows.items()}
        sizes = {key: (int(row["height"]), int(row["width"])) for key, row in rows.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: an image or annotation is not as COCO has it ({error})") from None
    paths = {k: p if p.is_file() else places.get(p.name, p) for k, p in paths.items()}
    missing = [path.name for path in paths.values() if not path.is_file()]
    if missing:
        raise UserError(
            f"{file}: {len(missing)} of {len(rows)} images are not in {folder}: {few(missing)}"
        )
    return [
        Annotated(
            paths[key],
            f"{file}, image {rows[key]['file_name']}",
            sizes[key],
            Objects.of(*zip(*found[key], strict=True)) if found[key] else Objects.of([], []),
        )
        for key in rows
    ]
