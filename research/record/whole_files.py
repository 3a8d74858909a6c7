"""Files that are either complete or missing, even if the process that writes them is killed."""

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes values as `write_text` does."""
    write_text(path, as_json(values))


def as_json(values: Mapping[str, Any]) -> str:
    """Returns values as a file of JSON holds them."""
    return json.dumps(values, indent=2) + "\n"


def write_text(path: Path, text: str) -> None:
    """Writes a file as `whole_file` does."""
    with whole_file(path, "w") as file:
        file.write(text)


@contextlib.contextmanager
def whole_file(path: Path, mode: Literal["w", "wb"]) -> Iterator[IO[Any]]:
    """Opens a file to write that is either complete or missing, even if the process is killed.

    Raises:
      OSError: with the file's name, such as for a full disk.
    """
    with tempfile.NamedTemporaryFile(mode, dir=path.parent, suffix=".tmp", delete=False) as file:
        name = Path(file.name)
        try:
            yield file
            file.close()
            name.chmod(0o644)  # temporary files are private; results are not
            name.replace(path)
        except OSError as error:
            name.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(path)) from error
