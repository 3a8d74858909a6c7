"""Runs a detector's model, and writes its detections for a person."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research.data.images import reading as images
from research.experiment import Axis, Batch, Network, Variables
from research.figures import detection as figures
from research.figures import saving
from research.metrics.detection import results
from research.record.run_folder import unused_path


class EvaluationPass:
    """The model in evaluation mode, on a batch's images; see `detector.ForwardPass`."""

    def __init__(self, network: Network, variables: Variables, batch: Batch) -> None:
        self.images = network.see(batch)
        self._network, self._variables = network, variables

    def __call__(self, images: jax.Array | None = None, **options: Any) -> Any:
        pictures = self.images if images is None else images
        return self._network.evaluate(self._variables, pictures, **options)


class TrainingPass:
    """The model in training mode, on a batch's images.

    Attributes:
      state: the model's state after the last call.
    """

    def __init__(
        self, network: Network, variables: Variables, batch: Batch, key: jax.Array, axis: Axis
    ) -> None:
        self.images = network.see(batch)
        self.state: Any = {}
        self._network, self._variables, self._key, self._axis = network, variables, key, axis

    def __call__(self, images: jax.Array | None = None, **options: Any) -> Any:
        pictures = self.images if images is None else images
        outputs, self.state = self._network.train(
            self._variables, pictures, key=self._key, axis=self._axis, **options
        )
        self.state.pop("auxiliary", None)
        return outputs


def describe(
    outputs: Mapping[str, np.ndarray], sizes: np.ndarray, class_names: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Makes one row an image: its detections, best first, boxes in the image's pixels.

    Args:
      sizes: [n, 2], height and width of the images.
    """
    rows = []
    for i, (height, width) in enumerate(sizes.tolist()):
        found: list[dict[str, Any]] = [
            {
                "class": class_names[int(outputs["classes"][i, k])],
                "score": round(float(outputs["scores"][i, k]), 5),
                "box": [round(float(v), 2) for v in outputs["boxes"][i, k]],
            }
            for k in np.flatnonzero(outputs["valid"][i])
        ]
        shown = [row for row in found if row["score"] >= figures.SHOWN]
        summary = ", ".join(f"{row['class']} {row['score']:.2f}" for row in shown[:5])
        if len(shown) > 5:
            summary += f", and {len(shown) - 5} more"
        rows.append(
            {
                "summary": summary or "nothing found",
                "height": height,
                "width": width,
                "detections": found,
            }
        )
        if "points" in outputs:
            rows[-1]["points"] = outputs["points"][i].round(2).tolist()
    return rows


def save_pictures(
    folder: Path,
    files: list[str],
    outputs: Mapping[str, np.ndarray],
    class_names: tuple[str, ...],
    white: int,
) -> None:
    """Draws each file's detections, in its own pixels: boxes/<name>.png below the folder.

    Args:
      white: the value of 16-bit images that is white.
    """
    target = folder / "boxes"
    target.mkdir(exist_ok=True)
    for i, file in enumerate(files):
        found = {name: value[i] for name, value in outputs.items()}
        figure = figures.one_image(images.read(file, white), found, class_names)
        saving.save(figure, unused_path(target, Path(file).stem, ".png"))


def write_coco_results(
    folder: Path, rows: list[dict[str, Any]], class_names: tuple[str, ...]
) -> None:
    """Writes results.json in COCO's results format, and images.json with its numbers' meaning.

    Images are numbered from 1 in the order of predictions.jsonl, categories from 1 in that of the
    classes.
    """
    number = {name: k for k, name in enumerate(class_names)}
    found = []
    for image, row in enumerate(rows, 1):
        detections = row["detections"]
        arrays = {
            "boxes": np.array([d["box"] for d in detections], float).reshape(1, -1, 4),
            "classes": np.array([[number[d["class"]] for d in detections]], int),
            "scores": np.array([[d["score"] for d in detections]], float),
            "valid": np.ones((1, len(detections)), bool),
        }
        found += results(arrays, [image], [k + 1 for k in range(len(class_names))])
    (folder / "results.json").write_text(json.dumps(found) + "\n")
    listing = {
        "images": [
            {"id": i, "file_name": row["file"], "height": row["height"], "width": row["width"]}
            for i, row in enumerate(rows, 1)
        ],
        "categories": [{"id": k, "name": name} for k, name in enumerate(class_names, 1)],
    }
    (folder / "images.json").write_text(json.dumps(listing) + "\n")
