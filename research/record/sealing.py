"""Checksums of a run's own files: what is read of them again is what was written.

RUN/checksums.json is written when a run begins, with each checkpoint, and before result.json. The
log grows between, so that it is compared as far as it went. Checkpoints have lists of their own.
"""

import json
from pathlib import Path

from research.record import checksums
from research.record.whole_files import as_json, write_text

CONFIG, RESULT, LOG = "config.json", "result.json", "metrics.jsonl"
STOPPED = "stopped.json"
EXAMPLES = "examples"  # the folder of the outcomes of single examples
_BEGUN = (CONFIG, "flags.txt", "requirements.lock", STOPPED)


def begun(folder: Path) -> dict[str, checksums.Entry]:
    """Returns the checksums of what a run has when it begins, or goes on.

    What the folder's list holds is taken from there: a file may have been damaged since.
    """
    listed = checksums.read(folder) if (folder / checksums.NAME).is_file() else {}
    return {
        name: listed.get(name) or checksums.of_file(folder / name)
        for name in _BEGUN
        if (folder / name).exists()
    }


def ended(folder: Path, result: str) -> dict[str, checksums.Entry]:
    """Returns the checksums of what is written at a run's end; its result is written after."""
    files = sorted((folder / EXAMPLES).glob("*.npz"))
    examples = {f"{EXAMPLES}/{file.name}": checksums.of_file(file) for file in files}
    return {**examples, RESULT: checksums.of_bytes(result.encode())}


def write_result(folder: Path, result: dict[str, object]) -> None:
    """Writes result.json beside the examples that an evaluation left, with their checksums."""
    checksums.write(folder, ended(folder, as_json(result)))
    write_text(folder / RESULT, as_json(result))


def verify(folder: Path) -> None:
    """Compares a run's files, but for its examples, with its list; older runs have none.

    Raises:
      DamagedError: with the file's name.
    """
    if not (folder / checksums.NAME).is_file():
        return
    for name in checksums.read(folder):
        # Listed before it is written, so that a run killed then has none.
        unwritten = name in (RESULT, STOPPED) and not (folder / name).exists()
        if not name.startswith(f"{EXAMPLES}/") and not unwritten:
            checksums.verify(folder, name, growing=name == LOG)


def verify_examples(file: Path) -> None:
    """Compares FOLDER/examples/SPLIT.npz with FOLDER's list, where there is one.

    Raises:
      DamagedError: with the file's name.
    """
    folder = file.parent.parent
    if file.parent.name == EXAMPLES and (folder / checksums.NAME).is_file():
        checksums.verify(folder, f"{EXAMPLES}/{file.name}")


def logged_until(file: Path, step: int) -> bytes:
    """Returns a log's whole lines up to a step; what a killed process left unfinished is none."""
    kept = b""
    for line in file.read_bytes().splitlines(keepends=True) if file.exists() else ():
        try:
            whole = line.endswith(b"\n") and json.loads(line)["step"] <= step
        except (ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            break
        kept += line
    return kept
