"""The same three pictures written in each format, read back alike; and what is wrong with files."""

import json
import shutil

import cv2
import numpy as np
import pytest
import yaml

from research.data import datasets
from research.data.sources.examples import read_many
from research.data.sources.splits import Subset
from research.data.tasks import detection
from research.errors import UserError

CLASSES = ["bird", "cat", "dog"]
# {name: (height, width), [(class, box, crowd or difficult)]}
PICTURES = {
    "a1": ((40, 80), [("dog", (8, 4, 32, 20), False), ("bird", (0, 0, 80, 40), True)]),
    "a2": ((50, 20), [("cat", (5, 10, 15, 30), False)]),
    "a10": ((30, 30), []),
}


def paint(folder, names=PICTURES):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        image = np.full((*PICTURES[name][0], 3), 50 * number, np.uint8)
        cv2.imwrite(str(folder / f"{name}.png"), image)


def coco(root, names=PICTURES, file="boxes.json", change=lambda content: None):
    content = {"images": [], "annotations": [], "categories": []}
    # Ids are neither in order nor without gaps, as COCO's own.
    ids = dict(zip(CLASSES, [2, 7, 90], strict=True))
    content["categories"] = [{"id": ids[n], "name": n} for n in reversed(CLASSES)]
    for number, name in enumerate(names):
        (height, width), objects = PICTURES[name]
        content["images"].append(
            {"id": 50 + number, "file_name": f"{name}.png", "height": height, "width": width}
        )
        for label, (x0, y0, x1, y1), crowd in objects:
            content["annotations"].append(
                {
                    "id": len(content["annotations"]),
                    "image_id": 50 + number,
                    "category_id": ids[label],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "iscrowd": int(crowd),
                }
            )
    change(content)
    paint(root / "images", names)
    (root / file).write_text(json.dumps(content))
    return f"coco:{root / 'images'}:{root / file}"


def xml(name):
    (height, width), objects = PICTURES[name]
    found = "".join(
        f"<object><name>{label}</name><difficult>{int(difficult)}</difficult><bndbox>"
        f"<xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for label, (x0, y0, x1, y1), difficult in objects
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}.png</filename>{size}{found}</annotation>"


