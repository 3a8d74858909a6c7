"""--mode=predict: a person's own files."""

import contextlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from research.commands.output import output_folder
from research.data.files import count_line, few
from research.data.images.headers import looks_intact
from research.distributed import group as distributed
from research.errors import UserError
from research.experiment import Batch, PyTree
from research.record.progress import console
from research.record.run_folder import fingerprint, save_figures, unused_path
from research.spacing import spaced
from research.training.checkpoint import Opened
from research.training.config import LoopConfig


def run_prediction(
    name: str,
    module: ModuleType,
    config: LoopConfig,
    opened: Opened,
    inputs: tuple[str, ...],
    skip_corrupt: bool = False,
) -> None:
    """Predicts a person's own files: one line each in predictions.jsonl, and a picture.

    Rows are written as they come, so that those before an interruption or an error are kept.

    Args:
      skip_corrupt: leave files out that cannot be read, instead of stopping.
    """
    from research.data.images.reading import list_images

    facts = {
        **opened.metadata["facts"],
        "measured": opened.metadata.get("metrics", {}),
        "weights": fingerprint(opened.variables),
    }
    experiment = module.build(config, facts)
    prediction = experiment.prediction
    if prediction is None:
        raise UserError(f"--experiment={name}: has no --mode=predict.")
    if prediction.inputs is not None:
        if inputs:
            raise UserError(f"--inputs={','.join(inputs)}: another flag says what to predict.")
        files = prediction.inputs()
    elif inputs:
        files = [str(file) for file in list_images(inputs)]
    else:
        raise UserError("--mode=predict needs --inputs=FILE,FOLDER,...")
    size = 1 if prediction.alone else config.eval_batch_size or config.batch_size
    predictions = Predictions(
        prediction.read, experiment.evaluation.predict, opened.variables, size, skip_corrupt
    )
    if prediction.inputs is None and not skip_corrupt:
        predictions.refuse_damaged(files)
    if prediction.consult is not None:
        prediction = prediction.consult(predictions.outputs)
    path = output_folder(config.workdir, name, "predict", "predictions.jsonl")
    if not distributed.is_first():
        return  # one device predicts; the others wait for it
    rows: list[dict[str, Any]] = []
    used: list[int] = []
    try:
        for part, outputs, batch in predictions(files):
            if prediction.save is not None:
                prediction.save(path, part, outputs, batch)
            described = prediction.describe(outputs, batch)
            summaries = [row.pop("summary") for row in described]
            found = [{"file": file, **row} for file, row in zip(part, described, strict=True)]
            with open(path / "predictions.jsonl", "a") as lines:
                lines.write("".join(json.dumps(row) + "\n" for row in found))
            for file, summary in zip(part, summaries, strict=True):
                console().print(f"{file}: {summary}", markup=False)
            rows += found
            used += batch["index"].tolist()
    except UserError as error:
        done = f"; {path / 'predictions.jsonl'} holds the {len(rows)} rows before" if rows else ""
        raise UserError(f"{error}{done}") from None
    with beside(path) as made:
        if prediction.draw is not None:
            if len(used) > size:  # else the only batch is all there is
                sample = np.array(used)[spaced(len(used), size)]
                _, outputs, batch = next(predictions(files, sample))
            save_figures(made, prediction.draw(outputs, batch))
        if prediction.collect is not None:
            prediction.collect(made, rows)
    console().print(f"\n{path / 'predictions.jsonl'} and the pictures beside it", markup=False)
    console().print(predictions.counted(files), markup=False)


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Gives a folder whose files come to `path` at the end: whole, and never over a person's."""
    with tempfile.TemporaryDirectory(dir=path, prefix=".") as made:
        yield Path(made)
        for one in sorted(Path(made).iterdir()):
            one.rename(unused_path(path, one.stem, one.suffix))


class Predictions:
    """A network over a person's own files, in batches of one shape.

    Attributes:
      left_out: {file that cannot be read: why}.
    """

    def __init__(
        self,
        read: Callable[[list[str]], Batch],
        predict: Callable[[Any, Batch], PyTree],
        variables: Any,
        size: int,
        skip_corrupt: bool = False,
    ) -> None:
        self._read, self._size, self._skip = read, size, skip_corrupt
        self._predict, self._variables = jax.jit(predict), jax.device_put(variables)
        self.left_out: dict[str, str] = {}

    def __call__(
        self, files: list[str], chosen: Int[np.ndarray, " _"] | None = None
    ) -> Iterator[tuple[list[str], PyTree, Batch]]:
        """Yields the files of each batch, their outputs on the host, and what was read of them.

        Args:
          chosen: positions of some of the files, in place of all.

        Raises:
          UserError: for a file that cannot be read, or where none can and they are to be left out.
        """
        size = min(len(files), self._size)
        chosen = np.arange(len(files)) if chosen is None else chosen
        used = 0
        for start in range(0, len(chosen), size):
            index, read = self._readable(files, chosen[start : start + size])
            if not len(index):
                continue
            used += len(index)
            batch = {**read, "index": index}
            outputs = jax.device_get(self._predict(self._variables, padded(batch, size)))
            outputs = jax.tree.map(lambda x: x[: len(index)], outputs)  # noqa: B023
            yield [files[i] for i in index], outputs, batch
        if not used:
            first = next(iter(self.left_out.values()))
            raise UserError(f"none of the {len(chosen)} files can be read; first: {first}")

    def outputs(self, files: list[str]) -> tuple[Int[np.ndarray, " n"], PyTree]:
        """Returns the positions of the files that were read, and their outputs, joined."""
        parts = [(batch["index"], outputs) for _, outputs, batch in self(files)]
        if any(file in self.left_out for file in files):
            console().print(self.counted(files), markup=False)
        joined: tuple[Int[np.ndarray, " n"], PyTree] = jax.tree.map(
            lambda *values: np.concatenate(values), *parts
        )
        return joined

    def refuse_damaged(self, files: list[str]) -> None:
        """Raises UserError for a file that cannot be read and looks so at its beginning or end."""
        for number, file in enumerate(files):
            if not looks_intact(file):
                self._readable(files, np.array([number]))

    def counted(self, files: list[str]) -> str:
        """Returns the line of numbers found, used and left out, and why; names the first."""
        lost = [file for file in files if file in self.left_out]
        reasons = (self.left_out[file].partition(": ")[2].partition(";")[0] for file in lost)
        line = count_line(len(files), Counter(reasons), "files")
        return f"{line}: {few(lost)}" if lost else line

    def _readable(
        self, files: list[str], index: Int[np.ndarray, " _"]
    ) -> tuple[Int[np.ndarray, " _"], Batch]:
        """Reads files by their positions; leaves out those that cannot be read, if that is asked.

        Returns:
          the positions of what was read, and the batch.
        """
        try:
            return index, self._read([files[i] for i in index])
        except UserError as error:
            if not self._skip:
                raise UserError(f"{error} (--skip_corrupt leaves such files out)") from None
        good = [i for i in index.tolist() if self._can_be_read(files[i])]
        return np.array(good, int), self._read([files[i] for i in good]) if good else {}

    def _can_be_read(self, file: str) -> bool:
        try:
            self._read([file])
        except UserError as error:
            if file not in self.left_out:
                console().print(f"left out: {error}", markup=False)
            self.left_out[file] = str(error)
            return False
        return True


def padded(batch: Batch, size: int) -> Batch:
    """Repeats the last row until the batch has `size` rows: one compiled shape for all batches."""
    return {
        key: np.concatenate([value, np.repeat(value[-1:], size - len(value), axis=0)])
        for key, value in batch.items()
    }
