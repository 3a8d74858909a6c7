"""Brings predicted masks back to their images' original sizes, to score and to save them."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from research.data.images import masks
from research.data.images import reading as images
from research.data.images.masks import IGNORE, Mask
from research.data.images.preprocessing import Preprocessing, at_scale, fit
from research.data.sources.examples import Examples
from research.experiment import Facts
from research.record.progress import console
from research.record.run_folder import unused_path

Masks = UInt8[np.ndarray, "n height width"]


@dataclasses.dataclass(frozen=True)
class Restoring:
    """The way of images to the network, and of its masks back to the images' original sizes.

    Attributes:
      preprocessing: of every image.
      scale: the factors of height and width by which images are resized uncut; None where they
        are brought to the preprocessing's size.
    """

    preprocessing: Preprocessing
    scale: Sequence[float] | None = None

    @classmethod
    def of(cls, preprocessing: Preprocessing, facts: Facts, *, whole: bool) -> "Restoring":
        """Returns it for a network with these facts, and says where an older one lacks the scale.

        Args:
          whole: whether images are resized whole, by the scale of training.
        """
        if whole and "scale" not in facts:
            console().print(
                "the checkpoint is older and does not say how its training images were resized: "
                "tiles are predicted at the images' own size",
                markup=False,
            )
        return cls(preprocessing, facts.get("scale", (1.0, 1.0)) if whole else None)

    def used(self, height: int, width: int) -> Preprocessing:
        """Returns the preprocessing of an image of this size."""
        if self.scale is None:
            return self.preprocessing
        return at_scale(height, width, self.scale, self.preprocessing)

    def restore(self, mask: Mask, height: int, width: int) -> UInt8[np.ndarray, "_ _"]:
        """Resizes a predicted mask to its image's size; IGNORE where the image was cut off."""
        return masks.restore(mask, height, width, self.used(height, width))

    def restore_all(
        self, predicted: Masks, sizes: Sequence[Sequence[int]]
    ) -> list[UInt8[np.ndarray, "_ _"]]:
        """Resizes several masks to their images' (height, width)."""
        return [self.restore(mask, h, w) for mask, (h, w) in zip(predicted, sizes, strict=True)]

    def read(self, files: list[str]) -> dict[str, np.ndarray]:
        """Reads a batch of a person's images: "image", and "size", the original (height, width)."""
        pictures = [images.read(file, self.preprocessing.white) for file in files]
        sizes = np.array([picture.shape[:2] for picture in pictures], np.int32)
        fitted = [fit(picture, self.used(*picture.shape[:2])) for picture in pictures]
        return {"image": np.stack(fitted), "size": sizes}

    def compare(
        self,
        predicted: Masks,
        originals: Examples,
        numbers: Sequence[int],
        measure: Callable[[Mask, Mask], dict[str, np.ndarray]],
    ) -> dict[str, np.ndarray]:
        """Stacks `measure`'s counts for (true, predicted) masks at their original sizes.

        Args:
          numbers: positions in `originals` of the predicted masks' images.
        """
        rows = []
        for number, mask in zip(numbers, predicted, strict=True):
            labels = originals[number]["segmentation"]
            rows.append(measure(labels, self.restore(mask, *labels.shape)))
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def shares_of(mask: UInt8[np.ndarray, "_ _"], names: Sequence[str]) -> dict[str, Any]:
    """Returns a row of predictions.jsonl: the share of each class in the mask, largest first."""
    shares = masks.count_classes(mask, len(names)) / max(np.sum(mask != IGNORE), 1)
    order = [int(k) for k in np.argsort(-shares, kind="stable") if shares[k]]
    found = {names[k]: float(shares[k]) for k in order}
    summary = ", ".join(f"{name} {value:.3f}" for name, value in list(found.items())[:4])
    return {"summary": summary, "shares": found}


def save_masks(
    folder: Path, files: list[str], predicted: Sequence[UInt8[np.ndarray, "_ _"]]
) -> None:
    """Saves masks/<name>.png below the folder for each file, never over another."""
    (folder / "masks").mkdir(exist_ok=True)
    for file, mask in zip(files, predicted, strict=True):
        masks.save_mask(unused_path(folder / "masks", Path(file).stem, ".png"), mask)
