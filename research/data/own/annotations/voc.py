"""voc:DIR, the format of Pascal VOC: Everingham et al. 2010, section 2.

Coordinates are taken as they are written, as TFDS does: of VOC's own, which count pixels from 1 and
include the last, that makes boxes a pixel narrower than they are.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import defusedxml.ElementTree

from research.data.files import (
    at_home,
    by_name,
    few,
    find,
    natural,
    read_bytes,
    read_text,
    subfolders,
)
from research.data.images.objects import Objects
from research.data.images.reading import EXTENSIONS
from research.data.own.annotations import Annotated, Annotations
from research.data.own.folders import SPLITS
from research.errors import UserError

_XML_FOLDERS = ("annotations", "annotation", "annots", "xml", "xmls", "labels")
_IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs")


class _Place(NamedTuple):
    """Images and XML files, by their paths without endings below the folders they lie in."""

    folder: Path
    pictures: Path
    files: dict[str, Path]
    images: dict[str, Path]


def read(location: str) -> Annotations:
    """Reads DIR/Annotations/*.xml, DIR/JPEGImages and, where it is there, DIR/ImageSets/Main.

    The first may be called annots and the like, the second images, in any case; else XML files lie
    beside images, or anywhere below DIR. Each of train/, valid/ and test/ may hold both, as
    Roboflow exports them. The classes are the lines of DIR/classes.txt, or else those that training
    images have. Objects that are marked difficult are crowds.

    Raises:
      UserError: for images without annotation and annotations without image, classes that are not
        in the list, and files that are no VOC annotations.
    """
    root = at_home(location)
    if not root.is_dir():
        raise UserError(f"--dataset=voc:{location}: no such folder")
    if not find(root, (".xml",)).files:
        raise UserError(f"--dataset=voc:{location}: {root} holds no .xml files, at any depth")
    left_out: Counter[str] = Counter()
    # An archive's own folder.
    while len(inner := subfolders(root)) == 1 and not find(root, (".xml",), deep=False).files:
        if inner[0].name.casefold() in _XML_FOLDERS:
            break
        root = inner[0]
    parts = {SPLITS[f.name.lower()]: f for f in inner if f.name.lower() in SPLITS}
    if "train" in parts and not _called(inner, _XML_FOLDERS):
        places = {split: _place(folder, left_out) for split, folder in parts.items()}
        listed = {split: list(place.files) for split, place in places.items()}
    else:
        place = _place(root, left_out)
        listed = _splits(root, place, left_out)
        places = dict.fromkeys(listed, place)
    twice = left_out.pop("listed twice", 0)
    notes = [f"images listed twice, taken once: {twice}"] if twice else []
    read_files = {s: {name: _read(places[s].files[name]) for name in listed[s]} for s in listed}
    class_names = _class_names(root, list(read_files["train"].values()))
    numbers = {name: number for number, name in enumerate(class_names)}
    splits = {}
    for split, names in listed.items():
        files, images = places[split].files, places[split].images
        splits[split] = [
            _annotated(files[n], images[n], read_files[split][n], numbers) for n in names
        ]
        without = sum(not len(row.objects.classes) for row in splits[split])
        if without:
            notes.append(f"{without} of {len(names)} images of {split} hold no objects")
    return Annotations(class_names, splits, tuple(notes), left_out)


def _called(folders: list[Path], names: tuple[str, ...]) -> Path | None:
    """Returns the folder called by the first of some names that a folder has."""
    by_names = {folder.name.casefold(): folder for folder in reversed(folders)}
    return next((by_names[name] for name in names if name in by_names), None)


def _place(root: Path, left_out: Counter[str]) -> _Place:
    inner = subfolders(root)
    folder = _called(inner, _XML_FOLDERS) or root
    pictures = _called(inner, _IMAGE_FOLDERS) or folder
    found = find(pictures, EXTENSIONS)
    if not found.files:
        found = find(pictures := root, EXTENSIONS)
    left_out.update(found.left_out)
    files = by_name(find(folder, (".xml",)).files, folder)
    images = by_name(found.files, pictures)
    if not files:
        raise UserError(f"--dataset=voc:{root}: {folder} holds no .xml files")
    alone = sorted(files.keys() - images.keys(), key=natural)
    if alone:
        raise UserError(
            f"{files[alone[0]]}: has no image in {pictures} ({len(alone)} of {len(files)} files "
            f"have none: {few(alone)})"
        )
    if (root / "ImageSets" / "Main").is_dir():
        return _Place(folder, pictures, files, images)
    without = sorted(images.keys() - files.keys(), key=natural)
    if without:
        raise UserError(
            f"{images[without[0]]}: has no .xml file in {folder} ({len(without)} of "
            f"{len(images)} images have none: {few(without)}); one without <object> says that "
            "nothing is there"
        )
    return _Place(folder, pictures, files, images)


class _File(NamedTuple):
    """One XML file: height and width; class name, box and difficult of each object."""

    size: tuple[int, int]
    objects: list[tuple[str, list[float], bool]]


def _read(file: Path) -> _File:
    content = read_bytes(file)
    try:
        # Entities, which may make a file swell to any size, are refused.
        tree = defusedxml.ElementTree.fromstring(content)
        objects = [
            (
                _text(found, "name"),
                [float(_text(found, f"bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax")],
                _flag(found, "difficult"),
            )
            for found in tree.findall("object")
        ]
        height, width = (float(tree.findtext(f"size/{k}") or 0) for k in ("height", "width"))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{file}: is no VOC annotation ({error})") from None
    if not (height > 0 and width > 0):
        raise UserError(f"{file}: does not say the image's size (<size><width>, <height>)")
    if not (height.is_integer() and width.is_integer()):
        raise UserError(f"{file}: the image's size, {width:g} x {height:g}, is not in whole pixels")
    return _File((int(height), int(width)), objects)


def _text(found: ElementTree.Element, path: str) -> str:
    text = (found.findtext(path) or "").strip()
    if not text:
        raise ValueError(f"an object has no {path}")
    return text


def _flag(found: ElementTree.Element, path: str) -> bool:
    text = (found.findtext(path) or "0").strip().lower()
    if text not in ("0", "1", "false", "true", "unspecified"):
        raise ValueError(f"{path} is {text!r}, neither 0 nor 1")
    return text in ("1", "true")


def _splits(root: Path, place: _Place, left_out: Counter[str]) -> dict[str, list[str]]:
    """Reads each split's names from the lists of ImageSets/Main; without them all is train."""
    folder = root / "ImageSets" / "Main"
    lists = {
        file.stem: file
        for file in sorted(folder.glob("*.txt"))
        if file.stem in ("train", "val", "trainval", "test")
    }
    if not lists:
        left_out["without .xml file"] += len(place.images.keys() - place.files.keys())
        return {"train": list(place.files)}
    if not lists.keys() & {"train", "trainval"}:
        raise UserError(f"{folder}: lists {', '.join(lists)} but neither train nor trainval")
    chosen = {"train": lists.get("train") or lists["trainval"]}
    if "train" in lists and "val" in lists:
        chosen["validation"] = lists["val"]
    if "test" in lists:
        chosen["test"] = lists["test"]
    splits = {split: _names(file, split, place, left_out) for split, file in chosen.items()}
    named = {name for names in splits.values() for name in names}
    left_out["in no list"] += len(place.images.keys() - named)
    return splits


def _names(file: Path, split: str, place: _Place, left_out: Counter[str]) -> list[str]:
    """Reads the names of a list, each once; lists of a class have 1, 0 or -1 after each."""
    names: dict[str, None] = {}
    missing = []
    for line in map(str.strip, read_text(file).splitlines()):
        bare = re.sub(r"\s+(-1|0|1)$", "", line)
        name = next((n for n in (line, bare, Path(line).stem) if n in place.files), None)
        if not line:
            continue
        if name is None:
            missing.append(line)
        elif name in names:
            left_out["listed twice"] += 1
        else:
            names[name] = None
    if missing:
        raise UserError(
            f"{file.parent}: {len(missing)} images of {split} have no .xml file in "
            f"{place.folder}: {few(missing)}"
        )
    return list(names)


def _class_names(root: Path, training: list[_File]) -> tuple[str, ...]:
    table = root / "classes.txt"
    if table.is_file():
        listed = tuple(line.strip() for line in read_text(table).splitlines() if line.strip())
        if len(set(listed)) < len(listed):
            raise UserError(f"{table}: names two classes alike")
        return listed
    names = sorted({name for file in training for name, _, _ in file.objects}, key=natural)
    if not names:
        raise UserError(f"--dataset=voc:{root}: no training image holds an object")
    return tuple(names)


def _annotated(file: Path, image: Path, read_file: _File, numbers: dict[str, int]) -> Annotated:
    for name, _, _ in read_file.objects:
        if name not in numbers:
            raise UserError(f"{file}: the class {name!r} is not in the list: {', '.join(numbers)}")
    objects = Objects.of(
        [box for _, box, _ in read_file.objects],
        [numbers[name] for name, _, _ in read_file.objects],
        [difficult for _, _, difficult in read_file.objects],
    )
    return Annotated(image, str(file), read_file.size, objects)
