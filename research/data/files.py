"""A person's own folders: what lies in them, in natural order, and what of it is passed over.

Files may come from anybody, so what reads them here bounds what they can ask for.
"""

import json
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

from research.errors import UserError

# What systems and tools put into folders beside what a person put there.
_SYSTEM_FILES = (".ds_store", "thumbs.db", "desktop.ini", "icon\r")
_TOOL_FOLDERS = (
    "__macosx", "__pycache__", "@eadir", "#recycle", "$recycle.bin", "lost+found",
    "system volume information",
)  # fmt: skip

# Bytes of a file that is read whole: the largest published lists of annotations have 6 GB.
MOST_BYTES = 2**33
_MOST_DIGITS = 4000  # of a number in a name; Python reads 4300

# Images that are not read: they are counted, where images are looked for.
_OTHER_IMAGES = (
    ".heic", ".heif", ".jp2", ".jxl", ".psd", ".tga", ".svg", ".exr", ".hdr", ".dng", ".cr2",
    ".cr3", ".nef", ".arw", ".dcm",
)  # fmt: skip


class Found(NamedTuple):
    """Files below a folder.

    Attributes:
      files: in natural order.
      left_out: {reason: number} of files that were passed over.
    """

    files: tuple[Path, ...]
    left_out: Mapping[str, int]


