"""Finds, reads, keeps and compares the files of a person's own experiment.

An experiment consists of its file and of all modules that it imports, directly or through others,
from the same folder; of a package, from anywhere in the package. They are found without running
anything.
"""

import ast
import difflib
import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any, NamedTuple

from research.errors import UserError, nearest

# Folder of a run that holds the copy.
KEPT = "code"
# What an absolute import of one of these names finds is Python's or ours, whatever lies beside the
# experiment's file; `from . import NAME` finds the file beside it.
RESERVED = frozenset({*sys.stdlib_module_names, "launch", "research", "experiments"})
_PACKAGE = "__init__.py"


class Code(NamedTuple):
    """The files of an experiment, as they were when they were read.

    Attributes:
      main: the experiment's file, relative to the folder, such as "mine.py" or "my_lab/mine.py". It
        names the experiment: no name of ours ends in .py.
      files: {file relative to the folder: content}.
      folder: where they were read, which errors and `__file__` show; no part of the identity.
    """

    main: str
    files: Mapping[str, bytes]
    folder: str

    @property
    def digest(self) -> str:
        """Returns the sha256 of the names and contents of all files."""
        state = hashlib.sha256(self.main.encode())
        for name, content in sorted(self.files.items()):
            state.update(f"\n{name} {len(content)}\n".encode() + content)
        return state.hexdigest()

    def path(self, name: str) -> str:
        """Returns a file's path for messages: relative if it lies below the current folder."""
        path = os.path.join(self.folder, name)
        relative = os.path.relpath(path)
        return path if relative.startswith("..") else relative

    def text(self, name: str) -> str:
        """Returns the text of one of the files, in the encoding that its first lines declare."""
        return importlib.util.decode_source(self.files[name])


def to_json(code: Code) -> dict[str, Any]:
    """Returns a code as plain JSON, for a checkpoint; bytes that are not UTF-8 survive."""
    return {
        "main": code.main,
        "files": {k: v.decode("utf-8", "surrogateescape") for k, v in code.files.items()},
    }


def from_json(values: Mapping[str, Any], folder: str) -> Code:
    """Returns the code that `to_json` wrote; `folder` is where it was found."""
    files = {k: v.encode("utf-8", "surrogateescape") for k, v in values["files"].items()}
    return Code(values["main"], files, folder)


# --- Find ---


def is_own(said: str) -> bool:
    """Returns whether --experiment names a file or a module, not an experiment of ours."""
    return "." in said or "/" in said


def find(said: str) -> tuple[Path, str]:
    """Finds the Python file that --experiment names, as path/to/mine.py or as my_lab.mine.

    Returns:
      The folder that imports start from, and the file relative to it: the folder of the file, or
      the one that holds the whole package of a module, or of a file beside an __init__.py.

    Raises:
      UserError: if no such file or module is found.
    """
    if not said.endswith(".py") and "/" not in said:
        file, above = _module_file(said)
    else:
        file = Path(os.path.abspath(Path(said).expanduser()))
        if file.is_dir():
            raise UserError(f"--experiment={said}: is a folder; name the file in it.")
        if not file.is_file():
            there = [p.name for p in file.parent.glob("*.py")] if file.parent.is_dir() else []
            hint = nearest(file.with_suffix(".py").name, sorted(there))
            raise UserError(f"--experiment={said}: there is no such file.{hint}")
        above = file.parent
        while (above / _PACKAGE).is_file():
            above = above.parent
    if file.suffix != ".py":
        raise UserError(f"--experiment={said}: is no Python file; its name must end in .py.")
    return above, file.relative_to(above).as_posix()


def _module_file(said: str) -> tuple[Path, Path]:
    """Finds a module's file, in the current folder or importable, and its package's folder.

    Imports nothing.
    """
    top, *rest = said.split(".")
    spec = PathFinder.find_spec(top, [os.getcwd()]) or _installed(top)
    for part in rest:
        places = spec.submodule_search_locations if spec else None
        spec = PathFinder.find_spec(part, list(places)) if places else None
    if spec is None or not spec.origin:
        raise UserError(
            f"--experiment={said}: there is no such module; write a file as path/to/mine.py, or "
            "start in the folder that holds the module's package."
        )
    file = Path(spec.origin)
    return file, file.parents[len(rest) + (file.name == _PACKAGE)]


def _installed(top: str) -> ModuleSpec | None:
    """Returns the place where Python finds a top-level module; None if there is none."""
    try:
        return importlib.util.find_spec(top)
    except (ImportError, ValueError):  # ValueError: of a running script, which knows no file
        return None


# --- Read ---


