"""Losses of one object, landmarks, proposals, regions and YOLO's first version, against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.geometry import boxes as geometry
from research.geometry.assignment import IGNORED, NEGATIVE, POSITIVE, Assignment
from research.losses import detection as losses

NAN = float("nan")


def random(shape, seed=0):
    return jnp.array(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def boxes_of(shape, seed=1):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 40, (*shape, 2))
    return jnp.array(np.concatenate([low, low + rng.uniform(4, 20, (*shape, 2))], -1), jnp.float32)


PRESENT = jnp.array([True, False, True, False])


def test_without_an_object_localisation_learns_its_absence_alone():
    box = boxes_of((4,))
    true = jnp.where(PRESENT[:, None], boxes_of((4,), 2), NAN)
    label = jnp.where(PRESENT, 2, 999)  # no class at all

    def total(presence, box, logits):
        value, parts = losses.localisation_loss(presence, box, logits, PRESENT, true, label)
        return value.sum(), (value, parts)

    arguments = random(4), box, random((4, 5), 3)
    gradients, (value, parts) = jax.grad(total, argnums=(0, 1, 2), has_aux=True)(*arguments)
    assert np.isfinite(value).all() and all(np.isfinite(x).all() for x in gradients)
    assert all(gradients[0])  # of p_c, everywhere
    for gradient in gradients[1:]:
        assert not gradient[1].any() and not gradient[3].any()
        assert gradient[0].any() and gradient[2].any()
    np.testing.assert_allclose(value[1], parts["presence"][1])
    chance = 1 / (1 + np.exp(-np.asarray(arguments[0], np.float64)))
    expected = (
        -np.log(chance[0])
        + 2 * (1 - geometry.giou(box[0], true[0]))
        - jax.nn.log_softmax(arguments[2][0])[2]
    )
    np.testing.assert_allclose(value[0], expected, rtol=1e-5)
    np.testing.assert_allclose(value[1], -np.log(1 - chance[1]), rtol=1e-5)


@pytest.mark.parametrize("count", [1, 64])
def test_without_an_object_landmarks_learn_its_absence_alone(count):
    places = np.random.default_rng(1).uniform(0, 1, (4, count, 2))
    places[2, 0] = (-0.2, 0.5) if count == 1 else (0.5, 1.2)  # outside of its image
    true = jnp.where(PRESENT[:, None, None], jnp.array(places, jnp.float32), NAN)

    def total(presence, points):
        value, _ = losses.landmark_loss(presence, points, PRESENT, true)
        return value.sum(), value

    presence, points = random(4), random((4, count, 2), 2)
    (first, second), value = jax.grad(total, argnums=(0, 1), has_aux=True)(presence, points)
    assert np.isfinite(value).all() and np.isfinite(second).all() and all(first)
    assert not second[1].any() and not second[3].any() and second[0].all()
    assert not second[2, 0].any() and second[2, 1:].all()
    for row, first_seen in ((0, 0), (2, 1)):
        far = np.abs(np.asarray(points - true)[row, first_seen:])
        linear = np.where(far < 0.01, far**2 / 0.02, far - 0.005).sum() / max(len(far), 1)
        chance = 1 / (1 + np.exp(-float(presence[row])))
        np.testing.assert_allclose(value[row], -np.log(chance) + 10 * linear, rtol=1e-5)


def some(seed=0):
    """Three images, six places, two objects (the second is padding), as the kinds say."""
    kind = jnp.array(
        [
            [POSITIVE, NEGATIVE, IGNORED, POSITIVE, NEGATIVE, NEGATIVE],
            [NEGATIVE] * 6,
            [IGNORED, POSITIVE, NEGATIVE, NEGATIVE, IGNORED, IGNORED],
        ]
    )
    boxes = boxes_of((3, 2), 5).at[:, 1].set(NAN)
    return Assignment(kind, jnp.where(kind == POSITIVE, 0, 1)), boxes


def test_proposal_loss_counts_sampled_anchors_alone():
    assigned, boxes = some()
    logits, proposed = random((3, 6)), boxes_of((3, 6), 6)
    sampled = (assigned.kind != IGNORED) & (jnp.arange(6) != 3)
    value, parts = losses.proposal_loss(logits, proposed, assigned, sampled, boxes)
    for i in range(3):
        terms, overlaps = [], []
        for k in range(6):
            if sampled[i, k]:
                positive = assigned.kind[i, k] == POSITIVE
                terms.append(np.log1p(np.exp(-logits[i, k] if positive else logits[i, k])))
                if positive:
                    overlaps.append(1 - float(geometry.giou(proposed[i, k], boxes[i, 0])))
        np.testing.assert_allclose(parts["proposal_object"][i], np.mean(terms), rtol=1e-5)
        np.testing.assert_allclose(
            parts["proposal_box"][i], np.mean(overlaps) if overlaps else 0.0, rtol=1e-5
        )
    gradient = jax.grad(
        lambda x: losses.proposal_loss(logits, x, assigned, sampled, boxes)[0].sum()
    )(proposed)
    assert np.isfinite(gradient).all() and not gradient[~np.asarray(sampled)].any()
    assert value.shape == (3,)


def test_region_loss_leaves_ignored_regions_out_and_zero_is_background():
    assigned, boxes = some()
    classes = jnp.array([[2, 99]] * 3)
    logits, moved = random((3, 6, 4)), boxes_of((3, 6), 7)
    _, parts = losses.region_loss(logits, moved, assigned, boxes, classes)
    log = np.asarray(jax.nn.log_softmax(logits))
    for i in range(3):
        terms = []
        for k in range(6):
            if assigned.kind[i, k] != IGNORED:
                terms.append(-log[i, k, 3 if assigned.kind[i, k] == POSITIVE else 0])
        np.testing.assert_allclose(parts["class"][i], np.mean(terms), rtol=1e-5)
    assert parts["box"][1] == 0 and np.isfinite(parts["box"]).all()
    # A network that sees nothing but ignored regions learns nothing.
    nothing = Assignment(jnp.full((3, 6), IGNORED), assigned.target)
    assert not losses.region_loss(logits, moved, nothing, boxes, classes)[0].any()


def test_of_a_cell_s_boxes_the_one_that_overlaps_most_is_responsible():
    boxes = jnp.array([[[0.0, 0, 10, 10], [NAN] * 4]])
    decoded = jnp.array([[[0, 0, 5, 10], [0, 0, 9, 10], [20, 20, 30, 30], [0, 0, 10, 10]]], "f")
    kind = jnp.array([[POSITIVE, POSITIVE, NEGATIVE, NEGATIVE]])
    found = losses.responsible(
        Assignment(kind, jnp.zeros((1, 4), jnp.int32)), decoded, boxes, count=2
    )
    assert found.kind.tolist() == [[NEGATIVE, POSITIVE, NEGATIVE, NEGATIVE]]


def test_yolo_v1_loss_against_equation_3():
    boxes, classes = jnp.array([[[8.0, 8, 24, 40]]]), jnp.array([[1]])
    raw, decoded = random((1, 3, 8)), boxes_of((1, 3), 3)
    assigned = Assignment(jnp.array([[NEGATIVE, POSITIVE, IGNORED]]), jnp.zeros((1, 3), jnp.int32))
    value, _ = losses.yolo_v1_loss(raw, decoded, assigned, boxes, classes, image_size=(64, 48))

    def parameters(box):
        x0, y0, x1, y1 = (float(v) for v in box)
        return np.array([(x0 + x1) / 96, (y0 + y1) / 128]), np.sqrt(
            [(x1 - x0) / 48, (y1 - y0) / 64]
        )

    (xy, wh), (true_xy, true_wh) = parameters(decoded[0, 1]), parameters(boxes[0, 0])
    confidence = 1 / (1 + np.exp(-np.asarray(raw[0, :, 4], np.float64)))
    share = np.asarray(jax.nn.softmax(raw[0, 1, 5:]))
    expected = (
        5 * (((xy - true_xy) ** 2).sum() + ((wh - true_wh) ** 2).sum())
        + (confidence[1] - float(geometry.iou(decoded[0, 1], boxes[0, 0]))) ** 2
        + 0.5 * confidence[0] ** 2
        + ((share - [0, 1, 0]) ** 2).sum()
    )
    np.testing.assert_allclose(value[0], expected, rtol=1e-4)


@pytest.mark.parametrize("overlap", ["giou", "ciou"])
def test_yolo_loss_against_a_loop(overlap):
    assigned, boxes = some()
    classes = jnp.array([[2, 99]] * 3)
    raw, decoded = random((3, 6, 9)), boxes_of((3, 6), 7)
    measure = getattr(geometry, overlap)
    # One place of the first image overlaps its object in part, so that its quality is no 0.
    decoded = decoded.at[0, 3].set(boxes[0, 0] + jnp.array([0.0, 0, 2, 3]))
    value, parts = losses.yolo_loss(raw, decoded, assigned, boxes, classes, box_loss=overlap)
    log = np.asarray(jax.nn.log_softmax(raw[..., 5:]))
    for i in range(3):
        objectness, box, label = 0.0, [], []
        for k in range(6):
            kind, logit = assigned.kind[i, k], float(raw[i, k, 4])
            quality = 0.0
            if kind == POSITIVE:
                quality = float(geometry.iou(decoded[i, k], boxes[i, 0]))
                box.append(1 - float(measure(decoded[i, k], boxes[i, 0])))
                label.append(-log[i, k, 2])
            if kind != IGNORED:
                objectness += np.log1p(np.exp(logit)) - quality * logit
        expected = {
            "objectness": objectness / max(len(box), 1),
            "box": np.mean(box) if box else 0.0,
            "class": np.mean(label) if label else 0.0,
        }
        for name, part in expected.items():
            np.testing.assert_allclose(parts[name][i], part, rtol=1e-5, err_msg=name)
        total = expected["objectness"] + 2 * expected["box"] + expected["class"]
        np.testing.assert_allclose(value[i], total, rtol=1e-5)
    gradient = jax.grad(
        lambda raw, x: losses.yolo_loss(raw, x, assigned, boxes, classes)[0].sum(), (0, 1)
    )(raw, decoded)
    assert all(np.isfinite(x).all() for x in gradient)
    assert not gradient[1][np.asarray(assigned.kind) != POSITIVE].any()  # quality is no target


def test_totals_are_the_sums_of_their_parts_and_boxes_count_where_objects_are():
    assigned, boxes = some()
    classes = jnp.array([[2, 99]] * 3)
    logits, moved = random((3, 6, 4)), boxes_of((3, 6), 7)
    value, parts = losses.region_loss(logits, moved, assigned, boxes, classes)
    np.testing.assert_allclose(value, parts["class"] + parts["box"], rtol=1e-6)
    for i, chosen in ((0, [0, 3]), (2, [1])):
        expected = np.mean([1 - float(geometry.giou(moved[i, k], boxes[i, 0])) for k in chosen])
        np.testing.assert_allclose(parts["box"][i], expected, rtol=1e-5)
    sampled = assigned.kind != IGNORED
    value, parts = losses.proposal_loss(logits[..., 0], moved, assigned, sampled, boxes)
    np.testing.assert_allclose(value, parts["proposal_object"] + parts["proposal_box"], rtol=1e-6)


def test_a_mean_of_nothing_is_zero_and_what_is_not_chosen_may_be_nan():
    values = jnp.array([[1.0, NAN, 4.0], [NAN, NAN, NAN]])
    chosen = jnp.array([[True, False, True], [False] * 3])
    np.testing.assert_array_equal(losses.mean_where(values, chosen), [2.5, 0.0])


def test_box_losses_of_courses_by_hand():
    """A box 40 wide and 20 high, 10 to the right and twice as wide: moves (0.25, 0, ln 2, 0)."""
    true, box = jnp.array([20.0, 20, 60, 40]), jnp.array([10.0, 20, 90, 40])
    log = np.log(2)
    assert losses.BOX_LOSSES["squared"](box, true) == pytest.approx(0.25**2 + log**2, rel=1e-5)
    smooth = losses.BOX_LOSSES["smooth_l1"](box, true)
    assert smooth == pytest.approx(0.5 * 0.25**2 + 0.5 * log**2, rel=1e-5)
    far = jnp.array([20.0 + 80, 20, 60 + 80, 40])  # two sides off: linear, 2 - 1/2
    assert losses.BOX_LOSSES["smooth_l1"](far, true) == pytest.approx(1.5, rel=1e-5)
    flat = jnp.array([20.0, 20, 60, 20])
    for loss in losses.BOX_LOSSES.values():
        assert loss(true, true) == pytest.approx(0, abs=1e-6)
        assert np.isfinite(jax.grad(lambda x, f=loss: f(x, true))(flat)).all()


def test_the_lecture_loss_of_one_object_ignores_what_is_nowhere():
    target = jnp.array([[1.0, 0, 1, 0, 0.5, 0.7, 0.3, 0.4], [0.0] + [jnp.nan] * 7])
    outputs = jnp.nan_to_num(target, nan=7.0) + 0.1
    np.testing.assert_allclose(
        losses.squared_localisation_loss(outputs, target), [0.08, 0.01], rtol=1e-5
    )
    gradient = jax.grad(lambda x: losses.squared_localisation_loss(x, target).sum())(outputs)
    np.testing.assert_allclose(gradient[1], [0.2, 0, 0, 0, 0, 0, 0, 0], atol=1e-6)
    lost = outputs.at[1, 1:].set(NAN)  # of a network that says nothing where nothing is
    gradient = jax.grad(lambda x: losses.squared_localisation_loss(x, target).sum())(lost)
    np.testing.assert_allclose(gradient[1], [0.2, 0, 0, 0, 0, 0, 0, 0], atol=1e-6)
