"""coco:IMAGES_DIR:ANNOTATIONS.json, the format of https://cocodataset.org/#format-data ."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from research.data.files import Found, at_home, composed, few, find, inside, read_json
from research.data.images.objects import Objects
from research.data.images.reading import EXTENSIONS
from research.data.own.annotations import Annotated, Annotations, shown, side_of
from research.data.own.folders import SPLITS
from research.errors import UserError

_EXPORTED = "_annotations.coco.json"  # Roboflow's, beside the images of each split


def read(location: str) -> Annotations:
    """Reads IMAGES_DIR:TRAIN.json, IMAGES_DIR:TRAIN.json:TEST.json, or DIR as Roboflow exports it.

    That has folders train/, valid/ and test/, each with images and _annotations.coco.json. An image
    without annotations holds no objects; see `_Pictures` for where its file is looked for.

    Raises:
      UserError: for files that are missing or no COCO annotations, values that are not of their
        kind, ids and images that come twice, and annotations of images or categories that are not
        in their lists.
    """
    places = _places(location)
    contents = [_load(file) for _, _, file in places]
    files = [file for _, _, file in places]
    categories = [
        _categories(file, content, _used(contents))
        for file, content in zip(files, contents, strict=True)
    ]
    for file, other in zip(files, categories, strict=True):
        if other != categories[0]:
            raise UserError(f"{file}: its categories are not those of {files[0]}")
    numbers = {key: number for number, key in enumerate(categories[0])}
    found = {folder: find(folder, EXTENSIONS) for _, folder, _ in places}
    splits: dict[str, list[Annotated]] = {}
    notes = []
    for (split, folder, file), content in zip(places, contents, strict=True):
        splits[split] = _images(file, content, numbers, _Pictures(folder, found[folder]))
        without = sum(not len(image.objects.classes) for image in splits[split])
        if without:
            notes.append(f"{without} of {len(splits[split])} images in {file.name} hold no objects")
    left_out = Counter[str]()
    for here in found.values():
        left_out.update(here.left_out)
    named = {image.image for rows in splits.values() for image in rows}
    left_out["in no JSON"] = sum(
        file not in named for here in found.values() for file in here.files
    )
    return Annotations(tuple(categories[0].values()), splits, tuple(notes), left_out)


def _places(location: str) -> list[tuple[str, Path, Path]]:
    """Finds the split, the folder of images and the JSON file of each part."""
    parts = [at_home(part) for part in location.split(":")]
    if len(parts) > 3 or not all(location.split(":")):
        raise UserError(
            f"--dataset=coco:{location}: write coco:IMAGES_DIR:TRAIN.json, "
            f"coco:IMAGES_DIR:TRAIN.json:TEST.json, or coco:DIR of train/{_EXPORTED}"
        )
    folder, *files = parts
    if not folder.is_dir():
        raise UserError(f"--dataset=coco:{location}: {folder} is no folder")
    if files:
        return [(s, folder, f) for s, f in zip(("train", "test"), files, strict=False)]
    exported = {
        SPLITS[sub.name.lower()]: sub
        for sub in sorted(folder.iterdir())
        if sub.name.lower() in SPLITS and (sub / _EXPORTED).is_file()
    }
    if "train" not in exported:
        raise UserError(
            f"--dataset=coco:{location}: {folder} holds no train/{_EXPORTED}; write "
            "coco:IMAGES_DIR:TRAIN.json, or coco:IMAGES_DIR:TRAIN.json:TEST.json"
        )
    return [(split, sub, sub / _EXPORTED) for split, sub in exported.items()]


def _load(file: Path) -> dict[str, Any]:
    content = read_json(file)
    if isinstance(content, dict) and "shapes" in content:
        raise UserError(f"{file}: is labelme's, of one image; write labelme:DIR, its folder")
    wanted = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in wanted):
        raise UserError(f"{file}: is no COCO file; it must hold lists {', '.join(wanted)}")
    for key in wanted:
        for number, row in enumerate(content[key], 1):
            if not isinstance(row, dict):
                raise UserError(f"{file}: entry {number} of {key} is {shown(row)}, no object")
    return content


def _used(contents: list[dict[str, Any]]) -> set[Any]:
    """Returns the ids of categories that annotations have."""
    rows = (row.get("category_id") for content in contents for row in content["annotations"])
    return {value for value in rows if isinstance(value, int | str)}


def _categories(file: Path, content: dict[str, Any], used: set[Any]) -> dict[Any, str]:
    """Returns {id: name}, in the order of ids.

    A category without objects that has the name of another is left out: Roboflow writes one so.
    """
    found: dict[Any, str] = {}
    for number, row in enumerate(content["categories"], 1):
        where = f"{file}: category {number}"
        key = _id(row, "id", where)
        if key in found:
            raise UserError(f"{where} has the id {shown(key)}, which another has before it")
        name = row.get("name")
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"{where} (id {shown(key)}): its name is {shown(name)}, no text")
        found[key] = name.strip()
    if not found:
        raise UserError(f"{file}: holds no categories")
    if len({type(key) for key in found}) > 1:
        raise UserError(f"{file}: some ids of categories are numbers, others text")
    repeated = {name for name, count in Counter(found.values()).items() if count > 1}
    found = {key: name for key, name in found.items() if name not in repeated or key in used}
    for name in sorted(repeated):
        keys = [key for key in found if found[key] == name]
        if len(keys) != 1:
            raise UserError(f"{file}: {len(keys) or 'several'} categories are called {name!r}")
    return dict(sorted(found.items()))


class _Pictures:
    """The files of a folder, by the names that annotations give them.

    A name is a path from the folder. Where no name with a folder in it is found so, all may begin
    at the folder's own name (`im/0.png` in `im`), or somewhere else: then, and for names without a
    folder, a file is taken that alone has that name without its folders.
    """

    def __init__(self, folder: Path, found: Found) -> None:
        self.folder = folder
        self._own_name = composed(folder.resolve().name)
        self._paths = {composed(f.relative_to(folder).as_posix()): f for f in found.files}
        self._names: dict[str, list[Path]] = {}
        for file in found.files:
            self._names.setdefault(composed(file.name), []).append(file)

    def of(self, names: Mapping[Any, str], where: Mapping[Any, str]) -> dict[Any, Path | None]:
        """Finds the file of each name; None for a name without a file. `where` is for messages."""
        paths = {key: self._written(name, where[key]) for key, name in names.items()}
        deep = {key for key, name in names.items() if len(_parts(name)) > 1}
        as_written = any(paths[key] for key in deep)
        claims = Counter(_parts(name)[-1] for name in names.values())
        for key, name in names.items():
            if paths[key] is None and not (key in deep and as_written):
                last = _parts(name)[-1]
                alone = self._names.get(last, [])
                if len(alone) > 1 or (alone and claims[last] > 1):
                    raise UserError(
                        f"{where[key]}: {name} is not in {self.folder}, and several are called "
                        f"{last}; write their paths from there"
                    )
                paths[key] = alone[0] if alone else None
        return paths

    def _written(self, name: str, where: str) -> Path | None:
        inside(self.folder, name, where)
        parts = _parts(name)
        found = self._paths.get("/".join(parts))
        if found is None and len(parts) > 1 and parts[0] == self._own_name:
            found = self._paths.get("/".join(parts[1:]))
        return found


def _parts(name: str) -> list[str]:
    return [part for part in composed(name).replace("\\", "/").split("/") if part not in ("", ".")]


def _images(
    file: Path, content: dict[str, Any], numbers: dict[Any, int], pictures: _Pictures
) -> list[Annotated]:
    rows: dict[Any, dict[str, Any]] = {}
    sizes: dict[Any, tuple[int, int]] = {}
    names: dict[Any, str] = {}
    for number, row in enumerate(content["images"], 1):
        where = f"{file}: image {number}"
        key = _id(row, "id", where)
        name = row.get("file_name")
        if not isinstance(name, str) or not _parts(name):
            raise UserError(f"{where}: its file_name is {shown(name)}, no text")
        where = f"{where}, {name}"
        if key in rows:
            raise UserError(f"{where}: has the id {shown(key)}, as {names[key]} before it")
        rows[key], names[key] = row, name
        sizes[key] = side_of(row, "height", where), side_of(row, "width", where)
    found: dict[Any, list[tuple[list[float], int, bool]]] = {key: [] for key in rows}
    for number, row in enumerate(content["annotations"], 1):
        where = f"{file}: annotation {row.get('id', number)!r}"
        image, category = _id(row, "image_id", where), _id(row, "category_id", where)
        if image not in rows:
            raise UserError(f"{where} is of image {shown(image)}, which is not in images")
        if category not in numbers:
            raise UserError(f"{where} has category {shown(category)}, which is not in categories")
        found[image].append((_box(row, where), numbers[category], _flag(row, "iscrowd", where)))
    sources = {key: f"{file}, image {name}" for key, name in names.items()}
    paths = pictures.of(names, sources)
    missing = [names[key] for key, path in paths.items() if path is None]
    if missing:
        raise UserError(
            f"{file}: {len(missing)} of {len(rows)} images are not in {pictures.folder}: "
            f"{few(missing)}"
        )
    images: dict[Path, Annotated] = {}
    for key, path in paths.items():
        if path is None:
            continue
        if path in images:
            raise UserError(f"{sources[key]}: is there twice; put its annotations under one id")
        objects = Objects.of(*zip(*found[key], strict=True)) if found[key] else Objects.of([], [])
        images[path] = Annotated(path, sources[key], sizes[key], objects)
    return list(images.values())


def _id(row: dict[str, Any], key: str, where: str) -> Any:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise UserError(f"{where}: its {key} is {shown(value)}, neither a whole number nor text")
    return value


def _box(row: dict[str, Any], where: str) -> list[float]:
    box: Any = row.get("bbox")
    try:
        if len(box) != 4 or {type(value) for value in box} - {int, float}:
            raise ValueError
        x, y, width, height = map(float, box)
    except (TypeError, ValueError, OverflowError):
        raise UserError(
            f"{where}: its bbox is {shown(box)}, not [x, y, width, height] in numbers"
        ) from None
    return [x, y, x + width, y + height]


def _flag(row: dict[str, Any], key: str, where: str) -> bool:
    value = row.get(key, 0)
    if value not in (0, 1, None) or isinstance(value, float):
        raise UserError(f"{where}: its {key} is {shown(value)}, neither 0 nor 1")
    return bool(value)
