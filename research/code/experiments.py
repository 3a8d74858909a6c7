"""A person's own module as an experiment: run, and looked over before anything depends on it."""

import ast
import dataclasses
import inspect
from types import ModuleType

from research import config as config_lib
from research.code.files import Code
from research.code.running import import_code
from research.errors import UserError
from research.training.config import TrainingConfig


def import_experiment(code: Code) -> ModuleType:
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
