"""Writes the checkpoints of one run, in the background, and finds the one to resume from."""

import re
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from research.distributed import group as distributed
from research.errors import FailedError, UserError
from research.experiment import PyTree
from research.record import checksums
from research.record.checksums import DamagedError
from research.record.progress import console
from research.training.checkpoint import (
    METADATA,
    SCHEMA,
    damage,
    read_arrays,
    read_metadata,
    steps,
    stored,
    verify,
)
from research.training.state import TrainState
from research.training.upgrades import upgrade


def _split(state: TrainState) -> tuple[PyTree, PyTree]:
    weights = {"params": state.params, "model_state": state.model_state}
    if state.average is not None:
        weights["average"] = dict(state.average)
    return weights, {"step": state.step, "opt_state": state.opt_state}


class Checkpointer:
    """The writer of one run's checkpoints in the background: the newest `keep` and the best.

    A process that is killed at any moment leaves finished checkpoints and unfinished ones, which
    are skipped: the best is a copy, and old ones are removed once the new one is finished.
    """

    def __init__(self, folder: Path, keep: int, after: Callable[[], object] = lambda: None) -> None:
        """Opens the folder.

        Args:
          after: is called, in the background, when a checkpoint is finished.
        """
        self.folder, self.keep, self._after = folder.absolute(), keep, after
        self._latest, self._best = self.folder / "latest", self.folder / "best"
        # Its descriptions of the items are on disk, too, when it reports that it is finished.
        about = ocp.metadata.metadata_store(enable_write=True, blocking_write=True)
        self._writer = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(), checkpoint_metadata_store=about
        )
        self._background = ThreadPoolExecutor(1, "checkpoint")
        self._finishing: Future[None] | None = None
        self._catch_up()
        distributed.wait("checkpoints")

    def save(self, state: TrainState, metadata: Mapping[str, Any], best: bool) -> None:
        """Starts saving; with `best`, it also replaces the best so far, once it is written.

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
        self.wait()
        path = self._latest / str(step)
        with _Explaining(self):
            self._latest.mkdir(parents=True, exist_ok=True)
            if distributed.is_first():
                _remove(path)  # unfinished, or damaged and passed over
            self._writer.save(path, args=arguments, force=True)
        self._finishing = self._background.submit(self._finish, step, best)

    def wait(self) -> None:
        """Returns when everything is on disk. Raises UserError where it could not be written."""
        finishing, self._finishing = self._finishing, None
        if finishing is not None:
            with _Explaining(self):
                finishing.result()

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, *_: Any) -> None:
        """Waits for the background threads' writes, and ends them."""
        try:
            self.wait()
        finally:
            self._background.shutdown()
            self._writer.close()

    def _finish(self, step: int, best: bool) -> None:
        """Waits for Orbax, writes the list that marks the checkpoint finished, removes old ones."""
        self._writer.wait_until_finished()
        if not distributed.is_first():
            return
        path = self._latest / str(step)
        checksums.write(path)
        if best:
            self._put_aside(path)
        # Newer checkpoints were damaged, and skipped when the run was resumed.
        kept = [str(s) for s in steps(self._latest) if s <= step][-self.keep :]
        for old in self._latest.iterdir():
            if old.is_dir() and old.name[0].isdigit() and old.name not in kept:
                _remove(old)
        self._after()

    def _put_aside(self, path: Path) -> None:
        """Copies a checkpoint to best/, as the only one there."""
        unfinished = self._best / f".{path.name}"
        _remove(unfinished)
        shutil.copytree(path, unfinished)
        verify(unfinished)
        _remove(self._best / path.name)  # a damaged one
        unfinished.rename(self._best / path.name)
        for old in self._best.iterdir():
            if old.name != path.name:
                _remove(old)

    def _catch_up(self) -> None:
        """Copies the newest best checkpoint to best/, if a killed process had not done so.

        It does the same if the copy in best/ was damaged since.
        """
        if not distributed.is_first():
            return
        known = max(steps(self._best), default=-1)
        found = damage(self._best / str(known)) if known >= 0 else ""
        replaced = "the next evaluation"
        for step in reversed(steps(self._latest)):
            if step <= known and not found:
                return
            path = self._latest / str(step)
            try:
                if read_metadata(path).get("best"):
                    verify(path)
                    self._put_aside(path)
                    replaced = f"{self._latest.name}/{step}"
                    break
            except DamagedError:
                continue  # `restore` names it
        if found:
            _say(f"{found} As the best, {replaced} takes its place.")

    def restore(self, template: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """Reads the newest intact state, as NumPy arrays, and its metadata; None if none was saved.

        Damaged ones are named and skipped.

        Args:
          template: a state of the same structure, shapes and types (values are not read).

        Raises:
          UserError: where it is of another model or optimizer, or all checkpoints are damaged.
        """
        saved = [(step, f) for f in (self._best, self._latest) for step in steps(f)]
        damaged: list[DamagedError] = []
        for step, folder in sorted(saved, key=lambda s: (s[0], s[1] == self._latest), reverse=True):
            path = folder / str(step)
            try:
                verify(path)
                metadata = read_metadata(path)
                if said := upgrade(stored(path, "weights"), metadata)[1]:
                    raise UserError(f"{path}: {said}, in another --workdir.")
                templates = zip(("weights", "optimizer"), _split(template), strict=True)
                weights, optimizer = (read_arrays(path, item, tree) for item, tree in templates)
            except DamagedError as error:
                damaged.append(error)
                continue
            for passed in damaged:
                _say(f"{passed} Going on from {folder.name}/{step}.")
            state = TrainState(
                jax.device_get(template.seed),
                optimizer["step"],
                weights["params"],
                weights["model_state"],
                optimizer["opt_state"],
                weights.get("average"),
            )
            return state, metadata
        if damaged:
            raise DamagedError(
                f"{damaged[0]} None that was saved is intact; choose another --workdir, or remove "
                f"{self.folder} to begin anew."
            )
        return None

    def best_metrics(self) -> dict[str, float]:
        """Returns the metrics of the best checkpoint; empty if there is no intact one."""
        path = self._best / str(max(steps(self._best), default=-1))
        return read_metadata(path)["metrics"] if path.exists() and not damage(path) else {}

    def best_step(self) -> int | None:
        """Returns the step of the best checkpoint."""
        return max(steps(self._best), default=None)

    def last_good(self) -> int | None:
        """Returns the step of the newest finished checkpoint on disk."""
        return max(steps(self._latest), default=None)


def _remove(path: Path) -> None:
    """Removes a checkpoint, if there is one; if that is interrupted, the rest is unfinished."""
    if path.exists():
        for sign in (checksums.NAME, METADATA):
            (path / sign).unlink(missing_ok=True)
        shutil.rmtree(path)


def _say(text: str) -> None:
    console().print(text, markup=False)


class _Explaining:
    """A context that turns file errors into one line with the last good checkpoint."""

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
        raise FailedError(
            f"{self.checkpointer.folder}: a checkpoint could not be written ({reason[:200]}); "
            f"{kept}. Make room and run the same command again to go on."
        ) from error
