"""The layout and reading of checkpoints, which describe themselves and detect damage.

RUN/checkpoints/latest/<step>/ and RUN/checkpoints/best/<step>/ hold the items `weights` (params,
model_state, average), `optimizer` and `metadata` (schema, experiment, config, facts, metrics), and
checksums.json, which is written last: a folder without it is unfinished, one that differs from it
is damaged. Arrays are read as NumPy, so a checkpoint opens on any number of devices of any kind.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from research.data.files import read_json
from research.errors import UserError
from research.experiment import PyTree, Variables
from research.record import checksums
from research.record.checksums import DamagedError
from research.record.progress import console
from research.remote.copies import copied_run
from research.remote.store import is_remote
from research.training.upgrades import upgrade

# Version of the layout above. It rises when older code could not read what newer code writes.
# 1: without checksums.json; best/ shares its files with latest/.
SCHEMA = 2
METADATA = "metadata/metadata"
UNCHECKED = "was written before checkpoints had checksums: damage to it may go unnoticed"


class Opened(NamedTuple):
    """A checkpoint that was read for evaluation and prediction."""

    path: Path
    metadata: dict[str, Any]  # schema, step, experiment, config, facts, metrics, environment
    variables: Variables  # the average if one is kept; NumPy arrays
    averaged: bool = False


def steps(folder: Path) -> list[int]:
    """Returns the steps of finished checkpoints in a folder, in order."""
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit() and _finished(p))


def _finished(path: Path) -> bool:
    """Returns whether all of a checkpoint was written; for schema 1, by Orbax's own mark."""
    if (path / checksums.NAME).is_file():
        return True
    written = (path / METADATA).is_file() and ocp.path.step.is_path_finalized(path)
    return written and _schema(path) in (None, 1)


def _schema(path: Path) -> int | None:
    """Returns the version of a checkpoint's layout; None if it cannot be read."""
    try:
        return int(read_json(path / METADATA)["schema"])
    except (UserError, ValueError, KeyError, TypeError, OverflowError):
        return None


def verify(path: Path, only: str = "") -> None:
    """Compares a checkpoint's files with its list; schema 1 has none, so it is not checked.

    Args:
      only: the one file to compare; "" for all.

    Raises:
      DamagedError: with the file's name.
      UserError: where the checkpoint is unfinished.
    """
    if (path / checksums.NAME).is_file():
        checksums.verify(path, only)
    elif not _finished(path):
        raise UserError(
            f"{path}: is no checkpoint, or an unfinished one (it has no {checksums.NAME}); name "
            "another."
        )


def damage(path: Path) -> str:
    """Returns the damage in a finished checkpoint; "" if there is none."""
    try:
        verify(path)
    except DamagedError as error:
        return str(error)
    return ""


def read_metadata(path: Path) -> dict[str, Any]:
    """Reads the description of one checkpoint.

    Raises:
      UserError: where it is unfinished, damaged, or newer than this code.
    """
    verify(path, METADATA)
    schema = _schema(path)
    if schema is None:
        raise DamagedError(f"{path}: is damaged ({METADATA} cannot be read).")
    if schema > SCHEMA:
        raise UserError(
            f"{path}: was written by a newer version (schema {schema}, this one reads up to "
            f"{SCHEMA}); update the code."
        )
    found: dict[str, Any] = read_json(path / METADATA)
    return found


# What Orbax raises of files that are cut or altered, and of trees that differ.
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OSError)


def stored(path: Path, item: str) -> PyTree:
    """Returns the tree of a checkpoint's item, with shapes and types in the place of arrays.

    Raises:
      DamagedError: where it cannot be read, which only happens here with schema 1.
    """
    try:
        with ocp.StandardCheckpointer() as reader:
            return dict(reader.metadata(path / item).item_metadata.tree)
    except _UNREADABLE as error:
        raise _unreadable(path, item, error) from error


def read_arrays(path: Path, item: str, template: PyTree = None) -> PyTree:
    """Reads one item of a verified checkpoint, as NumPy arrays.

    Args:
      template: a tree of its structure, shapes and types; None: all that the item holds, as dicts.

    Raises:
      DamagedError: where the files cannot be read, which only happens here with schema 1.
      UserError: where the template is of another model or optimizer.
    """
    kept = stored(path, item)
    tree = kept if template is None else template
    wanted = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), tree)
    try:
        with ocp.StandardCheckpointer() as reader:
            return reader.restore(path / item, wanted)
    except _UNREADABLE as error:
        found = _difference(kept, wanted)
        if found or (template is not None and (path / checksums.NAME).is_file()):
            raise UserError(
                f"{path}: its arrays do not fit this model and optimizer "
                f"({found or _first_line(error)}); choose another --workdir."
            ) from error
        raise _unreadable(path, item, error) from error


def _unreadable(path: Path, item: str, error: Exception) -> DamagedError:
    return DamagedError(f"{path}: is damaged ({item} cannot be read: {_first_line(error)}).")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


def _difference(kept: PyTree, wanted: PyTree) -> str:
    """Returns the first difference of two trees of arrays; "" if there is none."""
    a, b = _shapes(kept), _shapes(wanted)
    for name in sorted(a.keys() | b.keys()):
        if a.get(name) != b.get(name):
            return f"{name} is {a.get(name, 'missing')}, not {b.get(name, 'wanted')}"
    return ""


def _shapes(tree: PyTree) -> dict[str, str]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{x.dtype}{list(x.shape)}"
        for path, x in leaves
    }


def locate(path: str | Path) -> Path:
    """Finds the folder of one checkpoint: from a run, its best or latest folder, or itself.

    Of a run in a store, it is that of a copy on this machine.

    Raises:
      UserError: if the path holds no finished checkpoint.
    """
    path = copied_run(str(path)) if is_remote(path) else Path(path)
    if not path.exists():
        raise UserError(f"--checkpoint={path}: there is no such file or folder.")
    if (path / METADATA).is_file():
        return path
    for folder in (path / "checkpoints" / "latest", path / "latest", path):
        if found := steps(folder):
            return folder / str(found[-1])
    raise UserError(f"--checkpoint={path}: holds no finished checkpoint; name a run's folder.")


def open_checkpoint(path: str | Path) -> Opened:
    """Reads a checkpoint from the path of a run or of a checkpoint, on any device.

    Raises:
      UserError: if the path holds none, or it is unfinished, damaged, or newer than this code.
    """
    path = locate(path).absolute()
    verify(path)
    metadata = read_metadata(path)
    if not (path / checksums.NAME).is_file():
        console().print(f"{path}: {UNCHECKED}.", markup=False)
    weights, said = upgrade(read_arrays(path, "weights"), metadata)
    if said:
        console().print(f"{path}: {said}.", markup=False)
    if average := weights.get("average"):
        return Opened(path, metadata, average, averaged=True)
    return Opened(path, metadata, {"params": weights["params"], **weights["model_state"]})
