"""What people's YOLO folders hold: the places that data.yaml names, and what follows a box."""

import cv2
import numpy as np
import pytest

from research.data import datasets
from research.data.own.annotations import yolo
from research.data.tasks import detection
from research.errors import UserError


def paint(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        cv2.imwrite(str(folder / f"{name}.png"), np.zeros((100, 200, 3), np.uint8))


def label(folder, **lines):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in lines.items():
        (folder / f"{name}.txt").write_text(text)


def describe(root, text="", names="names: [cat, dog]"):
    root.mkdir(parents=True, exist_ok=True)
    (root / "data.yaml").write_text(f"{names}\n{text}")
    return str(root)


def boxes(location):
    """{split: {name: boxes in pixels of 200 x 100}}."""
    found = {}
    for split, images in yolo.read(location).splits.items():
        found[split] = {
            row.image.stem: (row.objects.boxes * [200, 100, 200, 100]).round(3).tolist()
            for row in images
        }
    return found


BOX, CORNERS = "1 0.5 0.5 0.2 0.4", [80.0, 30.0, 120.0, 70.0]
INSIDE = " 0.45 0.5 2 0.55 0.6 1 0 0 0"  # three key points, one of them not marked


@pytest.mark.parametrize(
    ("shape", "points"),
    [
        ("[3, 3]", INSIDE),
        ("[17, 3]", INSIDE + " 0 0 0" * 14),
        ("[7, 2]", " 0.45 0.5" * 7),
        ("[2, 2]", " 0.9 0.9 0.1 0.1"),
    ],
)
def test_key_points_follow_the_box(shape, points, tmp_path):
    paint(tmp_path / "images", "a")
    label(tmp_path / "labels", a=BOX + points)
    location = describe(tmp_path, f"kpt_shape: {shape}")
    assert boxes(location) == {"train": {"a": [CORNERS]}}
    label(tmp_path / "labels", a=BOX)
    with pytest.raises(UserError, match=r"a.txt, line 1: has 4 numbers after the class; 4 and the"):
        boxes(location)


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (" 0.9", "has 5 numbers after the class"),  # a confidence
        (" 0.9 12", "12 is no share of the image"),  # and a track
        (" 0.9 1", "may be a polygon, or a box and a confidence and a track"),
        (INSIDE, "has 13 numbers after the class"),
        (" 0.45 0.5 2 0.55 0.6 1", "2 is no share of the image"),
        (" 0.45 0.5 1 0.55 0.6 1", "each line of 10 numbers after the class may be a polygon, or a "
         "box and 2 key points"),
        (" 0.45 0.5" * 7, "each line of 18 numbers after the class may be a polygon, or a box and "
         "7 key points"),
    ],
)  # fmt: skip
def test_what_follows_a_box_is_no_polygon(after, message, tmp_path):
    paint(tmp_path / "images", "a", "b")
    label(tmp_path / "labels", a=BOX + after, b="")
    with pytest.raises(UserError) as caught:
        boxes(describe(tmp_path))
    assert message in str(caught.value) and "a.txt, line 1" in str(caught.value)


def test_polygons_are_told_from_boxes_with_points_by_any_line_or_by_data_yaml(tmp_path):
    paint(tmp_path / "images", "a")
    inside = BOX + " 0.45 0.5 0.55 0.6"  # as polygon: x from 0.2 to 0.55, y from 0.4 to 0.6
    label(tmp_path / "labels", a=f"{inside}\n0 0.1 0.1 0.2 0.1 0.9 0.2 0.1 0.2")
    expected = [[40.0, 40.0, 110.0, 60.0], [20.0, 10.0, 180.0, 20.0]]
    assert boxes(describe(tmp_path)) == {"train": {"a": expected}}
    label(tmp_path / "labels", a=inside)
    assert boxes(describe(tmp_path, "task: segment")) == {"train": {"a": expected[:1]}}


def split_folders(root, layout, splits=("train", "val")):
    for split in splits:
        paint(root / layout.format("images", split), split)
        label(root / layout.format("labels", split), **{split: BOX})


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        # Ultralytics' coco8.yaml, with a path that is not on this machine, and without one.
        ("{0}/{1}", "path: /datasets/elsewhere\ntrain: images/train\nval: images/val\ntest: #"),
        ("{0}/{1}", "path: .\ntrain: [images/train]\nval: images/val"),
        # Roboflow's, whose ../ are wrong unless the file lies one folder deeper.
        ("{1}/{0}", "train: ../train/images\nval: ../val/images"),
        ("{1}/{0}", "train: train\nval: val/images"),
    ],
)
def test_places_of_data_yaml(layout, text, tmp_path):
    split_folders(tmp_path, layout, ["train", "val", "other"])
    location = describe(tmp_path, text)
    expected = {"train": {"train": [CORNERS]}, "validation": {"val": [CORNERS]}}
    assert boxes(location) == expected
    (tmp_path / "data.yaml").rename(tmp_path / "birds.yaml")
    assert boxes(location) == expected
    assert boxes(f"{location}/birds.yaml") == expected


def test_data_yaml_alone_leads_outside_its_folder_and_only_where_it_is_named(tmp_path):
    split_folders(tmp_path / "far", "{0}/{1}")
    location = describe(tmp_path / "here", "path: ../far\ntrain: images/train\nval: images/val")
    with pytest.raises(UserError, match=r"far is outside of .*here; --dataset=yolo:.*yaml allows"):
        boxes(location)
    assert boxes(f"{location}/data.yaml")["validation"] == {"val": [CORNERS]}
    (tmp_path / "here" / "train.txt").write_text("../far/images/train/train.png\n")
    with pytest.raises(UserError, match=r"train.txt, line 1: .* leads out of"):
        boxes(describe(tmp_path / "here", "train: train.txt"))


