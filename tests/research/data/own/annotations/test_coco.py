"""What people's COCO files hold: the boxes of the file that a row names, or one line why not."""

import json
import unicodedata

import cv2
import numpy as np
import pytest

from research.data import datasets
from research.data.own.annotations import coco
from research.data.tasks import detection
from research.errors import UserError


def paint(file, value=0):
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), np.full((20, 30, 3), value, np.uint8))


def content(*names, **changes):
    """One box an image, whose left edge is the image's number."""
    rows = {
        "images": [
            {"id": 5 + k, "file_name": name, "width": 30, "height": 20}
            for k, name in enumerate(names)
        ],
        "annotations": [
            {"id": k, "image_id": 5 + k, "category_id": 1, "bbox": [k, 2, 10, 6], "iscrowd": 0}
            for k in range(len(names))
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    for place, value in changes.items():
        kind, number, field = place.split("_", 2)
        rows[kind][int(number)][field] = value
    return rows


def write(folder, rows, name="boxes.json"):
    (folder / name).write_text(json.dumps(rows))
    return f"{folder / 'im'}:{folder / name}"


def lefts(location):
    """{value of the pixels: left edges} of all images of the training split."""
    dataset = datasets.load(f"coco:{location}", "nowhere", detection.TASK)
    found = {}
    for split in dataset.splits.values():
        for k in range(len(split)):
            example = split[k]
            found[int(example["image"][0, 0, 0])] = example["boxes"][:, 0].tolist()
    return found


def test_one_name_in_several_folders_is_told_apart(tmp_path):
    for k, name in enumerate(["cam_a/0.png", "cam_b/0.png", "cam_b/1.png"]):
        paint(tmp_path / "im" / name, 50 * k)
    location = write(tmp_path, content("cam_a/0.png", "cam_b/0.png", "cam_b/1.png"))
    assert lefts(location) == {0: [0], 50: [1], 100: [2]}
    # cam_c/1.png is absent: cam_b/1.png is another picture.
    location = write(tmp_path, content("cam_a/0.png", "cam_c/1.png"))
    with pytest.raises(UserError, match=r"1 of 2 images are not in .*im: cam_c/1.png"):
        coco.read(location)
    with pytest.raises(UserError, match=r"image 0.png: 0.png is not in .*, and several are called"):
        coco.read(write(tmp_path, content("0.png")))


@pytest.mark.parametrize("prefix", ["im/", "im\\", "train2017/", ""])
def test_names_may_begin_elsewhere_when_all_do(prefix, tmp_path):
    for k in range(3):
        paint(tmp_path / "im" / f"{k}.png", 50 * k)
    location = write(tmp_path, content(*(f"{prefix}{k}.png" for k in range(3))))
    assert lefts(location) == {0: [0], 50: [1], 100: [2]}


def test_macos_writes_accents_apart(tmp_path):
    paint(tmp_path / "im" / unicodedata.normalize("NFD", "café.png"))
    paint(tmp_path / "im" / "b.png", 50)
    assert lefts(write(tmp_path, content("café.png", "b.png"))) == {0: [0], 50: [1]}


def test_what_roboflow_exports(tmp_path):
    # Its COCO export: a folder a split, images beside _annotations.coco.json, and a category 0 that
    # is named after the project and has no objects (roboflow.com/formats/coco-json). Made here.
    for number, split in enumerate(["train", "valid", "test"]):
        paint(tmp_path / split / f"{split}_jpg.rf.0a1b.png", 50 * number)
        rows = content(f"{split}_jpg.rf.0a1b.png", annotations_0_bbox=[number, 0, 5, 5])
        rows["categories"].insert(0, {"id": 0, "name": "cat", "supercategory": "none"})
        write(tmp_path / split, rows, "_annotations.coco.json")
    dataset = datasets.load(f"coco:{tmp_path}", "nowhere", detection.TASK)
    assert dataset.class_names == ("cat", "dog")
    found = {s: (part[0]["boxes"][0, 0], part[0]["classes"]) for s, part in dataset.splits.items()}
    assert found == {"train": (0, [0]), "validation": (1, [0]), "test": (2, [0])}


def test_what_is_left_out_is_counted(tmp_path):
    for name in (
        "0.png",
        "1.png",
        "2.png",
        "._0.png",
        "__MACOSX/0.png",
        ".ipynb_checkpoints/0.png",
    ):
        paint(tmp_path / "im" / name)
    (tmp_path / "im" / "3.png").symlink_to("gone.png")
    rows = content("0.png", "1.png")
    rows["annotations"] += [dict(rows["annotations"][0], id=7)]
    dataset = datasets.load(f"coco:{write(tmp_path, rows)}", "nowhere", detection.TASK)
    assert dataset.citation.endswith(
        "boxes: 3 found, 2 used, 1 left out (written twice: 1); images: 7 found, 2 used, 5 left "
        "out (hidden or of the system: 3, links to what is not there: 1, in no JSON: 1)"
        "; a fifth, evenly spaced, is the test split"
    )


REFUSED = {
    "image 2, 1.png: has the id 5, as 0.png before it": {"images_1_id": 5},
    "image 2, 1.png: its height is null, no whole number": {"images_1_height": None},
    'image 2, 1.png: its width is "30", no whole number': {"images_1_width": "30"},
    "image 2, 1.png: its width is 0; it must be above 0, below 2^31": {"images_1_width": 0},
    "image 2: its file_name is 7, no text": {"images_1_file_name": 7},
    "image ./0.png: is there twice": {"images_1_file_name": "./0.png"},
    "'../1.png' leads out of": {"images_1_file_name": "../1.png"},
    "'/data/1.png' leads out of": {"images_1_file_name": "/data/1.png"},
    "'..\\\\1.png' leads out of": {"images_1_file_name": "..\\1.png"},
    'its bbox is ["24", "13", 4, 4]': {"annotations_1_bbox": ["24", "13", 4, 4]},
    'its bbox is ["2,5", 1, 4, 4]': {"annotations_1_bbox": ["2,5", 1, 4, 4]},
    'annotation 1: its bbox is {"x": 1}': {"annotations_1_bbox": {"x": 1}},
    "annotation 1: its bbox is null": {"annotations_1_bbox": None},
    'annotation 1: its iscrowd is "0", neither 0 nor 1': {"annotations_1_iscrowd": "0"},
    'annotation 1 is of image "6", which is not in images': {"annotations_1_image_id": "6"},
    "annotation 1: its image_id is null": {"annotations_1_image_id": None},
    "category 2 has the id 1, which another has before it": {"categories_1_id": 1},
    "category 2 (id 2): its name is null, no text": {"categories_1_name": None},
    "category 2 (id 2): its name is 3, no text": {"categories_1_name": 3},
    "some ids of categories are numbers, others text": {"categories_1_id": "2"},
}


@pytest.mark.parametrize("message", REFUSED)
def test_rows_with_no_one_meaning_are_named(message, tmp_path):
    for k in range(2):
        paint(tmp_path / "im" / f"{k}.png")
    location = write(tmp_path, content("0.png", "1.png", **REFUSED[message]))
    with pytest.raises(UserError) as caught:
        coco.read(location)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_two_categories_of_one_name_are_refused(tmp_path):
    paint(tmp_path / "im" / "0.png")
    paint(tmp_path / "im" / "1.png")
    changes = {"categories_1_name": "cat", "annotations_1_category_id": 2}
    with pytest.raises(UserError, match="2 categories are called 'cat'"):
        coco.read(write(tmp_path, content("0.png", "1.png", **changes)))
