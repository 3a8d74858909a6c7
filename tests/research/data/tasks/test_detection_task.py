"""Prepared sets with the features of TFDS's own detection sets, and digit scenes."""

import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds

from research.data import datasets
from research.data.sources.examples import read_many
from research.data.sources.splits import hold_out
from research.data.stored.builtin.digit_scenes import DigitScenes
from research.data.stored.encoding import png
from research.data.stored.sets import install, open_prepared
from research.data.tasks import classification, detection
from research.errors import UserError

F = tfds.features
BOX = F.BBox(ymin=0.25, xmin=0.1, ymax=0.75, xmax=0.6)  # of 40 x 20 pixels: (4, 5, 24, 15)
FLAT = F.BBox(ymin=0.25, xmin=0.1, ymax=0.25, xmax=0.6)
KINDS = {
    "voc": (
        "objects",
        {
            "label": F.ClassLabel(names=["cat", "dog"]),
            "bbox": F.BBoxFeature(),
            "is_difficult": np.bool_,
        },
        [
            {"label": "dog", "bbox": BOX, "is_difficult": False},
            {"label": "cat", "bbox": BOX, "is_difficult": True},
        ],
    ),
    "coco": (
        "objects",
        {
            "area": np.int64,
            "bbox": F.BBoxFeature(),
            "id": np.int64,
            "is_crowd": np.bool_,
            "label": F.ClassLabel(names=["cat", "dog"]),
        },
        [
            {"area": 9, "bbox": BOX, "id": 1, "is_crowd": False, "label": "dog"},
            {"area": 9, "bbox": BOX, "id": 2, "is_crowd": True, "label": "cat"},
        ],
    ),
    "wider_face": (
        "faces",
        {"bbox": F.BBoxFeature(), "blur": np.uint8, "invalid": np.bool_},
        [{"bbox": BOX, "blur": 1, "invalid": False}, {"bbox": BOX, "blur": 0, "invalid": True}],
    ),
    "kitti": (
        "objects",
        {
            "type": F.ClassLabel(names=["cat", "dog"]),
            "occluded": F.ClassLabel(names=["no", "yes"]),
            "bbox": F.BBoxFeature(),
        },
        # Its builder counts y from the bottom: 1 - 0.9 to 1 - 0.6.
        [{"type": "dog", "occluded": 0, "bbox": F.BBox(ymin=0.1, xmin=0.0, ymax=0.4, xmax=1.0)}],
    ),
}


