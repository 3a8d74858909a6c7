"""Results that a page states and that are cheap to measure again: rows with a mark.

A mark is a comment in the row of the command that measures it, a name, a metric, its value and how
far another machine may be from it: <!-- again: digits test/accuracy 0.990 within 0.005 -->
"""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

from research.errors import UserError, nearest

ALL = "all"
_MARK = re.compile(r"<!-- again: (\S+) (\S+) (\S+) within (\S+) -->")
_COMMAND = re.compile(r"`python launch\.py ?([^`]*)`")


class Stated(NamedTuple):
    """A result as a page states it.

    Attributes:
      arguments: of the launcher.
      tolerance: the largest difference, either way, that still bears the value out.
    """

    name: str
    arguments: tuple[str, ...]
    metric: str
    value: float
    tolerance: float

    def holds(self, measured: float | None) -> bool:
        """Returns whether a measured value bears the stated one out; None does not."""
        slack = 1e-9  # 0.990 - 0.985 is more than 0.005 in binary
        return measured is not None and abs(measured - self.value) <= self.tolerance + slack


def read_stated(page: Path) -> list[Stated]:
    """Reads the marked rows of a page.

    Raises:
      UserError: where there is no such page, or a mark is none.
    """
    if not page.is_file():
        raise UserError(f"--results: {page} is not there; a clone of the code has it.")
    rows = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if "<!-- again:" not in line:
            continue
        mark, command = _MARK.search(line), _COMMAND.search(line)
        try:
            if mark is None or command is None:
                raise ValueError
            value, tolerance = float(mark[3]), float(mark[4])
        except ValueError:
            raise UserError(
                f"{page}, line {number}: a mark and its command are needed in one row, as in "
                "`python launch.py --experiment=...` <!-- again: NAME METRIC VALUE within VALUE -->"
            ) from None
        rows.append(Stated(mark[1], tuple(shlex.split(command[1])), mark[2], value, tolerance))
    return rows


def choose(stated: list[Stated], names: tuple[str, ...]) -> list[Stated]:
    """Returns the rows of these names; of ALL, every one. Raises UserError for an unknown name."""
    known = [row.name for row in stated]
    for name in names:
        if name not in (ALL, *known):
            raise UserError(
                f"--results={name}: no row is marked so; there are {', '.join(known)}."
                f"{nearest(name, known)}"
            )
    return [row for row in stated if ALL in names or row.name in names]
