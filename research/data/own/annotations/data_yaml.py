"""data.yaml: classes, key points and places of a YOLO set, as Ultralytics and Roboflow write it.

https://docs.ultralytics.com/datasets/detect . Everything in it is read as text: `no` is a name.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from research.data.files import at_home, few, read_text
from research.errors import UserError

_SPLITS = {"train": "train", "val": "validation", "valid": "validation", "test": "test"}


class DataYaml(NamedTuple):
    """The content of a data.yaml.

    Attributes:
      splits: folders of images, or .txt lists of them, of each split; none where it names none.
      root: the folder that these, and the lines of lists, are in.
      key_points: number of points, and of numbers for each; None where it says nothing of them.
      task: "segment" and the like; "" where it does not say.
    """

    file: Path
    names: tuple[str, ...]
    splits: dict[str, list[Path]]
    root: Path
    key_points: tuple[int, int] | None
    task: str
    notes: tuple[str, ...] = ()


_DEEPEST = 20  # lists in lists; a set's file has two


class _Loader(yaml.SafeLoader):
    """A reader of YAML without aliases, by which a few bytes become any number of values.

    Nor are lists in lists read without end, for which PyYAML takes seconds.
    """

    def fetch_flow_collection_start(self, TokenClass: type) -> None:
        if self.flow_level >= _DEEPEST:
            raise yaml.YAMLError("it is nested too deeply")
        super().fetch_flow_collection_start(TokenClass)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if len(self.indents) > _DEEPEST:
            raise yaml.YAMLError("it is nested too deeply")
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias, *NAME, is not read here; write what it stands for")
        return super().compose_node(parent, index)


def find(root: Path) -> DataYaml | None:
    """Reads the file in a folder that has `names`; returns None if no file has.

    Nothing that it names may lie outside of the folder: nobody has looked at the file, perhaps.

    Raises:
      UserError: for several, and as `read` does.
    """
    files = sorted(f for f in root.iterdir() if f.suffix.lower() in (".yaml", ".yml"))
    files = [file for file in files if not file.name.startswith(".")]
    usual = [file for file in files if file.stem in ("data", "dataset")]
    files = [file for file in usual or files if file in usual or "names" in _content(file)]
    if len(files) > 1:
        raise UserError(
            f"--dataset=yolo:{root}: holds {few([file.name for file in files])}; write which by "
            f"--dataset=yolo:{files[0]}"
        )
    if not files:
        return None
    found = read(files[0])
    for place in (found.root, *(place for places in found.splits.values() for place in places)):
        if not Path(os.path.abspath(place)).is_relative_to(os.path.abspath(root)):
            raise UserError(
                f"{files[0]}: {place} is outside of {root}; --dataset=yolo:{files[0]} allows it"
            )
    return found


def read(file: Path) -> DataYaml:
    """Reads names, nc, path, train, val, test, kpt_shape and task.

    Raises:
      UserError: naming the file, for what is no YAML, has no names or disagrees with itself, and
        for places that are not there.
    """
    content = _content(file)
    names = _names(file, content.get("names"))
    count = content.get("nc") or str(len(names))
    if count != str(len(names)):
        raise UserError(f"{file}: says nc: {count}, and names {len(names)} classes")
    key_points = None
    if content.get("kpt_shape"):
        shape = content["kpt_shape"]
        good = isinstance(shape, list) and len(shape) == 2 and all(_digits(v) for v in shape)
        if not good or shape[1] not in ("2", "3"):
            raise UserError(f"{file}: its kpt_shape is not [POINTS, 2] or [POINTS, 3]")
        key_points = int(shape[0]), int(shape[1])
    given: dict[str, list[str]] = {}
    for key, split in _SPLITS.items():
        value = content.get(key) or []
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(t, str) and t for t in texts):
            raise UserError(f"{file}: its {key} is no path and no list of paths")
        if texts and split in given:
            raise UserError(f"{file}: has both val and valid; take one out")
        if texts:
            given[split] = texts
    if given and "train" not in given:
        raise UserError(f"{file}: names {', '.join(given)}, but no train")
    root, notes = _root(file, content.get("path"), given)
    splits = {split: [_place(file, root, text) for text in texts] for split, texts in given.items()}
    task = content.get("task")
    return DataYaml(
        file, names, splits, root, key_points, task if isinstance(task, str) else "", notes
    )


def _content(file: Path) -> dict[str, Any]:
    try:
        node = yaml.compose(read_text(file), Loader=_Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{file}: is no YAML ({' '.join(str(error).split())})") from None
    if not isinstance(node, yaml.MappingNode):
        return {}
    wanted = ("names", "nc", "path", "kpt_shape", "task", *_SPLITS)
    return {key: _text(file, value) for key, value in _rows(file, node) if key in wanted}


def _text(file: Path, node: yaml.Node) -> Any:
    """Lists and tables of text, whatever YAML takes the text for."""
    if isinstance(node, yaml.MappingNode):
        return {key: _text(file, value) for key, value in _rows(file, node)}
    if isinstance(node, yaml.SequenceNode):
        return [_text(file, value) for value in node.value]
    is_null = node.tag == "tag:yaml.org,2002:null" and node.value in ("", "~")
    return None if is_null else node.value


def _rows(file: Path, node: yaml.MappingNode) -> list[tuple[str, yaml.Node]]:
    rows = [(str(key.value), value) for key, value in node.value]
    repeated = [key for number, (key, _) in enumerate(rows) if key in dict(rows[:number])]
    if repeated:
        raise UserError(f"{file}: says {repeated[0]} twice")
    return rows


def _digits(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9]{1,6}", value) is not None


def _names(file: Path, names: Any) -> tuple[str, ...]:
    if isinstance(names, dict):
        numbers = {int(key): name for key, name in names.items() if _digits(key)}
        whole = len(numbers) == len(names) and sorted(numbers) == list(range(len(names)))
        names = [numbers[number] for number in range(len(names))] if whole else None
    if not isinstance(names, list) or not names:
        raise UserError(f"{file}: needs names, a list or a table from 0 without gaps")
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"{file}: names class {number} with nothing, or with more than text")
        if name in names[:number]:
            raise UserError(f"{file}: names two classes {name!r}")
    return tuple(names)


def _root(file: Path, path: Any, given: dict[str, list[str]]) -> tuple[Path, tuple[str, ...]]:
    """Returns the folder that places are in: `path`, from the file's own folder, or that folder."""
    here = file.parent
    if path is None or not isinstance(path, str):
        return here, ()
    root = here / at_home(path)
    if os.path.isdir(root):
        return root, ()
    texts = [text for texts in given.values() for text in texts]
    if all(os.path.exists(here / text) for text in texts):
        return here, (f"{file.name}: its path {path} is not there; its own folder is taken",)
    raise UserError(f"{file}: its path {path} is no folder; mend it, or take it out")


