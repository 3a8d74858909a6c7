"""Outputs of a mode, sent to a store when it has ended."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from research.errors import UserError
from research.record import checksums
from research.record.progress import console
from research.remote.store import Store, each, work_folder

_TRIED = ".tried"


@contextlib.contextmanager
def sent_at_end(address: str) -> Iterator[Path]:
    """Gives a folder of this machine, whose files are in the store at the end.

    Raises:
      UserError: where something lies at the address already.
      UserError: where it cannot be written; the files stay where they are, which is said.
    """
    store = Store(address)
    if store.inside():
        raise UserError(f"--workdir={address}: holds files already; choose another folder.")
    store.write(_TRIED, b"")  # what is refused is refused before the work
    store.remove(_TRIED)
    place = work_folder("outputs", address)
    place.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{place.name}-", dir=place.parent))
    try:
        yield folder
    finally:  # what a mode wrote before it failed, too
        files = [path for path in folder.rglob("*") if path.is_file()]
        names = [path.relative_to(folder).as_posix() for path in files]
        try:
            for last in (False, True):
                of = [name for name in names if (name == checksums.NAME) is last]
                each(lambda name: store.send(folder / name, name), of)
        except UserError as error:
            said = str(error).removesuffix(".")
            raise type(error)(f"{said}; what was made is in {folder}.") from error
        shutil.rmtree(folder)
        if names:
            console().print(f"sent to {address}", markup=False)
