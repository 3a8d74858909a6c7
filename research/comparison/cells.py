"""The cells of a study, a variant with a seed each: claimed, done, or failed for a reason."""

import contextlib
import os
import re
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, TextIO

from research.comparison.runs import FAILURE, RESULT
from research.data.files import read_json
from research.errors import NotFiniteError, UserError
from research.record.locks import FILE as LOCK
from research.record.locks import LockedError, lock
from research.record.run_folder import read_stopped
from research.record.whole_files import write_json

MEMORY = re.compile(r"RESOURCE_EXHAUSTED|out of memory", re.IGNORECASE)


class Cell(NamedTuple):
    """A variant with a seed, the folder of its run, and the share of its steps to train it for."""

    variant: str
    seed: int
    folder: Path
    until: float = 1.0

    @property
    def label(self) -> str:
        """Returns "sgd, seed 3"."""
        return f"{self.variant}, seed {self.seed}"

    @property
    def is_done(self) -> bool:
        """Returns whether its run is complete, or was trained as far as it is to be."""
        if (self.folder / RESULT).exists():
            return True
        return self.until < 1 and read_stopped(self.folder).get("stop_after", 0.0) >= self.until

    @property
    def is_free(self) -> bool:
        """Returns whether it is neither done nor failed; it may be running."""
        return not self.is_done and failure_of(self.folder) is None


class Failure(NamedTuple):
    """The end of a cell that has no result.

    Attributes:
      kind: "not_finite" (the loss), "out_of_memory", "died" (its process, such as by kill -9), or
        "error", any other.
      reason: in one line.
      traceback: of an error that is none of a person's.
    """

    kind: Literal["not_finite", "out_of_memory", "died", "error"]
    reason: str
    traceback: str = ""

    @property
    def is_final(self) -> bool:
        """Returns whether another attempt would end alike: a loss repeats, as all numbers do."""
        return self.kind == "not_finite"


def failure_of(folder: Path) -> Failure | None:
    """Returns why the cell in a folder failed, or None. One that has a result did not."""
    file = folder / FAILURE
    if not file.exists() or (folder / RESULT).exists():
        return None
    try:
        return Failure(**read_json(file))
    except (UserError, TypeError) as error:
        raise UserError(f"{file}: cannot be read; delete it to run this cell again.") from error


def failure_from(error: Exception) -> Failure:
    """Says in a line why a cell failed."""
    if isinstance(error, NotFiniteError):
        return Failure("not_finite", str(error))
    if isinstance(error, UserError):
        return Failure("error", str(error))
    said = " ".join(str(error).split())
    reason = f"{type(error).__name__}: {said}" if said else type(error).__name__
    told = "".join(traceback.format_exception(error))
    memory = isinstance(error, MemoryError) or MEMORY.search(said)
    return Failure("out_of_memory" if memory else "error", reason[:500], told)


def record(folder: Path, failure: Failure) -> None:
    """Writes failure.json into a cell's folder, beside what it has."""
    write_json(folder / FAILURE, failure._asdict())


def forget_failures(cells: Iterable[Cell]) -> None:
    """Frees the cells whose failure need not repeat, so that they are tried again."""
    for cell in cells:
        failure = failure_of(cell.folder)
        if failure is not None and not failure.is_final:
            with claimed(cell) as claim:
                if claim is not None:
                    (cell.folder / FAILURE).unlink(missing_ok=True)


@contextlib.contextmanager
def claimed(cell: Cell) -> Iterator[TextIO | None]:
    """Holds a cell for this process, whose number stands in the lock; None if another holds it.

    The number stays only where the process dies: `died` finds it there.
    """
    try:
        held = lock(cell.folder)
    except LockedError:
        yield None
        return
    with held:
        held.truncate(0)
        held.write(str(os.getpid()))
        held.flush()
        try:
            yield held
        finally:
            held.truncate(0)


def died(cells: Iterable[Cell], process: int, reason: str) -> Cell | None:
    """Records the failure of the cell that a process held when it died; None if it held none."""
    for cell in cells:
        file = cell.folder / LOCK
        if not file.exists() or file.read_text() != str(process):
            continue
        with claimed(cell) as claim:
            if claim is None or cell.is_done:
                continue
            record(cell.folder, Failure("died", reason))
            return cell
    return None
