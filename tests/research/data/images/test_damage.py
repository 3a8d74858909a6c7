"""Whatever is wrong with a person's files is one line: values of another kind, changed bytes."""

import copy
import io
import itertools
import json
import random

import cv2
import numpy as np
import PIL.Image
import pytest

from research.data import datasets
from research.data.images.headers import is_wide
from research.data.images.masks import decode_mask
from research.data.images.reading import decode_image
from research.data.tasks import captioning, detection
from research.errors import UserError

PICTURE = np.linspace(0, 255, 12 * 10 * 3).reshape(12, 10, 3).astype(np.uint8)
# Values of every kind that JSON has, and numbers and texts that nothing can be.
STRANGE = (
    None, True, -1, float("nan"), float("inf"), 10**400, 1e308, "", "a\nb", "../x", "\ud800", [1],
    ["1"] * 4, {"a": 1},
)  # fmt: skip

ROWS = {
    "coco": {
        "images": [{"id": 0, "file_name": "0.png", "width": 10, "height": 12}],
        "annotations": [{"id": 0, "image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4]}],
        "categories": [{"id": 1, "name": "a"}],
    },
    "captions": {
        "images": [{"id": 0, "file_name": "0.png"}],
        "annotations": [{"image_id": 0, "caption": "a dog"}],
    },
    "karpathy": {
        "images": [{"filename": "0.png", "filepath": "", "sentences": [{"raw": "a"}], "split": ""}]
    },
    "labelme": {
        "shapes": [{"label": "a", "points": [[1, 2], [3, 4]], "group_id": 1}],
        "imageHeight": 12,
        "imageWidth": 10,
    },
}


def places(rows, path=()):
    """The path of every value in rows of JSON."""
    yield path
    keys = rows if isinstance(rows, dict) else range(len(rows)) if isinstance(rows, list) else ()
    for key in keys:
        yield from places(rows[key], (*path, key))


def replaced(rows, path, value):
    if not path:
        return value
    rows = copy.deepcopy(rows)
    inside = rows
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    return rows


@pytest.mark.parametrize("form", ROWS)
def test_values_of_another_kind_are_one_line(form, tmp_path):
    cv2.imwrite(str(tmp_path / "0.png"), PICTURE)
    cv2.imwrite(str(tmp_path / "1.png"), PICTURE)
    file = tmp_path / "0.json"
    name = {
        "coco": f"coco:{tmp_path}:{file}",
        "labelme": f"labelme:{tmp_path}",
    }.get(form, f"captions:{tmp_path}:{file}")
    task = captioning.TASK if name.startswith("captions") else detection.TASK
    refused = 0
    for path, value in itertools.product(places(ROWS[form]), STRANGE):
        try:
            file.write_text(json.dumps(replaced(ROWS[form], path, value)))
        except ValueError:  # 10**400 has more digits than Python writes
            continue
        try:
            datasets.load(name, "nowhere", task)
        except UserError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1
    assert refused > 50


def encoded(kind, mode="RGB", **options):
    file = io.BytesIO()
    PIL.Image.fromarray(PICTURE).convert(mode).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # Pillow's, of damaged tags
@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *(("PNG", "RGBA"), ("PNG", "P"), ("JPEG", "RGB"), ("GIF", "P"), ("WEBP", "RGBA")),
        *(("TIFF", "RGBA"), ("TIFF", "L"), ("AVIF", "RGB"), ("BMP", "RGB"), ("PPM", "RGB")),
    ],
)
def test_changed_bytes_are_one_line(kind, mode, tmp_path):
    whole, chance = encoded(kind, mode), random.Random(0)
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 5, 20])):
            data[chance.randrange(min(len(data), chance.choice([40, 200, len(data)])))] = (
                chance.randrange(256)
            )
        if chance.random() < 0.2:
            del data[chance.randrange(len(data)) :]
        (tmp_path / "a").write_bytes(data)
        assert is_wide(tmp_path / "a") in (False, True)
        for decode in (decode_image, decode_mask):
            try:
                decode(bytes(data), "a.png")
            except UserError as error:
                assert str(error).startswith("a.png: ")