def voc(root, lists=None):
    paint(root / "JPEGImages")
    (root / "Annotations").mkdir()
    for name in PICTURES:
        (root / "Annotations" / f"{name}.xml").write_text(xml(name))
    for split, names in (lists or {}).items():
        (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
    return f"voc:{root}"


def line(name, label, box):
    (height, width), _ = PICTURES[name]
    x0, y0, x1, y1 = box
    x, y = (x0 + x1) / 2 / width, (y0 + y1) / 2 / height
    return (
        f"{CLASSES.index(label)} {x:.6f} {y:.6f} {(x1 - x0) / width:.6f} {(y1 - y0) / height:.6f}"
    )


def yolo(root, images="images", labels="labels", names=PICTURES):
    paint(root / images, names)
    (root / labels).mkdir(parents=True, exist_ok=True)
    for name in names:
        lines = [line(name, label, box) for label, box, _ in PICTURES[name][1]]
        (root / labels / f"{name}.txt").write_text("\n".join(lines))
    (root / "data.yaml").write_text(yaml.safe_dump({"names": CLASSES, "nc": 3}))
    return f"yolo:{root}"


def load(name, **options):
    return datasets.load(name, "no data_dir", detection.task(**options))


def everything(dataset):
    """{height: example} of all splits; heights tell the pictures apart."""
    examples = [
        example
        for split in dataset.splits.values()
        for example in read_many(split, range(len(split)))
    ]
    return {len(example["image"]): example for example in examples}


@pytest.mark.parametrize("write", [coco, voc, yolo])
def test_every_format_says_the_same(write, tmp_path):
    dataset = load(write(tmp_path))
    assert dataset.class_names == tuple(CLASSES)
    found = everything(dataset)
    assert sum(map(len, dataset.splits.values())) == len(found) == 3
    for (height, width), objects in PICTURES.values():
        example = found[height]
        assert example["image"].shape == (height, width, 3)
        boxes = np.array([box for _, box, _ in objects], "f").reshape(-1, 4)
        np.testing.assert_allclose(example["boxes"], boxes, atol=1e-3)
        assert [CLASSES[k] for k in example["classes"]] == [label for label, _, _ in objects]
        crowds = [crowd and write is not yolo for _, _, crowd in objects]  # yolo has none
        assert example["crowd"].tolist() == crowds
        assert [example[k].dtype.name for k in ("boxes", "classes", "crowd")] == [
            "float32",
            "int32",
            "bool",
        ]


def test_without_a_test_split_a_fifth_is_held_out(tmp_path):
    dataset = load(yolo(tmp_path))
    assert {split: len(examples) for split, examples in dataset.splits.items()} == {
        "train": 2,
        "test": 1,
    }
    assert all(isinstance(split, Subset) for split in dataset.splits.values())
    assert "fifth" in dataset.citation
    assert detection.counts(dataset.splits["train"]).tolist() == [2, 0]  # a1 and a10, not a2
    with pytest.raises(UserError, match=r"--max_objects=1: an image of train holds 2 objects"):
        detection.check_room(dataset, 1)


def test_coco_takes_a_file_for_testing_and_images_in_subfolders(tmp_path):
    name = coco(tmp_path, ["a1", "a10"])
    coco(tmp_path, ["a2"], "test.json")
    (tmp_path / "images" / "val2017").mkdir()
    shutil.move(tmp_path / "images" / "a2.png", tmp_path / "images" / "val2017")
    dataset = load(f"{name}:{tmp_path / 'test.json'}")
    assert {split: len(examples) for split, examples in dataset.splits.items()} == {
        "train": 2,
        "test": 1,
    }
    assert "1 of 2 images in boxes.json hold no objects" in dataset.citation


def test_voc_splits(tmp_path):
    lists = {"train": ["a2", "a1"], "val": ["a10"], "test": ["a2"], "trainval": ["a1", "a2"]}
    dataset = load(voc(tmp_path, {**lists, "cat_train": ["a1 -1"]}))
    assert {split: len(examples) for split, examples in dataset.splits.items()} == {
        "train": 2,
        "validation": 1,
        "test": 1,
    }


@pytest.mark.parametrize("layout", ["{kind}/{split}", "{split}/{kind}"])
def test_yolo_splits(layout, tmp_path):
    for split, names in {"train": ["a1", "a10"], "valid": ["a2"]}.items():
        folders = [layout.format(kind=kind, split=split) for kind in ("images", "labels")]
        name = yolo(tmp_path, *folders, names=names)
    dataset = load(name)
    assert {split: len(examples) for split, examples in dataset.splits.items()} == {
        "train": 2,
        "validation": 1,
    }


def test_yolo_reads_polygons_and_class_files_and_takes_missing_texts_for_nothing(tmp_path, capsys):
    name = yolo(tmp_path)
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "classes.txt").write_text("bird\ncat\ndog\n")
    (tmp_path / "labels" / "a2.txt").write_text("1 0.2 0.3 0.7 0.1 0.5 0.9\n")
    (tmp_path / "labels" / "a10.txt").unlink()
    dataset = load(name)
    np.testing.assert_allclose(everything(dataset)[50]["boxes"], [[4, 5, 14, 45]], rtol=1e-5)
    assert (
        "1 of 3 images of train have no text file and so no objects: a10"
        in " ".join(capsys.readouterr().err.split()) + dataset.citation
    )
    (tmp_path / "classes.txt").unlink()
    (tmp_path / "data.yaml").write_text("names: {0: bird, 1: cat, 2: dog}\n")
    assert load(name).class_names == tuple(CLASSES)


def test_boxes_that_reach_beyond_their_image_end_there(tmp_path):
    def change(content):
        content["annotations"][0]["bbox"] = [-10, 4, 32, 50]

    dataset = load(coco(tmp_path, change=change))
    np.testing.assert_allclose(everything(dataset)[40]["boxes"][0], [0, 4, 22, 40])
    assert "and end at its border: 1" in dataset.citation


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([8, 4, 0, 6], "has no area: 1"),
        ([8, 4, -3, 6], "is inverted: 1"),
        ([float("nan"), 4, 3, 6], "is not a number: 1"),
        ([90, 4, 3, 6], "lies outside its image: 1"),
    ],
)
def test_bad_boxes_are_counted_named_and_dropped_only_when_told(box, reason, tmp_path):
    def change(content):
        content["annotations"][1]["bbox"] = box

    name = coco(tmp_path, change=change)
    with pytest.raises(UserError) as caught:
        load(name)
    text = str(caught.value)
    assert f"boxes that cannot be used: 1 ({reason})" in text and "object 2 of" in text
    assert "image a1.png" in text and "--drop_bad_boxes" in text and "\n" not in text
    dataset = load(name, drop_bad_boxes=True)
    assert everything(dataset)[40]["classes"].tolist() == [2]
    assert f"boxes: 3 found, 2 used, 1 left out ({reason})" in dataset.citation


def edit_coco(**changes):
    def write(root):
        def change(content):
            for key, value in changes.items():
                kind, _, field = key.partition("_")
                content[kind][0][field] = value

        return coco(root, change=change)

    return write


def removed(path, write):
    def wreck(root):
        name = write(root)
        (root / path).unlink()
        return name

    return wreck


def written(path, text, write):
    def wreck(root):
        name = write(root)
        data = text if isinstance(text, bytes) else text.encode()
        (root / path).write_bytes(data)
        return name

    return wreck


