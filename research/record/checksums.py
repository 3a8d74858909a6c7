"""The sha256 and size of every file in a folder, so that damage is noticed and named."""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from research.data.files import read_json
from research.errors import UserError
from research.record.whole_files import write_json

NAME = "checksums.json"  # lies in the folder itself

Entry = dict[str, Any]  # sha256 and size


class DamagedError(UserError):
    """An error about a file that differs from what was written."""


def write(folder: Path, files: Mapping[str, Entry] | None = None) -> None:
    """Writes the list of all files in a folder, or of some; it is either complete or missing."""
    if files is None:
        files = {
            str(path.relative_to(folder)): of_file(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path != folder / NAME
        }
    write_json(folder / NAME, {"files": files})


def of_file(path: Path) -> Entry:
    """Returns what the list holds of a file."""
    return {"sha256": _sha256(path), "size": path.stat().st_size}


def of_bytes(content: bytes) -> Entry:
    """Returns what the list holds of a file with this content."""
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def verify(
    folder: Path, only: str = "", *, growing: bool = False, most: int | float = math.inf
) -> dict[str, Entry]:
    """Compares the files in a folder with its list: their sizes first, which costs nothing.

    Args:
      only: the one file to compare; "" for all.
      growing: whether more may have been written since, so that it is compared as far as it went.
      most: bytes whose content is compared, small files first; of the others sizes alone.

    Returns:
      What of the list was compared whole.

    Raises:
      DamagedError: that names the first file that is missing, or other than it was written.
    """
    listed = read(folder)
    files = {only: listed.get(only)} if only else listed
    for name, entry in files.items():
        if found := _size_differs(folder / name, entry, growing):
            raise DamagedError(f"{folder}: is damaged ({name} {found}).")
    compared: dict[str, Entry] = {}
    for name, entry in sorted(listed.items(), key=lambda item: item[1]["size"]):
        most -= entry["size"]
        if name in files and most >= 0:
            if found := _content_differs(folder / name, entry, growing):
                raise DamagedError(f"{folder}: is damaged ({name} {found}).")
            compared[name] = entry
    return compared


def read(folder: Path) -> dict[str, Entry]:
    """Returns the list in a folder: {file: its sha256 and size}.

    Raises:
      DamagedError: it cannot be read.
    """
    try:
        files = read_json(folder / NAME)["files"]
        return {
            name: {"sha256": str(row["sha256"]), "size": int(row["size"])}
            for name, row in files.items()
        }
    except (UserError, KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise DamagedError(f"{folder}: is damaged ({NAME} cannot be read).") from error


def _size_differs(path: Path, written: Entry | None, growing: bool) -> str:
    """Returns how a file's size differs from what was written; "" if it does not."""
    if written is None:
        return f"is not in {NAME}"
    try:
        size = path.stat().st_size
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if size == written["size"] or (growing and size > written["size"]):
        return ""
    return f"has {size} bytes of {written['size']}"


def _content_differs(path: Path, written: Entry, growing: bool) -> str:
    """Returns how a file's content differs from what was written; "" if it does not."""
    try:
        digest = _sha256(path, written["size"] if growing else None)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "" if digest == written["sha256"] else "is not what was written"


def _sha256(path: Path, first: int | None = None) -> str:
    """Returns the sha256 of a file, or of its first bytes."""
    with open(path, "rb") as file:
        if first is not None:
            return hashlib.sha256(file.read(first)).hexdigest()
        return hashlib.file_digest(file, "sha256").hexdigest()
