"""A person's own pictures and masks: pairs, class tables, what is refused and what is left out."""

from collections import Counter

import numpy as np
import PIL.Image
import pytest
import toys

from research.data import datasets
from research.data.images.masks import (
    IGNORE,
    save_mask,
)
from research.data.own.masks import load, pair_up
from research.data.tasks import segmentation
from research.errors import UserError

VALUES = np.array([[0, 1, 2], [2, 2, 0]], "u1")
COLOURS = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0)}


def as_colours(values):
    return PIL.Image.fromarray(np.array([COLOURS[v] for v in values.flat], "u1").reshape(2, 3, 3))


def save(folder, name, values):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(values).save(folder / name)


def make(root, count=5, suffix="", values=VALUES, split=""):
    images, masks = root / "images" / split, root / "masks" / split
    for i in range(count):
        save(images, f"{i}.png", np.full((2, 3), 20 * i, "u1"))
        save(masks, f"{i}{suffix}.png", values)
    return f"{root / 'images'}:{root / 'masks'}"


@pytest.mark.parametrize("suffix", ["", "_label"])
def test_one_s_own_pictures(tmp_path, suffix):
    dataset = datasets.load(f"masks:{make(tmp_path, 10, suffix)}", tmp_path, segmentation.TASK)
    assert dataset.class_names == ("class 0", "class 1", "class 2")
    assert dataset.image_shape == (2, 3, 1)
    assert {k: len(v) for k, v in dataset.splits.items()} == {"train": 8, "test": 2}
    held = [int(dataset.splits["test"][i]["image"][0, 0, 0]) // 20 for i in range(2)]
    assert held == [2, 7]  # the middle of each five
    np.testing.assert_array_equal(dataset.splits["train"][0]["segmentation"], VALUES)
    assert segmentation.inspect(dataset) == []


def test_folders_of_splits_binary_masks_and_ignored_values(tmp_path):
    make(tmp_path, 3, values=(VALUES > 0).astype("u1") * 255, split="train")
    rest = make(tmp_path, 2, values=VALUES * 0, split="val")
    dataset = load(rest)
    assert dataset.class_names == ("background", "foreground")
    assert {k: len(v) for k, v in dataset.splits.items()} == {"train": 3, "validation": 2}
    assert dataset.splits["train"][0]["segmentation"].tolist() == [[0, 1, 1], [1, 1, 0]]
    assert segmentation.inspect(dataset) == [
        f"masks:{rest}, validation: class 'foreground' never occurs"
    ]
    other = tmp_path / "other"
    dataset = load(make(other, 5, values=np.array([[0, 1, 9], [1, 1, 0]], "u1")), ignore_label=9)
    assert dataset.splits["train"][0]["segmentation"].tolist() == [[0, 1, 255], [1, 1, 0]]


def test_a_class_table_names_colours_and_the_class_that_never_occurs(tmp_path, capsys):
    rest = make(tmp_path, 5)
    for i in range(5):
        as_colours(VALUES).save(tmp_path / "masks" / f"{i}.png")
    table = tmp_path / "masks" / "classes.txt"
    table.write_text("0 0 0 ground\n0 128 0 tree\n128 0 0 void\n9 9 9 boat\n")
    dataset = load(rest)
    assert dataset.class_names == ("ground", "tree", "boat")
    assert dataset.splits["train"][0]["segmentation"].tolist() == [[0, 255, 1], [1, 1, 0]]
    with pytest.raises(UserError, match=r'--ignore_label=3: .* "void" in the class table'):
        load(rest, ignore_label=3)
    assert "class 'boat' occurs in no mask" in " ".join(capsys.readouterr().out.split())
    problems = segmentation.inspect(dataset)
    assert len(problems) == 2 and "train: class 'boat' never occurs" in problems[0]
    table.rename(tmp_path / "table.csv")
    assert load(f"{rest}:{tmp_path / 'table.csv'}").class_names == dataset.class_names


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda p: (p / "masks/3.png").unlink(),
            r"images/3\.png: has no mask of that name .*1 of 5",
        ),
        (lambda p: (p / "images/3.png").unlink(), r"masks/3\.png: has no image of that name"),
        (
            lambda p: save(p / "masks", "1.png", np.zeros((3, 3), "u1")),
            r"masks/1\.png: is 3 x 3 pixels, its image .*images/1\.png 3 x 2",
        ),
        (
            lambda p: save(p / "masks", "4.png", VALUES + 200),
            r"masks/4\.png: has the value 202, yet only 6 values occur .*class table",
        ),
        (
            lambda p: (p / "masks/classes.txt").write_text("0 sky\n1 sea\n"),
            r"masks/0\.png: value 2 \(3 pixels\) is none of the 2 classes \(0 to 1; 255 ignored\)",
        ),
        (lambda p: (p / "masks/2.png").write_bytes(b"x"), r"masks/2\.png: is damaged"),
        (lambda p: (p / "images/2.png").write_bytes(b"x"), r"images/2\.png: is damaged"),
        (lambda p: save(p / "images", "2.jpg", VALUES), r"has the same name beside it"),
        (lambda p: [f.unlink() for f in (p / "images").iterdir()], "holds no images"),
        (
            lambda p: [save(p / "masks", f"{i}.png", VALUES * 0) for i in range(5)],
            "every mask is background alone; there is nothing to learn",
        ),
    ],
    ids=[
        "no mask",
        "no image",
        "size",
        "value",
        "table",
        "bad mask",
        "bad image",
        "twice",
        "empty",
        "background",
    ],
)
def test_bad_pairs_are_named(tmp_path, spoil, message):
    rest = make(tmp_path, 5)
    spoil(tmp_path)
    with pytest.raises(UserError, match=message):
        load(rest)


