"""--mode=preview: training examples as the network gets them, with boxes, masks, points, words."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import jax
import numpy as np

from research.commands.output import output_folder
from research.data.text.tokens import Vocabulary
from research.errors import UserError
from research.experiment import Look
from research.figures import preview as figures
from research.figures import saving
from research.random import step_key, stream
from research.record.progress import console
from research.training.config import LoopConfig

EXAMPLES, VERSIONS = 6, 6


def preview(name: str, module: ModuleType, config: LoopConfig) -> None:
    """Draws a sheet: a row an example of the first batches, as it is and augmented several times.

    Raises:
      UserError: of an experiment that trains on no images.
    """
    experiment = module.build(config)
    if isinstance(experiment, Look):
        raise UserError(f"--experiment={name}: trains nothing; there is nothing to preview.")
    batch = experiment.data().train.batch(0)
    if "image" not in batch:
        raise UserError(f"--experiment={name}: trains on no images; there is nothing to preview.")
    path = output_folder(config.workdir, name, "preview", "preview.png")
    augment = jax.jit(lambda key, rows: experiment.training.augment(key, rows, None))
    keys = [stream(step_key(config.seed, step), "augment") for step in range(VERSIONS)]
    versions = [batch, *(augment(key, batch) for key in keys)]
    rows = [
        [{k: np.asarray(v)[i] for k, v in version.items()} for version in versions]
        for i in range(min(EXAMPLES, len(batch["index"])))
    ]
    figure = figures.sheet(rows, [_words(row[0], experiment.facts) for row in rows])
    saving.save(figure, path / "preview.png")
    console().print(
        f"{len(rows)} examples, each as it is and in {VERSIONS} versions that training sees",
        f"picture  {path / 'preview.png'}",
        sep="\n",
        markup=False,
    )


def _words(example: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Returns what is said of an example in words: its class, or its sentence."""
    names, words = facts.get("class_names"), facts.get("words")
    if "label" in example and names and np.ndim(example["label"]) == 0:
        return str(names[int(example["label"])])
    if "tokens" in example and words:
        tokens = np.atleast_2d(example["tokens"])[0]  # the first of an image's sentences
        return Vocabulary(tuple(words)).decode(tokens)
    return ""
