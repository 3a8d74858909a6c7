"""Captions for a person: as words, below their pictures, and each word's attention."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from research.data.text.tokens import Vocabulary
from research.experiment import Batch, Pictures
from research.figures import captioning as figures
from research.record.run_folder import save_figures, unused_path

Outputs = Mapping[
    str, Any
]  # "tokens" [B, L], "log_probability" [B], perhaps "attention" [B, L, ...]


class Sentences:
    """Captions of images, written and drawn.

    Attributes:
      known: the model's vocabulary.
      references: () -> the vocabulary with all words of the data set's own captions; called only
        for images with captions.
    """

    def __init__(self, known: Vocabulary, references: Callable[[], Vocabulary]) -> None:
        self.known, self.references = known, references

    def of(self, outputs: Outputs) -> list[str]:
        """Returns a sentence for each image."""
        return [self.known.decode(row) for row in outputs["tokens"]]

    def describe(self, outputs: Outputs, batch: Batch) -> list[dict[str, Any]]:
        """Returns a row of predictions.jsonl for each image."""
        rows = zip(self.of(outputs), outputs["log_probability"], strict=True)
        return [
            {
                "summary": said or "(no words)",
                "caption": said,
                "log_probability": float(log_probability),
            }
            for said, log_probability in rows
        ]

    def attention(self, outputs: Outputs, batch: Batch, i: int) -> Figure:
        """Draws the attention of each word of an image's sentence."""
        words = [*self.known.decode(outputs["tokens"][i]).split(), "(end)"]
        return figures.attention(batch["image"][i], words, outputs["attention"][i])

    def draw(self, outputs: Outputs, batch: Batch) -> Pictures:
        """Draws images with their captions, and a reference if there is one."""
        if "image" not in batch:
            return {}
        if "tokens" not in batch:
            return {"captions": figures.captions(batch["image"], self.of(outputs), None)}
        true = [self.references().decode(rows[0]) for rows in batch["tokens"]]
        drawn = {"captions": figures.captions(batch["image"], self.of(outputs), true)}
        if "attention" in outputs:
            drawn["attention"] = self.attention(outputs, batch, 0)
        return drawn

    def save(self, folder: Path, files: list[str], outputs: Outputs, batch: Batch) -> None:
        """Saves attention/<name>.png below the folder for each file."""
        if "attention" not in outputs:
            return
        for i, file in enumerate(files):
            path = unused_path(folder / "attention", Path(file).stem, ".png")
            save_figures(path.parent, {path.stem: self.attention(outputs, batch, i)})