def prepared(kind, folder, objects=None):
    """A set of two images, one with the objects of its kind and one without."""
    key, features, given = KINDS[kind]

    class Toy(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = kind
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=F.FeaturesDict({"image": F.Image(), key: F.Sequence(features)}),
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for number, each in enumerate([given if objects is None else objects, []]):
                image = np.full((20, 40, 3), 60 * number, np.uint8)
                yield number, {"image": png(image), key: each}

    return install(lambda root: Toy(data_dir=root, file_format="array_record"), folder)


def read_all(dataset):
    """The example with objects, and the one without."""
    split = dataset.splits["train"]
    return sorted((split[i] for i in range(len(split))), key=lambda e: -len(e["classes"]))


@pytest.mark.parametrize("kind", KINDS)
def test_sets_of_each_kind(kind, tmp_path):
    dataset = open_prepared(kind, prepared(kind, tmp_path), detection.TASK)
    assert dataset.class_names == (("face",) if kind == "wider_face" else ("cat", "dog"))
    full, empty = read_all(dataset)
    assert full["image"].shape == (20, 40, 3)
    if kind == "kitti":
        np.testing.assert_allclose(full["boxes"], [[0, 12, 40, 18]], atol=1e-4)
        assert full["classes"].tolist() == [1] and full["crowd"].tolist() == [False]
    else:
        np.testing.assert_allclose(full["boxes"], [[4, 5, 24, 15]] * 2, atol=1e-5)
        assert full["classes"].tolist() == ([0, 0] if kind == "wider_face" else [1, 0])
        assert full["crowd"].tolist() == [False, True]
    assert empty["boxes"].shape == (0, 4) and empty["boxes"].dtype == np.float32
    assert sorted(detection.counts(dataset.splits["train"])) == [0, len(full["classes"])]
    real = detection.counts(dataset.splits["train"], crowds=False)
    assert sorted(real) == [0, int((~full["crowd"]).sum())]
    copy = pickle.loads(pickle.dumps(dataset.splits["train"]))
    np.testing.assert_array_equal(copy[0]["boxes"], dataset.splits["train"][0]["boxes"])


def test_a_bad_box_stops_or_is_left_out(tmp_path):
    bad = [{"label": "dog", "bbox": box, "is_difficult": False} for box in (BOX, FLAT)]
    folder = prepared("voc", tmp_path, bad)
    with pytest.raises(
        UserError, match=r"example \d of train: the box \(4, 5, 24, 5\) of object 2 "
    ):
        read_all(open_prepared("voc", folder, detection.TASK))
    (full, _) = read_all(open_prepared("voc", folder, detection.task(drop_bad_boxes=True)))
    np.testing.assert_allclose(full["boxes"], [[4, 5, 24, 15]], atol=1e-5)
    (problem,) = detection.inspect(open_prepared("voc", folder, detection.TASK))
    assert problem.startswith("voc, train: ") and "has no area" in problem


def test_room_is_checked_before_anything_is_decoded(tmp_path):
    dataset = open_prepared("coco", prepared("coco", tmp_path), detection.TASK)
    detection.check_room(dataset, 2)
    held = dataset._replace(
        splits=dict(zip("ab", hold_out(dataset.splits["train"], 0.5), strict=True))
    )
    for each in (dataset, held):
        with pytest.raises(UserError, match=r"--max_objects=1: .* holds 2 objects; give .*=2 or"):
            detection.check_room(each, 1)


def test_splits_without_any_object_to_be_found_are_not_evaluated(tmp_path, capsys):
    crowds = [{"label": "dog", "bbox": BOX, "is_difficult": True}]
    some, none = (
        open_prepared("voc", prepared("voc", folder, objects), detection.TASK).splits["train"]
        for folder, objects in ((tmp_path / "some", None), (tmp_path / "none", crowds))
    )
    dataset = open_prepared("voc", next((tmp_path / "some").glob("voc/*")), detection.TASK)
    whole = dataset._replace(splits={"train": some, "validation": some, "test": none})
    assert list(detection.with_objects(whole).splits) == ["train", "validation"]
    assert "test is not evaluated" in capsys.readouterr().out
    for splits in ({"train": some, "test": none}, {"train": none, "test": some}):
        with pytest.raises(UserError, match="--dataset=voc: there is no object to be found in t"):
            detection.with_objects(dataset._replace(splits=splits))


def test_a_classification_set_is_no_detection_set(tmp_path):
    folder = prepared("voc", tmp_path)
    with pytest.raises(UserError, match=r"is no image-classification set; its examples have"):
        open_prepared("voc", folder, classification.TASK)
    with pytest.raises(UserError, match="digits: is no detection set"):
        datasets.load("digits", tmp_path, detection.TASK)


def test_digit_scenes_by_the_task_are_those_of_tfds(tmp_path, monkeypatch):
    monkeypatch.setattr(DigitScenes, "SCENES", {"train": 20, "test": 5})
    dataset = datasets.load("digit_scenes", tmp_path, detection.TASK)
    assert dataset.class_names == tuple("0123456789") and dataset.image_shape == (64, 64, 3)
    builder = tfds.builder_from_directory(tmp_path / "digit_scenes" / str(DigitScenes.VERSION))
    for split in ("train", "test"):
        examples = read_many(dataset.splits[split], range(len(dataset.splits[split])))
        for mine, theirs in zip(examples, builder.as_data_source(split), strict=True):
            np.testing.assert_array_equal(mine["image"], theirs["image"])
            np.testing.assert_array_equal(mine["classes"], theirs["objects"]["label"])
            shares = np.asarray(theirs["objects"]["bbox"])[:, [1, 0, 3, 2]]
            np.testing.assert_array_equal(mine["boxes"], shares * 64)
            assert not mine["crowd"].any()
    problems = detection.inspect(dataset)
    missing = set(range(10)) - set(
        np.concatenate([example["classes"] for example in examples]).tolist()
    )
    assert [p for p in problems if "test" in p] == [
        f"digit_scenes, test: class '{digit}' has no objects" for digit in sorted(missing)
    ]
