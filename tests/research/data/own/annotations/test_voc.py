"""What people's VOC folders hold: folders of other names, names with spaces, other numbers."""

import cv2
import numpy as np
import pytest

from research.data import datasets
from research.data.own.annotations import voc
from research.data.tasks import detection
from research.errors import UserError


def paint(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), np.zeros((20, 30, 3), np.uint8))


def describe(file, left=0, name="cat", size=("30", "20"), more="", head=""):
    file.parent.mkdir(parents=True, exist_ok=True)
    box = f"<xmin>{left}</xmin><ymin>2</ymin><xmax>{left + 10}</xmax><ymax>8.5</ymax>"
    file.write_text(
        f"{head}<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>"
        f"<object><name>{name}</name>{more}<bndbox>{box}</bndbox></object></annotation>"
    )


def both(root, images, annotations, *names):
    for number, name in enumerate(names):
        paint(root / images / f"{name}.jpg")
        describe(root / annotations / f"{name}.xml", number)


def lefts(root):
    """{split: {name: left edge}}."""
    return {
        split: {row.image.stem: row.objects.boxes[0, 0].item() for row in rows}
        for split, rows in voc.read(str(root)).splits.items()
    }


@pytest.mark.parametrize(
    ("images", "annotations"),
    [
        ("JPEGImages", "Annotations"),
        ("images", "annotations"),
        ("images", "annots"),
        (".", "annots"),
        (".", "."),
        ("images", "images/deep/.."),
        ("VOCdevkit/VOC2012/JPEGImages", "VOCdevkit/VOC2012/Annotations"),
        ("export/images", "export/xmls"),
    ],
)
def test_folders_by_other_names(images, annotations, tmp_path):
    both(tmp_path, images, annotations, "IMG 1", "IMG 2")
    paint(tmp_path / "__MACOSX" / images / "._IMG 1.jpg")
    assert lefts(tmp_path) == {"train": {"IMG 1": 0, "IMG 2": 1}}


def test_what_roboflow_exports(tmp_path):
    # Its Pascal VOC export: images and XML files beside each other in a folder a split
    # (roboflow.com/formats/pascal-voc-xml). Made here.
    for split in ("train", "valid", "test"):
        both(tmp_path, split, split, f"{split}_jpg.rf.0a1b")
    (tmp_path / "README.roboflow.txt").write_text("exported")
    assert lefts(tmp_path) == {
        "train": {"train_jpg.rf.0a1b": 0},
        "validation": {"valid_jpg.rf.0a1b": 0},
        "test": {"test_jpg.rf.0a1b": 0},
    }


def test_what_cvat_exports(tmp_path):
    # Its PASCAL VOC export: labelmap.txt, and lists by the names of its subsets, "default" where
    # there are none, for each class too (docs.cvat.ai, "Pascal VOC"). Made here.
    both(tmp_path, "JPEGImages", "Annotations", "frame_000000", "frame_000001")
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "default.txt").write_text("frame_000000\nframe_000001\n")
    (tmp_path / "ImageSets" / "Main" / "cat_default.txt").write_text("frame_000000 1\n")
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\ncat:128,0,0::\n")
    more = "<truncated>0</truncated><occluded>0</occluded><difficult>1</difficult>"
    describe(tmp_path / "Annotations" / "frame_000001.xml", 1, more=more)
    assert lefts(tmp_path) == {"train": {"frame_000000": 0, "frame_000001": 1}}
    (image,) = voc.read(str(tmp_path)).splits["train"][1:]
    assert image.objects.crowd.tolist() == [True]


def lists(root, **texts):
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for name, text in texts.items():
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text(text)


def test_names_in_lists_may_hold_spaces(tmp_path):
    both(tmp_path, "JPEGImages", "Annotations", "IMG", "IMG 1", "IMG 2", "IMG 3")
    lists(tmp_path, train="IMG 1\nIMG 2  1\nIMG 1\n", val="IMG -1\n")
    assert lefts(tmp_path) == {"train": {"IMG 1": 1, "IMG 2": 2}, "validation": {"IMG": 0}}
    found = datasets.load(f"voc:{tmp_path}", "nowhere", detection.TASK)
    assert "images listed twice, taken once: 1" in found.citation
    assert "images: 4 found, 3 used, 1 left out (in no list: 1)" in found.citation


def test_names_that_are_listed_and_absent_are_named(tmp_path):
    both(tmp_path, "JPEGImages", "Annotations", "IMG", "IMG 1")
    lists(tmp_path, train="IMG 1\nIMG 7\n")
    with pytest.raises(UserError, match=r"1 images of train have no .xml file in .*: IMG 7"):
        voc.read(str(tmp_path))


def test_sizes_and_boxes_may_be_written_as_fractions(tmp_path):
    paint(tmp_path / "a.jpg")
    describe(tmp_path / "a.xml", size=("30.0", " 20.00 "))
    (row,) = voc.read(str(tmp_path)).splits["train"]
    assert row.size == (20, 30) and row.objects.boxes.tolist() == [[0, 2, 10, 8.5]]


def test_files_may_say_their_encoding(tmp_path):
    paint(tmp_path / "a.jpg")
    describe(tmp_path / "a.xml", head='<?xml version="1.0" encoding="ISO-8859-1"?>', name="?")
    data = (tmp_path / "a.xml").read_bytes().replace(b"<name>?", b"<name>ch\xeavre")
    (tmp_path / "a.xml").write_bytes(data)
    assert voc.read(str(tmp_path)).class_names == ("chêvre",)


SWELLING = '<!DOCTYPE a [<!ENTITY x "cat"><!ENTITY y "&x;&x;&x;&x;">]>'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": ("30.5", "20")}, "the image's size, 30.5 x 20, is not in whole pixels"),
        ({"size": ("0", "20")}, "does not say the image's size"),
        ({"size": ("nan", "20")}, "does not say the image's size"),
        ({"name": " "}, "an object has no name"),
        ({"more": "<difficult>perhaps</difficult>"}, "difficult is 'perhaps', neither 0 nor 1"),
        ({"head": SWELLING, "name": "&y;"}, "is no VOC annotation (EntitiesForbidden"),
        ({"head": '<?xml version="1.0" encoding="none"?>'}, "is no VOC annotation"),
    ],
)
def test_files_that_cannot_be_understood_are_named(change, message, tmp_path):
    paint(tmp_path / "a.jpg")
    describe(tmp_path / "a.xml", **change)
    with pytest.raises(UserError) as caught:
        voc.read(str(tmp_path))
    assert message in str(caught.value) and f"{tmp_path}/a.xml: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_one_level_down_are_not_overlooked(tmp_path):
    both(tmp_path, "pictures", "boxes", "a")
    with pytest.raises(UserError, match=r"boxes/a.xml: has no image in"):
        voc.read(str(tmp_path))