def read(folder: Path, main: str) -> Code:
    """Reads a file and the modules that it imports from its folder, or from its package.

    Args:
      folder, main: as `find` returns them.

    Raises:
      UserError: a file that cannot be read or is no Python; a name that cannot be imported.
    """
    code = Code(main, files := {}, str(folder))
    waiting = [main]
    while waiting:
        name = waiting.pop()
        if name in files:
            continue
        if "." in name.removesuffix(".py"):
            raise UserError(f"{code.path(name)}: a dot in its name keeps it from being imported.")
        files[name] = _content(folder / name)
        waiting += _packages(name)
        waiting += _imported(_parsed(code, name), name, code)
    return code


def _content(path: Path) -> bytes:
    """Returns a file's bytes; b"" for an __init__.py that a package's folder does not have."""
    if path.name == _PACKAGE and not path.exists():
        return b""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error


def _parsed(code: Code, name: str) -> ast.Module:
    """Returns a file's syntax tree. Raises UserError with the line that is not Python."""
    try:
        text = code.text(name)
        compile(text, code.path(name), "exec", dont_inherit=True)  # knows more than the parser
        return ast.parse(text)
    except SyntaxError as error:
        where = f"{code.path(name)}, line {error.lineno or 1}"
        raise UserError(f"{where}: is no Python ({error.msg}).") from error
    except ValueError as error:  # not in the encoding that it declares, or NUL bytes
        raise UserError(f"{code.path(name)}, line 1: is no text ({error}).") from error


def _packages(name: str) -> list[str]:
    """Returns the __init__.py of each folder on the way to a file."""
    parents = Path(name).parents
    return [(parent / _PACKAGE).as_posix() for parent in parents if parent.name]


def _imported(tree: ast.Module, name: str, code: Code) -> Iterator[str]:
    """Yields the files of the folder that a module imports, anywhere in its text."""
    folder, package = Path(code.folder), name.split("/")[:-1]
    for node in ast.walk(tree):
        targets: list[list[str]] = []
        if isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level <= len(package) + 1:
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = above + (node.module.split(".") if node.module else [])
            targets = [base, *([*base, alias.name] for alias in node.names)]
        relative = isinstance(node, ast.ImportFrom) and node.level > 0
        for target in targets:
            if relative or _lies_beside(target[0], code):
                yield from _files(folder, target)


def _files(folder: Path, module: list[str]) -> Iterator[str]:
    """Yields a module's file, if it exists: a package's __init__.py, or else the plain file."""
    stem = "/".join(module)
    for name in (f"{stem}/{_PACKAGE}", f"{stem}.py"):
        if module and (folder / name).is_file():
            yield name
            return


def _lies_beside(top: str, code: Code) -> bool:
    """Returns whether an absolute import finds a module of the folder, as in a script there.

    In a package, such an import finds the package itself alone.
    """
    package, slash, _ = code.main.partition("/")
    if top in RESERVED or (slash and top != package):
        return False
    folder = Path(code.folder)
    if slash or any(_files(folder, [top])):
        return True
    spec = _installed(top)  # a folder without __init__.py comes last, as in any of Python's paths
    return (folder / top).is_dir() and (spec is None or spec.origin is None)


# --- Keep and compare ---


def keep(code: Code, folder: Path) -> None:
    """Writes the files that are missing into a folder, which must have no `strangers`."""
    for name, content in code.files.items():
        path = folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f".{path.name}.tmp")  # whole, or not there
            unfinished.write_bytes(content)
            unfinished.replace(path)


def strangers(code: Code, folder: Path) -> list[Path]:
    """Returns files of a folder that have the same names as a code's, and another content."""
    paths = {folder / name: content for name, content in code.files.items()}
    return [p for p, content in paths.items() if p.exists() and _content(p) != content]


def difference(old: Code, new: Code) -> str:
    """Returns the first difference of two codes, in one line; "" if they are the same."""
    found = [_changed(name, old, new) for name in sorted({*old.files, *new.files})]
    found = [line for line in found if line]
    more = f", and {len(found) - 1} more of its files" if len(found) > 1 else ""
    return found[0] + more if found else ""


def _changed(name: str, old: Code, new: Code) -> str:
    if old.files.get(name) == new.files.get(name):
        return ""
    if name not in new.files:
        return f"{name} is no longer imported"
    if name not in old.files:
        return f"{name} is imported now"
    before, after = (code.text(name).splitlines() for code in (old, new))
    for tag, a, a_end, b, b_end in difflib.SequenceMatcher(
        None, before, after, False
    ).get_opcodes():
        if tag != "equal":
            there, here = _short(before[a:a_end]), _short(after[b:b_end])
            return f"{name}, line {b + 1}: {there} there, {here} here"
    return f"{name}: the ends of its lines"


def _short(lines: list[str]) -> str:
    """Returns the first line, cut to 60 characters; "nothing" if there is none."""
    line = lines[0].strip() if lines else ""
    return repr(line if len(line) <= 60 else f"{line[:57]}...") if line else "nothing"