def test_lists_of_images_and_of_folders(tmp_path):
    for folder in ("a", "b"):
        paint(tmp_path / "images" / folder, f"{folder}1", f"{folder}2")
        label(tmp_path / "labels" / folder, **{f"{folder}1": BOX, f"{folder}2": BOX})
    location = describe(tmp_path, "train: train.txt\nval: [images/a, images/b]")
    (tmp_path / "train.txt").write_text("./images/a/a1.png\nimages/b/b2.png\n\nimages/b/b2.png\n")
    found = boxes(location)
    assert found["train"] == {"a1": [CORNERS], "b2": [CORNERS]}
    assert list(found["validation"]) == ["a1", "a2", "b1", "b2"]
    assert yolo.read(location).notes == ("images listed twice, taken once: 1",)
    (tmp_path / "train.txt").write_text("images/a/a1.png\nimages/a/a3.png\n")
    with pytest.raises(UserError, match=r"1 of 2 images are not in .*: images/a/a3.png"):
        boxes(location)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("names: [no, yes, 1, 0.10, null, 2026-01-01]", "no yes 1 0.10 null 2026-01-01"),
        ("names: {0: off, '1': on}", "off on"),
        ("names:\n  - no\n  - on", "no on"),
    ],
)
def test_names_are_text_whatever_yaml_takes_them_for(names, expected, tmp_path):
    paint(tmp_path / "images", "a")
    label(tmp_path / "labels", a=BOX)
    assert yolo.read(describe(tmp_path, names=names)).class_names == tuple(expected.split())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nc: 3", "says nc: 3, and names 2 classes"),
        ("train: images/gone", "images/gone is not there"),
        ("train: ../images", "is there too; write which by its whole path"),
        ("val: images", "names validation, but no train"),
        ("path: gone\ntrain: gone", "its path gone is no folder"),
        ("train: data.yaml", "neither a folder nor a .txt list"),
        ("train: {a: b}", "its train is no path and no list of paths"),
        ("kpt_shape: [17]", "its kpt_shape is not"),
        ("nc: 2\nnc: 3", "says nc twice"),
        ("task: " + "[" * 3000, "nested too deeply"),
        # Nine lines like this are a billion names.
        ("a: &a [x, x]\ntask: [*a, *a]", "an alias, *NAME, is not read here"),
        ("train: /", "/ is outside of "),
        ("train: images\nval: images\nvalid: images", "has both val and valid"),
    ],
)
def test_data_yaml_that_disagrees_is_refused(text, message, tmp_path):
    paint(tmp_path / "set" / "images", "a")
    paint(tmp_path / "images", "b")
    label(tmp_path / "set" / "labels", a=BOX)
    with pytest.raises(UserError) as caught:
        yolo.read(describe(tmp_path / "set", text))
    assert message in str(caught.value) and "data.yaml" in str(caught.value)


@pytest.mark.parametrize("names", ["names: [a, a]", "names: {0: a, 0: b}", "names: [a, '']"])
def test_names_that_tell_nothing_apart_are_refused(names, tmp_path):
    paint(tmp_path / "images", "a")
    with pytest.raises(UserError, match=r"data.yaml: (names|says 0 twice)"):
        yolo.read(describe(tmp_path, names=names))


def test_two_descriptions_are_refused(tmp_path):
    paint(tmp_path / "images", "a")
    label(tmp_path / "labels", a=BOX)
    describe(tmp_path)
    (tmp_path / "dataset.yaml").write_text("names: [dog, cat]")
    with pytest.raises(UserError, match=r"data.yaml, dataset.yaml; write which by"):
        yolo.read(str(tmp_path))
    assert yolo.read(f"{tmp_path}/dataset.yaml").class_names == ("dog", "cat")


def test_endings_in_capitals_hidden_files_and_repeated_lines(tmp_path):
    paint(tmp_path / "images", "a", "b")
    label(tmp_path / "labels", a="", b=f"{BOX}\n{BOX}\n0 0.5 0.5 0.2 0.4")
    (tmp_path / "labels" / "a.txt").rename(tmp_path / "labels" / "a.TXT")
    (tmp_path / "labels" / "a.TXT").write_text(BOX)
    (tmp_path / "labels" / "._a.txt").write_bytes(b"\0\5\x16\7")
    (tmp_path / "images" / "._a.png").write_bytes(b"\0\5\x16\7")
    dataset = datasets.load(f"yolo:{describe(tmp_path)}", "nowhere", detection.TASK)
    assert "boxes: 4 found, 3 used, 1 left out (written twice: 1)" in dataset.citation
    assert "images: 3 found, 2 used, 1 left out (hidden or of the system: 1)" in dataset.citation
    assert dataset.splits["train"][0]["classes"].tolist() == [1]


def test_a_set_without_any_object_is_refused(tmp_path):
    paint(tmp_path / "images", "a", "b")
    label(tmp_path / "labels", a="", b="\n")
    with pytest.raises(UserError, match="no image of it holds an object"):
        datasets.load(f"yolo:{describe(tmp_path)}", "nowhere", detection.TASK)
