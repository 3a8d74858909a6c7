"""A run in a store: a folder of this machine that is copied there, consistent at every moment.

The run works in the folder as in any other. What it saves is copied: a checkpoint's files before
its list of checksums, as one without a list is unfinished; a run's own list is away while it would
promise what is not there. Whoever is killed between two files leaves a run that goes on elsewhere.
"""

import contextlib
import secrets
import shutil
import threading
from collections.abc import Collection, Iterable, Mapping

from research.errors import UserError
from research.record import checksums
from research.record.locks import FILE as LOCK
from research.record.locks import lock
from research.record.progress import console
from research.record.run_folder import unused_path
from research.record.sealing import CONFIG, LOG, RESULT, STOPPED
from research.record.whole_files import as_json, write_text
from research.remote.copies import (
    belongs,
    checkpoint_of,
    fetch,
    files_in,
    finished,
    remove_others,
    same,
)
from research.remote.lease import Lease, LostError
from research.remote.store import Store, StoreError, each, work_folder
from research.training.interrupts import Stopped

_TOKEN = ".token"  # whose lease it is: this folder's, whatever process works in it
_AHEAD = ".ahead"  # there while the folder holds what the store may not
_SIGNS = (RESULT, STOPPED)  # written last: a run is at its end

State = tuple[int, int]  # a file's size, and when it was changed


