"""Errors that are reported in one line, without a traceback, and their exit codes."""

import difflib
import errno
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class UserError(Exception):
    """Bad input. The message is one line that names the file, flag or class and the remedy.

    Line ends in the message, which names of files and classes may hold, are written as \\n.
    """

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__("\\n".join(message.splitlines()))


class FailedError(UserError):
    """A failure of work that had begun: no flag or file was wrong as such."""

    exit_code = 1


class NotFiniteError(FailedError):
    """An error of training: its loss is infinite or no number."""


def is_full(error: BaseException) -> bool:
    """Returns whether a disk or a quota was full, or a file had reached its limit."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return isinstance(error, OSError) and error.errno in full


def nearest(name: str, names: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the name most like `name`, or "" where none is alike."""
    match = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" Did you mean {match[0]!r}?" if match else ""


def choose(name: str, table: Mapping[str, T], what: str) -> T:
    """Returns table[name]; raises UserError with the nearest name if the table lacks it."""
    if name in table:
        return table[name]
    raise UserError(
        f"unknown {what} {name!r}.{nearest(name, table)} Known: {', '.join(sorted(table))}."
    )
