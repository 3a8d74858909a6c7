"""Whatever a file holds, its reader gives content or one line, soon, and stays in its folder.

FUZZ=N sets how many inputs `-m fuzz` gives each reader; a few go through the default suite.
"""

import contextlib
import hashlib
import io
import json
import os
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import safetensors.numpy
from fuzzing import Guard, changed, changed_json
from hypothesis import HealthCheck, Phase, given, seed, settings

from research import flagfiles, weights
from research.commands import compile as compile_steps
from research.commands import reproduce, tune
from research.comparison import cells, curves, reproduction, runs, study, study_file
from research.data import datasets
from research.data.images.headers import is_wide, looks_intact
from research.data.images.masks import decode_mask, read_classes
from research.data.images.reading import decode_image, read
from research.data.tasks import captioning, detection, segmentation
from research.data.text import windows
from research.errors import UserError
from research.recognition import identities
from research.record import checksums, outcomes
from research.training import checkpoint
from research.weights import origin

FIXTURES = Path(__file__).parent / "fixtures"
PICTURE = np.linspace(0, 255, 12 * 10 * 3).reshape(12, 10, 3).astype(np.uint8)
MASK = np.eye(12, 10).astype(np.uint8)


def picture(kind, mode="RGB", of=PICTURE, **options):
    file = io.BytesIO()
    PIL.Image.fromarray(of).convert(mode).save(file, kind, **options)
    return file.getvalue()


IMAGES = [
    *(picture("PNG", mode) for mode in ("RGB", "RGBA", "P", "L", "1")),
    picture("PNG", "RGB", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"),
    *(picture("JPEG"), picture("JPEG", "L", progressive=True), picture("GIF", "P")),
    *(picture("WEBP"), picture("WEBP", "RGBA", lossless=True), picture("AVIF"), picture("BMP")),
    *(picture("TIFF"), picture("TIFF", "RGBA", compression="tiff_lzw"), picture("TIFF", "I;16")),
    *(picture("PPM"), picture("PPM", "L"), b"P3\n2 1\n255\n1 2 3 4 5 6\n", b"P1\n#x\n2 2\n1 0 1 0"),
]
MASKS = [picture("PNG", "P", of=MASK), picture("PNG", "L", of=MASK), picture("TIFF", "L", of=MASK)]
COCO = {
    "images": [
        {"id": 0, "file_name": "0.png", "width": 10, "height": 12},
        {"id": 1, "file_name": "1.png", "width": 10, "height": 12},
    ],
    "annotations": [
        {"id": 0, "image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4]},
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]},
    ],
    "categories": [{"id": 1, "name": "a"}],
}
CAPTIONS = [
    {
        "images": [{"id": 0, "file_name": "0.png"}, {"id": 1, "file_name": "1.png"}],
        "annotations": [{"image_id": 0, "caption": "a"}, {"image_id": 1, "caption": "b"}],
    },
    {
        "images": [
            {"filename": f"{n}.png", "filepath": "", "sentences": [{"raw": "a"}], "split": ""}
            for n in (0, 1)
        ]
    },
    {"0.png": ["a dog"], "1.png": "a cat"},
    [{"image": f"{n}.png", "captions": ["a"]} for n in (0, 1)],
]
LABELME = {
    "shapes": [{"label": "a", "points": [[1, 2], [3, 4]], "group_id": 1}],
    "imageHeight": 12,
    "imageWidth": 10,
}
VOC = (
    "<annotation><size><width>10</width><height>12</height></size><object><name>a</name><bndbox>"
    "<xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object></annotation>"
)
STUDY = """question = "q"
experiment = "classification"
difference = 0.01
seeds = [0, 1]
[flags]
steps = 20
[variants.sgd]
optimizer = "sgd"
[grid]
learning_rate = [0.1, 0.01]
"""
RUN = FIXTURES / "runs" / "classification"
RESULT, CONFIG = (json.loads((RUN / f"{name}.json").read_text()) for name in ("result", "config"))
SPENT = {
    **RESULT,
    "peak_memory": 5,
    "examples_per_second": {"training": 1.5},
    "parts": [{"start": 0, "cores": 2, "threads": 2, "devices": ["cpu: cpu"]}],
}
LOG = b'{"step": 1, "train/loss": 2.5, "seconds": 1}\n{"step": 2, "train/loss": 2, "seconds": 2}\n'
DECLARED = {
    "experiment": "classification", "variants": {"a": {"flags": ["--steps=2"]}}, "seeds": [0, 1],
    "metric": "test/accuracy", "difference": 0.01, "baseline": "a",
}  # fmt: skip


def dataset(form, task):
    """A reader of a data set of a person's own, in which one file is changed."""
    return lambda folder: datasets.load(form.format(folder), "nowhere", task)


def torch_files():
    return [(FIXTURES / name).read_bytes() for name in ("zip.pth", "legacy.pth")]


