"""Locks of folders, held as long as a process lives: even kill -9 frees them."""

import fcntl
from pathlib import Path
from typing import TextIO

from research.errors import UserError

FILE = ".lock"


class LockedError(UserError):
    """A folder is in use by another process."""


def lock(path: Path, wait: bool = False) -> TextIO:
    """Makes a folder if there is none, and locks it until the file returned is closed.

    Args:
      wait: until another process frees it.

    Raises:
      LockedError: where another process holds it.
      UserError: where it cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        file = open(path / FILE, "a+")  # noqa: SIM115 (held as long as the work)
    except OSError as error:
        raise UserError(
            f"--workdir={path}: cannot be written ({error.strerror}); choose another folder."
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        file.close()
        raise LockedError(
            f"--workdir={path}: another process is running in it; choose another folder or wait "
            "for it."
        ) from error
    return file
