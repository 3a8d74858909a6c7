"""Image-classification sets by name: built in, prepared by TFDS, or a folder of one's own."""

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from research.data import builtin, folders
from research.data.prepared import install, installed, open_prepared
from research.data.source import Examples, read_many
from research.data.splits import Dataset
from research.errors import UserError, nearest
from research.progress import console

__all__ = ["Dataset", "builtins", "content", "inspect", "known", "load"]


def load(name: str, data_dir: str | Path, *, skip_corrupt: bool = False) -> Dataset:
    """Opens a data set.

    Args:
      name: a built-in set (made in data_dir on first use), a TFDS image-classification set that
        lies prepared in data_dir as NAME or NAME/CONFIG, or folder:PATH.
      skip_corrupt: leave unreadable files of a folder out, instead of stopping.

    Raises:
      UserError: for an unknown name (with the nearest), a set that is not prepared (with the
        command that does it), one that is no classification set, and what `folders.load` refuses.
    """
    if name.startswith("folder:"):
        path = Path(name.removeprefix("folder:")).expanduser()
        return folders.load(path, skip_corrupt=skip_corrupt)
    prepared = installed(data_dir)
    configs = [other for other in prepared if other.startswith(f"{name}/")]
    if name not in prepared and len(configs) == 1:
        (name,) = configs
    if name not in prepared:
        if name not in builtins():
            raise UserError(_missing(name, data_dir, list(prepared)))
        console().print(f"preparing {name} in {data_dir}, once", markup=False)
        prepared[name] = install(lambda root: _builder(name, root), data_dir)
    return open_prepared(name, prepared[name])


def builtins() -> dict[str, str]:
    """{name: first line of its documentation} of the sets in research/data/builtin."""
    found = {}
    for module in pkgutil.iter_modules(builtin.__path__):
        text = Path(builtin.__path__[0], f"{module.name}.py").read_text()
        first = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
        found[module.name] = first.removeprefix(f"{module.name}: ")
    return found


def known(data_dir: str | Path) -> list[tuple[str, str, str]]:
    """Rows for --mode=list: name, state, content."""
    from research.data.recipes import RECIPES

    prepared = installed(data_dir)
    rows = [(name, "built in", text) for name, text in builtins().items()]
    for name, folder in prepared.items():
        if name not in builtins():
            try:
                rows.append((name, "prepared", content(open_prepared(name, folder))))
            except Exception:  # whatever lies there, the list goes on
                rows.append((name, "prepared", "no image-classification set"))
    rows += [
        (name, f"--mode=prepare --dataset={name}", recipe.content)
        for name, recipe in RECIPES.items()
        if name not in prepared
    ]
    rows.append(("folder:PATH", "your own", "one subfolder a class, or train/ and test/ of these"))
    return rows


def inspect(dataset: Dataset) -> list[str]:
    """What is wrong with a data set, one line each; reads every example once.

    Empty classes, labels out of range, classes that only other splits than train have, and
    examples that cannot be read.
    """
    names = dataset.class_names
    problems: list[str] = []
    trained = np.arange(len(names))
    for split, examples in sorted(dataset.splits.items(), key=lambda item: item[0] != "train"):
        where = f"{dataset.name}, {split}:"
        try:
            present, counts = np.unique(examples.labels, return_counts=True)
        except UserError as error:
            problems.append(f"{where} {error}")
            continue
        trained = present if split == "train" else trained
        for label, count in zip(present.tolist(), counts.tolist(), strict=True):
            if not 0 <= label < len(names):
                problems.append(
                    f"{where} label {label} of {count} examples is out of range; the labels of "
                    f"{len(names)} classes are 0 to {len(names) - 1}"
                )
            elif label not in trained:
                problems.append(f"{where} class {names[label]!r} is not in train")
        for label, class_name in enumerate(names):
            if label not in present:
                problems.append(f"{where} class {class_name!r} is empty")
        problems += [f"{where} {message}" for message in _unreadable(examples)]
    return problems


def content(dataset: Dataset) -> str:
    """Number of classes, image shape and sizes of the splits."""
    shape = "x".join("any" if n is None else str(n) for n in dataset.image_shape)
    sizes = ", ".join(f"{split} {len(examples):,}" for split, examples in dataset.splits.items())
    return f"{len(dataset.class_names)} classes, {shape}; {sizes}"


def _unreadable(examples: Examples) -> Iterator[str]:
    """Why examples cannot be read, one message each."""
    for start in range(0, len(examples), 256):
        block = range(start, min(start + 256, len(examples)))
        try:
            read_many(examples, block)
        except UserError:
            for index in block:
                try:
                    examples[index]
                except UserError as error:
                    yield str(error)


def _builder(name: str, data_dir: str) -> Any:
    """The one builder that research/data/builtin/<name>.py defines."""
    import tensorflow_datasets as tfds

    module = importlib.import_module(f"{builtin.__name__}.{name}")
    (builder,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, tfds.core.GeneratorBasedBuilder)
        and value.__module__ == module.__name__
    )
    tfds.disable_progress_bar()  # a built-in set takes seconds
    return builder(data_dir=data_dir, file_format="array_record")


def _missing(name: str, data_dir: str | Path, prepared: list[str]) -> str:
    """Why a name cannot be opened, and what to do."""
    import tensorflow_datasets as tfds

    configs = [other for other in prepared if other.startswith(f"{name}/")]
    if configs:
        return f"--dataset={name}: say which; prepared are {', '.join(configs)}"
    if Path(name).is_dir():
        return f"--dataset={name}: is a folder; write --dataset=folder:{name}"
    stock = tfds.list_builders(with_community_datasets=False)
    if name.partition("/")[0] in stock:
        return (
            f"--dataset={name}: is not prepared in --data_dir={data_dir}; run python launch.py "
            f"--mode=prepare --dataset={name} --data_dir={data_dir} with "
            "--source=FOLDER_OF_ITS_ARCHIVES or --allow_download"
        )
    here = sorted({*builtins(), *prepared})
    return (
        f"--dataset={name}: is unknown.{nearest(name, [*here, *stock])} Here are "
        f"{', '.join(here)} and folder:PATH; --mode=list shows more"
    )