def at_home(text: str | Path) -> Path:
    """Expands ~ to the home folder; raises UserError for ~NAME of nobody here."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"{text}: there is no user of that name; write the whole path") from None


def find(folder: Path, endings: Collection[str] | None = None, *, deep: bool = True) -> Found:
    """Finds the files below a folder, at any depth, or in it alone.

    Links are followed, each folder is entered once. Files and folders that are hidden, a system's
    or a tool's (`._a.png`, `.ipynb_checkpoints/`, `__MACOSX/`) are passed over.

    Args:
      endings: such as ".png", in lower case; None for all.

    Raises:
      UserError: for a folder that cannot be read, and a name that is not in UTF-8.
    """
    files: list[Path] = []
    left_out: Counter[str] = Counter()
    entered: set[tuple[int, int]] = set()

    def wanted(name: str) -> bool:
        return endings is None or os.path.splitext(name)[1].lower() in endings

    others = _OTHER_IMAGES if endings and ".png" in endings else ()

    def walk(path: Path, own: bool) -> None:
        status = path.stat()
        if (status.st_dev, status.st_ino) in entered:
            left_out["links to folders already read"] += 1
            return
        entered.add((status.st_dev, status.st_ino))
        try:
            listed = _listed(path)
        except UserError:
            if own:
                raise
            return  # lost+found is root's
        for entry in listed:
            ours = own and is_own(entry.name)
            if entry.is_dir() and not deep:
                continue
            if entry.is_dir(follow_symlinks=False):
                walk(path / entry.name, ours)
            elif entry.is_dir():
                if ours:
                    linked.append(path / entry.name)
            elif entry.is_symlink() and not entry.is_file():
                # Without an ending it may have been a folder of pictures.
                if ours and (wanted(entry.name) or "." not in entry.name):
                    left_out["links to what is not there"] += 1
            elif wanted(entry.name):
                if not entry.is_file():  # reading a pipe would wait for ever
                    left_out["neither files nor folders"] += 1
                elif ours:
                    files.append(path / in_utf8(entry.name, path))
                elif entry.name.lower() not in _SYSTEM_FILES:
                    left_out["hidden or of the system"] += 1
            elif ours and os.path.splitext(entry.name)[1].lower() in others:
                left_out["of a kind that is not read, save them as PNG"] += 1

    linked: list[Path] = []
    walk(folder, own=True)
    while linked:  # after all folders that lie here themselves
        walk(linked.pop(0), own=True)
    return Found(tuple(sorted(files, key=lambda file: natural(str(file)))), left_out)


def by_name(files: Iterable[Path], folder: Path) -> dict[str, Path]:
    """Returns {path below a folder without its ending: file}, accents composed.

    Raises:
      UserError: for two files of one name.
    """
    found: dict[str, Path] = {}
    for file in files:
        name = composed(file.relative_to(folder).with_suffix("").as_posix())
        if name in found:
            raise UserError(f"{file}: {found[name].name} has the same name beside it")
        found[name] = file
    return found


def subfolders(folder: Path) -> list[Path]:
    """Lists the folders in a folder, linked ones too, in natural order, but no system's or tool's.

    Raises:
      UserError: for a folder that cannot be read, a link to what is not there, and a name that is
        not in UTF-8.
    """
    names = []
    for entry in _listed(folder):
        if not is_own(entry.name):
            continue
        if entry.is_dir():
            names.append(in_utf8(entry.name, folder))
        elif entry.is_symlink() and not entry.is_file():
            raise UserError(f"{entry.path}: is a link to what is not there; mend or remove it")
    return [folder / name for name in sorted(names, key=natural)]


def is_own(name: str) -> bool:
    """Returns whether a file or folder of this name is a person's.

    Hidden ones, and those of the system or of a tool, are not.
    """
    lower = name.lower()
    return not (name.startswith(".") or lower in _SYSTEM_FILES or lower in _TOOL_FOLDERS)


def in_utf8(name: str, folder: Path) -> str:
    """Returns the name; raises UserError if it is not in UTF-8: it cannot be printed or written."""
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(name).decode("utf-8", "backslashreplace")
        raise UserError(
            f"{folder}: holds a name that is not in UTF-8, {shown}; rename it, as convmv does"
        ) from None
    return name


def read_bytes(path: Path, said: str = "", most: int = MOST_BYTES) -> bytes:
    """Reads a file whole.

    Args:
      said: the file in messages, such as "--text=a.txt"; "" for its path.
      most: bytes that it may have; it is not read where it has more.

    Raises:
      UserError: naming the file, where it cannot be read, is too large, or is a pipe or a device,
        of which an archive may hold some, and which never end.
    """
    said = said or str(path)
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as f:
            status = os.fstat(f.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"{said}: is a pipe or a device, and no file; save it as one")
            if status.st_size > most:
                raise UserError(f"{said}: has {status.st_size:,} bytes; {most:,} at most are read")
            return f.read()
    except OSError as error:
        raise UserError(f"{said}: cannot be read ({error.strerror})") from None
    except ValueError:  # of a name with a zero in it
        raise UserError(f"{said!r}: is no name of a file") from None


def read_text(path: Path, said: str = "") -> str:
    """Reads a file of text in UTF-8, with or without a byte order mark; see `read_bytes`.

    Raises:
      UserError: naming the file, where it cannot be read or is in another encoding.
    """
    said = said or str(path)
    try:
        return read_bytes(path, said).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{said}: is not UTF-8 (byte {error.start}); convert it, as with "
            "iconv -f latin1 -t utf-8"
        ) from None


def read_json(
    path: Path, said: str = "", table: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:
    """Reads a file of JSON; see `read_text`.

    Args:
      table: makes an object of its keys and values; None for a dict.

    Raises:
      UserError: naming the file, where it is no JSON, is nested too deeply, or holds a number of
        thousands of digits.
    """
    said = said or str(path)
    text = read_text(path, said)
    try:
        return json.loads(text, object_pairs_hook=table)
    except json.JSONDecodeError as error:
        raise UserError(f"{said}: is no JSON (line {error.lineno}: {error.msg})") from None
    except RecursionError:
        raise UserError(f"{said}: is no JSON of any use: it is nested too deeply") from None
    except ValueError:
        raise UserError(f"{said}: holds a number of thousands of digits") from None


def composed(name: str) -> str:
    """Composes a name's accents with their letters (Unicode's NFC); macOS writes them apart."""
    return unicodedata.normalize("NFC", name)


def inside(folder: Path, name: str, where: str) -> Path:
    """Returns the path of a file that an annotation names, below a folder.

    Raises:
      UserError: for a path that leads out of the folder; `where` names the annotation.
    """
    pure = PureWindowsPath(name)  # which knows / and \\
    if pure.root or ".." in pure.parts:
        raise UserError(f"{where}: {name!r} leads out of {folder}; name files from there")
    return folder / name


def count_line(found: int, left_out: Mapping[str, int], what: str = "images") -> str:
    """Returns the line a reader ends with: numbers found, used, and left out for each reason.

    Args:
      found: all, those that are left out included.
    """
    reasons = {reason: number for reason, number in left_out.items() if number}
    total = sum(reasons.values())
    line = f"{what}: {found} found, {found - total} used"
    if total:
        line += f", {total} left out ({', '.join(f'{r}: {n}' for r, n in reasons.items())})"
    return line


def few(names: Sequence[str], most: int = 3) -> str:
    """Names the first of a list, and counts the rest."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def natural(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Makes a sort key under which 2 comes before 10, and numbers before letters."""

    def key(part: str) -> tuple[int, int, str]:
        number = part.isdecimal() and len(part) <= _MOST_DIGITS
        return (0, int(part), "") if number else (1, 0, part.lower())

    return tuple(map(key, filter(None, re.split(r"(\d+)", name)))), name


def _listed(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from None
    for entry in listed:
        if "\\" in entry.name:
            raise UserError(
                f"{folder}: holds a file {entry.name}, as archives of Windows become when folders "
                "in them are not known as such; unpack it again, as with unzip"
            )
    return iter(listed)
