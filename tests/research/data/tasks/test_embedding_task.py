import pickle

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from research.data import datasets
from research.data.sources.examples import Arrays, decode
from research.data.sources.splits import Dataset
from research.data.stored.sets import install
from research.data.tasks import embedding as task
from research.errors import UserError


class Labels(Arrays):
    """Examples that are told by their index."""

    def __init__(self, labels):
        labels = np.array(labels, np.int32)
        super().__init__({"image": np.zeros((len(labels), 2, 2, 1), np.uint8), "label": labels})

    @property
    def labels(self):
        return self.fields["label"]


def dataset(**splits):
    names = tuple(f"class {k}" for k in range(100))
    parts = {split: Labels(labels) for split, labels in splits.items()}
    return Dataset("made", parts, names, (2, 2, 1), "")


def classes(splits):
    return {split: sorted(set(part.labels.tolist())) for split, part in splits.items()}


def test_a_set_that_is_split_by_class_stays_as_it_is():
    made = dataset(train=[1, 1, 2, 2], test=[5, 6, 6])
    splits = task.by_class(made)
    assert splits["train"] is made.splits["train"] and splits["test"] is made.splits["test"]


def test_of_other_splits_only_what_train_lacks_is_kept():
    splits = task.by_class(dataset(train=[1, 1, 2, 2], test=[1, 5, 6, 6], small=[1, 2]))
    assert classes(splits) == {"train": [1, 2], "test": [5, 6]}
    assert len(splits["test"]) == 3


def test_classes_are_held_out_of_a_set_that_is_not_split_by_class():
    every = list(range(10))
    splits = task.by_class(dataset(train=every * 3, test=every))
    # Three of ten, evenly spaced: numbers 1, 5 and 8.
    assert classes(splits) == {"train": [0, 2, 3, 4, 6, 7, 9], "test": [1, 5, 8]}
    assert (len(splits["train"]), len(splits["test"])) == (21, 3)
    alone = task.by_class(dataset(train=every * 3))
    assert classes(alone) == classes(splits) and len(alone["test"]) == 9
    three = classes(task.by_class(dataset(train=every * 3, test=every), validation=0.3))
    assert three["test"] == [1, 5, 8] and len(three["validation"]) == 2
    assert sorted(k for part in three.values() for k in part) == every


def test_a_seed_draws_other_classes_and_folds_hold_each_out_once():
    made = dataset(train=list(range(20)) * 3)
    drawn = [classes(task.by_class(made, validation=0.2, seed=seed)) for seed in (0, 1, 1, 2)]
    assert drawn[0] == classes(task.by_class(made, validation=0.2)) and drawn[1] == drawn[2]
    assert len({tuple(parts["test"]) for parts in drawn}) == 3
    for parts in drawn:
        assert sorted(k for part in parts.values() for k in part) == list(range(20))
        assert [len(parts[split]) for split in ("train", "test", "validation")] == [11, 6, 3]
    for seed in (0, 1):
        folds = [classes(task.by_class(made, fold=f"{i}/4", seed=seed)) for i in (1, 2, 3, 4)]
        assert {tuple(parts["test"]) for parts in folds} == {tuple(drawn[seed]["test"])}
        held = [k for parts in folds for k in parts["validation"]]
        assert sorted(held) == sorted({*range(20)} - {*drawn[seed]["test"]})
        assert all(not {*parts["train"]} & {*parts["validation"]} for parts in folds)
    with pytest.raises(UserError, match="--fold=1/3: the set has a validation split of its own"):
        task.by_class(dataset(train=[0, 0, 1, 1], validation=[2, 2, 3, 3]), fold="1/3")


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": [0, 0, 1, 1, 2]}, "train has fewer than two classes"),
        ({"train": [0, 0, 1], "test": [7, 7]}, "test has fewer than two classes"),
        ({"test": [0, 1]}, "no split called train"),
    ],
)
def test_too_few_classes_are_refused(splits, message):
    with pytest.raises(UserError, match=message):
        task.by_class(dataset(**splits))


def test_a_class_of_one_image_is_named_or_left_out():
    made = dataset(train=[0, 0, 3, 4, 4, 5])
    with pytest.raises(
        UserError, match=r"class 'class 3' has one image .* 1 others .*--drop_small"
    ):
        task.minable(made, made.splits["train"], drop_small=False)
    kept = task.minable(made, made.splits["train"], drop_small=True)
    assert kept.labels.tolist() == [0, 0, 4, 4]
    assert task.inspect(made, {"train": made.splits["train"]}) == [
        "made, train: class 'class 3' has one image only",
        "made, train: class 'class 5' has one image only",
    ]


class Faces(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Named as TFDS's lfw names its people: by text."""

    VERSION = tfds.core.Version("1.0.0")
    PEOPLE = ("Zoe_A", "Ann_B", "Zoe_A", "Cem_C", "Ann_B")

    def _info(self):
        image = tfds.features.Image(shape=(6, 5, 3))
        features = tfds.features.FeaturesDict({"label": tfds.features.Text(), "image": image})
        return tfds.core.DatasetInfo(
            builder=self, features=features, supervised_keys=("label", "image")
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        import io

        for i, name in enumerate(self.PEOPLE):
            png = cv2.imencode(".png", np.full((6, 5, 3), 10 * i, np.uint8))[1].tobytes()
            yield i, {"label": name, "image": io.BytesIO(png)}


def test_people_who_are_named_by_text_get_numbers_in_the_order_of_their_names(tmp_path):
    install(lambda root: Faces(data_dir=root, file_format="array_record"), tmp_path)
    found = datasets.load("faces", tmp_path, task.TASK)
    assert found.class_names == ("Ann_B", "Cem_C", "Zoe_A") and found.image_shape == (6, 5, 3)
    split = pickle.loads(pickle.dumps(found.splits["train"]))
    people = {int(split[i]["image"][0, 0, 0]) // 10: int(split[i]["label"]) for i in range(5)}
    assert people == {i: found.class_names.index(name) for i, name in enumerate(Faces.PEOPLE)}
    assert sorted(split.labels.tolist()) == [0, 0, 1, 2, 2]


def test_folders_of_train_and_test_may_have_other_classes(tmp_path):
    for part, names in (("train", "ab"), ("test", "cd")):
        for name in names:
            for i in range(2):
                file = tmp_path / part / name / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(file), np.full((4, 4, 3), i, np.uint8))
    found = datasets.load(f"folder:{tmp_path}", "nowhere", task.TASK)
    assert found.class_names == tuple("abcd")
    assert classes(task.by_class(found)) == {"train": [0, 1], "test": [2, 3]}
    whole = datasets.load(f"folder:{tmp_path / 'train'}", "nowhere", task.TASK)
    assert list(whole.splits) == ["train"] and len(whole.splits["train"]) == 4


def test_digits_have_neither_domain_nor_runs(tmp_path):
    splits = task.by_class(datasets.load("digits", tmp_path, task.TASK))
    assert {k: len(np.unique(v.labels)) for k, v in splits.items()} == {"train": 7, "test": 3}
    assert set(splits["test"][0]) == {"image", "label"}
    assert len(decode(splits["test"])) == 300
