"""Lets Python import a person's own code from memory.

The code runs as it was read when the experiment was opened, in this process and in its workers,
even if the files are edited meanwhile. The modules lie in a package that is named by their content
(own_<sha256>.mine), so files of the same name in different folders never meet, nor do files that
are named like ours.
"""

import builtins
import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from research.code.files import RESERVED, Code
from research.errors import UserError


class Finder(importlib.abc.MetaPathFinder, importlib.abc.ExecutionLoader):
    """A finder and loader of one code's modules, below the package that its content names."""

    def __init__(self, code: Code) -> None:
        self.code = code
        self.package = f"own_{code.digest[:16]}"
        self.loaded_before = frozenset(sys.modules)
        self._tops = {name.partition("/")[0].removesuffix(".py") for name in code.files} - RESERVED

    def file_of(self, fullname: str) -> str:
        """Returns a module's file; "" for the package above all, which has none."""
        stem = fullname.partition(".")[2].replace(".", "/")
        for name in (f"{stem}/__init__.py", f"{stem}.py"):
            if name in self.code.files:
                return name
        return ""

    def find_spec(
        self, fullname: str, path: Iterable[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Returns how a module of this package is loaded; None for a module of any other.

        Raises:
          ModuleNotFoundError: for a module of this package that no import statement named when the
            code was read, so that no run could keep a copy of it.
        """
        if fullname.partition(".")[0] != self.package:
            return None
        if fullname != self.package and not self.file_of(fullname):
            file = fullname.partition(".")[2].replace(".", "/") + ".py"
            raise ModuleNotFoundError(
                f"there is no {file}, or no import statement names it", name=fullname
            )
        return importlib.util.spec_from_loader(fullname, self)

    def is_package(self, fullname: str) -> bool:
        """Returns whether a module is a package."""
        return fullname == self.package or self.file_of(fullname).endswith("/__init__.py")

    def get_filename(self, fullname: str) -> str:
        """Returns the path that a module's file had when it was read."""
        return str(Path(self.code.folder, self.file_of(fullname) or "__init__.py"))

    def get_source(self, fullname: str) -> str:
        """Returns the text of a module."""
        name = self.file_of(fullname)
        return self.code.text(name) if name else ""

    def exec_module(self, module: ModuleType) -> None:
        """Runs a module, in which `import nets` finds the file nets.py beside it.

        Python looks `__import__` up in the builtins of the module that imports.
        """
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": self._import}
        super().exec_module(module)

    def _import(
        self,
        name: str,
        globals: Any = None,
        locals: Any = None,
        fromlist: Any = (),
        level: int = 0,
    ) -> Any:
        if level == 0 and name.partition(".")[0] in self._tops:
            return builtins.__import__(name, {"__package__": self.package}, locals, fromlist, 1)
        return builtins.__import__(name, globals, locals, fromlist, level)


def _finders() -> list[Finder]:
    return [finder for finder in sys.meta_path if isinstance(finder, Finder)]


def installed() -> tuple[Code, ...]:
    """Returns all codes that this process can import."""
    return tuple(finder.code for finder in _finders())


def install(codes: Sequence[Code]) -> None:
    """Lets this process import codes."""
    known = {finder.package for finder in _finders()}
    sys.meta_path[:0] = [f for f in map(Finder, codes) if f.package not in known]


def _finder_of(variables: Mapping[str, Any]) -> Finder | None:
    """Returns a module's finder, by the module's variables; None if it is not a person's own."""
    loader = variables.get("__loader__")
    return loader if isinstance(loader, Finder) else None


def code_of(module: ModuleType) -> Code | None:
    """Returns the code that a module belongs to; None if it is not a person's own."""
    finder = _finder_of(vars(module))
    return finder.code if finder else None


def import_code(code: Code) -> ModuleType:
    """Imports the module of a code's main file.

    Raises:
      UserError: an error while its files run, with file and line.
    """
    install([code])
    package = Finder(code).package
    name = code.main.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    try:
        return importlib.import_module(f"{package}.{name}")
    except UserError:
        raise
    except Exception as error:
        where = place(error) or f"{code.path(code.main)}, line 1"
        raise UserError(f"{where}: {described(error)}") from error


def described(error: Exception) -> str:
    """Returns an error's kind and text, without the names that packages have in memory."""
    text = str(error)
    for finder in _finders():
        text = text.replace(f"{finder.package}.", "")
        text = text.replace(finder.package, Path(finder.code.folder).name)
    return f"{type(error).__name__}: {text}"


def place(error: BaseException) -> str:
    """Returns the last file and line of a person's code in an error's traceback; "" if none."""
    found, trace = "", error.__traceback__
    while trace is not None:
        variables = trace.tb_frame.f_globals
        if finder := _finder_of(variables):
            path = finder.code.path(finder.file_of(variables["__name__"]))
            found = f"{path}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return found


def check_complete(code: Code) -> None:
    """Raises UserError if Python has loaded files of the code's folder that the code lacks.

    A run could not keep a copy of them, nor notice that they change.
    """
    before = next(f.loaded_before for f in _finders() if f.code.digest == code.digest)
    folder = Path(code.folder)
    for name in sys.modules.keys() - before:
        top = name.partition(".")[0]
        file = Path(getattr(sys.modules[name], "__file__", None) or "/")
        beside = file == folder / f"{top}.py" or file.is_relative_to(folder / top)
        if beside and top not in RESERVED and _finder_of(vars(sys.modules[name])) is None:
            raise UserError(
                f"{file}: was loaded by other means than an import statement of the experiment, so "
                "no run could keep a copy of it; write `from . import NAME`."
            )
