"""--mode=check of files: whether runs, and prepared sets, are what was written."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from research.data.stored.sets import check_intact, installed
from research.record import checksums, sealing
from research.record.checksums import DamagedError
from research.record.progress import console
from research.remote.copies import copied_run
from research.remote.sets import copied_set
from research.remote.store import is_remote
from research.training.checkpoint import UNCHECKED, locate, steps, verify

CHECKPOINTS = "checkpoints"
OF_RUNS = (sealing.CONFIG, sealing.RESULT, CHECKPOINTS)  # what says that a folder is a run's


def check_runs(paths: Sequence[str]) -> None:
    """Compares all files of runs, or of single checkpoints, with what was written.

    Raises:
      DamagedError: that names the first damaged file; the others are printed.
      UserError: for a path that holds no checkpoint.
    """
    damaged: list[DamagedError] = []
    for path in (copied_run(p, whole=True) if is_remote(p) else Path(p) for p in paths):
        whole = path if any((path / name).exists() for name in OF_RUNS) else None
        parts = _parts(whole) if whole else iter([(locate(path), _checkpoint)])
        for part, compare in parts:
            try:
                said = compare(part)
            except DamagedError as error:
                damaged.append(error)
                said = f"DAMAGED: {error}"
            console().print(f"{part}: {said}", markup=False)
    if damaged:
        raise damaged[0]


def _parts(run: Path) -> Iterator[tuple[Path, Callable[[Path], str]]]:
    """Yields what of a run has a list of its own, with what compares it."""
    yield run, _own_files
    for folder in (run / CHECKPOINTS / "latest", run / CHECKPOINTS / "best"):
        for step in steps(folder):
            yield folder / str(step), _checkpoint


def _own_files(run: Path) -> str:
    if not (run / checksums.NAME).is_file():
        return "was written before runs had checksums: damage to it may go unnoticed"
    sealing.verify(run)
    for file in sorted((run / sealing.EXAMPLES).glob("*.npz")):
        sealing.verify_examples(file)
    return f"{len(checksums.read(run))} files are as they were written"


def _checkpoint(path: Path) -> str:
    verify(path)
    if not (path / checksums.NAME).is_file():
        return UNCHECKED
    return f"{len(checksums.read(path))} files are as they were written"


def check_set(name: str, data_dir: str) -> None:
    """Compares all files of a prepared set, and says so; any other name is passed over.

    Raises:
      DamagedError: with the file's name.
    """
    folder = installed(copied_set(data_dir, name) if is_remote(data_dir) else data_dir).get(name)
    if folder is None:
        return
    compared = check_intact(folder)
    said = (
        "was prepared before sets had checksums: damage to it may go unnoticed"
        if compared is None
        else f"{compared:,} bytes are as they were prepared"
    )
    console().print(f"data       {folder}: {said}", markup=False)
