"""Detection as a person uses it, on a few pictures of coloured rectangles in COCO form."""

import dataclasses
import json

import cv2
import jax
import numpy as np
import pytest
import toys
from toys import train

import launch
from experiments import detection
from research import config as config_lib
from research.data.images.preprocessing import Preprocessing
from research.data.sources.examples import Arrays
from research.detection import inputs
from research.detection.config import USED_BY, DetectionConfig
from research.metrics.detection import numpy_iou
from research.training.checkpoint import open_checkpoint

SIZE = (40, 56)  # height, width of the originals; the model sees 32 x 32
SHORT = [
    "--batch_size=4",
    "--image_size=32",
    "--steps=2",
    "--log_every=1",
    "--parallel=single",
    "--compilation_cache=",
]
TINY = [*SHORT, "--head_width=16", "--max_detections=5"]


def write_images(folder, count=6, seed=0):
    """PNG files, and COCO annotations: red and blue rectangles, the last image without any.

    What is trained on lies in train/ beside the folder: the same but for a pixel.
    """
    for part in (folder, folder.parent / "train"):
        part.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    for i in range(count):
        picture = rng.integers(0, 60, (*SIZE, 3)).astype(np.uint8)
        for k in range(1 + i % 2 if i < count - 1 else 0):
            x, y, w, h = (int(v) for v in (4 + 26 * k, 5 + rng.integers(8), 20, 18))
            picture[y : y + h, x : x + w] = ((0, 0, 230), (230, 0, 0))[k]  # BGR
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": (7, 9)[k],
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
        cv2.imwrite(str(folder / f"{i}.png"), picture)
        picture[0, 0, 0] ^= 1
        cv2.imwrite(str(folder.parent / "train" / f"{i}.png"), picture)
        images.append({"id": i, "height": SIZE[0], "width": SIZE[1]})
    categories = [{"id": 7, "name": "red"}, {"id": 9, "name": "blue"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    for part, file in ((folder.name, "all.json"), ("train", "train.json")):
        files = [{**row, "file_name": f"{part}/{row['id']}.png"} for row in images]
        (folder / file).write_text(json.dumps({**content, "images": files}))
    return f"coco:{folder.parent}:{folder / 'train.json'}:{folder / 'all.json'}"


def run(*flags):
    return launch.main(["x", "--experiment=detection", *flags])


@pytest.fixture(scope="module")
def place(tmp_path_factory, figures):
    """A folder with images and a run that trained on them for two steps."""
    folder = tmp_path_factory.mktemp("detection")
    dataset = write_images(folder / "images")
    assert run(*TINY, f"--dataset={dataset}", "--resize=pad", f"--workdir={folder / 'run'}") == 0
    return folder


def test_a_run_reports_every_metric_with_its_protocol_and_pictures(place, figures):
    result = json.loads((place / "run" / "result.json").read_text())
    for name in ("mAP", "mAP50", "mAP75", "voc07_mAP", "voc12_mAP", "AR", "recall50"):
        assert 0 <= result["metrics"][f"test/{name}"] <= 1
        assert len(result["protocol"][name]) > 20
    assert (
        "101-point" in result["protocol"]["mAP"] and "11 points" in result["protocol"]["voc07_mAP"]
    )
    found = toys.check_outcomes(place / "run")["test"]  # mAP among its metrics
    assert (
        len(found.names) == len(found.index) and {"boxes", "scores"} <= found.held["boxes"].keys()
    )
    assert "predicted / true sides of boxes" in result["bias"]["test"]["boxes"]["line"]
    drawn = {
        name: figures[place / "run" / "figures" / "test" / f"{name}.png"]
        for name in ("predictions", "precision_recall", "confusion")
    }
    assert drawn["predictions"].has(" images with mistakes, the worst first")
    for image in drawn["predictions"].images:  # as the model sees them: a rectangle on dark noise
        assert image.shape == (32, 32, 3) and image.mean() < 100
    assert drawn["precision_recall"].has("red  ", "blue  ", "recall", "precision")
    assert drawn["confusion"].has("nothing", " of 7 objects right")


def test_evaluate_gives_the_same_numbers_from_the_checkpoint(place, tmp_path):
    flags = [f"--checkpoint={place / 'run'}", "--compilation_cache="]
    show = ["--show=suspicious", f"--workdir={tmp_path / 'e'}"]
    assert run("--mode=evaluate", *flags, *show) == 0
    first, second = (
        json.loads((path / "result.json").read_text())["metrics"]
        for path in (place / "run", tmp_path / "e")
    )
    assert second == pytest.approx(first, abs=1e-6)
    # The images whose boxes look most wrong: each has the loss that it has alone.
    opened = open_checkpoint(place / "run")
    config = config_lib.from_json(detection.Config, opened.metadata["config"], "the run")
    built = detection.build(config, opened.metadata["facts"])
    source = built.data().evals["test"]
    doubted = json.loads((tmp_path / "e" / "examples" / "suspicious.json").read_text())
    assert sorted(row["index"] for row in doubted) == list(range(6))
    assert [row["loss"] for row in doubted] == sorted((r["loss"] for r in doubted), reverse=True)
    for row in doubted:
        alone = source.picked(source.rows_of(np.array([row["index"]])))
        loss = jax.jit(built.evaluation.loss)(
            opened.variables, jax.tree.map(lambda x: x[:1], alone)
        )
        assert row["loss"] == pytest.approx(float(loss[0]), rel=1e-4)
        assert row["name"].endswith(f"{row['index']}.png")
    # What is done with the outputs may differ from training; what was learned may not.
    flags[1:] = ["--max_detections=1", "--compilation_cache=", f"--workdir={tmp_path / 'f'}"]
    assert run("--mode=evaluate", *flags) == 0
    few = json.loads((tmp_path / "f" / "result.json").read_text())["metrics"]
    assert few["test/recall50"] <= first["test/recall50"]
    assert run("--mode=evaluate", *flags[:1], "--head_width=8", f"--workdir={tmp_path / 'g'}") == 2


def test_a_set_whose_objects_are_all_missing_is_refused(place, tmp_path, capsys):
    """Nothing could be measured on it: the table would be empty."""
    content = json.loads((place / "images" / "all.json").read_text())
    empty = tmp_path / "none.json"
    empty.write_text(json.dumps(content | {"annotations": []}))
    dataset = f"--dataset=coco:{place}:{place / 'images' / 'train.json'}:{empty}"
    evaluate = ["--mode=evaluate", f"--checkpoint={place / 'run'}", "--compilation_cache="]
    for flags in (evaluate, TINY):
        assert run(*flags, dataset, f"--workdir={tmp_path / 'x'}") == 2
        error = capsys.readouterr().err
        assert "there is no object to be found in test" in error and error.count("\n") == 1
        assert not (tmp_path / "x" / "result.json").exists()
        assert not (tmp_path / "x" / "checkpoints").exists()


def test_predict_writes_coco_results_in_pixels_of_the_originals_and_pictures(place, tmp_path):
    target = tmp_path / "p"
    flags = [f"--inputs={place / 'images'}", f"--workdir={target}"]
    assert (
        run("--mode=predict", f"--checkpoint={place / 'run'}", *flags, "--compilation_cache=") == 0
    )
    rows = [json.loads(line) for line in (target / "predictions.jsonl").read_text().splitlines()]
    found = json.loads((target / "results.json").read_text())
    listing = json.loads((target / "images.json").read_text())
    assert len(rows) == len(listing["images"]) == 6
    assert [row["name"] for row in listing["categories"]] == ["red", "blue"]
    assert sum(len(row["detections"]) for row in rows) == len(found) > 0
    for row in found:
        x, y, w, h = row["bbox"]
        assert set(row) == {"image_id", "category_id", "bbox", "score"}
        assert min(x, y) >= 0 and x + w <= SIZE[1] + 0.01 and y + h <= SIZE[0] + 0.01
    # Wider than the model's 32 pixels: these are the original's.
    assert max(row["bbox"][0] + row["bbox"][2] for row in found) > 33
    for i in range(6):
        drawn = cv2.imread(str(target / "boxes" / f"{i}.png"))
        assert drawn.shape[1] / drawn.shape[0] == pytest.approx(SIZE[1] / SIZE[0], rel=0.02)


def test_boxes_found_in_the_model_s_image_come_back_to_where_the_object_is(place):
    """What is told of an image is where its object is, after any way of resizing."""
    from research.data.images.objects import fit_objects, to_original
    from research.data.images.preprocessing import fit

    picture = cv2.imread(str(place / "images" / "1.png"))[:, :, ::-1]
    true = np.array([[4, 9, 24, 27], [30, 6, 50, 24]], np.float32)
    for resize in ("pad", "letterbox", "stretch"):
        preprocessing = Preprocessing((32, 32), 3, resize)
        example = {
            "image": np.ascontiguousarray(picture),
            "boxes": true,
            "classes": np.zeros(2, np.int32),
            "crowd": np.zeros(2, bool),
        }
        fitted = fit_objects(example, preprocessing, max_objects=2)
        back = to_original(fitted["boxes"][None], np.array([SIZE]), preprocessing)[0]
        assert numpy_iou(back, true).min() > 0.99
        assert fit(example["image"], preprocessing).shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--strides=8,64"], "no map at stride 64"),
        (["--max_objects=1"], "--max_objects=2 or more"),
        (["--model=localisation"], "finds one object"),
        (["--model=landmarks"], "takes data sets by name alone"),
        (["--strides=4,8", "--anchors=3"], "must be a multiple of the 2 --strides"),
        (["--backbone=resnet_18"], "resnet18"),
        (["--elastic_alpha=3"], "boxes cannot follow"),
        (["--model=fast_rcnn", "--mosaic=0.5"], "no effect on --model=fast_rcnn"),
        (["--strides=eight"], "--strides=eight"),
        (["--model=faster_rcnn", "--anchors=0"], "at least 1 is needed"),
        (["--model=sliding_windows", "--anchors=0"], "at least 1 is needed"),
        (["--model=yolo_v1", "--box_loss=ciou"], "no effect on --model=yolo_v1, only on yolo, "),
        (["--model=faster_rcnn", "--reach=2.5"], "no effect on --model=faster_rcnn, only on yolo;"),
        (["--model=landmarks", "--soft_nms=0.5"], "--soft_nms: has no effect on --model=landmarks"),
        (["--image_size=4"], "at least 8 x 8"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(place, tmp_path, capsys, flags, said):
    dataset = f"--dataset=coco:{place}:{place / 'images' / 'all.json'}"
    assert run(*SHORT, dataset, f"--workdir={tmp_path / 'x'}", *flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error
    assert not (tmp_path / "x").exists()


PREPROCESSING = Preprocessing((32, 32), 3, mean=(128.0,), std=(64.0,))
FACTS = {
    "class_names": ["red", "blue"],
    "preprocessing": PREPROCESSING.to_json(),
    "train_examples": 8,
    "monitored": "test",
    "sizes": [],
}


@pytest.mark.parametrize(
    ("model", "mode"),
    [
        ("yolo", "jit"),
        pytest.param("rcnn", "pmap", marks=pytest.mark.families),
        pytest.param("yolo", "pmap", marks=pytest.mark.families),
        pytest.param("rcnn", "jit", marks=pytest.mark.families),
    ],
)
def test_eight_devices_train_the_same_detector_as_one(model, mode):
    """Boxes, mosaic or proposals, suppression, crops' batch statistics (promise 2)."""
    mosaic = {"mosaic": 0.5, "head_width": 8} if model == "yolo" else {}
    config = detection.Config(
        model=model, batch_size=8, steps=1, optimizer="sgd", learning_rate=0.1, **mosaic
    )
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 20, (8, 12, 2))
    boxes = np.concatenate([low, low + rng.uniform(4, 12, (8, 12, 2))], 2).astype("f")
    batch = {
        "image": rng.integers(0, 256, (8, 32, 32, 3)).astype(np.uint8),
        "size": np.full((8, 2), 32, "i"),
        "boxes": boxes[:, :2],
        "classes": rng.integers(0, 2, (8, 2)).astype("i"),
        "crowd": np.zeros((8, 2), bool),
        "valid": np.arange(16).reshape(8, 2) % 5 > 0,
        "proposals": boxes,
        "index": np.arange(8, dtype="i"),
        "occurrence": np.zeros(8, "i"),
        "mask": np.arange(8) < 7,
    }
    experiment = detection.build(config, FACTS)
    alone, rows = train(experiment, "single", [batch])
    many, many_rows = train(experiment, mode, [batch])
    for a, b in (
        (alone.params, many.params),
        (alone.model_state, many.model_state),
        (rows, many_rows),
    ):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(y, x, rtol=1e-3, atol=1e-4), a, b)


@pytest.mark.parametrize(
    "model",
    [
        *("yolo", "localisation", "sliding_windows"),
        pytest.param("faster_rcnn", marks=pytest.mark.families),
    ],
)
def test_classes_and_objectness_can_be_asked_about_with_gradients(model):
    """Sure of what is seen there as it is of the best of all boxes, below any threshold."""
    config = detection.Config(model=model)
    sizes = [] if model == "localisation" else [[8.0, 8.0], [16.0, 16.0]]
    experiment = detection.build(config, FACTS | {"sizes": sizes})
    assert experiment.network.names == (("red", "blue"), "evidence", True)
    image = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("f")
    variables = experiment.network.init(jax.random.key(0))

    @jax.jit
    def of(image):
        outputs = experiment.evaluation.predict(variables, {"image": image})
        asked = {"objectness": outputs["objectness"].sum(), "red": outputs["evidence"][:, 0].sum()}
        return asked, outputs

    outputs = of(image)[1]
    # A box's score is P(object) P(class | object).
    assert (jax.nn.sigmoid(outputs["objectness"]) >= outputs["scores"].max(1) - 1e-6).all()
    assert outputs["evidence"].shape == (2, 2)
    if model == "localisation":  # of its one object it tells the class itself
        assert (outputs["evidence"].argmax(1) == outputs["label"]).all()
    gradients = jax.jit(jax.jacrev(lambda x: of(x)[0]))(image)
    for gradient in gradients.values():
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_typical_sizes_are_of_the_objects_that_are_to_be_found():
    boxes = np.array([[[0, 0, 8, 20], [0, 0, 20, 8], [0, 0, 60, 60], [9, 9, 9, 9]]] * 3, "f")
    crowd = np.array([[False, False, True, False]] * 3)
    train = Arrays({"boxes": boxes, "valid": np.array([[1, 1, 1, 0]] * 3, bool), "crowd": crowd})
    sizes = inputs.typical_sizes(train, detection.Config(model="faster_rcnn", anchors=2))
    assert sorted(sizes) == [[8, 20], [20, 8]]
    # Windows are squares: of the longer side, not of the mean of tall and wide ones.
    config = detection.Config(model="sliding_windows", anchors=1)
    assert inputs.typical_sizes(train, config) == [[20, 20]]


def test_help_names_the_flags_of_detection_without_jax():
    assert detection.Config().dataset == "digit_scenes"
    names = {row.name for row in launch.config_lib.options(detection.Config)}
    assert {"backbone", "nms_threshold", "mosaic", "max_objects", "freeze"} <= names
    # Of every flag of a detector it is said which ones use it, so that others refuse it.
    own = {field.name for field in dataclasses.fields(DetectionConfig)} - {"model"}
    assert own <= USED_BY.keys() <= names
