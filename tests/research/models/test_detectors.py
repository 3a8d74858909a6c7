"""Localisation, sliding windows, the R-CNN family: shapes, gradients, and that each way agrees."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import check_gradients, drawn

from research.assembly import bind
from research.detection import running
from research.detection.config import DETECTORS, DetectionConfig
from research.detection.detector import Setting, make
from research.detection.regions import propose, training_regions
from research.detection.windows import AROUND, RANDOM, one_by_one, searched, training_windows
from research.errors import UserError
from research.geometry.boxes import iou
from research.models import available, create
from research.models.windows import STRIDE, WINDOW
from research.nn.forward import cast
from research.nn.region_pooling import crop_and_resize
from research.training.config import TrainingConfig

SETTING = Setting((32, 32), 3, ((8.0, 8.0), (16.0, 16.0)))


def batch_of(images=2, objects=2, seed=0):
    rng = np.random.default_rng(seed)
    boxes = np.array([[[2, 3, 12, 13], [14, 12, 31, 30]]] * images, "f")[:, :objects]
    boxes[0, -1] = np.nan  # padding
    valid = np.ones((images, objects), bool)
    valid[0, -1] = False
    return {
        "image": jnp.array(rng.normal(size=(images, 32, 32, 3)), jnp.float32),
        "boxes": jnp.array(boxes),
        "classes": jnp.ones((images, objects), jnp.int32),
        "valid": jnp.array(valid),
        "crowd": jnp.zeros((images, objects), bool),
        "index": jnp.arange(images),
        "occurrence": jnp.zeros(images, jnp.int32),
        "points": jnp.array(rng.uniform(4, 28, (images, 4, 2)), jnp.float32),
        "proposals": jnp.array([[[2, 3, 13, 12], [0, 0, 8, 30], [13, 12, 30, 31]]] * images, "f"),
    }


def bound(detector):
    """The network of a detector, for images that are standardised already."""
    return bind(TrainingConfig(), detector.model, see=lambda batch: batch["image"])


def test_every_detector_is_a_model_that_the_list_shows():
    assert set(DETECTORS) - {"yolo_v1"} == set(available("detection"))


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_learns_every_parameter_and_predicts_fixed_shapes(name):
    config = DetectionConfig(model=name, landmarks=4, max_detections=7, head_width=16)
    setting = SETTING if name in ("faster_rcnn", "sliding_windows") else SETTING._replace(sizes=())
    detector = make(config, setting)
    objects = 1 if name in ("localisation", "landmarks") else 2
    batch = batch_of(objects=objects)
    # A second image, whose padding must not reach the first.
    side = detector.model_size or (32, 32)
    blank = jnp.zeros((1, *side, 3))
    variables = drawn(jax.eval_shape(detector.model.init, jax.random.key(0), blank))

    def loss(params, batch):
        key = jax.random.key(1)
        full = {**variables, "params": params}
        run = running.TrainingPass(bound(detector), full, batch, key, None)
        values, parts = detector.loss(run, batch, key)
        assert values.shape == (2,) and set(run.state) == {"batch_stats"}
        assert all(part.shape == (2,) for part in parts.values())
        return values.sum()

    # Whatever stands in the slots of no object: NaN, or boxes and classes that there could be.
    free = ~batch["valid"]
    batch["points"] = jnp.where(batch["valid"].any(1)[:, None, None], batch["points"], jnp.nan)
    other = {
        **batch,
        "boxes": jnp.where(free[..., None], jnp.array([1.0, 2, 30, 29]), batch["boxes"]),
        "classes": jnp.where(free, 99, batch["classes"]),
        "crowd": batch["crowd"] | free,
        "points": jnp.nan_to_num(batch["points"], nan=5.0),
    }
    a, b = check_gradients(loss, variables["params"], batch, other)
    jax.tree.map(np.testing.assert_array_equal, a, b)
    if name != "sliding_windows":
        assert "backbone" in variables["params"]

    def predict(variables, batch):
        run = running.EvaluationPass(bound(detector), variables, batch)
        return detector.predict(run, batch)

    if name in ("yolo_v1", "localisation", "sliding_windows", "faster_rcnn"):
        outputs = jax.jit(predict)(variables, batch)
        assert all(np.isfinite(value).all() for value in outputs.values())
    else:  # compiling takes most of the time, and their parts are the others'
        outputs = jax.eval_shape(predict, variables, batch)
    count = 7 if objects == 2 else 1
    assert outputs["boxes"].shape == (2, count, 4)
    assert all(outputs[key].shape == (2, count) for key in ("scores", "classes", "valid"))
    assert all(len(value) == 2 for value in outputs.values())
    measures = jax.eval_shape(detector.measure, outputs, batch)
    assert set(measures) == set(detector.protocol)
    assert all(v.shape == w.shape == (2,) for v, w in measures.values())


def test_localisation_measures_by_hand():
    from research.metrics import localisation as metrics

    batch = {
        "boxes": jnp.array([[[0.0, 0, 10, 10]], [[0, 0, 0, 0]]]),
        "classes": jnp.array([[2], [0]]),
        "valid": jnp.array([[True], [False]]),
        "crowd": jnp.zeros((2, 1), bool),
        "points": jnp.zeros((2, 2, 2)),
    }
    outputs = {
        "presence": jnp.array([0.3, 0.2]),
        "box": jnp.array([[0.0, 0, 10, 5], [3, 3, 9, 9]]),
        "label": jnp.array([2, 0]),
        "points": jnp.array([[[3.0, 4], [0, 0]], [[9, 9], [9, 9]]]),
    }
    box, points = metrics.measure_box(outputs, batch), metrics.measure_points(outputs, batch)
    assert [x.tolist() for x in box["iou"]] == [[0.5, 0], [1, 0]]
    assert [x.tolist() for x in box["presence_accuracy"]] == [[0, 1], [1, 1]]
    assert (box["class_accuracy"][0][0], box["class_accuracy"][1][1]) == (1, 0)
    assert [x.tolist() for x in points["point_distance"]] == [[2.5, 0], [1, 0]]
    # Of a difficult object nothing is asked.
    batch["crowd"] = batch["valid"]
    for measures in (metrics.measure_box(outputs, batch), metrics.measure_points(outputs, batch)):
        for name, (_, weight) in measures.items():
            assert weight.tolist() == [0, name == "presence_accuracy"]


class SaysAlways(NamedTuple):
    """A `Run` of a model that gives these outputs."""

    images: jax.Array
    outputs: dict

    def __call__(self, images=None, **options):
        return self.outputs


@pytest.mark.parametrize("name", ["localisation", "landmarks"])
def test_a_difficult_object_teaches_neither_presence_nor_absence(name):
    detector = make(DetectionConfig(model=name, landmarks=4), SETTING._replace(sizes=()))
    batch = batch_of(objects=1)
    batch["valid"] = batch["crowd"] = jnp.array([[True], [False]])
    outputs = {
        "presence": jnp.ones(2),
        "box": jnp.full((2, 4), 0.5),
        "logits": jnp.zeros((2, 3)),
        "points": jnp.full((2, 4, 2), 0.5),
    }
    run = SaysAlways(batch["image"], outputs)
    value, parts = detector.loss(run, batch, jax.random.key(0))
    assert value[0] == 0 and value[1] > 1 and not any(part[0] for part in parts.values())


def test_windows_one_by_one_and_all_at_once_give_equal_scores():
    model = create("sliding_windows", num_classes=4)
    images = jnp.array(np.random.default_rng(0).normal(size=(2, 48, 56, 3)), jnp.float32)
    variables = model.init(jax.random.key(0), images[:, :WINDOW, :WINDOW])
    # Statistics of a network that has been trained, which are not 0 and 1.
    variables = jax.tree.map(lambda x: x + 0.3 * jnp.arange(x.shape[-1]) / x.shape[-1], variables)
    at_once = model.apply(variables, images, convolutional=True)
    rows, columns = (48 - WINDOW) // STRIDE + 1, (56 - WINDOW) // STRIDE + 1
    assert at_once.shape == (2, rows, columns, 5)
    crops = [
        images[:, i * STRIDE : i * STRIDE + WINDOW, j * STRIDE : j * STRIDE + WINDOW]
        for i in range(rows)
        for j in range(columns)
    ]
    singly = jnp.stack([model.apply(variables, crop)[:, 0, 0] for crop in crops], axis=1)
    np.testing.assert_allclose(at_once.reshape(2, -1, 5), singly, rtol=1e-4, atol=1e-4)
    assert np.ptp(np.asarray(singly), axis=1).max() > 1e-2  # windows do differ

    def forward(windows):
        return model.apply(variables, windows)

    forward.images = images
    naive = one_by_one(forward, images)  # of --windows=naive
    np.testing.assert_allclose(naive.reshape(2, -1, 5), singly, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [20.0, 32.0, 47.3])
def test_windows_are_searched_for_in_the_pixels_that_training_sees(size):
    image = jnp.array(np.random.default_rng(0).normal(size=(56, 64, 3)), jnp.float32)
    cut = jax.jit(crop_and_resize, static_argnums=2)
    whole, shape, windows = searched(size, image.shape[:2])
    seen = np.asarray(cut(image, whole[None], shape)[0])
    rows, columns = windows.shape[:2]
    assert rows == (shape[0] - WINDOW) // STRIDE + 1 and windows[-1, -1, 3] >= 56
    alone = cut(image, windows.reshape(-1, 4), (WINDOW, WINDOW))
    alone = np.asarray(alone).reshape(rows, columns, WINDOW, WINDOW, 3)
    for i in range(rows):
        for j in range(columns):
            part = seen[STRIDE * i :, STRIDE * j :][:WINDOW, :WINDOW]
            np.testing.assert_allclose(alone[i, j], part, atol=2e-4)


def test_proposals_are_the_best_boxes_that_overlap_little():
    rng = np.random.default_rng(0)
    low = rng.uniform(-4, 24, (1, 60, 2))
    boxes = jnp.array(np.concatenate([low, low + rng.uniform(4, 16, (1, 60, 2))], 2), jnp.float32)
    scores = jnp.array(rng.normal(size=(1, 60)) - 5, jnp.float32)
    found = propose(scores, boxes, (32, 32), count=80)[0]
    real = np.asarray((found[:, 2:] > found[:, :2]).all(1))
    overlap = np.array(iou(found[:, None], found[None]))[real][:, real]
    np.fill_diagonal(overlap, 0)
    assert 10 < real.sum() < 60 and overlap.max() <= 0.7
    assert found.min() >= 0 and found.max() <= 32
    np.testing.assert_allclose(found[0], np.clip(boxes[0, scores[0].argmax()], 0, 32))


def test_an_object_is_proposed_however_many_anchors_another_has():
    rng = np.random.default_rng(0)
    boxes = np.repeat([[4, 4, 24, 24], [30, 30, 60, 60]], [400, 5], axis=0)
    boxes = jnp.array(boxes + rng.uniform(-1, 1, boxes.shape), jnp.float32)[None]
    scores = jnp.array(np.repeat([3.0, 0.0], [400, 5]) + rng.uniform(0, 1, 405), jnp.float32)
    found = np.asarray(propose(scores[None], boxes, (64, 64), count=8)[0])
    assert (np.abs(found - [30, 30, 60, 60]).max(1) < 1.5).any()


def test_training_regions_are_a_quarter_objects_and_never_padding():
    batch = batch_of()
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 20, (30, 2))
    regions = jnp.array(np.concatenate([low, low + 8], 1), jnp.float32)
    regions = jnp.concatenate([regions, jnp.tile(batch["boxes"][1, :1], (10, 1))])
    draw = jax.jit(training_regions, static_argnames=("image_size", "count"))
    for i in (0, 1):
        truth = [batch[name][i] for name in ("boxes", "valid", "crowd")]
        found = draw(jax.random.key(3), regions, *truth, image_size=(32, 32), count=16)
        overlap = np.asarray(iou(found[:, None], jnp.nan_to_num(batch["boxes"][i])[None]))
        positive = (overlap[:, np.asarray(batch["valid"][i])] >= 0.5).any(1).sum()
        assert np.isfinite(found).all() and positive == 4
    other = draw(jax.random.key(4), regions, *truth, image_size=(32, 32), count=16)
    assert not np.array_equal(found, other)


def test_where_regions_are_few_they_come_again_and_none_is_padding():
    """Padding among the crops of R-CNN would enter its batch statistics."""
    batch = batch_of()
    truth = [batch[name][1] for name in ("boxes", "valid", "crowd")]
    empty = jnp.zeros((20, 4))
    draw = jax.jit(training_regions, static_argnames=("image_size", "count"))
    found = np.asarray(draw(jax.random.key(0), empty, *truth, image_size=(32, 24), count=16))
    assert {tuple(box) for box in found} == {tuple(box) for box in np.asarray(truth[0])}
    truth[1] = jnp.zeros(2, bool)
    found = draw(jax.random.key(0), empty, *truth, image_size=(32, 24), count=16)
    np.testing.assert_array_equal(found, [[0, 0, 24, 32]] * 16)


def test_training_windows_are_around_objects_or_anywhere_and_never_padding():
    boxes = jnp.array([[20, 30, 30, 50], [np.nan] * 4, [40, 4, 52, 14], [np.nan] * 4])
    valid = jnp.array([True, False, True, False])
    truth = (boxes, jnp.array([2, 9, 5, 9]), valid, jnp.zeros(4, bool))
    draw = jax.jit(training_windows, static_argnums=(5, 6, 7))
    counts = []
    for seed in range(20):
        windows, label, counted = map(
            np.asarray,
            draw(jax.random.key(seed), *truth, (64, 64), 12.0, 30.0),
        )
        assert windows.shape == (4 + RANDOM, 4) and (windows[:, 2:] - windows[:, :2] >= 10).all()
        assert label.tolist() == [3, 0, 6, 0] + [0] * RANDOM
        ideal = np.array([[25, 40, 20], [46, 9, 12]], np.float32)  # centre, longer side
        half = AROUND * ideal[:, 2:] / 2
        ideal = np.concatenate([ideal[:, :2] - half, ideal[:, :2] + half], 1)
        overlap = np.asarray(iou(jnp.array(windows[:, None]), jnp.array(ideal[None])))
        assert overlap[0, 0] > 0.5 and overlap[2, 1] > 0.5
        np.testing.assert_array_equal(counted, (label > 0) | (overlap.max(1) < 0.4))
        counts.append(counted.sum())
    assert min(counts) < 4 + RANDOM  # some windows are neither object nor background


def test_training_windows_on_crowds_and_difficult_objects_are_no_background():
    crowd, difficult = np.array([4, 4, 44, 60], "f"), np.array([48, 40, 54, 60], "f")
    boxes, yes = jnp.array([crowd, difficult]), jnp.ones(2, bool)
    draw = jax.jit(training_windows, static_argnums=(5, 6, 7))
    centre, half = (difficult[:2] + difficult[2:]) / 2, AROUND * 20 / 2
    around = np.concatenate([centre - half, centre + half])
    on_crowd, on_difficult = 0, 0
    for seed in range(100):
        windows, label, counted = map(
            np.asarray,
            draw(
                jax.random.key(seed), boxes, jnp.array([2, 5]), yes, yes,
                (64, 64), 12.0, 30.0,
            ),
        )  # fmt: skip
        assert label.tolist() == [0] * (2 + RANDOM)
        inside = np.minimum(windows[:, 2:], crowd[2:]) - np.maximum(windows[:, :2], crowd[:2])
        share = np.maximum(inside, 0).prod(1) / (windows[:, 2:] - windows[:, :2]).prod(1)
        like = np.asarray(iou(jnp.array(windows), jnp.array(around))) >= 0.4
        assert not counted[(share > 0.5) | like].any()
        on_crowd, on_difficult = on_crowd + (share > 0.5).sum(), on_difficult + like.sum()
    assert on_crowd > 50 and on_difficult > 5


@pytest.mark.parametrize("name", ["rcnn", "fast_rcnn"])
def test_a_detector_that_is_told_where_to_look_says_so_of_an_image_alone(name):
    detector = make(DetectionConfig(model=name), SETTING._replace(sizes=()))
    batch = {"image": batch_of()["image"]}
    run = running.EvaluationPass(bound(detector), {}, batch)
    with pytest.raises(UserError, match=f"--model={name}: is told with each image where to look"):
        detector.predict(run, batch)


LAST = {
    "localisation": ["head"],
    "landmarks": ["head"],
    "yolo": ["predict"],
    "faster_rcnn": ["head/box", "proposal_box"],
}


@pytest.mark.parametrize("name", LAST)
def test_coordinates_are_fine_in_bfloat16(name):
    """Eight bits would leave steps of a pixel or more on an image of 224."""
    setting = SETTING if name == "faster_rcnn" else SETTING._replace(sizes=())
    model = make(DetectionConfig(model=name, landmarks=4), setting).model
    first, second = batch_of()["image"]
    images = first + jnp.linspace(0, 1, 64)[:, None, None, None] * (second - first)
    variables = drawn(jax.eval_shape(model.init, jax.random.key(0), images))

    def outputs(images):
        options = {"mutable": ["intermediates"], "capture_intermediates": True}
        if name == "faster_rcnn":  # looks at the whole image
            options["choose"] = lambda *_: jnp.tile(jnp.array([0.0, 0, 32, 32]), (64, 1, 1))
        cast_variables, cast_images = cast((variables, images), jnp.bfloat16)
        return model.apply(cast_variables, cast_images, **options)[1]["intermediates"]

    found = jax.jit(outputs)(images)
    for layer in LAST[name]:
        inner = functools.reduce(lambda tree, key: tree[key], layer.split("/"), found)
        values = np.asarray(inner["__call__"][0], np.float32).reshape(64, -1)[:, :200]
        distinct = [len(np.unique(column)) for column in values.T if np.ptp(column) > 0]
        assert np.mean(distinct) > 60, layer


def test_the_squares_of_courses_take_no_weight_of_the_box():
    config = DetectionConfig(model="localisation", box_loss="squared", box_weight=3.0)
    with pytest.raises(UserError, match="--box_weight=3: --box_loss=squared sums all squares"):
        make(config, SETTING)
