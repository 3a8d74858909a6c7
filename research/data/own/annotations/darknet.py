"""obj.data: classes and lists of images of a YOLO set, as Darknet reads it and CVAT exports it.

https://docs.cvat.ai/docs/dataset_management/formats/format-yolo . Lines `names = obj.names` (a file
of a class a line), `train = train.txt` and `valid = valid.txt` (lists of images, whose text files
lie beside them). Darknet is run from the folder above: data/ before a path is this file's own.
"""

import os
from pathlib import Path

from research.data.files import read_text
from research.data.own.annotations.data_yaml import DataYaml
from research.errors import UserError

NAME = "obj.data"
_SPLITS = {"train": "train", "valid": "validation", "test": "test"}
_OTHERS = ("classes", "names", "backup", "eval", "results")  # the last three are for Darknet


def read(file: Path) -> DataYaml:
    """Reads what obj.data says, in the form that data.yaml has.

    Raises:
      UserError: naming the file, for lines that are no `KEY = VALUE`, parts of the set that are
        unknown, a count that is not that of the names, and files that are not there.
    """
    rows: dict[str, str] = {}
    for number, line in enumerate(read_text(file).splitlines(), 1):
        key, equals, value = (part.strip() for part in line.partition("="))
        if not line.strip() or line.lstrip().startswith(("#", ";")):
            continue
        if not equals or not key or key in rows:
            reason = "says it twice" if key in rows else "is no KEY = VALUE"
            raise UserError(f"{file}, line {number}: {line.strip()[:40]!r} {reason}")
        rows[key] = value
    for key in rows:
        if key not in (*_SPLITS, *_OTHERS):
            raise UserError(f"{file}: has {key}; {', '.join(_SPLITS)} are the parts of a set")
    for key in ("names", "train"):
        if not rows.get(key):
            raise UserError(f"{file}: needs {key} = FILE")
    names = tuple(
        line.strip() for line in read_text(_place(file, rows["names"])).splitlines() if line.strip()
    )
    if not names or len(set(names)) < len(names):
        what = "names two classes alike" if names else "is empty; write a class a line"
        raise UserError(f"{_place(file, rows['names'])}: {what}")
    if rows.get("classes", str(len(names))) != str(len(names)):
        raise UserError(f"{file}: says classes = {rows['classes']}, and names {len(names)}")
    splits = {_SPLITS[key]: [_place(file, rows[key])] for key in _SPLITS if rows.get(key)}
    return DataYaml(file, names, splits, file.parent, None, "")


def _place(file: Path, text: str) -> Path:
    """Finds a file that obj.data names: as it is written, or without data/."""
    if ".." in Path(text).parts or Path(text).is_absolute():
        raise UserError(f"{file}: {text} leads out of {file.parent}")
    for place in (file.parent / text, file.parent / text.removeprefix("data/")):
        if os.path.isfile(place):
            return place
    raise UserError(f"{file}: {text} is not there ({place}); mend it, or take it out")
