"""Prepared data sets in a store, copied to this machine when they are first opened."""

import functools
import shutil
from pathlib import Path

from research.data.stored.sets import MARK, VERSION
from research.errors import UserError
from research.record import checksums
from research.record.locks import lock
from research.record.progress import console
from research.remote.copies import fetch_listed, same
from research.remote.store import Store, cache

_INFO = "dataset_info.json"  # splits, and how many examples are in each file


@functools.cache
def copied_set(address: str, name: str) -> Path:
    """Copies a prepared set, in its highest version; returns the folder of sets that it is in.

    Args:
      address: of the folder of sets.
      name: NAME, or NAME/CONFIG.
    """
    store, root = Store(address), cache("sets", address)
    found = [name]
    if not _versions(store, name):  # a set of one configuration may be called by its name alone
        found = [f"{name}/{one}" for one in store.inside(name) if _versions(store, f"{name}/{one}")]
    if len(found) > 1:
        raise UserError(f"--dataset={name}: is one of {', '.join(found)} in --data_dir={address}.")
    for one in found:
        for version in _versions(store, one)[-1:]:
            folder = f"{one}/{version}"
            listed = store.read(f"{folder}/{checksums.NAME}")
            last = f"{folder}/{MARK if listed is None else checksums.NAME}"
            with lock(root / one, wait=True):
                if not _is_here(store, last, root):
                    console().print(f"copying {address}/{folder} to {root}, once", markup=False)
                    fetch_listed(store, last, root, store.files(folder))
    _remove_withdrawn(store, root, name)
    return root


def _is_here(store: Store, last: str, root: Path) -> bool:
    """Returns whether a set is here as in the store; content is compared when it is opened."""
    if last.endswith(checksums.NAME):
        return same(store, last, root, most=0)
    folder = root / Path(last).parent  # without a list of checksums: what can be told of it
    paths = (path for path in folder.rglob("*") if path.is_file())
    here = {path.relative_to(root).as_posix(): path.stat().st_size for path in paths}
    there = store.sizes(str(Path(last).parent))
    told = [name for name in there if Path(name).name in (MARK, _INFO)]
    return here == there and all((root / n).read_bytes() == store.read(n) for n in told)


def _remove_withdrawn(store: Store, root: Path, name: str) -> None:
    """Removes copies of a set's versions that the store does not hold, or not as a whole."""
    copies = [*root.glob(f"{name}/*/"), *root.glob(f"{name}/*/*/")]
    copies = [path for path in copies if VERSION.fullmatch(path.name)]
    for folder in {path.parent for path in copies}:
        kept = _versions(store, folder.relative_to(root).as_posix())
        with lock(folder, wait=True):
            for path in copies:
                if path.parent == folder and path.name not in kept:
                    shutil.rmtree(path, ignore_errors=True)


def _versions(store: Store, name: str) -> list[str]:
    """Returns the versions of a set that are whole, the highest last."""
    versions = [one for one in store.inside(name) if VERSION.fullmatch(one)]
    whole = [one for one in versions if store.has(f"{name}/{one}/{MARK}")]
    return sorted(whole, key=lambda one: [int(part) for part in one.split(".")])