def tensors():
    return safetensors.numpy.save({"a.weight": np.ones((2, 3), "f"), "b": np.zeros(2, np.int64)})


def arrays(**named):
    file = io.BytesIO()
    np.savez_compressed(file, **named)
    return file.getvalue()


OUTCOMES = arrays(
    index=np.arange(3),
    names=np.array(["a", "b", "c"]),
    **{f"{kind}/loss": np.ones(3, "f") for kind in ("values", "weights")},
    **{"held/plain": np.ones((3, 2)), "targets/label": np.arange(3)},
)
EMBEDDINGS = arrays(
    embedding=np.ones((2, 3), "f"),
    path=np.array(["a", "b"]),
    identity=np.array(["x", "y"]),
    network=np.array('{"w": "1"}'),
)


def images(folder):
    for look in (is_wide, looks_intact):
        look(folder / "a.png")
    for look in (decode_image, decode_mask):
        with contextlib.suppress(UserError):
            look((folder / "a.png").read_bytes(), "a.png")
    return read(folder / "a.png")


def run(folder):
    found = runs.read_run(folder)
    reproduction.first_logged(*2 * [reproduction.read_log(folder)])
    curves.read_curves(folder, ("train/loss",))
    return found.numbers, found.best, found.value("test/accuracy")


def repeated(folder):
    found = reproduce.finished_run(folder)
    environment = found.begun.get("environment", {})
    reproduce.variables_of(environment)
    reproduction.different_surroundings(environment, environment)
    reproduction.in_words(reproduction.compare_runs(folder, folder))
    return compile_steps.read_measured(str(folder)), reproduction.promise(found, 1)


def embedded(folder):
    return identities.load_embeddings(folder / "e.npz", {"w": "1"})


# {reader: (its file, contents of it that are whole, the reader)}; what is no bytes becomes JSON.
READERS = {
    "image": ("a.png", IMAGES, images),
    "coco": ("a.json", [COCO], dataset("coco:{0}:{0}/a.json", detection.TASK)),
    "labelme": ("0.json", [LABELME], dataset("labelme:{0}", detection.TASK)),
    "voc": ("0.xml", [VOC.encode()], dataset("voc:{0}", detection.TASK)),
    "yolo": (
        "0.txt",
        [b"0 0.5 0.5 0.2 0.2\n", b"0 .1 .1 .4 .1 .4 .4 .1 .4\n"],
        dataset("yolo:{0}", detection.TASK),
    ),
    "yolo data.yaml": (
        "data.yaml",
        [b"names: [a, b]\nnc: 2\ntrain: .\n", b"names:\n  0: a\n  1: b\ntrain: [.]\n"],
        dataset("yolo:{0}", detection.TASK),
    ),
    "yolo obj.data": (
        "obj.data",
        [b"classes = 1\nnames = obj.names\ntrain = list.txt\n"],
        dataset("yolo:{0}/obj.data", detection.TASK),
    ),
    "yolo list": (
        "list.txt",
        [b"0.png\n1.png\n", b"data/0.png\n./1.png\n"],
        dataset("yolo:{0}/obj.data", detection.TASK),
    ),
    "captions, JSON": (
        "c.json",
        CAPTIONS,
        dataset("captions:{0}:{0}/c.json", captioning.TASK),
    ),
    "captions, text": (
        "c.csv",
        (
            [
                b"image,caption\n0.png,a dog\n1.png,b\n",
                b"0.png#0\ta dog\n1.png#0\ta cat\n",
                b"image| caption\n0.png| a\n1.png| b",
            ]
        ),
        dataset("captions:{0}:{0}/c.csv", captioning.TASK),
    ),
    "mask": ("masks/0.png", MASKS, dataset("masks:{0}/in:{0}/masks", segmentation.TASK)),
    "class table": (
        "t.txt",
        [b"0 a\n1 b\n", b"0 0 0 a\n1 2 3 b\n# c\n"],
        lambda folder: read_classes(folder / "t.txt"),
    ),
    "text": ("t.txt", [b"abc\r\ndef", "äö".encode()], lambda f: windows.load(f / "t.txt")),
    "pairs": (
        "p.csv",
        [b"0.png,1.png\n# x\n"],
        lambda folder: identities.read_pairs(folder / "p.csv"),
    ),
    "embeddings": ("e.npz", [EMBEDDINGS], embedded),
    "outcomes": ("o.npz", [OUTCOMES], lambda folder: outcomes.read(folder / "o.npz")),
    ".pth": ("w.pth", (torch_files()), lambda folder: weights.load(folder / "w.pth")),
    ".safetensors": (
        "w.safetensors",
        [tensors()],
        lambda folder: weights.load(folder / "w.safetensors"),
    ),
    "timm's config.json": (
        "config.json",
        [{"architecture": "resnet18", "pretrained_cfg": {"mean": [0.5] * 3}}],
        lambda folder: origin.hub_config(folder / "w.safetensors"),
    ),
    "flags": (
        "a.flags",
        [b"--steps=2\n# x\n--seed=1\n"],
        lambda folder: flagfiles.expand([f"--flagfile={folder}/a.flags"], folder),
    ),
    "study file": (
        "s.toml",
        [STUDY.encode()],
        lambda folder: study_file.read(folder / "s.toml"),
    ),
    "result.json": ("result.json", [RESULT], run),
    "run's config.json": ("config.json", [CONFIG], run),
    "repeated run's config.json": ("config.json", [CONFIG], repeated),
    "repeated run's result.json": ("result.json", [SPENT], repeated),
    "metrics.jsonl": ("metrics.jsonl", [LOG], run),
    "study.json": ("study.json", [DECLARED], study.read_study),
    "tune.json": ("tune.json", [{"metric": "a", "seed": 1}], tune.read),
    "failure.json": (
        "failure.json",
        [{"kind": "error", "reason": "x", "traceback": ""}],
        cells.failure_of,
    ),
    "checksums.json": (
        "checksums.json",
        [{"files": {"a": {"sha256": hashlib.sha256().hexdigest(), "size": 0}}}],
        checksums.verify,
    ),
    "checkpoint's metadata": (
        "metadata/metadata",
        [{"schema": 1, "step": 2}],
        checkpoint.read_metadata,
    ),
}


