"""Captions for a person: as words, below their pictures, and where each word looked."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from research.data.tokens import Vocabulary
from research.experiment import Batch, Experiment
from research.figures import captioning as figures
from research.record import save_figures, unused_path

Outputs = Mapping[
    str, Any
]  # "tokens" [B, L], "log_probability" [B], perhaps "attention" [B, L, ...]


def with_sentences(
    experiment: Experiment, known: Vocabulary, references: Callable[[], Vocabulary]
) -> Experiment:
    """The experiment with what it says written down and drawn.

    Args:
      known: the words that are said.
      references: with those that the data set's own captions hold; asked for where there are any.
    """

    def sentences(outputs: Outputs) -> list[str]:
        return [known.decode(row) for row in outputs["tokens"]]

    def describe(outputs: Outputs, batch: Batch) -> list[dict[str, Any]]:
        rows = zip(sentences(outputs), outputs["log_probability"], strict=True)
        return [
            {
                "summary": said or "(no words)",
                "caption": said,
                "log_probability": float(log_probability),
            }
            for said, log_probability in rows
        ]

    def attention(outputs: Outputs, batch: Batch, i: int) -> Figure:
        words = [*known.decode(outputs["tokens"][i]).split(), "(end)"]
        return figures.attention(batch["image"][i], words, outputs["attention"][i])

    def draw(outputs: Outputs, batch: Batch) -> dict[str, Figure | np.ndarray]:
        if "image" not in batch:
            return {}
        true = None
        if "tokens" in batch:
            true = [references().decode(rows[0]) for rows in batch["tokens"]]
        drawn: dict[str, Figure | np.ndarray] = {
            "captions": figures.captions(batch["image"], sentences(outputs), true)
        }
        if "attention" in outputs and "tokens" in batch:
            drawn["attention"] = attention(outputs, batch, 0)
        return drawn

    def save(folder: Path, files: list[str], outputs: Outputs, batch: Batch) -> None:
        if "attention" not in outputs:
            return
        for i, file in enumerate(files):
            path = unused_path(folder / "attention", Path(file).stem, ".png")
            save_figures(path.parent, {path.stem: attention(outputs, batch, i)})

    return experiment._replace(describe=describe, draw=draw, save=save)
