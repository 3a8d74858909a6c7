"""What other tools export, unpacked as people unpack it, gives its boxes, classes and splits.

The layouts are those of the tools' documentation, which each names; all files are made here.
"""

import io
import itertools
import json
import zipfile

import cv2
import numpy as np
import pytest

from research.data import datasets
from research.data.tasks import classification, detection
from research.errors import UserError

YOLO_BOX = "1 0.5 0.5 0.5 0.5\n"
CORNERS = [10.0, 5.0, 30.0, 15.0]  # of 40 x 20 pixels
XML = (
    "<annotation><folder></folder><filename>{0}</filename><size><width>40</width>"
    "<height>20</height><depth>3</depth></size><segmented>0</segmented><object><name>dog</name>"
    "<pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult><occluded>0</occluded>"
    "<bndbox><xmin>10</xmin><xmax>30</xmax><ymin>5</ymin><ymax>15</ymax></bndbox></object>"
    "</annotation>"
)


NUMBERS = itertools.count()


def picture():
    """Another one each time: what was trained on is not evaluated on."""
    shade = 8 * next(NUMBERS) % 256
    return cv2.imencode(".jpg", np.full((20, 40, 3), shade, np.uint8))[1].tobytes()


def unpacked(folder, files, junk=True):
    """An archive of these files, with what macOS and Windows leave beside them, unpacked."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
            if junk:  # AppleDouble files, and what folder views leave
                where, _, last = name.rpartition("/")
                archive.writestr(f"__MACOSX/{where}/._{last}", b"\0\5\x16\7\0\2\0\0Mac OS X")
                for left in (".DS_Store", "Thumbs.db", "desktop.ini"):
                    if f"{where}/{left}".lstrip("/") not in archive.namelist():
                        archive.writestr(f"{where}/{left}".lstrip("/"), b"\xd0\xcf\x11\xe0")
    with zipfile.ZipFile(data) as archive:
        archive.extractall(folder)


def found(name, task=detection.TASK):
    """{split: [(class name, box)] of its images, or their classes}."""
    dataset = datasets.load(name, "nowhere", task)
    splits = {}
    for split, part in dataset.splits.items():
        splits[split] = []
        for k in range(len(part)):
            example = part[k]
            labels = example.get("classes", example.get("label"))
            names = [dataset.class_names[n] for n in np.atleast_1d(labels).tolist()]
            boxes = example.get("boxes", np.zeros((0, 4))).round(3).tolist()
            splits[split] += list(zip(names, boxes, strict=True)) if boxes else names
    return splits


DOG = [("dog", CORNERS)]
THREE = {"train": DOG * 2, "validation": DOG, "test": DOG}
ONE = {"train": DOG * 4, "test": DOG}


def in_splits(image, label, text):
    """Files of two training images, one to validate and one to test."""
    files = {}
    for split, name in (("train", "a"), ("train", "b"), ("valid", "c"), ("test", "d")):
        files[image.format(split=split, name=name)] = picture()
        files[label.format(split=split, name=name)] = text.format(f"{name}.jpg")
    return files


def roboflow_yolo():
    # docs.roboflow.com, "Export data", YOLOv8: data.yaml's ../ are wrong once it is unpacked.
    files = in_splits(
        "{split}/images/{name}_jpg.rf.9f.jpg", "{split}/labels/{name}_jpg.rf.9f.txt", YOLO_BOX
    )
    yaml = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\n"
    yaml += "names: ['cat', 'dog']\n\nroboflow:\n  workspace: me\n  version: 1\n"
    readme = {"README.dataset.txt": "# animals", "README.roboflow.txt": "animals - v1"}
    return "yolo:{0}", {**files, **readme, "data.yaml": yaml}, THREE


def roboflow_coco():
    # docs.roboflow.com, "Export data", COCO JSON.
    files = {}
    for split, names in (("train", "ab"), ("valid", "c"), ("test", "d")):
        rows = {"images": [], "annotations": []}
        for k, name in enumerate(names):
            files[f"{split}/{name}_jpg.rf.9f.jpg"] = picture()
            image = {"id": k, "file_name": f"{name}_jpg.rf.9f.jpg", "height": 20, "width": 40}
            box = {"id": k, "image_id": k, "category_id": 2, "bbox": [10, 5, 20, 10], "area": 200}
            rows["images"].append({**image, "license": 1, "date_captured": "2024-01-01"})
            rows["annotations"].append({**box, "segmentation": [], "iscrowd": 0})
        names = ["animals", "cat", "dog"]
        rows["categories"] = [
            {"id": k, "name": name, "supercategory": "animals" if k else "none"}
            for k, name in enumerate(names)
        ]
        files[f"{split}/_annotations.coco.json"] = json.dumps(rows)
    return "coco:{0}", files, THREE


def roboflow_voc():
    # docs.roboflow.com, "Export data", Pascal VOC XML.
    return "voc:{0}", in_splits("{split}/{name}.jpg", "{split}/{name}.xml", XML), THREE


def cvat_voc():
    # docs.cvat.ai, "Pascal VOC": one list for each subset, "default" where there are none.
    files = {"labelmap.txt": "# label:color_rgb:parts:actions\nbackground:0,0,0::\ndog:128,0,0::\n"}
    for name in "abcde":
        files[f"JPEGImages/frame {name}.jpg"] = picture()
        files[f"Annotations/frame {name}.xml"] = XML.format(f"frame {name}.jpg")
    files["ImageSets/Main/default.txt"] = "".join(f"frame {name}\n" for name in "abcde")
    return "voc:{0}", files, ONE


def cvat_yolo():
    # docs.cvat.ai, "Ultralytics YOLO": data.yaml, and a list of images for each subset.
    files = {"data.yaml": "names:\n  0: cat\n  1: dog\npath: .\ntrain: train.txt\n"}
    for name in "abcde":
        files[f"images/train/{name}.jpg"] = picture()
        files[f"labels/train/{name}.txt"] = YOLO_BOX
    files["train.txt"] = "".join(f"images/train/{name}.jpg\n" for name in "abcde")
    return "yolo:{0}", files, ONE


def cvat_darknet():
    # docs.cvat.ai, "YOLO": obj.data names a list for each of train and valid; its lines begin with
    # data/, the folder that Darknet is run beside. Text files lie beside images.
    data = "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n"
    files = {"obj.data": f"{data}backup = backup/\n", "obj.names": "cat\ndog\n"}
    for split, names in (("train", "ab"), ("valid", "c")):
        folder = f"obj_{split}_data/day 1/images"  # folders of a task are kept
        files[f"{split}.txt"] = "".join(f"data/{folder}/{name}.jpg\n" for name in names)
        for name in names:
            files[f"{folder}/{name}.jpg"], files[f"{folder}/{name}.txt"] = picture(), YOLO_BOX
    return "yolo:{0}", files, {"train": DOG * 2, "validation": DOG}


def ultralytics():
    # docs.ultralytics.com, "Object detection datasets": coco8.yaml beside the folder it names.
    yaml = "path: coco8 # dataset root dir\ntrain: images/train # train images\nval: images/val\n"
    yaml += "test: # test images (optional)\n\nnames:\n  0: cat\n  1: dog\n\n"
    yaml += "download: https://example.com/coco8.zip\n"
    files = {"coco8.yaml": yaml, "coco8/LICENSE": "AGPL-3.0", "coco8/README.md": "# COCO8"}
    for split, names in (("train", "ab"), ("val", "c")):
        for name in names:
            files[f"coco8/images/{split}/{name}.jpg"] = picture()
            files[f"coco8/labels/{split}/{name}.txt"] = YOLO_BOX
    return "yolo:{0}/coco8.yaml", files, {"train": DOG * 2, "validation": DOG}


def lightly():
    # github.com/lightly-ai/labelformat, YOLOv8 output: one split, path ".".
    files = {"data.yaml": "names:\n  0: cat\n  1: dog\nnc: 2\npath: .\ntrain: images\n"}
    for name in "abcde":
        files[f"images/{name}.jpg"] = picture()
        files[f"labels/{name}.txt"] = YOLO_BOX
    return "yolo:{0}", files, ONE


def labelme():
    # github.com/wkentaro/labelme, examples/bbox_detection: a JSON file beside each image.
    files = {}
    for name in "abcde":
        shape = {"label": "dog", "points": [[10, 5], [30, 15]], "group_id": None, "flags": {}}
        content = {
            "version": "5.5.0",
            "flags": {},
            "shapes": [{**shape, "shape_type": "rectangle", "description": ""}],
            "imagePath": f"{name}.jpg",
            "imageData": None,
            "imageHeight": 20,
            "imageWidth": 40,
        }
        files[f"{name}.jpg"], files[f"{name}.json"] = picture(), json.dumps(content)
    return "labelme:{0}", files, ONE


EXPORTS = (
    roboflow_yolo, roboflow_coco, roboflow_voc, cvat_voc, cvat_yolo, cvat_darknet, ultralytics,
    lightly, labelme,
)  # fmt: skip


@pytest.mark.parametrize("junk", [False, True])
@pytest.mark.parametrize("export", EXPORTS)
def test_boxes_as_other_tools_export_them(export, junk, tmp_path):
    name, files, expected = export()
    unpacked(tmp_path, files, junk)
    assert found(name.format(tmp_path)) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("obj.data", "names = obj.names\n", r"obj\.data: needs train = FILE"),
        (
            "obj.data",
            "train train.txt\n",
            r"obj\.data, line 1: 'train train.txt' is no KEY",
        ),
        ("obj.data", "train = a\ntrain = b\n", r"obj\.data, line 2: 'train = b' says it twice"),
        ("obj.data", "train = train.txt\nnames = no\n", r"obj\.data: no is not there"),
        ("obj.data", "train = ../a\nnames = obj.names\n", r"obj\.data: \.\./a leads out of"),
        ("obj.data", "night = a.txt\n", r"obj\.data: has night; train, valid, test are the parts"),
        ("obj.names", "cat\n", r"obj\.data: says classes = 2, and names 1"),
        ("obj.names", "cat\ncat\n", r"obj\.names: names two classes alike"),
        ("obj.names", "\n", r"obj\.names: is empty; write a class a line"),
        ("train.txt", "data/a.jpg\n", r"train\.txt: 1 of 1 images are not in"),  # not saved with it
        ("data.yaml", "names: [cat, dog]\n", "holds data.yaml and obj.data; write which by"),
    ],
)
def test_obj_data_that_cannot_mean_one_thing_is_named(name, content, message, tmp_path):
    unpacked(tmp_path, {**cvat_darknet()[1], name: content}, junk=False)
    with pytest.raises(UserError, match=message):
        found(f"yolo:{tmp_path}")


@pytest.mark.parametrize("junk", [False, True])
def test_classes_as_kaggle_has_them(junk, tmp_path):
    # kaggle.com, "Cats and Dogs": PetImages/Cat and Dog; "Chest X-ray": a folder in the archive.
    files = {f"PetImages/{c}/{k}.jpg": picture() for c in ("Cat", "Dog") for k in range(5)}
    unpacked(tmp_path / "pets", {**files, "readme[1].txt": "read me"}, junk)
    expected = {"train": ["Cat"] * 4 + ["Dog"] * 4, "test": ["Cat", "Dog"]}
    assert found(f"folder:{tmp_path}/pets", classification.TASK) == expected
    files = {f"xray/{s}/{c}/0.jpeg": picture() for s in ("train", "test") for c in "AB"}
    unpacked(tmp_path / "xray", files, junk)
    expected = {"train": ["A", "B"], "test": ["A", "B"]}
    assert found(f"folder:{tmp_path}/xray", classification.TASK) == expected


def test_archives_of_windows_whose_folders_were_not_known(tmp_path):
    for k in range(3):
        (tmp_path / f"train\\cat\\{k}.jpg").write_bytes(picture())
    with pytest.raises(UserError, match=r"holds a file train\\cat\\0.jpg, .* unpack it again"):
        datasets.load(f"folder:{tmp_path}", "nowhere")


def shape(label="dog", kind="polygon", points=((0, 0), (4, 0), (4, 6)), **more):
    return {"label": label, "shape_type": kind, "points": [*map(list, points)], **more}


def write_labelme(root, *shapes, name="a"):
    content = {"shapes": list(shapes), "imageHeight": 20, "imageWidth": 40}
    (root / f"{name}.jpg").write_bytes(picture())
    (root / f"{name}.json").write_text(json.dumps(content))


def test_labelme_s_shapes(tmp_path):
    write_labelme(
        tmp_path,
        shape(),
        shape("cat", "circle", ((10, 10), (13, 14))),
        shape("dog", "rectangle", ((30, 15), (20, 5))),  # drawn from the lower right
        shape("dog", points=((1, 1), (2, 1), (2, 2)), group_id=7),
        shape("dog", points=((8, 3), (9, 3), (9, 5)), group_id=7),
        shape("cat", points=((8, 3), (9, 3), (9, 5)), group_id=7),
        shape("nose", "point", ((3, 3),)),
        shape("leg", "linestrip", ((3, 3), (4, 9))),
    )
    write_labelme(tmp_path, name="b")
    (tmp_path / "c.jpg").write_bytes(picture())
    dataset = datasets.load(f"labelme:{tmp_path}", "nowhere", detection.TASK)
    assert dataset.class_names == ("cat", "dog")
    images = [image for part in dataset.splits.values() for image in part.examples.images]
    objects = next(image.objects for image in images if image.image.name == "a.jpg")
    assert objects.boxes.tolist() == [
        [0, 0, 4, 6],
        [5, 5, 15, 15],
        [20, 5, 30, 15],
        [1, 1, 9, 5],
        [8, 3, 9, 5],
    ]
    assert objects.classes.tolist() == [1, 0, 1, 1, 0]
    assert "points and lines, which have no box, left out: 2" in dataset.citation
    assert "images: 3 found, 2 used, 1 left out (without .json file: 1)" in dataset.citation


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"shapes": []}', "is not labelme's; it has no shapes, imageHeight and imageWidth"),
        ("[1]", "is not labelme's"),
        ("{", "is no JSON"),
        ('{"shapes": [{"label": 3}], "imageHeight": 9, "imageWidth": 9}', "shape 1 has no label"),
        ('{"shapes": [{"label": "a", "points": [[1, "x"]]}], "imageHeight": 9, "imageWidth": 9}',
         "shape 1 has no label, or no points"),
    ],
)  # fmt: skip
def test_json_that_is_not_labelme_s_is_named(content, message, tmp_path):
    write_labelme(tmp_path)
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=rf"a\.json: {message}"):
        datasets.load(f"labelme:{tmp_path}", "nowhere", detection.TASK)


def test_labelme_s_files_are_told_from_coco_s(tmp_path):
    write_labelme(tmp_path, shape())
    with pytest.raises(UserError, match=r"a\.json: is labelme's, of one image; write labelme:DIR"):
        datasets.load(f"coco:{tmp_path}:{tmp_path}/a.json", "nowhere", detection.TASK)
    (tmp_path / "b.json").write_text((tmp_path / "a.json").read_text())
    with pytest.raises(UserError, match=r"b\.json: has no image beside it \(1 of 2 files"):
        datasets.load(f"labelme:{tmp_path}", "nowhere", detection.TASK)
