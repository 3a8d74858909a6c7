"""The experiments, one module each: a Config and a function build(config, facts).

An experiment of Fovea is named by its module here; a person's own by its file or module.
"""

import ast
import dataclasses
import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from research import config as config_lib
from research.code import files
from research.code.files import Code
from research.code.running import code_of, import_code
from research.errors import UserError, nearest
from research.training.config import TrainingConfig

FOLDER = Path(__file__).resolve().parent


def names() -> list[str]:
    """Returns the names of the experiments that come with Fovea."""
    return sorted(p.stem for p in FOLDER.glob("*.py") if not p.stem.startswith("_"))


def open_experiment(said: str) -> ModuleType:
    """Opens the module that --experiment names: NAME of ours, path/to/mine.py or my_lab.mine.

    Raises:
      UserError: where there is none, or a person's own cannot be run.
    """
    if files.is_own(said):
        folder, main = files.find(said)
        file = folder / main
        if file.resolve().parent != FOLDER:
            return _own(files.read(folder, main))
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
    return _own(files.from_json(code, str(path)))


def name_of(module: ModuleType) -> str:
    """Returns an experiment's name in runs and checkpoints: NAME of ours, or a person's file."""
    code = code_of(module)
    return code.main if code else module.__name__.rpartition(".")[2]


def _own(code: Code) -> ModuleType:
    """Runs a person's own module, and checks that it is an experiment.

    Raises:
      UserError: what keeps it from being an experiment, with file and line.
    """
    module = import_code(code)
    lines = {
        node.name: node.lineno
        for node in ast.parse(code.text(code.main)).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }

    def refuse(name: str, reason: str) -> UserError:
        return UserError(f"{code.path(code.main)}, line {lines.get(name, 1)}: {reason}")

    config_class, build = getattr(module, "Config", None), getattr(module, "build", None)
    if config_class is None:
        raise refuse("Config", "has no Config; write `class Config(TrainingConfig):`, a dataclass.")
    if not isinstance(config_class, type) or "__dataclass_fields__" not in vars(config_class):
        raise refuse(
            "Config", "Config is no dataclass; write @dataclasses.dataclass(frozen=True) above it."
        )
    if not issubclass(config_class, TrainingConfig):
        raise refuse("Config", "Config must extend TrainingConfig of research.training.config.")
    for field in dataclasses.fields(config_class):
        if field.default is dataclasses.MISSING:
            raise refuse("Config", f"Config.{field.name} has no default; a flag needs one.")
    try:
        config_lib.options(config_class)
    except (TypeError, NameError) as error:
        raise refuse("Config", f"{error}.") from error
    if not callable(build):
        raise refuse("build", "has no build; write `def build(config, facts=None):`.")
    try:
        for arguments in (["config"], ["config", "facts"]):  # to train; to evaluate and predict
            inspect.signature(build).bind(*arguments)
    except TypeError as error:
        reason = f"build must take (config, facts=None) ({error})."
        raise refuse("build", reason) from error
    return module
