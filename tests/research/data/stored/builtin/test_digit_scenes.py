"""What TFDS reads back from the prepared set, against what the packages ship."""

import csv
import gzip
import hashlib

import numpy as np
import pytest
import tensorflow_datasets as tfds

from research.data import datasets
from research.data.stored.builtin import digits
from research.data.stored.builtin.digit_scenes import DigitScenes
from research.data.stored.scenes.drawing import COLOURS
from research.data.stored.sets import install

SCENES = {"train": 300, "test": 80}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """{split: examples as TFDS decodes them}, of a set that is prepared like the whole one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DigitScenes, "SCENES", SCENES)
        folder = install(
            lambda root: datasets._builder("digit_scenes", root), tmp_path_factory.mktemp("data")
        )
    builder = tfds.builder_from_directory(folder)
    examples = {split: list(builder.as_data_source(split)) for split in SCENES}
    for scene in everything(examples):
        scene["objects"] = {key: np.asarray(x) for key, x in scene["objects"].items()}
    return examples


def everything(scenes):
    return [scene for split in scenes.values() for scene in split]


def boxes(scene):
    """[n, 4] (x0, y0, x1, y1) in pixels."""
    return scene["objects"]["bbox"][:, [1, 0, 3, 2]] * 64


def test_sizes_and_kinds(scenes):
    assert DigitScenes.SCENES == {"train": 16_000, "test": 1_000}
    assert {split: len(examples) for split, examples in scenes.items()} == SCENES
    counts = np.bincount([len(scene["objects"]["label"]) for scene in everything(scenes)])
    assert len(counts) == 7 and counts[0] == 0 and counts[1:].min() > 30
    for scene in everything(scenes):
        assert scene["image"].shape == (64, 64, 3) and scene["image"].dtype == np.uint8


def test_scenes_are_the_same_on_every_machine(scenes):
    """The digest of the version; where it changes, VERSION must."""
    digest = hashlib.sha256()
    order = lambda scene: scene["image"].tobytes()  # TFDS shuffles
    for scene in sorted(everything(scenes), key=order):
        digest.update(scene["image"].tobytes() + scene["instance_mask"].tobytes())
        digest.update(scene["objects"]["row"].tobytes())
        digest.update(b"\n".join(scene["captions"]["text"]))
    assert digest.hexdigest()[:16] == "7d12ea4af1216b1f"


def test_no_digit_of_a_test_scene_is_in_a_training_scene(scenes):
    with gzip.open(digits.digits_file(), "rt") as file:
        shipped = [int(row[-1]) for row in csv.reader(file)]
    used = {}
    for split, examples in scenes.items():
        rows = np.concatenate([scene["objects"]["row"] for scene in examples])
        labels = np.concatenate([scene["objects"]["label"] for scene in examples])
        assert [shipped[row] for row in rows] == labels.tolist()
        used[split] = set(rows.tolist())
    # The rule of the digits' split: of each five of a class in the file, the middle one is test.
    assert all(row % 5 == 2 for row in used["test"])
    assert all(row % 5 != 2 for row in used["train"])


def test_boxes_are_tight_around_the_instances_and_masks_agree(scenes):
    for scene in everything(scenes):
        instances, classes = scene["instance_mask"][..., 0], scene["segmentation_mask"][..., 0]
        labels = scene["objects"]["label"]
        assert set(np.unique(instances)) == set(range(len(labels) + 1))
        np.testing.assert_array_equal(classes, np.array([0, *(labels + 1)])[instances])
        for number, box in enumerate(boxes(scene), 1):
            ys, xs = np.nonzero(instances == number)
            np.testing.assert_allclose(box, [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])


def test_ink_has_the_colour_that_is_said(scenes):
    rgb = np.array(list(COLOURS.values()))
    for scene in everything(scenes):
        for number, colour in enumerate(scene["objects"]["colour"], 1):
            ink = scene["image"][scene["instance_mask"][..., 0] == number]
            seen = np.median(ink, axis=0)
            assert np.abs(rgb - seen).sum(1).argmin() == colour


def test_sizes_differ_and_overlap_is_limited(scenes):
    for scene in everything(scenes):
        x0, y0, x1, y1 = boxes(scene).T
        sizes = np.maximum(x1 - x0, y1 - y0)
        assert sizes.min() >= 14 and sizes.max() <= 32
        assert (np.diff(sizes) <= -3).all()  # from the largest to the smallest
        area = (x1 - x0) * (y1 - y0)
        for i in range(len(area)):
            for j in range(i):
                width = min(x1[i], x1[j]) - max(x0[i], x0[j])
                height = min(y1[i], y1[j]) - max(y0[i], y0[j])
                shared = max(width, 0) * max(height, 0)
                assert shared <= min(area[i], area[j]) / 4 + 1e-3


def test_pairs_of_colour_and_digit_are_unique(scenes):
    for scene in everything(scenes):
        pairs = list(zip(scene["objects"]["colour"], scene["objects"]["label"], strict=True))
        assert len(set(pairs)) == len(pairs)


NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def claims_hold(sentence, scene):
    """The sentence read word by word, by another program than the one that made it."""
    names = [list(COLOURS)[colour] for colour in scene["objects"]["colour"]]
    things = list(zip(names, scene["objects"]["label"].tolist(), boxes(scene), strict=True))
    words = sentence.split()
    named = []
    for place, word in enumerate(words):
        if word in COLOURS:
            (thing,) = (t for t in things if t[:2] == (word, NUMBERS.index(words[place + 1])))
            named.append(thing[2])
    size = lambda b: max(b[2] - b[0], b[3] - b[1])
    x, y = (lambda b: (b[0] + b[2]) / 2), (lambda b: (b[1] + b[3]) / 2)
    everyone = [thing[2] for thing in things]
    lead = lambda value, box: (
        value(box) - max([value(other) for other in everyone if other is not box], default=-np.inf)
    )
    if "one digit" in sentence or "only digit" in sentence:
        return len(things) == 1
    if " in the " in sentence:
        (box,) = named
        right = (x(box) - 32) * (1 if words[-1] == "right" else -1) >= 4
        return right and (y(box) - 32) * (1 if words[-2] == "lower" else -1) >= 4
    if sentence.startswith("there are"):
        return words[2] == NUMBERS[len(things)] and lead(size, named[0]) >= 3
    if sentence.startswith("the largest"):
        return lead(size, named[0]) >= 3 and lead(lambda b: -size(b), named[1]) >= 3
    if sentence.startswith("from left to right"):
        return len(named) == len(things) and (np.diff([x(box) for box in named]) >= 4).all()
    if sentence.startswith("the "):
        sign = {"leftmost": (x, -1), "rightmost": (x, 1), "highest": (y, -1), "lowest": (y, 1)}
        value, factor = sign[words[1]]
        return lead(lambda b: factor * value(b), named[0]) >= 4
    a, b = named
    across, down = x(b) - x(a), y(b) - y(a)
    main, other = (down, across) if {"above", "below"} & set(words) else (across, down)
    factor = 1 if {"above", "left"} & set(words) else -1
    return main * factor >= 4 and abs(main) >= 1.5 * abs(other)


def test_captions_are_true_and_can_be_decided(scenes):
    kinds = set()
    for scene in everything(scenes):
        sentences = [text.decode() for text in scene["captions"]["text"]]
        assert 2 <= len(sentences) == len(set(sentences))
        for sentence in sentences:
            assert claims_hold(sentence, scene), sentence
            words = ["a" if word == "an" else word for word in sentence.split()]
            kinds.add(" ".join(word for word in words if word not in {*COLOURS, *NUMBERS}))
    # Two of one digit and its four places; count, sizes, four relations, four ends, two lists.
    assert len(kinds) == 18