def test_bad_names_of_folders(tmp_path):
    rest = make(tmp_path, 5)
    for wrong, message in {
        rest.split(":")[0]: "write masks:IMAGES_DIR:MASKS_DIR",
        rest + "x": "is no folder",
        rest + ":nowhere.txt": "nowhere.txt: cannot be read",
    }.items():
        with pytest.raises(UserError, match=message):
            load(wrong)
    (tmp_path / "images" / "train").mkdir()
    with pytest.raises(UserError, match="has a folder train"):
        load(rest)


def test_what_cannot_be_read_is_left_out_when_asked(tmp_path):
    rest = make(tmp_path, 6)
    (tmp_path / "masks" / "2.png").write_bytes(b"x")
    with pytest.raises(UserError, match="--skip_corrupt leaves such pairs out"):
        load(rest)
    dataset = load(rest, skip_corrupt=True)
    assert sum(len(split) for split in dataset.splits.values()) == 5
    assert "1 left out (unreadable, or their mask: 1)" in dataset.citation


def test_pairs_sort_naturally(tmp_path):
    make(tmp_path, 11)
    pairs = pair_up(tmp_path / "images", tmp_path / "masks", Counter())
    assert [p[0].rpartition("/")[2] for p in pairs] == [f"{i}.png" for i in range(11)]


def test_masks_painted_on_pictures_as_they_are_stored_are_named(tmp_path):
    rest = make(tmp_path, 5)
    tall = np.zeros((8, 6, 3), np.uint8)
    (tmp_path / "images" / "2.png").unlink()
    toys.save_turned(tmp_path / "images" / "2.jpg", tall)
    save_mask(tmp_path / "masks" / "2.png", np.ones((6, 8), np.uint8))
    with pytest.raises(UserError, match=r"2\.png: was painted on .*2\.jpg as it is stored, 8 x 6"):
        load(rest)
    save_mask(tmp_path / "masks" / "2.png", np.ones((8, 6), np.uint8))
    dataset = load(rest)
    sizes = {
        x["image"].shape[:2] for s in dataset.splits.values() for x in (s[i] for i in range(len(s)))
    }
    assert (8, 6) in sizes


@pytest.mark.parametrize("name", ["unlabelled", "Unlabeled area", "don't care", "no data"])
def test_a_class_that_is_none_by_its_name_is_told_of(name, tmp_path, capsys):
    rest = make(tmp_path)
    table = tmp_path / "classes.txt"
    table.write_text(f"\ufeff0 grass\n1 cow\n2 {name}\n", encoding="utf-8")  # Notepad's mark
    assert load(rest).class_names == ("grass", "cow", name)
    line = f"{table}: {name!r} is trained as a class; --ignore_label=2 makes it count for nothing"
    assert line in capsys.readouterr().out
    dataset = load(rest, ignore_label=2)
    assert dataset.splits["train"][0]["segmentation"][0].tolist() == [0, 1, IGNORE]
    assert "trained as a class" not in capsys.readouterr().out
    table.write_text("0 grass\n1 cow\n2 unavoidable\n")
    load(rest)
    assert "trained as a class" not in capsys.readouterr().out


def test_a_split_of_ignored_pixels_alone_is_not_evaluated(tmp_path, capsys):
    for split in ("train", "val", "test"):
        rest = make(tmp_path, 2, values=np.full((2, 3), 255, "u1") if split == "val" else VALUES,
                    split=split)  # fmt: skip
    rest = f"{tmp_path}/images:{tmp_path}/masks"
    dataset = load(rest)
    assert set(dataset.splits) == {"train", "test"}
    said = capsys.readouterr().out
    assert "validation is not evaluated: every pixel of it is ignored" in said
    assert "6 found, 4 used, 2 left out (of a split that is all ignored: 2)" in said
    save(tmp_path / "masks" / "test", "0.png", np.full((2, 3), 255, "u1"))
    save(tmp_path / "masks" / "test", "1.png", np.full((2, 3), 255, "u1"))
    with pytest.raises(UserError, match="every pixel of"):
        load(rest)
