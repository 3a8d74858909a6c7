"""One pipeline, one number: what predict writes of a split's files scores as evaluate says."""

import json

import numpy as np
import PIL.Image
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import launch

SIZES = [(40, 56), (31, 77), (64, 64), (90, 33), (48, 50), (57, 41)]  # height, width as shown
TURNED = 3  # this one lies on its side in its file, and EXIF says so


def write_set(folder):
    """JPEG files of several sizes with red and blue rectangles, and their COCO annotations.

    Beside them the same pictures as PNG files, without the loss of JPEG, to train on.
    """
    folder.mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i, (height, width) in enumerate(SIZES):
        picture = rng.integers(0, 60, (height, width, 3)).astype(np.uint8)
        for k in range(1 + i % 2):
            w, h = int(0.4 * width), int(rng.integers(14, 24))
            x, y = int(0.05 * width + 0.5 * k * width), int(rng.integers(0, height - h))
            picture[y : y + h, x : x + w] = ((230, 0, 0), (0, 0, 230))[k]
            box = {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0, "category_id": (7, 9)[k]}
            annotations.append({"id": len(annotations) + 1, "image_id": 10 + i, **box})
        saved = PIL.Image.fromarray(picture)
        saved.save(folder / f"{i}.png")
        exif = PIL.Image.Exif()
        if i == TURNED:
            saved = saved.transpose(PIL.Image.Transpose.ROTATE_90)
            exif[0x0112] = 6  # to be turned by 90 degrees clockwise
        saved.save(folder / f"{i}.jpg", quality=97, exif=exif)
        images.append({"id": 10 + i, "file_name": f"{i}.jpg", "height": height, "width": width})
    categories = [{"id": 7, "name": "red"}, {"id": 9, "name": "blue"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "all.json").write_text(json.dumps(content))
    rows = [{**row, "file_name": row["file_name"].replace("jpg", "png")} for row in images]
    (folder / "train.json").write_text(json.dumps({**content, "images": rows}))
    return content


def scored(truth, target):
    """mAP and mAP50 by pycocotools, of results.json as predict wrote it."""
    listing = json.loads((target / "images.json").read_text())
    number = {row["file_name"].rpartition("/")[2]: row["id"] for row in listing["images"]}
    category = {row["name"]: row["id"] for row in listing["categories"]}
    names = {row["id"]: row["name"] for row in truth["categories"]}
    ours = {row["id"]: number[row["file_name"]] for row in truth["images"]}
    known = COCO()
    known.dataset = {
        "images": [{**row, "id": ours[row["id"]]} for row in truth["images"]],
        "categories": listing["categories"],
        "annotations": [
            {
                **row,
                "image_id": ours[row["image_id"]],
                "category_id": category[names[row["category_id"]]],
            }
            for row in truth["annotations"]
        ],
    }
    known.createIndex()
    evaluation = COCOeval(known, known.loadRes(str(target / "results.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[:2].tolist()


@pytest.mark.families
def test_coco_results_of_the_test_files_score_as_the_test_split_does(tmp_path):
    truth = write_set(tmp_path / "images")
    images = tmp_path / "images"
    flags = f"""
        --dataset=coco:{images}:{images / "train.json"}:{images / "all.json"}
        --workdir={tmp_path / "run"} --compilation_cache= --parallel=single
        --image_size=32 --resize=letterbox --scale=0 --shift=0
        --batch_size=6 --steps=60 --eval_every=60 --learning_rate=0.01 --head_width=16
    """.split()
    assert launch.main(["x", "--experiment=detection", *flags]) == 0
    said = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]
    target = tmp_path / "predicted"
    files = ",".join(str(tmp_path / "images" / f"{i}.jpg") for i in range(len(SIZES)))
    predict = ["--mode=predict", f"--checkpoint={tmp_path / 'run'}", f"--workdir={target}"]
    assert launch.main(["x", *predict, f"--inputs={files}", "--compilation_cache="]) == 0
    found = scored(truth, target)
    assert 0.1 < found[0] < 1  # something is found, and not everything
    # Scores have five digits and boxes two in what predict writes.
    assert found == pytest.approx([said["test/mAP"], said["test/mAP50"]], abs=2e-3)
