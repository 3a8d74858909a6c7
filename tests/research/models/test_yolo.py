"""YOLO: what encodes the truth scores 1; gradients, anchors, strides, and what padding may do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import check_gradients, drawn

from research.errors import UserError
from research.geometry.assignment import POSITIVE
from research.geometry.nms import detect
from research.losses.detection import yolo_loss
from research.metrics import detection as metrics
from research.models import create, yolo

SIZE = (64, 48)  # height, width
CLASSES = 4
KINDS = {
    "no anchors": ((8,), [[[16.0, 16.0]]], 0.5),
    "neighbours too": ((8,), [[[16.0, 16.0]]], 1.5),
    "anchors": ((8,), [[[8.0, 12.0], [16.0, 14.0], [30.0, 30.0]]], 0.5),
    "two strides": ((8, 16), [[[10.0, 10.0]], [[30.0, 30.0]]], 0.5),
}


def predictors(kind):
    strides, priors, reach = KINDS[kind]
    return yolo.make_predictors(SIZE, strides, [np.array(p) for p in priors], reach)


def scenes(seed=0, images=6, objects=4):
    """Objects one in each quarter, so that none shares a cell; padding is NaN."""
    rng = np.random.default_rng(seed)
    centre = np.array([[12, 16], [36, 16], [12, 48], [36, 48]]) + rng.uniform(-3, 3, (images, 4, 2))
    half = rng.uniform(4, 11, (images, objects, 2))
    valid = rng.random((images, objects)) < 0.7
    boxes = np.concatenate([centre - half, centre + half], 2)
    return {
        "boxes": jnp.array(np.where(valid[..., None], boxes, np.nan), jnp.float32),
        "classes": jnp.array(rng.integers(0, CLASSES, (images, objects)), jnp.int32),
        "valid": jnp.array(valid),
        "crowd": jnp.zeros((images, objects), bool),
    }


def assigned(p, batch):
    assign = jax.vmap(lambda *args: yolo.assign(p, *args))
    return assign(batch["boxes"], batch["valid"], batch["crowd"])


def encoded(p, batch):
    """Raw outputs that say exactly what is in the scenes: `decode` inverted."""
    kind, target = assigned(p, batch)
    positive = np.asarray(kind == POSITIVE)[..., None]
    boxes = np.take_along_axis(np.asarray(batch["boxes"]), np.asarray(target)[..., None], 1)
    boxes = np.where(positive, boxes, 1.0)
    classes = np.take_along_axis(np.asarray(batch["classes"]), np.asarray(target), 1)
    middle, size = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    share = (middle - p.points) / (2 * p.reach * p.stride[:, None]) + 0.5
    share = np.where(positive, share, 0.5)
    raw = np.zeros((*positive.shape[:2], 5 + CLASSES), np.float32)
    raw[..., :2] = np.log(share / (1 - share))
    raw[..., 2:4] = np.log(np.where(positive, size, p.prior) / p.prior)
    raw[..., 4] = np.where(positive[..., 0], 20, -20)
    raw[..., 5:] = 20 * np.eye(CLASSES)[classes]
    return jnp.array(raw)


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_that_encode_the_truth_have_no_loss_and_score_one(kind):
    p, batch = predictors(kind), scenes()
    raw = encoded(p, batch)
    boxes = yolo.decode(raw, p)
    loss, parts = yolo_loss(raw, boxes, assigned(p, batch), batch["boxes"], batch["classes"])
    assert parts.keys() == {"box", "objectness", "class"}
    np.testing.assert_allclose(loss, 0, atol=1e-4)
    found = jax.device_get(detect(boxes, yolo.scores_of(raw), SIZE, count=10))
    truth = jax.device_get(batch) | {"boxes": np.nan_to_num(batch["boxes"])}
    scores = metrics.score(found, truth, tuple("abcd"))
    assert scores["mAP"] == pytest.approx(1.0) and scores["voc07_mAP"] == pytest.approx(1.0)


def test_several_strides_share_objects_by_size():
    p = predictors("two strides")
    batch = scenes() | {"valid": jnp.ones((6, 4), bool)}
    boxes = jnp.array([[10, 10, 20, 20], [8, 20, 40, 50]], jnp.float32)
    kind, target = yolo.assign(p, boxes, jnp.ones(2, bool), jnp.zeros(2, bool))
    chosen = np.flatnonzero(kind == POSITIVE)
    assert [int(p.stride[i]) for i in chosen] == [8, 16]
    assert [int(target[i]) for i in chosen] == [0, 1]
    assert len(p.stride) == 8 * 6 + 4 * 3
    del batch


def test_more_cells_answer_where_neighbours_do():
    batch = scenes()
    one, many = (
        int((assigned(predictors(kind), batch).kind == POSITIVE).sum())
        for kind in ("no anchors", "neighbours too")
    )
    assert one == int(batch["valid"].sum()) < many


@pytest.mark.parametrize("overlap", ["giou", "ciou"])
def test_loss_against_a_loop(overlap):
    p, batch = predictors("anchors"), scenes(1)
    rng = np.random.default_rng(2)
    raw = jnp.array(rng.normal(size=(6, len(p.stride), 5 + CLASSES)), jnp.float32)
    boxes, who = yolo.decode(raw, p), assigned(p, batch)
    loss, _ = yolo_loss(raw, boxes, who, batch["boxes"], batch["classes"], box_loss=overlap)
    from research.geometry import boxes as geometry

    for i in range(6):
        objectness, box, label, count = 0.0, 0.0, 0.0, 0
        for k in range(len(p.stride)):
            chance, quality = 1 / (1 + np.exp(-float(raw[i, k, 4]))), 0.0
            if who.kind[i, k] == POSITIVE:
                true = batch["boxes"][i, who.target[i, k]]
                quality = float(geometry.iou(boxes[i, k], true))
                box += 1 - float(getattr(geometry, overlap)(boxes[i, k], true))
                logits = np.asarray(raw[i, k, 5:], np.float64)
                own = int(batch["classes"][i, who.target[i, k]])
                label += np.log(np.exp(logits).sum()) - logits[own]
                count += 1
            objectness -= quality * np.log(chance) + (1 - quality) * np.log(1 - chance)
        expected = (objectness + 2 * box + label) / max(count, 1)
        np.testing.assert_allclose(loss[i], expected, rtol=1e-4)


def test_padding_gives_no_loss_and_a_finite_gradient():
    p, batch = predictors("neighbours too"), scenes()
    raw = jnp.array(np.random.default_rng(0).normal(size=(6, len(p.stride), 9)), jnp.float32)

    def total(raw, batch):
        boxes = yolo.decode(raw, p)
        return yolo_loss(raw, boxes, assigned(p, batch), batch["boxes"], batch["classes"])[0].sum()

    value, gradient = jax.value_and_grad(total)(raw, batch)
    other = batch | {"boxes": jnp.where(batch["valid"][..., None], batch["boxes"], 7.0)}
    other["classes"] = jnp.where(batch["valid"], batch["classes"], 3)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    np.testing.assert_allclose(value, total(raw, other), rtol=1e-6)
    # An image without objects still learns that it has none.
    empty = {**batch, "valid": batch["valid"] & False}
    gradient = jax.grad(total)(raw, empty)
    assert np.isfinite(gradient).all() and gradient[..., 4].all()
    assert not gradient[..., :4].any() and not gradient[..., 5:].any()


def test_what_lies_in_a_crowd_is_not_called_empty():
    p, batch = predictors("no anchors"), scenes()
    raw = jnp.zeros((6, len(p.stride), 9))
    batch["boxes"] = jnp.tile(jnp.array([0.0, 0, 48, 64]), (6, 4, 1))
    batch["valid"], batch["crowd"] = batch["valid"] | True, batch["crowd"] | True
    loss, _ = yolo_loss(
        raw, yolo.decode(raw, p), assigned(p, batch), batch["boxes"], batch["classes"]
    )
    assert not loss.any()


@pytest.mark.parametrize(("backbone", "strides"), [("compact", (4, 8)), ("convnet", (4,))])
def test_every_parameter_gets_a_gradient(backbone, strides):
    model = create("yolo", backbone=backbone, strides=strides, num_classes=CLASSES, width=16)
    priors = [np.array([[4.0 * stride, 4.0 * stride]]) for stride in strides]
    p = yolo.make_predictors((32, 32), strides, priors)
    images = jnp.array(np.random.default_rng(0).normal(size=(3, 32, 32, 3)), jnp.float32)
    boxes = jnp.tile(jnp.array([[2.0, 3, 9, 11], [8, 9, 31, 30]]), (3, 1, 1))
    batch = {
        "boxes": boxes,
        "classes": jnp.ones((3, 2), jnp.int32),
        "valid": jnp.ones((3, 2), bool),
        "crowd": jnp.zeros((3, 2), bool),
    }
    variables = drawn(jax.eval_shape(model.init, jax.random.key(0), images))
    assert {"backbone", "head0_conv", "predict"} <= set(variables["params"])

    def loss(params):
        raw, _ = model.apply(
            {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
        )
        assert raw.shape[1] == len(p.stride)
        boxes = yolo.decode(raw, p)
        return yolo_loss(raw, boxes, assigned(p, batch), batch["boxes"], batch["classes"])[0].sum()

    check_gradients(loss, variables["params"])


def test_a_stride_that_the_backbone_has_not_is_said():
    model = create("yolo", strides=(8, 32))
    with pytest.raises(UserError, match=r"no map at stride 32.* it has 2, 4, 8"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))


def test_class_agnostic_suppression_and_few_candidates():
    boxes = jnp.array([[[0, 0, 10, 10], [1, 1, 11, 11], [30, 30, 40, 40]]], jnp.float32)
    scores = jnp.array([[[0.9, 0.0], [0.0, 0.8], [0.3, 0.2]]])
    by_class = detect(boxes, scores, (64, 64), count=5)
    assert by_class["valid"][0].tolist() == [True] * 4 + [False]
    np.testing.assert_array_equal(by_class["classes"][0, :4], [0, 1, 0, 1])
    agnostic = detect(boxes, scores, (64, 64), count=5, agnostic=True)
    np.testing.assert_allclose(agnostic["scores"][0], [0.9, 0.3, 0, 0, 0])
    assert detect(boxes, scores, (20, 20), count=2)["boxes"].max() <= 20
