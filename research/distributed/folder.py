"""The folder that several processes share: the first writes it, the others read it."""

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from research.code.files import Code
from research.distributed import group as distributed
from research.errors import UserError
from research.record import checksums
from research.record.run_folder import RunFolder
from research.training.config import LoopConfig

APPEARS = 20.0  # seconds that a network's disk may take to show what another machine wrote


class ReadFolder(RunFolder):
    """A run's folder in the processes that do not write it: nothing is locked, nothing is kept."""

    def __init__(self, path: Path, experiment: str, config: LoopConfig, code: Code | None) -> None:
        self.path, self.experiment, self.config, self.code = path, experiment, config, code
        self.saved = lambda: None

    def begin(self, start: int, facts: Mapping[str, Any]) -> None:
        """Leaves it to the first process, as all below do."""

    def keep(self, name: str, text: str) -> None: ...

    def log(self, step: int, metrics: Mapping[str, float], warning: str | None = None) -> None: ...

    def seal(self, **more: checksums.Entry) -> None: ...

    def finish(self, result: Mapping[str, Any]) -> None: ...

    def leave(self, result: Mapping[str, Any]) -> None: ...

    def __exit__(self, *_: Any) -> None: ...


@contextlib.contextmanager
def open_run(
    path: Path,
    experiment: str,
    config: LoopConfig,
    code: Code | None = None,
    held: TextIO | None = None,
    saved: Callable[[], object] = lambda: None,
) -> Iterator[RunFolder]:
    """Opens a run's folder: to write in the first process, to read in the others.

    Args:
      path: as `shared` returns it; the rest as in `RunFolder`.

    Raises:
      UserError: as `RunFolder` does, and where the processes have no such folder in common.
    """
    writes = distributed.is_first()
    with (
        RunFolder(path, experiment, config, code, held, saved)
        if writes
        else ReadFolder(path, experiment, config, code)
    ) as folder:
        check_shared(path)
        yield folder


def shared(path: Path) -> Path:
    """Returns the first process' path, which all of them take."""
    if distributed.count() == 1:
        return path
    return Path(distributed.of_first("folder", str(path.absolute())))


def check_shared(path: Path) -> None:
    """Raises UserError, in all processes, where some do not see what the first writes in a folder.

    The first has made the folder before.
    """
    if distributed.count() == 1:
        return
    mark = path / f".{distributed.of_first('mark', secrets.token_hex(8))}"
    if distributed.is_first():
        mark.touch()
    distributed.wait("marked")
    seen = distributed.exchange("seen", "yes" if _appears(mark) else "no")
    if distributed.is_first():
        mark.unlink(missing_ok=True)
    if "no" in seen:
        blind = distributed.current().name(seen.index("no"))
        raise UserError(
            f"--workdir={path}: {blind} does not see what {distributed.current().name(0)} writes "
            "there; give a folder on a disk that all share."
        )


def _appears(file: Path) -> bool:
    until = time.monotonic() + APPEARS
    while True:
        with contextlib.suppress(OSError):
            if file in file.parent.iterdir():  # listed anew, unlike what is known not to be there
                return True
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
