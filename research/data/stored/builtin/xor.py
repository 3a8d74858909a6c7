"""xor: the four cases of exclusive or, as pictures of two pixels (Minsky and Papert 1969)."""

import io
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds


class Xor(tfds.core.GeneratorBasedBuilder):
    """1x2 grey images of black and white pixels: do they differ? The test split is the same."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="The truth table of exclusive or.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(1, 2, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=["same", "different"]),
                }
            ),
            supervised_keys=("image", "label"),
            license="public domain",
            citation="Minsky, Papert: Perceptrons, 1969",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples(), "test": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for number in range(4):
            first, second = divmod(number, 2)
            image = np.array([[first, second]], np.uint8)[..., None] * 255
            png = io.BytesIO(cv2.imencode(".png", image)[1].tobytes())
            yield number, {"image": png, "label": first ^ second}
