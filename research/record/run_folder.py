"""The run folder: flags and results of a run, locked against other processes.

flags.txt, config.json, requirements.lock, trained_on.txt, metrics.jsonl, TensorBoard events,
figures/*.png, result.json, or stopped.json where --stop_after left it; code/ of a person's own
experiment.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import jax
import numpy as np
import PIL.Image

from research import config as config_lib
from research.code import files as code_lib
from research.code.files import Code
from research.code.running import check_complete
from research.data.files import read_json
from research.errors import UserError
from research.experiment import PyTree
from research.record import checksums, installed, sealing
from research.record.locks import FILE as LOCK
from research.record.locks import lock
from research.record.sealing import LOG, RESULT, STOPPED
from research.record.trackers import Follower, TensorBoard, check_tracker
from research.record.whole_files import as_json, write_json, write_text
from research.training.config import FOLLOWING, LoopConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def fingerprint(tree: PyTree) -> str:
    """Returns the sha256 of names, types, shapes and bytes of all arrays, ordered by name."""
    digest = hashlib.sha256()
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    for name, leaf in sorted((jax.tree_util.keystr(path), leaf) for path, leaf in leaves):
        array = np.asarray(leaf)
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def unused_path(folder: Path, stem: str, suffix: str) -> Path:
    """Returns folder/stem.suffix, or with -2, -3, ... if that file exists."""
    paths = (folder / f"{stem}{number}{suffix}" for number in ("", *range(-2, -10_000, -1)))
    return next(path for path in paths if not path.exists())


def save_figures(folder: Path, figures: "Mapping[str, Figure | np.ndarray]") -> None:
    """Saves each figure as <folder>/<name>.png, and each image uint8 [H, W, C] pixel for pixel."""
    from research.figures import saving

    for name, figure in figures.items():
        file = folder / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(figure, np.ndarray):
            PIL.Image.fromarray(figure[..., 0] if figure.shape[-1] == 1 else figure).save(file)
        else:
            saving.save(figure, file, dpi=120, bbox_inches="tight")


def save_images(folder: Path, files: Sequence[str], pictures: Iterable[np.ndarray]) -> None:
    """Saves a picture, uint8 [H, W, C], for each of a person's files: <folder>/<name>.png."""
    for file, picture in zip(files, pictures, strict=True):
        path = unused_path(folder, Path(file).stem, ".png")
        save_figures(folder, {path.stem: picture})


def read_result(path: Path) -> dict[str, Any] | None:
    """Returns the content of a run's result.json; None if the run has not finished."""
    file = path / RESULT
    return read_json(file) if file.exists() else None


def read_stopped(path: Path) -> dict[str, Any]:
    """Returns the content of a run's stopped.json; {} if --stop_after has not left it."""
    file = path / STOPPED
    return read_json(file) if file.exists() else {}


def as_begun(path: Path, config: LoopConfig) -> LoopConfig:
    """Returns the configuration with what nobody chose as the run in a folder took it, if any.

    A run of earlier versions goes on as it began, whatever would be taken today.
    """
    file = path / "config.json"
    try:
        begun = read_json(file)["config"]
        following = set(FOLLOWING).intersection(config.unchosen, begun)
        kept = {name: begun[name] for name in following}
    except (UserError, KeyError, TypeError):
        return config  # a new folder; `check_workdir` says what is wrong with an old one
    left = tuple(name for name in config.unchosen if name not in kept)
    return config_lib.replace(config, {**kept, "unchosen": left})


