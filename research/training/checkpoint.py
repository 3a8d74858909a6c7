"""Checkpoints that explain themselves: weights, optimizer state and a description, by Orbax.

RUN/checkpoints/latest/<step>/ and RUN/checkpoints/best/<step>/ hold the items `weights` (params,
model_state, average), `optimizer` and `metadata` (schema, experiment, config, facts, metrics).
Arrays are read as NumPy, so a checkpoint opens on any number of devices of any kind.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from research.errors import UserError
from research.experiment import PyTree, Variables
from research.progress import console
from research.training.state import TrainState
from research.training.upgrades import upgrade

# Version of the layout above. It rises when older code could not read what newer code writes.
SCHEMA = 1


def _split(state: TrainState) -> tuple[PyTree, PyTree]:
    weights = {"params": state.params, "model_state": state.model_state}
    if state.average is not None:
        weights["average"] = dict(state.average)
    return weights, {"step": state.step, "opt_state": state.opt_state}


class Checkpointer:
    """Writes checkpoints of one run in the background; a half-written one is never read.

    A manager with a "best" policy would evict the newest checkpoint. So Orbax keeps the latest
    ones, and the best is a second set of hard links to the files of the one it was among them.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=True, create=True
        )
        self._latest = ocp.CheckpointManager((folder / "latest").absolute(), options=options)
        self._link_best()

    def save(self, state: TrainState, metadata: Mapping[str, Any], best: bool) -> None:
        """Starts saving; `best` also puts it in the place of the best so far, once it is written.

        Raises:
          UserError: where this or an earlier save could not be written (disk full, say).
        """
        weights, optimizer = _split(state)
        step = int(state.step)
        arguments = ocp.args.Composite(
            weights=ocp.args.StandardSave(weights),
            optimizer=ocp.args.StandardSave(optimizer),
            metadata=ocp.args.JsonSave({"schema": SCHEMA, "step": step, "best": best, **metadata}),
        )
        with _Explaining(self):
            self._latest.wait_until_finished()
            self._link_best()  # before Orbax makes room for the next
            if step not in self._latest.all_steps():  # a resumed run may come by a second time
                self._latest.save(step, args=arguments, force=True)

    def wait(self) -> None:
        """Returns when everything is on disk. Raises UserError where it could not be written."""
        with _Explaining(self):
            self._latest.wait_until_finished()
            self._link_best()

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, *_: Any) -> None:
        """Ends the background threads, once what they were saving is on disk."""
        with _Explaining(self):
            self._latest.close()
            self._link_best()

    def _link_best(self) -> None:
        """Brings best/ up to the newest checkpoint on disk that was the best when it was saved."""
        if jax.process_index() > 0:
            return
        latest, best = self.folder / "latest", self.folder / "best"
        known = max(_steps(best), default=-1)
        for step in reversed(_steps(latest)):
            if step <= known:
                return
            if read_metadata(latest / str(step)).get("best"):
                unfinished = best / f".{step}"
                shutil.rmtree(unfinished, ignore_errors=True)
                shutil.copytree(latest / str(step), unfinished, copy_function=_link)
                unfinished.rename(best / str(step))
                for old in _steps(best)[:-1]:
                    shutil.rmtree(best / str(old))
                return

    def restore(self, template: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The latest state, as NumPy arrays, and its metadata; None where there is none yet.

        Args:
          template: a state of the same structure, shapes and types (values are not read).
        """
        step = self._latest.latest_step()
        if step is None:
            return None
        path = self.folder.absolute() / "latest" / str(step)
        metadata = read_metadata(path)
        weights, optimizer = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), _split(template))
        try:
            with ocp.StandardCheckpointer() as reader:
                if said := upgrade(_stored_shapes(reader, path), metadata)[1]:
                    raise UserError(f"{path}: {said}, in another --workdir.")
                weights = reader.restore(path / "weights", weights)
                optimizer = reader.restore(path / "optimizer", optimizer)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}: its arrays do not fit this model and optimizer "
                f"({str(error).splitlines()[0]}); choose another --workdir."
            ) from error
        state = TrainState(
            optimizer["step"],
            weights["params"],
            weights["model_state"],
            optimizer["opt_state"],
            weights.get("average"),
        )
        return state, metadata

    def best_metrics(self) -> dict[str, float]:
        """The metrics of the best checkpoint; empty where there is none."""
        steps = _steps(self.folder / "best")
        return read_metadata(self.folder / "best" / str(steps[-1]))["metrics"] if steps else {}

    def last_good(self) -> int | None:
        """The step of the newest complete checkpoint on disk."""
        return max(_steps(self.folder / "latest"), default=None)


class _Explaining:
    """Turns what the file system refuses into one line that says what is still good."""

    def __init__(self, checkpointer: Checkpointer) -> None:
        self.checkpointer = checkpointer

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        # Orbax and TensorStore raise OSError, ValueError or their own types for a full disk.
        if not isinstance(error, Exception) or isinstance(error, UserError):
            return
        good = self.checkpointer.last_good()
        kept = f"the checkpoint of step {good} is intact" if good is not None else "none was saved"
        # TensorStore tells a long story: "... Failed to write 47324 bytes to file 11: No space
        # left on device [os_error_code='28']".
        reason = " ".join(str(error).split())
        if found := re.search(r"([^:\[]+) \[os_error", reason):
            reason = found[1].strip()
        raise UserError(
            f"{self.checkpointer.folder}: a checkpoint could not be written ({reason[:200]}); "
            f"{kept}. Make room and run the same command again to go on."
        ) from error


class Opened(NamedTuple):
    """A checkpoint as `evaluate` and `predict` need it."""

    path: Path
    metadata: dict[str, Any]  # schema, step, experiment, config, facts, metrics, environment
    variables: Variables  # the average where there is one; NumPy arrays


def _link(source: str, target: str) -> None:
    """A hard link, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _steps(folder: Path) -> list[int]:
    """The steps of complete checkpoints in a folder, in order."""
    if not folder.is_dir():
        return []
    return sorted(
        int(path.name)
        for path in folder.iterdir()
        if path.name.isdigit()
        and (path / "metadata" / "metadata").is_file()
        and ocp.path.step.is_path_finalized(path)
    )


def locate(path: str | Path) -> Path:
    """The folder of one checkpoint: from a run, from its best or latest folder, or itself.

    Raises:
      UserError: where there is none.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"--checkpoint={path}: there is no such file or folder.")
    if (path / "metadata" / "metadata").is_file():
        return path
    for folder in (path / "checkpoints" / "latest", path / "latest", path):
        if steps := _steps(folder):
            return folder / str(steps[-1])
    raise UserError(f"--checkpoint={path}: holds no finished checkpoint; name a run's folder.")


def read_metadata(path: Path) -> dict[str, Any]:
    """The description of one checkpoint. Raises UserError where it is newer than this code."""
    try:
        metadata = json.loads((path / "metadata" / "metadata").read_text())
        schema = metadata["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is no checkpoint of this project, or is damaged.") from error
    if schema > SCHEMA:
        raise UserError(
            f"{path}: was written by a newer version (schema {schema}, this one reads up to "
            f"{SCHEMA}); update the code."
        )
    return metadata


def _stored_shapes(reader: ocp.StandardCheckpointer, path: Path) -> dict[str, Any]:
    """The tree of shapes of a checkpoint's weights."""
    return dict(reader.metadata(path / "weights").item_metadata.tree)


def open_checkpoint(path: str | Path) -> Opened:
    """Reads a checkpoint from the path of a run or of a checkpoint, on whatever device there is."""
    path = locate(path).absolute()
    metadata = read_metadata(path)
    try:
        with ocp.StandardCheckpointer() as reader:
            shapes = _stored_shapes(reader, path)
            template = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), shapes)
            weights = reader.restore(path / "weights", template)
    except (ValueError, KeyError, OSError) as error:
        raise UserError(
            f"{path}: its weights cannot be read ({str(error).splitlines()[0]})."
        ) from error
    weights, said = upgrade(weights, metadata)
    if said:
        console().print(f"{path}: {said}.", markup=False)
    variables = weights.get("average") or {"params": weights["params"], **weights["model_state"]}
    return Opened(path, metadata, variables)