class Mirror:
    """The run at an address, and its folder on this machine, for one writer.

    Attributes:
      path: the folder, which holds what the store does once this is entered.
      lock: the folder's lock.
    """

    def __init__(self, address: str) -> None:
        self.store = Store(address)
        self.path = work_folder("runs", self.store.address)
        self._sent: dict[str, State] = {}  # as it was when it was copied
        self._there: set[str] = set()  # names in the store
        # What the store's list of the run's own files says; None where that is not known.
        self._promised: Mapping[str, checksums.Entry] | None = {}
        self._one_push = threading.Lock()

    def __enter__(self) -> "Mirror":
        """Takes lock and lease, and brings the folder up to date.

        Raises:
          UserError: where another process runs in it, here or elsewhere.
        """
        with contextlib.ExitStack() as undo:
            self.lock = undo.enter_context(lock(self.path))
            token = self._token()
            self._lease = Lease(self.store, token)
            before = self._lease.take(self._put_aside)
            undo.callback(self._give_up)
            self._bring(last_writer=before == token)
            undo.pop_all()
        console().print(f"{self.store.address}: works in {self.path}", markup=False)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        """Copies what is left, and gives the lease back.

        Raises:
          FailedError: where that fails, unless something else has. What was not copied stays.
        """
        waits = error is None or isinstance(error, Exception | Stopped)  # no second Ctrl-C
        try:
            if waits and not isinstance(error, StoreError | LostError):
                self.push()
                (self.path / _AHEAD).unlink()
                self._lease.stop_renewing()
                self._lease.give_back(keep=bool(self._there))
        except UserError:
            if error is None or isinstance(error, Stopped):
                raise
        finally:
            self._lease.stop_renewing()
            self.lock.close()

    def _give_up(self) -> None:
        """Gives the lease back where the work could not begin."""
        self._lease.stop_renewing()
        with contextlib.suppress(UserError):
            self._lease.give_back()

    def push(self) -> None:
        """Copies what has changed into the store.

        Raises:
          UserError: where that does not succeed; it says where all is.
        """
        try:
            with self._one_push:
                self._lease.renew()
                self._push()
        except UserError as error:
            said = f"{str(error).removesuffix('.')}; what was made is in {self.path}"
            on = "" if isinstance(error, LostError) else ", and the same command goes on from it"
            raise type(error)(f"{said}{on}.") from error

    def _push(self) -> None:
        files = self._files()
        listed = checksums.read(self.path) if checksums.NAME in files else None
        changed = {name for name in files if self._sent.get(name) != files[name]}
        gone = self._there - files.keys()
        lists = {name for name in changed if _is_list(name)}
        ours = checksums.NAME

        stale = lists & self._there - {ours}
        if ours in self._there and not self._still_true(changed, gone):
            stale.add(ours)
        self._remove(stale)
        # The list that comes before it is not of the old one.
        self._remove(changed & set(_SIGNS) & self._there)
        self._send(changed - lists - set(_SIGNS), files)
        self._send(lists - {ours}, files)
        if listed is not None and listed != self._promised:
            self._lease.hold()
            self.store.write(ours, as_json({"files": listed}).encode())
            self._there.add(ours)
            self._promised = listed
        self._send(changed & set(_SIGNS), files)
        self._remove(filter(_is_list, gone))  # without its list, a checkpoint is unfinished
        self._remove(gone)

    def _still_true(self, changed: set[str], gone: set[str]) -> bool:
        """Returns whether the store's list holds when these files have changed or gone."""
        if self._promised is None or self._promised.keys() & gone:
            return False
        return all(
            self._entry(name, entry["size"]) == entry
            for name, entry in self._promised.items()
            if name in changed
        )

    def _entry(self, name: str, first: int) -> checksums.Entry:
        """Returns what a list holds of a file; of the log, which grows, of its first bytes."""
        file = self.path / name
        if name == LOG:
            return checksums.of_bytes(file.read_bytes()[:first])
        return checksums.of_file(file)

    def _send(self, names: Iterable[str], files: Mapping[str, State]) -> None:
        def send(name: str) -> None:
            self._lease.hold()
            self.store.send(self.path / name, name)
            self._there.add(name)
            self._sent[name] = files[name]

        each(send, sorted(names))

    def _remove(self, names: Iterable[str]) -> None:
        def remove(name: str) -> None:
            self._lease.hold()
            self.store.remove(name)

        names = sorted(names)
        each(remove, names)
        for name in names:
            self._there.discard(name)
            self._sent.pop(name, None)
        if checksums.NAME in names:
            self._promised = {}

    def _files(self) -> dict[str, State]:
        """Returns what is to be in the store: no checkpoint that is being written or removed."""
        found = {}
        for name in files_in(self.path):
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                stat = (self.path / name).stat()
                found[name] = stat.st_size, stat.st_mtime_ns
        whole = {"", *finished(found)}
        return {name: state for name, state in found.items() if checkpoint_of(name) in whole}

    def _token(self) -> str:
        file = self.path / _TOKEN
        if not file.exists():
            write_text(file, secrets.token_hex(8))
        return file.read_text()

    def _bring(self, last_writer: bool) -> None:
        """Makes the folder hold what the store does.

        Args:
          last_writer: whether nobody has written there since this folder's last process. If that
            one could not copy all, the folder holds more than the store, and is gone on from.
        """
        if self.store.has(CONFIG):  # else it is no run, and nothing of it is ours
            self._there = set(self.store.files(seen=belongs))
        ahead = (self.path / _AHEAD).exists() and bool(files_in(self.path))
        if ahead and last_writer and (self.path / CONFIG).exists():
            self._promised = None
            here, both = finished(files_in(self.path)), finished(self._there)
            only_there = {name for name in self._there if checkpoint_of(name) in both - here}
            # What others put below the run is no file that this folder has removed.
            foreign = self._there - files_in(self.path) - {checksums.NAME, *_SIGNS}
            self._fetch(only_there | {name for name in foreign if not checkpoint_of(name)})
            alike = {
                name for name in both if same(self.store, f"{name}/{checksums.NAME}", self.path)
            }
            files = self._files().items()
            self._sent = {name: state for name, state in files if checkpoint_of(name) in alike}
            return
        self._fetch(self._there)
        remove_others(self.path, self._there)
        self._sent = {name: state for name, state in self._files().items() if name in self._there}
        self._promised = checksums.read(self.path) if checksums.NAME in self._there else {}
        (self.path / _AHEAD).touch()

    def _fetch(self, names: Collection[str]) -> None:
        """Copies files of the store, and raises StoreError where one is not here then."""
        fetch(self.store, names, self.path)
        lists = {f"{folder}/{checksums.NAME}" for folder in finished(names)}
        needed = {name for name in names if not checkpoint_of(name)} | lists
        for name in sorted(needed - files_in(self.path)):
            raise StoreError(f"{self.store.address}: {name} is there, and cannot be read.")

    def _put_aside(self) -> None:
        """Moves what only this folder holds elsewhere: another machine has gone on since."""
        if not ((self.path / _AHEAD).exists() and files_in(self.path)):
            return
        place = work_folder("aside", self.store.address)
        aside = unused_path(place.parent, place.name, "")
        aside.mkdir(parents=True)
        for path in self.path.iterdir():
            if path.name not in (LOCK, _TOKEN, _AHEAD):
                shutil.move(path, aside / path.name)
        (self.path / _AHEAD).unlink()
        console().print(
            f"{self.store.address}: another machine went on; what only this one has is now in "
            f"{aside}",
            markup=False,
        )


def _is_list(name: str) -> bool:
    return name == checksums.NAME or name.endswith(f"/{checksums.NAME}")