def check_workdir(
    path: Path, experiment: str, config: LoopConfig, code: Code | None = None
) -> None:
    """Raises UserError if `path` holds a run of another configuration, or damaged files of one.

    The same holds for another code of a person's own, and where its files would be overwritten.
    """
    file = path / "config.json"
    others = code_lib.strangers(code, path / code_lib.KEPT) if code else []
    if not file.exists():
        if others:
            raise UserError(f"{others[0]}: would be overwritten; choose another --workdir.")
        return
    if config.resume == "never":
        raise UserError(
            f"--workdir={path}: holds a run already; choose another folder, or go on with "
            "--resume=auto."
        )
    sealing.verify(path)
    try:
        found = read_json(file)
        name, values = found["experiment"], found["config"]
        made_by = found.get("fingerprint", {}).get("code")
    except (UserError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: cannot be read; choose another --workdir.") from error
    if name != experiment:
        raise UserError(
            f"--workdir={path}: holds a run of --experiment={name}; choose another folder."
        )
    if code and code.digest != made_by:
        raise UserError(
            f"--workdir={path}: holds a run of other code ({_changes(path, made_by, code)}); "
            "choose another folder, or bring the old code back to go on."
        )
    if others:
        raise UserError(
            f"{others[0]}: was changed since this run began; bring it back, or delete it, to go on."
        )
    old = config_lib.from_json(type(config), values, str(file))
    if changed := config_lib.differences(old, config):
        raise UserError(
            f"--workdir={path}: holds another run ({'; '.join(changed)}); choose another folder, "
            "or give the same flags to go on."
        )


def _changes(path: Path, made_by: str, code: Code) -> str:
    """Returns how a code differs from the one that a run keeps."""
    folder = path / code_lib.KEPT
    try:
        kept = code_lib.read(folder, code.main)
    except UserError as error:
        return str(error)
    difference = code_lib.difference(kept, code)
    return difference if kept.digest == made_by else f"{folder}: was changed since"


class RunFolder:
    """One run's folder, locked while this process lives (even a kill -9 frees it)."""

    def __init__(
        self,
        path: Path,
        experiment: str,
        config: LoopConfig,
        code: Code | None = None,
        held: TextIO | None = None,
        saved: Callable[[], object] = lambda: None,
    ) -> None:
        """Opens the folder of a new run, or of the same run to continue.

        Args:
          code: the files of a person's own experiment, of which the folder keeps a copy.
          held: the lock of the folder, where this process has it already.
          saved: what is to be done when a checkpoint was saved.

        Raises:
          UserError: where the folder cannot be written, is used by another process, or is refused
            by `check_workdir`. Nothing is overwritten then.
        """
        self.path, self.experiment, self.config, self.code = path, experiment, config, code
        self.saved = saved
        self._curves: TensorBoard | None = None
        self._follower: Follower | None = None
        self._log = hashlib.sha256()  # of what the log holds, and how many bytes these are
        self._logged = 0
        self._begun: dict[str, checksums.Entry] = {}
        check_tracker(config.tracker)
        self._made = not path.exists()
        self._lock = lock(path) if held is None else None
        check_workdir(path, experiment, config, code)

    def check_data(self, identity: Mapping[str, str]) -> None:
        """Raises UserError if the training data differ from those at the run's start."""
        begun = json.loads((self.path / "config.json").read_text())["fingerprint"]
        known = {"data_order", "trained_on"} & begun.keys() & identity.keys()
        if any(begun[name] != identity[name] for name in known):
            raise UserError(
                f"--workdir={self.path}: the training data have changed since this run began; "
                "choose another folder, or bring the old data back to go on."
            )

    def begin(self, start: int, facts: Mapping[str, Any]) -> None:
        """Writes flags, config and facts; drops metrics after step `start`, which are logged again.

        Raises:
          UserError: where loaded modules cannot be copied; nothing is written.
        """
        if self.config.tracker:
            told = {"experiment": self.experiment, **config_lib.to_json(self.config)}
            self._follower = Follower(self.config.tracker, self.path, told)
        experiment = self.experiment
        if self.code is not None:
            check_complete(self.code)
            code_lib.keep(self.code, self.path / code_lib.KEPT)
            experiment = f"{code_lib.KEPT}/{experiment}"
        (self.path / "figures").mkdir(exist_ok=True)
        if start == 0 or not (self.path / "config.json").exists():
            (self.path / checksums.NAME).unlink(missing_ok=True)  # of what is written anew
            text = config_lib.to_flagfile(experiment, self.config)
            (self.path / "flags.txt").write_text(text)
            write_text(self.path / installed.NAME, installed.lock())
            config = config_lib.to_json(self.config)
            write_json(
                self.path / "config.json",
                {"experiment": self.experiment, "config": config, **facts},
            )
        self._begun = sealing.begun(self.path)  # once: later they are as they should be, or damaged
        file = self.path / LOG
        kept = sealing.logged_until(file, start)
        self._log, self._logged = hashlib.sha256(kept), len(kept)
        self.seal()  # first: a process that is killed between leaves a log that is longer
        if file.exists():
            os.truncate(file, len(kept))
        self._curves = TensorBoard(self.path, start)

    def keep(self, name: str, text: str) -> None:
        """Writes a file of text into the folder."""
        write_text(self.path / name, text)

    def log(self, step: int, metrics: Mapping[str, float], warning: str | None = None) -> None:
        """Appends one line to metrics.jsonl and one point to each TensorBoard curve."""
        said = {"warning": warning} if warning else {}
        line = (json.dumps({"step": step, **metrics, **said}) + "\n").encode()
        with open(self.path / LOG, "ab") as file:
            file.write(line)
        self._log.update(line)
        self._logged += len(line)
        assert self._curves is not None, "begin() comes first"
        self._curves.send(step, metrics, warning)
        if self._follower is not None:
            self._follower.catch_up()

    def seal(self, **more: checksums.Entry) -> None:
        """Writes the checksums of the run's files, and of its log as far as it goes.

        Args:
          more: of files that are written next.
        """
        log = {LOG: {"sha256": self._log.hexdigest(), "size": self._logged}} if self._logged else {}
        checksums.write(self.path, {**self._begun, **log, **more})

    def finish(self, result: Mapping[str, Any]) -> None:
        """Writes result.json, the sign that the run is complete."""
        self._begun.pop(STOPPED, None)
        self.seal(**sealing.ended(self.path, as_json(result)))
        write_text(self.path / RESULT, as_json(result))
        (self.path / STOPPED).unlink(missing_ok=True)

    def leave(self, result: Mapping[str, Any]) -> None:
        """Writes stopped.json, the sign that the run got as far as --stop_after says."""
        told = as_json({"stop_after": self.config.stop_after, **result})
        # A run that is killed between has none; an earlier one would be other than its checksum.
        (self.path / STOPPED).unlink(missing_ok=True)
        self.seal(**{STOPPED: checksums.of_bytes(told.encode())})
        write_text(self.path / STOPPED, told)

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_: Any) -> None:
        """Flushes the curves and unlocks the folder, which is removed if it is empty.

        A folder whose lock was held before stays locked.
        """
        if self._follower is not None:
            self._follower.close()
        if self._curves is not None:
            self._curves.close()
        elif self._made:
            for file in (LOCK, ""):
                _remove(self.path / file)
        if self._lock is not None:
            self._lock.close()


def _remove(path: Path) -> None:
    """Removes a file or an empty folder, if it exists."""
    with contextlib.suppress(OSError):
        path.rmdir() if path.is_dir() else path.unlink()
