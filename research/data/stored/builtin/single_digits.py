"""single_digits: one coloured digit on a texture or none, 64x64, with its box and 64 landmarks.

Scenes as in `digit_scenes`, four of five with one digit: 16,000 to train, 1,000 to test. Landmarks
are where 64 rays from the middle of the digit's box, clockwise from the right, leave the convex
hull of its ink.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import cv2
import numpy as np
import tensorflow_datasets as tfds

from research.data.stored.encoding import png
from research.data.stored.scenes import builders
from research.data.stored.scenes.drawing import SIDE, DigitCutouts, draw

POINTS = 64


def landmarks(ink: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Returns [64, 2] (x, y) in pixels, on the convex hull of the ink (bool [h, w])."""
    rows, columns = np.nonzero(ink)
    corners = np.concatenate(
        [np.stack([columns + i, rows + j], axis=1) for i in (0, 1) for j in (0, 1)]
    )
    hull = cv2.convexHull(corners.astype(np.int32))[:, 0].astype(np.float64)
    edge = np.roll(hull, -1, axis=0) - hull
    normal = np.stack([edge[:, 1], -edge[:, 0]], axis=1)
    middle = np.array([box[0] + box[2], box[1] + box[3]]) / 2
    normal *= np.sign(((hull - hull.mean(0)) * normal).sum(1, keepdims=True))  # outwards
    angle = 2 * np.pi * np.arange(POINTS) / POINTS
    ray = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    towards = ray @ normal.T  # [ray, edge]
    distance = ((hull - middle) * normal).sum(1)[None] / np.where(towards > 1e-9, towards, np.nan)
    reach = np.maximum(np.nanmin(distance, axis=1), 0)
    return (middle + reach[:, None] * ray).round(2).astype(np.float32)


class SingleDigits(tfds.core.GeneratorBasedBuilder):
    """Scenes of one digit or none: number i of a split is a function of version, split and i."""

    VERSION = tfds.core.Version("1.0.0")
    SCENES: ClassVar = {"train": 16_000, "test": 1_000}

    def _info(self) -> tfds.core.DatasetInfo:
        return builders.info(
            self,
            "One coloured handwritten digit on a texture, or none.",
            {
                "image": tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="png"),
                "objects": tfds.features.Sequence(
                    {
                        "bbox": tfds.features.BBoxFeature(),
                        "label": tfds.features.ClassLabel(num_classes=10),
                    }
                ),
                # (x, y) in pixels; zeros without a digit
                "landmarks": tfds.features.Tensor(shape=(POINTS, 2), dtype=np.float32),
            },
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return builders.splits(self.SCENES, self._generate_examples)

    def _generate_examples(
        self, split: int, count: int, digits: DigitCutouts, photographs: list[np.ndarray]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        random = np.random.RandomState()
        for index in range(count):
            random.seed([split, index])
            there = int(index % 5 > 0)
            scene = draw(random, digits, photographs, there, there)
            points = np.zeros((POINTS, 2), np.float32)
            for thing in scene.things:
                points = landmarks(scene.instances > 0, thing.box)
            yield (
                index,
                {
                    "image": png(scene.image),
                    "objects": [
                        {
                            "bbox": builders.box(thing),
                            "label": thing.digit,
                        }
                        for thing in scene.things
                    ],
                    "landmarks": points,
                },
            )
