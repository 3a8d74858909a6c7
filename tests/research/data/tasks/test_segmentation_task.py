"""Layouts of TFDS's segmentation sets."""

import io

import numpy as np
import PIL.Image
import pytest

from research.data import datasets
from research.data.images.masks import (
    IGNORE,
)
from research.data.tasks import segmentation
from research.errors import UserError

VALUES = np.array([[0, 1, 2], [2, 2, 0]], "u1")


def encoded(picture, kind="PNG"):
    data = io.BytesIO()
    picture.save(data, kind)
    return data.getvalue()


def test_layouts_of_tfds_sets_read_what_tfds_wrote(tmp_path):
    import tensorflow_datasets as tfds

    class OxfordIiitPet(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("4.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(shape=(None, None, 3)),
                        "segmentation_mask": tfds.features.Image(shape=(None, None, 1)),
                    }
                ),
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(3):
                image = PIL.Image.fromarray(np.full((2, 3, 3), i, "u1"))
                mask = PIL.Image.fromarray(VALUES + 1 if i < 2 else VALUES[:1] + 1)
                yield (
                    i,
                    {
                        "image": io.BytesIO(encoded(image)),
                        "segmentation_mask": io.BytesIO(encoded(mask)),
                    },
                )

    builder = OxfordIiitPet(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    dataset = datasets.load("oxford_iiit_pet", tmp_path, segmentation.TASK)
    assert dataset.class_names == ("pet", "background", "outline")
    order = []  # TFDS shuffles
    for i in range(3):
        try:
            example = dataset.splits["train"][i]
            np.testing.assert_array_equal(example["segmentation"], VALUES)
            order.append(int(example["image"][0, 0, 0]))
        except UserError as error:
            assert "the mask is 3 x 1 pixels, the image 3 x 2" in str(error)
            order.append(2)
    assert sorted(order) == [0, 1, 2]
    assert len(segmentation.inspect(dataset)) == 1
    dataset = datasets.load("oxford_iiit_pet", tmp_path, segmentation.task(ignore_label=3))
    first, second = (i for i in range(3) if i != order.index(2))
    for i in (first, second):
        expected = np.where(VALUES == 2, IGNORE, VALUES)  # 3, the outline, is the third class
        np.testing.assert_array_equal(dataset.splits["train"][i]["segmentation"], expected)


def test_a_set_without_masks_is_no_segmentation_set(tmp_path):
    with pytest.raises(UserError, match="digits: is no segmentation set that is known here"):
        datasets.load("digits", tmp_path, segmentation.TASK)
