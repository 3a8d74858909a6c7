"""Files in an object store, by etils.epath: gs:// and s3:// addresses.

A store has no lock, no rename and no append; a file that is written is there whole, or not at all.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TypeVar

from research.errors import FailedError, UserError, is_full
from research.record.whole_files import whole_file

T = TypeVar("T")

# What fsspec needs beside itself, by the scheme of an address.
PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before what failed is tried again
AT_ONCE = 8  # files that are copied at a time
_CHUNK = 2**22
_FOLDER = -1  # instead of a file's size


class StoreError(FailedError):
    """A store could not be reached, or refused a file."""


def is_remote(address: str | Path) -> bool:
    """Returns whether a folder is given by the address of a store."""
    return str(address).partition("://")[0] in PACKAGES and "://" in str(address)


def cache(kind: str, address: str) -> Path:
    """Returns the folder of this machine in which an address has its place.

    Args:
      kind: "copies" of runs, or "sets"; both are only read.
    """
    scheme, _, rest = address.partition("://")
    return _cached(kind, scheme) / rest.strip("/")


def work_folder(kind: str, address: str) -> Path:
    """Returns the folder of this machine in which what lies at an address is written.

    It is below the number of the address's parts, so that none lies within that of another address.

    Args:
      kind: "runs", "outputs" of modes, or what was put "aside".
    """
    scheme, _, rest = address.partition("://")
    parts = PurePosixPath(rest.strip("/")).parts
    return _cached(kind, scheme).joinpath(str(len(parts)), *parts)


def _cached(kind: str, scheme: str) -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return root / "fovea" / kind / scheme


class Store:
    """The files below an address, by their names relative to it.

    Raises:
      UserError: where the package for its scheme is not installed, or there is no such bucket.
      StoreError: from every method, where it still cannot be reached after several tries.
    """

    def __init__(self, address: str) -> None:
        from etils import epath
        from fsspec.config import conf

        scheme, _, rest = address.partition("://")
        rest = rest.strip("/")
        self.address = f"{scheme}://{rest}"
        if not rest or ".." in rest.split("/"):
            raise UserError(f"{address}: names no folder; {scheme}://BUCKET/FOLDER is needed.")
        # Another machine's files are to be seen at once, the lease above all.
        conf.setdefault(scheme, {}).setdefault("use_listings_cache", False)
        self._root = epath.Path(self.address)
        try:
            self._root.exists()
        except ImportError as error:
            package = PACKAGES[scheme]
            raise UserError(
                f"{address}: {scheme}:// needs the package {package}; run pip install {package}."
            ) from error
        except Exception:
            pass  # `_tried` says it where it lasts

    def child(self, name: str) -> "Store":
        """Returns the store of a folder in this one."""
        return Store(f"{self.address}/{name}")

    def has(self, name: str) -> bool:
        """Returns whether there is such a file or folder."""
        return self._size(name) is not None

    def inside(self, folder: str = "") -> list[str]:
        """Returns the names of the files and folders in a folder; none where there is no folder."""
        try:
            return sorted({p.name for p in self._tried("read", lambda: [*self._at(folder)])} - {""})
        except FileNotFoundError:
            return []

    def files(self, folder: str = "", seen: Callable[[str], bool] = lambda name: True) -> list[str]:
        """Returns the names, relative to the address, of all files in a folder and its folders.

        Args:
          seen: name -> whether it counts; folders that do not are not looked into.
        """
        return [*self.sizes(folder, seen)]

    def sizes(
        self, folder: str = "", seen: Callable[[str], bool] = lambda name: True
    ) -> dict[str, int]:
        """Returns the size in bytes of each file that `files` names."""
        names = [f"{folder}/{name}".lstrip("/") for name in self.inside(folder)]
        names = [name for name in names if seen(name)]
        found: dict[str, int] = {}
        for name, size in zip(names, each(self._size, names), strict=True):
            if size == _FOLDER:
                found |= self.sizes(name, seen)
            elif size is not None:
                found[name] = size
        return found

    def read(self, name: str) -> bytes | None:
        """Returns a file's content; None where there is none."""
        with contextlib.suppress(FileNotFoundError):
            return self._tried("read", (self._root / name).read_bytes)
        return None

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, over one that is there."""
        self._written(lambda: self._root.joinpath(name).write_bytes(content))

    def send(self, file: Path, name: str) -> None:
        """Copies a file of this machine into the store."""

        with open(file, "rb") as source:

            def copy() -> None:
                source.seek(0)
                with (self._root / name).open("wb") as target:
                    shutil.copyfileobj(source, target, _CHUNK)

            self._written(copy)

    def fetch(self, name: str, file: Path) -> bool:
        """Copies a file of the store to this machine; returns False where it is gone."""

        def copy() -> None:
            file.parent.mkdir(parents=True, exist_ok=True)
            with (self._root / name).open("rb") as source, whole_file(file, "wb") as target:
                shutil.copyfileobj(source, target, _CHUNK)

        with contextlib.suppress(FileNotFoundError):
            self._tried("read", copy)
            return True
        return False

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._tried("written", (self._root / name).unlink)

    def _size(self, name: str) -> int | None:
        """Returns a file's size in bytes, or _FOLDER; None where there is nothing of that name.

        `exists` and `is_dir` answer False where a network fails.
        """
        with contextlib.suppress(FileNotFoundError):
            stat = self._tried("read", (self._root / name).stat)
            return _FOLDER if stat.is_directory else stat.length
        return None

    def _at(self, folder: str) -> Iterable[Path]:
        return (self._root / folder if folder else self._root).iterdir()

    def _written(self, write: Callable[[], object]) -> None:
        try:
            self._tried("written", write)
        except FileNotFoundError as error:
            raise UserError(f"{self.address}: there is no such bucket.") from error

    def _tried(self, what: str, call: Callable[[], T]) -> T:
        """Returns what a call gives, which is tried again where it fails.

        Backends have errors of their own kinds for a network that is gone.
        """
        for wait in (*WAITS, None):
            try:
                return call()
            except FileNotFoundError:
                raise
            except PermissionError as error:
                raise UserError(f"{self.address}: may not be {what} ({error}).") from error
            except Exception as error:
                if is_full(error):  # this machine's disk
                    raise
                if wait is None:
                    reason = f"{self.address}: cannot be {what} ({_line(error)})."
                    raise StoreError(reason) from error
            time.sleep(wait)
        raise AssertionError("the last try returns or raises")


def each(call: Callable[[str], T], names: Iterable[str]) -> list[T]:
    """Returns call(name) of each name, several at a time."""
    with ThreadPoolExecutor(AT_ONCE, "store") as pool:
        return list(pool.map(call, names))


def _line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
