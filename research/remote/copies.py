"""Copies of what lies in a store: of runs, and of prepared data sets.

Whoever opens a copy compares it with the checksums that it carries, as on any disk.
"""

import contextlib
import fnmatch
import functools
import glob
import math
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

from research.errors import UserError
from research.record import checksums
from research.record.checksums import DamagedError
from research.record.locks import lock
from research.record.sealing import CONFIG
from research.remote.store import Store, cache, each

CHECKPOINTS = "checkpoints"


def checkpoint_of(name: str) -> str:
    """Returns the folder of the checkpoint that a file of a run is part of; "" if it is of none."""
    parts = name.split("/")
    return "/".join(parts[:3]) if parts[0] == CHECKPOINTS and len(parts) > 3 else ""


def finished(names: Collection[str]) -> set[str]:
    """Returns the folders of the checkpoints that have their list, which is written last."""
    folders = filter(None, map(checkpoint_of, names))
    return {folder for folder in folders if f"{folder}/{checksums.NAME}" in names}


def belongs(name: str) -> bool:
    """Returns whether a file or folder is part of a run, and not the means of writing it."""
    parts = name.split("/")
    if parts[0] == CHECKPOINTS and len(parts) > 2 and not parts[2].isdigit():
        return False  # one that is being written
    return not parts[0].startswith(".") and not name.endswith(".tmp")


def files_in(folder: Path) -> set[str]:
    """Returns the names of a run's files in a folder of this machine."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return set(filter(belongs, (path.relative_to(folder).as_posix() for path in paths)))


def fetch(store: Store, names: Collection[str], folder: Path) -> None:
    """Copies a run's files into a folder; of checkpoints those that are finished and not there."""
    own = [name for name in names if not checkpoint_of(name) and name != checksums.NAME]
    # Read before the log, which may grow, and written behind it.
    listed = store.read(checksums.NAME) if checksums.NAME in names else None
    each(lambda name: store.fetch(name, folder / name), own)
    if listed is not None:
        (folder / checksums.NAME).write_bytes(listed)
    for checkpoint in sorted(finished(names)):
        if not same(store, f"{checkpoint}/{checksums.NAME}", folder):
            files = [name for name in names if checkpoint_of(name) == checkpoint]
            fetch_listed(store, f"{checkpoint}/{checksums.NAME}", folder, files)


def remove_others(folder: Path, names: Collection[str]) -> None:
    """Removes a run's files that are not among these from a folder of this machine."""
    others = files_in(folder) - set(names)
    for name in sorted(others, key=lambda name: not name.endswith(checksums.NAME)):
        (folder / name).unlink()


def same(store: Store, last: str, folder: Path, most: int | float = math.inf) -> bool:
    """Returns whether a checkpoint or a set is here as it is in the store.

    Args:
      last: the file in it that was written last: its list, if it has one.
      most: bytes whose content is compared with the list.
    """
    file = folder / last
    if not file.is_file() or file.read_bytes() != store.read(last):
        return False
    with contextlib.suppress(DamagedError):
        if file.name == checksums.NAME:
            checksums.verify(file.parent, most=most)
        return True
    return False


def fetch_listed(store: Store, last: str, folder: Path, files: Iterable[str]) -> None:
    """Copies a checkpoint or a set, `last` behind the others; it may be removed meanwhile."""
    place = (folder / last).parent
    shutil.rmtree(place, ignore_errors=True)
    rest = [file for file in files if file != last]
    if all(each(lambda file: store.fetch(file, folder / file), rest)):
        store.fetch(last, folder / last)
    else:
        shutil.rmtree(place, ignore_errors=True)


@functools.cache
def copied_run(address: str, whole: bool = False) -> Path:
    """Copies a run, or a checkpoint, and returns its place on this machine; once in a process.

    Args:
      address: of a run, of its folder of checkpoints, or of one of these.
      whole: all checkpoints, and not only the newest of those that are meant.

    Raises:
      UserError: where nothing of the kind lies there.
    """
    root, _, inside = f"{address.rstrip('/')}/".partition(f"/{CHECKPOINTS}/")
    root, inside = root.rstrip("/"), inside.rstrip("/")
    store, folder = Store(root), cache("copies", root)
    lies = store.inside()
    if not {CONFIG, CHECKPOINTS, "metadata"}.intersection(lies) and not any(map(str.isdigit, lies)):
        raise UserError(f"{address}: holds no run, and no checkpoint.")
    wanted = "" if whole else _newest(store, inside or "latest")

    def seen(name: str) -> bool:
        part = checkpoint_of(f"{name}/")
        return belongs(name) and (whole or part in ("", wanted))

    with lock(folder, wait=True):
        names = store.files(seen=seen)
        kept = [f"{CHECKPOINTS}/{of}" for of in ("latest", "best") if CHECKPOINTS in lies]
        there = {f"{of}/{step}" for of in kept for step in store.inside(of)}
        fetch(store, names, folder)
        others = {name for name in files_in(folder) if checkpoint_of(name) in there}
        remove_others(folder, {*names, *others})
    return folder / CHECKPOINTS / inside if inside else folder


def _newest(store: Store, inside: str) -> str:
    """Returns the newest finished checkpoint of latest/ or best/, or the one that is named."""
    folder = f"{CHECKPOINTS}/{inside}"
    if inside.rpartition("/")[2].isdigit():
        return folder
    steps = sorted((int(step) for step in store.inside(folder) if step.isdigit()), reverse=True)
    names = (f"{folder}/{step}" for step in steps)
    return next((name for name in names if store.has(f"{name}/{checksums.NAME}")), "")


def copied_runs(pattern: str) -> str:
    """Copies the runs that a pattern matches, or that lie in what it matches.

    Returns:
      The pattern of their copies, which match it alone.
    """
    scheme, _, rest = pattern.rstrip("/").partition("://")
    bucket, *parts = rest.split("/")
    store = Store(f"{scheme}://{bucket}")
    found = [""]
    for part in parts:
        if set(part) & set("*?["):
            inside = {name: fnmatch.filter(store.inside(name), part) for name in found}
            found = [f"{name}/{one}".lstrip("/") for name in found for one in inside[name]]
        else:
            found = [f"{name}/{part}".lstrip("/") for name in found]
    runs = [run for name in found for run in _runs_at(store, name)]
    copies = [copied_run(f"{store.address}/{run}") for run in runs]
    local = cache("copies", pattern)
    for path in map(Path, glob.glob(str(local))):  # of what the store has no more
        if not any(copy.is_relative_to(path) for copy in copies):
            shutil.rmtree(path, ignore_errors=True)
    return str(local)


def _runs_at(store: Store, name: str) -> list[str]:
    """Returns a folder if it is that of a run, or else the runs in it."""
    inside = store.inside(name)
    if CONFIG in inside:
        return [name]
    return [f"{name}/{one}" for one in inside if store.has(f"{name}/{one}/{CONFIG}")]
