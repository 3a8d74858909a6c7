"""The sha256 and size of every file in a folder, so that damage is noticed and named."""

import hashlib
import json
from pathlib import Path
from typing import Any

from research.errors import UserError
from research.record.run_folder import write_json

NAME = "checksums.json"  # lies in the folder itself


class DamagedError(UserError):
    """An error about a file that differs from what was written."""


def write(folder: Path) -> None:
    """Writes the list of all files in a folder; the list is either complete or missing."""
    files = {
        str(path.relative_to(folder)): {"sha256": _sha256(path), "size": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / NAME
    }
    write_json(folder / NAME, {"files": files})


def verify(folder: Path, only: str = "") -> None:
    """Compares the files in a folder with its list.

    Args:
      only: the one file to compare; "" for all.

    Raises:
      DamagedError: that names the first file that is missing, or other than it was written.
    """
    files = _read(folder)
    for name in [only] if only else files:
        if found := _difference(folder / name, files.get(name)):
            raise DamagedError(f"{folder}: is damaged ({name} {found}).")


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    try:
        files = json.loads((folder / NAME).read_text())["files"]
        return {name: {"sha256": row["sha256"], "size": row["size"]} for name, row in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{folder}: is damaged ({NAME} cannot be read).") from error


def _difference(path: Path, written: dict[str, Any] | None) -> str:
    """Returns how a file differs from what was written; "" if it does not."""
    if written is None:
        return f"is not in {NAME}"
    try:
        size = path.stat().st_size
        if size != written["size"]:
            return f"has {size} bytes of {written['size']}"
        return "" if _sha256(path) == written["sha256"] else "is not what was written"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