BROKEN = {
    "coco without json": (lambda root: f"coco:{root}", "write coco:IMAGES_DIR:TRAIN.json"),
    "coco no folder": (lambda root: f"coco:{root}/x:{root}/y", "x is no folder"),
    "coco no file": (lambda root: f"coco:{root}:{root}/y.json", "y.json: cannot be read"),
    "coco no json": (written("boxes.json", "{", coco), "boxes.json: is no JSON (line 1"),
    "coco other json": (written("boxes.json", "[]", coco), "must hold lists images, annotations"),
    "coco other image": (edit_coco(annotations_image_id=3), "annotation 0 is of image 3, which is"),
    "coco other class": (edit_coco(annotations_category_id=3), "has category 3, which is not"),
    "coco odd box": (edit_coco(annotations_bbox=[1, 2]), "annotation 0: its bbox is [1, 2], not"),
    "coco no image": (removed("images/a2.png", coco), "1 of 3 images are not in"),
    "coco other size": (edit_coco(images_height=99), "says that the image is 80 x 99 pixels"),
    "voc no folder": (lambda root: f"voc:{root}/x", "no such folder"),
    "voc empty": (lambda root: f"voc:{root}", "holds no .xml files"),
    "voc no image": (removed("JPEGImages/a2.png", voc), "a2.xml: has no image in"),
    "voc no xml": (removed("Annotations/a2.xml", voc), "a2.png: has no .xml file in"),
    "voc listed": (
        removed("Annotations/a2.xml", lambda root: voc(root, {"train": ["a1", "a2"]})),
        "1 images of train have no .xml file in",
    ),
    "voc lists": (lambda root: voc(root, {"test": ["a1"]}), "neither train nor trainval"),
    "voc no xml inside": (written("Annotations/a2.xml", "<a>", voc), "is no VOC annotation"),
    "voc no number": (
        written("Annotations/a1.xml", xml("a1").replace("<xmin>8", "<xmin>left"), voc),
        "a1.xml: is no VOC annotation (could not convert",
    ),
    "voc no box": (
        written("Annotations/a1.xml", xml("a1").replace("bndbox", "box"), voc),
        "an object has no bndbox/xmin",
    ),
    "voc no size": (
        written("Annotations/a1.xml", xml("a1").replace("width", "w"), voc),
        "does not say the image's size",
    ),
    "voc other class": (
        written("classes.txt", "dog\ncat\n", voc),
        "the class 'bird' is not in the list: dog, cat",
    ),
    "voc class of test": (
        lambda root: voc(root, {"train": ["a2"], "test": ["a1"]}),
        "the class 'dog' is not in the list: cat",
    ),
    "yolo no folder": (lambda root: f"yolo:{root}/x", "no such folder"),
    "yolo empty": (
        written("data.yaml", "names: [a]", lambda root: f"yolo:{root}"),
        "needs images/",
    ),
    "yolo no names": (removed("data.yaml", yolo), "needs data.yaml with names, or classes.txt"),
    "yolo no yaml": (written("data.yaml", "names: [", yolo), "data.yaml: is no YAML"),
    "yolo gaps": (written("data.yaml", "names: {0: a, 2: b}", yolo), "without gaps"),
    "yolo no image": (removed("images/a2.png", yolo), "a2.txt: has no image in"),
    "yolo words": (written("labels/a2.txt", "cat 1 2 3 4", yolo), "is not made of numbers"),
    "yolo class": (
        written("labels/a2.txt", "\n3 .1 .1 .1 .1", yolo),
        "a2.txt, line 2: class 3 is not in the list; the numbers of 3 classes are 0 to 2",
    ),
    "yolo short": (written("labels/a2.txt", "1 .1 .1 .1", yolo), "has 3 numbers after the class"),
    "yolo latin": (written("labels/a2.txt", b"1 \xe9", yolo), "is not UTF-8 (byte 2)"),
    "damaged image": (
        written("images/a2.png", "no image", yolo),
        "a2.png: is damaged, or no image (--skip_corrupt",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_is_said_in_one_line(case, tmp_path):
    write, message = BROKEN[case]
    with pytest.raises(UserError) as caught:
        everything(load(write(tmp_path)))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_unreadable_images_are_left_out_when_told(tmp_path):
    name = written("images/a2.png", "no image", yolo)(tmp_path)
    dataset = datasets.load(name, "no data_dir", detection.TASK, skip_corrupt=True)
    assert set(everything(dataset)) == {30, 40}
    assert "images: 3 found, 2 used, 1 left out (unreadable: 1)" in dataset.citation


def test_another_experiments_prefix_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"takes coco:.* or voc:DIR or labelme:DIR or yolo:DIR or"):
        load("folder:somewhere")
    with pytest.raises(UserError, match=r"takes folder:PATH"):
        datasets.load(yolo(tmp_path), "no data_dir")