def _place(file: Path, root: Path, text: str) -> Path:
    """Finds a folder of images or a list of them; Roboflow writes ../ before folders beside it."""
    place = root / at_home(text)
    within = root / text.removeprefix("../")
    if within != place and os.path.exists(within):
        if os.path.exists(place):
            raise UserError(
                f"{file}: {text} is {place.resolve()}, and {within.resolve()} is there too; "
                "write which by its whole path"
            )
        place = within
    if not os.path.exists(place):
        raise UserError(f"{file}: {text} is not there ({place}); mend it, or take it out")
    if place.is_file() and place.suffix.lower() != ".txt":
        raise UserError(f"{file}: {text} is neither a folder nor a .txt list of images")
    return place


def read_list(file: Path, root: Path) -> Sequence[Path]:
    """Reads a .txt list of images, a line each: from its own folder, or from `root`.

    Raises:
      UserError: for lines that lead out of both, and images that are not there.
    """
    images, missing = [], []
    lines = [line.strip() for line in read_text(file).splitlines() if line.strip()]
    for number, line in enumerate(lines, 1):
        path = Path(line)
        bare = line.removeprefix("data/")  # as Darknet's are, from the folder above
        candidates = [file.parent / path, root / path, root / bare]
        if ".." in path.parts or not any(
            candidate.is_relative_to(base)
            for candidate, base in zip(candidates, (file.parent, root, root), strict=True)
        ):
            raise UserError(f"{file}, line {number}: {line} leads out of {root}")
        there = next((candidate for candidate in candidates if os.path.isfile(candidate)), None)
        if there is None:
            missing.append(line)
        else:
            images.append(there)
    if missing:
        raise UserError(
            f"{file}: {len(missing)} of {len(lines)} images are not in {root}: {few(missing)}"
        )
    return images