DARKNET = {
    "0.txt": "0 0.5 0.5 0.2 0.2\n",
    "1.txt": "0 0.5 0.5 0.2 0.2\n",
    "obj.data": "names = obj.names\ntrain = list.txt\n",
    "obj.names": "a\n",
    "list.txt": "0.png\n1.png\n",
}
# The other files of a reader's folder; two pictures are in all of them.
BESIDE = {
    "labelme": {"1.json": json.dumps(LABELME)},
    "voc": {"1.xml": VOC},
    "yolo": {"1.txt": "0 0.5 0.5 0.2 0.2\n", "classes.txt": "a\nb\n"},
    "yolo data.yaml": {"0.txt": "0 0.5 0.5 0.2 0.2\n", "1.txt": "1 0.5 0.5 0.2 0.2\n"},
    "yolo obj.data": DARKNET,
    "yolo list": DARKNET,
    "mask": {"masks/classes.txt": "0 a\n1 b\n"},
    "flags": {"b.flags": "--seed=1\n"},
    "checksums.json": {"a": ""},
    "repeated run's config.json": {"flags.txt": "", "result.json": json.dumps(SPENT)},
    "repeated run's result.json": {"flags.txt": "", "config.json": json.dumps(CONFIG)},
}
# A flag file may name another anywhere, as a line in a shell may.
LEADS_ANYWHERE = ("flags",)


@pytest.fixture(scope="module")
def around(tmp_path_factory):
    """A folder with what the readers' folders must not lead to."""
    folder = tmp_path_factory.mktemp("fuzz").resolve()
    (folder / "outside.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    cv2.imwrite(str(folder / "outside.png"), PICTURE)
    return folder


def prepared(around, name):
    """A folder with a reader's other files."""
    folder = around / "".join(c for c in name if c.isalnum())
    for inner in ("", "metadata", "masks") if name != "mask" else ("", "masks", "in"):
        (folder / inner).mkdir(exist_ok=True)
    for number in "01":
        cv2.imwrite(str(folder / ("in" if name == "mask" else "") / f"{number}.png"), PICTURE)
    if name == "mask":
        (folder / "masks" / "1.png").write_bytes(MASKS[0])
    for file, text in BESIDE.get(name, {}).items():
        (folder / file).write_text(text)
    return folder


MANY = int(os.environ.get("FUZZ", 200))
COUNTS = [
    pytest.param(name, count, id=f"{name}, {count}", marks=[pytest.mark.fuzz] * (count == MANY))
    for name in READERS
    for count in (10, MANY)
]


@pytest.mark.filterwarnings("ignore")  # of damaged files, Pillow's and NumPy's
@pytest.mark.parametrize(("name", "count"), COUNTS)
def test_any_file_is_content_or_one_line(name, count, around):
    file, seeds, reader = READERS[name]
    plain = all(isinstance(content, bytes) for content in seeds)
    folder = prepared(around, name)

    @seed(0)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(changed(seeds) if plain else changed_json(seeds))
    def look(data):
        (folder / file).write_bytes(data)
        with Guard.over(folder) as guard:
            try:
                reader(folder)
            except UserError as error:
                assert len(str(error).splitlines()) == 1, str(error)
        assert not guard.found or name in LEADS_ANYWHERE, guard.found

    for content in seeds:
        (folder / file).write_bytes(content if plain else json.dumps(content).encode())
        reader(folder)  # it is content as long as nothing is changed
    look()
