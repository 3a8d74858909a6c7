"""Images of 12 bits in 16 are made brighter by one factor, in training as in prediction."""

import cv2
import flax.linen as nn
import numpy as np
import pytest

from research.assembly.images import choose_preprocessing
from research.data import datasets, pipeline
from research.data.images.preprocessing import Preprocessing, read_batch
from research.data.tasks import captioning, classification, detection, segmentation
from research.models import Entry
from research.training.config import ImageTrainingConfig

ENTRY = Entry(nn.Module, image_size=2, channels=1)
SHOWN = [[[0], [64]], [[128], [255]]]


# Of each kind of set: its name, and where its images lie.
SETS = {
    "folder:{0}": (classification.TASK, ["a/0", "a/1", "b/0", "b/1"]),
    "masks:{0}/images:{0}/masks": (segmentation.TASK, [f"images/{k}" for k in range(4)]),
    "captions:{0}/images:{0}/c.csv": (captioning.TASK, [f"images/{k}" for k in range(4)]),
    "yolo:{0}": (detection.TASK, [f"images/{k}" for k in range(4)]),
}


def describe(root):
    """Masks, captions and boxes of images 0 to 3."""
    (root / "masks").mkdir()
    (root / "labels").mkdir()
    (root / "labels" / "classes.txt").write_text("a\nb\n")
    (root / "c.csv").write_text("image,caption\n" + "".join(f"{k}.png,a dog\n" for k in range(4)))
    for k in range(4):
        cv2.imwrite(str(root / "masks" / f"{k}.png"), np.eye(2, dtype=np.uint8))
        (root / "labels" / f"{k}.txt").write_text("0 0.5 0.5 1 1\n")


@pytest.mark.parametrize("name", SETS)
def test_the_factor_of_the_set_is_used_wherever_its_images_are_read(name, tmp_path):
    task, images = SETS[name]
    if not name.startswith("folder"):
        describe(tmp_path)
    files = [tmp_path / f"{image}.png" for image in images]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(file), np.array([[0, 1024], [2048, 4095]], np.uint16))
    name = name.format(tmp_path)
    dataset = datasets.load(name, "nowhere", task)
    assert dataset.white == 4095
    config = ImageTrainingConfig(dataset=name, image_size=2)
    chosen = choose_preprocessing(config, dataset, ENTRY)
    kept = Preprocessing.from_json(chosen.to_json())  # as a checkpoint holds it
    assert kept.white == 4095 and kept.image_size == (2, 2)
    grey = Preprocessing((2, 2), 1, white=kept.white)
    for split in pipeline.fitted(dataset.splits, grey, config).values():
        assert [split[k]["image"].tolist() for k in range(len(split))] == [SHOWN] * len(split)
    assert read_batch([str(files[0])], grey)["image"].tolist() == [SHOWN]


def test_checkpoints_from_before_read_as_they_did():
    values = Preprocessing((2, 2)).to_json()
    del values["white"]
    assert Preprocessing.from_json(values).white == 65535
