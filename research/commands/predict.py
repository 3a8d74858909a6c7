"""--mode=predict: a person's own files."""

import json
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from research.commands.output import output_folder
from research.errors import UserError
from research.experiment import Batch, PyTree
from research.record.progress import console
from research.record.run_folder import fingerprint, save_figures
from research.spacing import spaced
from research.training.checkpoint import Opened
from research.training.config import LoopConfig


def run_prediction(
    name: str, module: ModuleType, config: LoopConfig, opened: Opened, inputs: tuple[str, ...]
) -> None:
    """Predicts a person's own files: one line each in predictions.jsonl, and a picture."""
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
        prediction.read, experiment.evaluation.predict, opened.variables, size
    )
    if prediction.consult is not None:
        prediction = prediction.consult(predictions.outputs)
    path = output_folder(config.workdir, name, "predict", "predictions.jsonl")
    rows: list[dict[str, Any]] = []
    for part, outputs, batch in predictions(files):
        for file, row in zip(part, prediction.describe(outputs, batch), strict=True):
            console().print(f"{file}: {row.pop('summary')}", markup=False)
            rows.append({"file": file, **row})
        if prediction.save is not None:
            prediction.save(path, part, outputs, batch)
    if prediction.draw is not None:
        if len(files) > size:  # else the only batch is all there is
            _, outputs, batch = next(predictions(files, spaced(len(files), size)))
        save_figures(path, prediction.draw(outputs, batch))
    (path / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if prediction.collect is not None:
        prediction.collect(path, rows)
    console().print(f"\n{path / 'predictions.jsonl'} and the pictures beside it", markup=False)


class Predictions:
    """A network over a person's own files, in batches of one shape."""

    def __init__(
        self,
        read: Callable[[list[str]], Batch],
        predict: Callable[[Any, Batch], PyTree],
        variables: Any,
        size: int,
    ) -> None:
        self._read, self._size = read, size
        self._predict, self._variables = jax.jit(predict), jax.device_put(variables)

    def __call__(
        self, files: list[str], chosen: Int[np.ndarray, " _"] | None = None
    ) -> Iterator[tuple[list[str], PyTree, Batch]]:
        """Yields the files of each batch, their outputs on the host, and what was read of them.

        Args:
          chosen: positions of some of the files, in place of all.
        """
        size = min(len(files), self._size)
        chosen = np.arange(len(files)) if chosen is None else chosen
        for start in range(0, len(chosen), size):
            index = chosen[start : start + size]
            part = [files[i] for i in index]
            batch = {**self._read(part), "index": index}
            outputs = jax.device_get(self._predict(self._variables, padded(batch, size)))
            yield part, jax.tree.map(lambda x: x[: len(part)], outputs), batch  # noqa: B023

    def outputs(self, files: list[str]) -> PyTree:
        """Joins the outputs of all files."""
        parts = [outputs for _, outputs, _ in self(files)]
        return jax.tree.map(lambda *values: np.concatenate(values), *parts)


def padded(batch: Batch, size: int) -> Batch:
    """Repeats the last row until the batch has `size` rows: one compiled shape for all batches."""
    return {
        key: np.concatenate([value, np.repeat(value[-1:], size - len(value), axis=0)])
        for key, value in batch.items()
    }
