"""Flag files: presets, or the flags of a run, one flag a line, in the place of --flagfile=PATH."""

import os
from pathlib import Path

from research.data.files import at_home, read_text
from research.errors import UserError, nearest


def expand(argv: list[str], presets: Path, opened: tuple[Path, ...] = ()) -> list[str]:
    """Replaces each --flagfile among the arguments by the file's lines, without comments.

    If the path does not exist, the file is searched for among the presets, so that
    experiments/presets/... is found from any folder. An --experiment=PATH relative to the flag
    file's folder is found there first, from any current folder: so a run's folder can be moved.

    Args:
      presets: the folder experiments/presets.
      opened: the flag files that hold these lines, outermost first.

    Raises:
      UserError: a file that cannot be read, or that holds itself.
    """
    arguments: list[str] = []
    waiting = iter(argv)
    for argument in waiting:
        flag, given, said = argument.partition("=")
        if flag.lstrip("-") != "flagfile" or not flag.startswith("-"):
            arguments.append(argument)
            continue
        said = said if given else next(waiting, "")
        path = _find(said, presets)
        if path in opened:
            raise UserError(f"--flagfile={said}: holds itself.")
        lines = [_beside(line, path.parent) for line in _lines(path, said)]
        arguments += expand(lines, presets, (*opened, path))
    return arguments


def _find(said: str, presets: Path) -> Path:
    """Finds the file that --flagfile names."""
    path = at_home(said)
    inside = presets.parent.parent / path
    if not os.path.exists(path) and inside.is_relative_to(presets) and inside.is_file():
        return inside
    return Path(os.path.abspath(path))


def _lines(path: Path, said: str) -> list[str]:
    """Returns the lines of a flag file that are flags."""
    try:
        lines = [line.strip() for line in read_text(path, f"--flagfile={said}").splitlines()]
    except UserError as error:
        known = [p.name for p in path.parent.glob("*.flags")] if path.parent.is_dir() else []
        raise UserError(f"{error}.{nearest(path.name, known)}") from None
    return [line for line in lines if line and not line.startswith(("#", "//"))]


def _beside(line: str, folder: Path) -> str:
    """Returns the line, where the path of an experiment beside the flag file gets its full form."""
    flag, _, said = line.partition("=")
    if flag.lstrip("-") == "experiment" and said.endswith(".py") and (folder / said).is_file():
        return f"{flag}={folder / said}"
    return line
