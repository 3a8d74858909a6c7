"""The experiments, one module each: a Config and a function build(config, facts).

An experiment of Fovea is named by its module here; a person's own by its file or module.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from research.code import files
from research.code.experiments import import_experiment
from research.code.running import code_of
from research.errors import UserError, nearest

FOLDER = Path(__file__).resolve().parent


def names() -> list[str]:
    """Returns the names of the experiments that come with Fovea."""
    return sorted(p.stem for p in FOLDER.glob("*.py") if not p.stem.startswith("_"))


def open_experiment(said: str) -> ModuleType:
    """Opens the module that --experiment names: NAME of ours, path/to/mine.py or my_lab.mine.

    Raises:
      UserError: if no experiment has this name, or a person's own cannot be run.
    """
    if files.is_own(said):
        folder, main = files.find(said)
        file = folder / main
        if file.resolve().parent != FOLDER:
            return import_experiment(files.read(folder, main))
        said = file.stem
    if said not in names():
        own = f"{said}.py"
        hint = f" Did you mean {own!r}?" if Path(own).is_file() else nearest(said, names())
        raise UserError(
            f"--experiment={said}: one of {', '.join(names())} is needed, or path/to/mine.py, a "
            f"file of your own.{hint}"
        )
    return importlib.import_module(f"experiments.{said}")


def open_trained(metadata: Mapping[str, Any], path: Path) -> ModuleType:
    """Opens the module that trained a checkpoint; a person's own as the checkpoint keeps it.

    Args:
      metadata: the checkpoint's description.
      path: where it lies.
    """
    code = metadata.get("code")
    if code is None:
        return open_experiment(metadata["experiment"])
    return import_experiment(files.from_json(code, str(path)))


def name_of(module: ModuleType) -> str:
    """Returns an experiment's name in runs and checkpoints: NAME of ours, or a person's file."""
    code = code_of(module)
    return code.main if code else module.__name__.rpartition(".")[2]
