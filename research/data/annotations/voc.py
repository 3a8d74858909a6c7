"""voc:DIR, the format of Pascal VOC: Everingham et al. 2010, section 2.

Coordinates are taken as they are written, as TFDS does: of VOC's own, which count pixels from 1 and
include the last, that makes boxes a pixel narrower than they are.
"""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

from research.data.annotations import Annotated, Annotations, few, read_text
from research.data.files import by_name, find, natural
from research.data.images import EXTENSIONS
from research.data.objects import Objects
from research.errors import UserError


def read(location: str) -> Annotations:
    """Reads DIR/Annotations/*.xml, DIR/JPEGImages and, where it is there, DIR/ImageSets/Main.

    Without Annotations/, XML files lie in DIR itself; without JPEGImages/, images lie beside the
    XML files. The classes are the lines of DIR/classes.txt, or else those that training images
    have. Objects that are marked difficult are crowds.

    Raises:
      UserError: for images without annotation and annotations without image, classes that are not
        in the list, and files that are no VOC annotations.
    """
    root = Path(location).expanduser()
    if not root.is_dir():
        raise UserError(f"--dataset=voc:{location}: no such folder")
    folder = root / "Annotations" if (root / "Annotations").is_dir() else root
    pictures = root / "JPEGImages" if (root / "JPEGImages").is_dir() else folder
    files = {file.stem: file for file in folder.glob("*.xml")}
    images = by_name(find(pictures, EXTENSIONS).files, pictures)
    if not files:
        raise UserError(f"--dataset=voc:{location}: {folder} holds no .xml files")
    alone = sorted(files.keys() - images.keys(), key=natural)
    if alone:
        raise UserError(
            f"{files[alone[0]]}: has no image in {pictures} ({len(alone)} of {len(files)} files "
            f"have none: {few(alone)})"
        )
    listed = _splits(root)
    notes = []
    if listed is None:
        listed = {"train": sorted(files, key=natural)}
        without = sorted(images.keys() - files.keys(), key=natural)
        if without:
            raise UserError(
                f"{images[without[0]]}: has no .xml file in {folder} ({len(without)} of "
                f"{len(images)} images have none: {few(without)}); one without <object> says that "
                "nothing is there"
            )
    for split, names in listed.items():
        missing = [name for name in names if name not in files]
        if missing:
            raise UserError(
                f"{root / 'ImageSets' / 'Main'}: {len(missing)} images of {split} have no .xml "
                f"file in {folder}: {few(missing)}"
            )
    read_files = {name: _read(files[name]) for names in listed.values() for name in names}
    class_names = _class_names(root, [read_files[name] for name in listed["train"]])
    numbers = {name: number for number, name in enumerate(class_names)}
    splits = {}
    for split, names in listed.items():
        splits[split] = [_annotated(files[n], images[n], read_files[n], numbers) for n in names]
        without = [name for name in names if not read_files[name].objects]
        if without:
            notes.append(f"{len(without)} of {len(names)} images of {split} hold no objects")
    return Annotations(class_names, splits, tuple(notes))


class _File(NamedTuple):
    """One XML file: height and width; class name, box and difficult of each object."""

    size: tuple[int, int]
    objects: list[tuple[str, list[float], bool]]


def _read(file: Path) -> _File:
    try:
        tree = ElementTree.fromstring(read_text(file))
        objects = [
            (
                _text(found, "name").strip(),
                [float(_text(found, f"bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax")],
                (found.findtext("difficult") or "0").strip() == "1",
            )
            for found in tree.findall("object")
        ]
        height, width = (int(tree.findtext(f"size/{k}") or 0) for k in ("height", "width"))
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{file}: is no VOC annotation ({error})") from None
    if not (height and width):
        raise UserError(f"{file}: does not say the image's size (<size><width>, <height>)")
    return _File((height, width), objects)


def _text(found: ElementTree.Element, path: str) -> str:
    text = found.findtext(path)
    if text is None:
        raise ValueError(f"an object has no {path}")
    return text


def _splits(root: Path) -> dict[str, list[str]] | None:
    """The names of each split; None where there are no lists."""
    folder = root / "ImageSets" / "Main"
    lists = {
        file.stem: [line.split()[0] for line in read_text(file).splitlines() if line.strip()]
        for file in sorted(folder.glob("*.txt"))
        if file.stem in ("train", "val", "trainval", "test")
    }
    if not lists:
        return None
    splits = {}
    if "train" in lists:
        splits["train"] = lists["train"]
        if "val" in lists:
            splits["validation"] = lists["val"]
    elif "trainval" in lists:
        splits["train"] = lists["trainval"]
    else:
        raise UserError(f"{folder}: lists {', '.join(lists)} but neither train nor trainval")
    if "test" in lists:
        splits["test"] = lists["test"]
    return splits


def _class_names(root: Path, training: list[_File]) -> tuple[str, ...]:
    table = root / "classes.txt"
    if table.is_file():
        return tuple(line.strip() for line in read_text(table).splitlines() if line.strip())
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
