"""Prepared data sets in a store, copied to this machine when they are first opened."""

import functools
from pathlib import Path

from research.data.stored.sets import MARK, VERSION
from research.errors import UserError
from research.record import checksums
from research.record.locks import lock
from research.record.progress import console
from research.remote.copies import fetch_listed, same
from research.remote.store import Store, cache


@functools.cache
def copied_set(address: str, name: str) -> Path:
    """Copies a prepared set, in its highest version; returns the folder of sets that it is in.

    Args:
      address: of the folder of sets.
      name: NAME, or NAME/CONFIG.
    """
    store, root = Store(address), cache("copies", address)
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
                if not same(store, last, root, most=0):  # content is compared when it is opened
                    console().print(f"copying {address}/{folder} to {root}, once", markup=False)
                    fetch_listed(store, last, root, store.files(folder))
    return root


def _versions(store: Store, name: str) -> list[str]:
    """Returns the versions of a set that are whole, the highest last."""
    versions = [one for one in store.inside(name) if VERSION.fullmatch(one)]
    whole = [one for one in versions if store.has(f"{name}/{one}/{MARK}")]
    return sorted(whole, key=lambda one: [int(part) for part in one.split(".")])
