"""Anchors and assignment against plain loops and sizes that are known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.geometry import anchors as anchors_lib
from research.geometry.assignment import IGNORED, NEGATIVE, POSITIVE, by_centre, by_iou, sample


def test_centres_are_the_middles_of_cells_row_by_row():
    points = anchors_lib.centres(2, 3, 8)
    np.testing.assert_array_equal(points, [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]])
    boxes = anchors_lib.anchor_boxes(points, jnp.array([[4.0, 2.0]]))
    np.testing.assert_array_equal(boxes[4, 0], [10, 11, 14, 13])


def test_k_means_finds_the_sizes_that_boxes_were_drawn_around():
    rng = np.random.default_rng(1)
    true = np.array([[8.0, 12.0], [30.0, 18.0], [50.0, 60.0]])
    sizes = np.concatenate([size * rng.uniform(0.95, 1.05, (40, 2)) for size in true])
    found, mean_iou = anchors_lib.k_means(sizes, 3)
    np.testing.assert_allclose(found, true, rtol=0.03)
    assert mean_iou == pytest.approx(anchors_lib.shape_iou(sizes, found).max(1).mean())
    assert mean_iou > 0.93
    again, _ = anchors_lib.k_means(sizes, 3)
    np.testing.assert_array_equal(again, found)


def test_more_anchors_fit_better_and_boxes_without_area_are_left_out():
    sizes = np.random.default_rng(0).uniform(4, 60, (200, 2))
    fits = [anchors_lib.k_means(sizes, k)[1] for k in (1, 3, 6, 9)]
    assert fits == sorted(fits) and fits[0] < 0.6 < 0.7 < fits[-1]
    with_flat = np.concatenate([sizes, [[0.0, 5.0], [3.0, 0.0]]])
    np.testing.assert_array_equal(
        anchors_lib.k_means(with_flat, 3)[0], anchors_lib.k_means(sizes, 3)[0]
    )
    with pytest.raises(ValueError, match="area"):
        anchors_lib.k_means(np.zeros((4, 2)), 2)


def test_fewer_different_sizes_than_anchors():
    found, mean_iou = anchors_lib.k_means(np.array([[4.0, 4.0], [8.0, 8.0]]), 5)
    assert found.shape == (5, 2) and mean_iou == 1.0


def loop_by_iou(anchors, boxes, valid, positive, negative, keep_best=True):
    """Section 3.1.2 of Ren et al. 2015, read aloud."""

    def iou(a, b):
        w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        both = max(w, 0) * max(h, 0)
        return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)

    objects = np.flatnonzero(valid)
    table = {(i, j): iou(a, boxes[j]) for i, a in enumerate(anchors) for j in objects}
    kinds = []
    for i in range(len(anchors)):
        most = max((table[i, j] for j in objects), default=0.0)
        is_best = keep_best and any(
            table[i, j] > 0 and table[i, j] == max(table[k, j] for k in range(len(anchors)))
            for j in objects
        )
        if most >= positive or is_best:
            kinds.append(POSITIVE)
        else:
            kinds.append(NEGATIVE if most < negative else IGNORED)
    return kinds, table


def scene(seed, objects=5):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 40, (objects, 2))
    boxes = np.concatenate([low, low + rng.uniform(6, 24, (objects, 2))], 1).astype("f")
    return boxes, rng.random(objects) < 0.7


@pytest.mark.parametrize("seed", range(4))
def test_assignment_by_iou_against_a_loop(seed):
    boxes, valid = scene(seed)
    sizes = jnp.array([[10.0, 10.0], [20.0, 20.0]])
    anchors = anchors_lib.anchor_boxes(anchors_lib.centres(8, 8, 8), sizes).reshape(-1, 4)
    found = jax.jit(by_iou)(anchors, boxes, valid)
    kinds, table = loop_by_iou(np.asarray(anchors), boxes, valid, 0.7, 0.3)
    np.testing.assert_array_equal(found.kind, kinds)
    for i in np.flatnonzero(np.array(kinds) == POSITIVE):
        assert valid[found.target[i]] and table[i, int(found.target[i])] > 0
    alone = jax.jit(partial(by_iou, keep_best=False))(anchors, boxes, valid)
    fewer, _ = loop_by_iou(np.asarray(anchors), boxes, valid, 0.7, 0.3, keep_best=False)
    np.testing.assert_array_equal(alone.kind, fewer)
    assert fewer != kinds
    # Every object has an anchor.
    assert set(np.asarray(found.target)[np.asarray(found.kind) == POSITIVE]) == set(
        np.flatnonzero(valid)
    )


EIGHT = np.full(64, 8, "f")


@pytest.mark.parametrize("radius", [0.5, 1.5])
@pytest.mark.parametrize("seed", range(4))
def test_assignment_by_centre_against_a_loop(seed, radius):
    boxes, valid = scene(seed)
    points = np.asarray(anchors_lib.centres(8, 8, 8))
    found = jax.jit(by_centre, static_argnames="radius")(points, EIGHT, boxes, valid, radius=radius)
    for i, (x, y) in enumerate(points):
        claims = []
        for j in np.flatnonzero(valid):
            x0, y0, x1, y1 = boxes[j]
            cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
            own = cx // 8 == x // 8 and cy // 8 == y // 8
            inside = x0 <= x < x1 and y0 <= y < y1
            near = max(abs(x - cx), abs(y - cy)) < 8 * radius and inside and radius > 0.5
            if own or near:
                claims.append((not own, (x1 - x0) * (y1 - y0), j))
        assert (found.kind[i] == POSITIVE) == bool(claims)
        if claims:
            assert found.target[i] == min(claims)[2]


@pytest.mark.parametrize("radius", [0.5, 1.5])
def test_what_stands_in_padding_decides_nothing(radius):
    """Cells that several objects claim: a NaN among areas would give each the first of them."""
    boxes = jnp.array([[0, 0, 40, 40], [8, 8, 32, 32], [14, 14, 26, 26], [0, 0, 0, 0]], jnp.float32)
    valid = jnp.array([True, True, True, False])
    points = anchors_lib.centres(8, 8, 8)
    anchors = anchors_lib.anchor_boxes(points, jnp.array([[16.0, 16.0]]))[:, 0]
    centre = jax.jit(by_centre, static_argnames="radius")

    def assigned(boxes):
        return centre(points, EIGHT, boxes, valid, radius=radius), jax.jit(by_iou)(
            anchors, boxes, valid
        )

    clean, *others = map(assigned, (boxes, boxes.at[3].set(jnp.nan), boxes.at[3].set(jnp.inf)))
    assert (clean[0].target[clean[0].kind == POSITIVE] == 2).any()
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, clean, other)


def test_no_object_makes_every_cell_negative():
    anchors = anchors_lib.anchor_boxes(anchors_lib.centres(4, 4, 8), jnp.array([[8.0, 8.0]]))
    boxes, valid = jnp.full((3, 4), jnp.nan), jnp.zeros(3, bool)
    points = anchors_lib.centres(4, 4, 8)
    for found in (
        jax.jit(by_iou)(anchors[:, 0], boxes, valid),
        jax.jit(by_centre)(points, np.full(len(points), 8, "f"), boxes, valid),
    ):
        assert (np.asarray(found.kind) == NEGATIVE).all()


def test_what_lies_in_a_crowd_is_ignored_and_never_positive():
    points = anchors_lib.centres(4, 4, 8)
    anchors = anchors_lib.anchor_boxes(points, jnp.array([[8.0, 8.0]]))[:, 0]
    boxes = jnp.array([[0, 0, 16, 16], [24, 24, 32, 32]], jnp.float32)
    valid, crowd = jnp.ones(2, bool), jnp.array([True, False])
    expected = np.full((4, 4), NEGATIVE)
    expected[:2, :2], expected[3, 3] = IGNORED, POSITIVE
    for found in (
        jax.jit(by_iou)(anchors, boxes, valid, crowd),
        jax.jit(by_centre)(points, np.full(len(points), 8, "f"), boxes, valid, crowd),
    ):
        np.testing.assert_array_equal(np.asarray(found.kind).reshape(4, 4), expected)


@pytest.mark.parametrize("radius", [0.5, 1.5])
def test_cells_that_would_answer_for_a_difficult_object_are_ignored(radius):
    """Also where it is so small that no cell's middle lies in it, as most at stride 16 are."""
    points, stride = anchors_lib.centres(4, 4, 16), jnp.full(16, 16.0)
    run = jax.jit(by_centre, static_argnames="radius")
    rng = np.random.default_rng(0)
    for _ in range(20):
        low = rng.uniform(0, 54, 2)
        box = jnp.array([[*low, *low + 10]], jnp.float32)
        claimed = run(points, stride, box, jnp.array([True]), jnp.array([False]), radius=radius)
        ignored = run(points, stride, box, jnp.array([True]), jnp.array([True]), radius=radius)
        assert (claimed.kind == POSITIVE).any() and not (ignored.kind == POSITIVE).any()
        assert (ignored.kind[claimed.kind == POSITIVE] == IGNORED).all()


def test_anchors_that_are_not_background_of_an_object_are_ignored_where_it_is_difficult():
    points = anchors_lib.centres(8, 8, 8)
    anchors = anchors_lib.anchor_boxes(points, jnp.array([[14.0, 14.0], [28.0, 28.0]]))
    run = jax.jit(by_iou, static_argnames=("positive", "negative"))
    rng = np.random.default_rng(0)
    for side in (6, 10, 20, 30):
        low = rng.uniform(0, 64 - side, 2)
        box = jnp.array([[*low, *low + side]], jnp.float32)
        as_object, difficult = (
            run(
                anchors.reshape(-1, 4),
                box,
                jnp.array([True]),
                jnp.array([crowd]),
                positive=0.6,
                negative=0.3,
            )
            for crowd in (False, True)
        )
        assert (as_object.kind != NEGATIVE).any() and not (difficult.kind == POSITIVE).any()
        assert (difficult.kind[as_object.kind != NEGATIVE] == IGNORED).all()


def test_samples_are_balanced_random_and_of_the_right_kind():
    kind = jnp.array([POSITIVE] * 10 + [NEGATIVE] * 80 + [IGNORED] * 10)
    draw = jax.jit(lambda seed: sample(jax.random.key(seed), kind, 32))
    chosen = np.stack([draw(seed) for seed in range(20)])
    assert (chosen[:, :10].sum(1) == 10).all() and (chosen[:, 10:90].sum(1) == 22).all()
    assert not chosen[:, 90:].any()
    assert len(np.unique(chosen, axis=0)) == 20
    few = sample(jax.random.key(0), kind, 8)
    assert few[:10].sum() == 4 and few[10:90].sum() == 4


def test_boxes_are_moved_by_shares_of_their_sides_and_scaled_by_exponents():
    boxes = jnp.array([[10, 20, 30, 60], [0, 0, 8, 8], [0, 0, 8, 8]], jnp.float32)
    moves = jnp.array(
        [[0.5, -0.25, np.log(2), np.log(0.5)], [0, 0, 0, 0], [0, 0, 9, -9]], jnp.float32
    )
    found = anchors_lib.moved(boxes, moves)
    # The centre (20, 40) goes 10 to the right and 10 up; the sides are 40 and 20.
    np.testing.assert_allclose(found[0], [10, 20, 50, 40], rtol=1e-6)
    np.testing.assert_array_equal(found[1], boxes[1])
    np.testing.assert_allclose(found[2, 2] - found[2, 0], 8 * np.exp(4), rtol=1e-6)
    np.testing.assert_allclose(found[2, 3] - found[2, 1], 8 * np.exp(-4), rtol=1e-4)


def test_k_means_ends_where_each_anchor_is_the_mean_of_its_own():
    sizes = np.random.default_rng(3).uniform(4, 60, (60, 2))
    found, mean_iou = anchors_lib.k_means(sizes, 4)
    nearest = anchors_lib.shape_iou(sizes, found).argmax(1)
    means = np.stack([sizes[nearest == k].mean(0) for k in range(4)])
    assert anchors_lib.shape_iou(sizes, means).max(1).mean() == pytest.approx(mean_iou, abs=0.01)
    areas = found.prod(1)
    assert (np.diff(areas) > 0).all()
    assert anchors_lib.shape_iou(np.array([[2.0, 4.0]]), np.array([[4.0, 2.0]])) == 1 / 3


def test_the_cell_of_a_large_object_s_centre_is_its_own_whatever_small_ones_are_near():
    points = anchors_lib.centres(8, 8, 8)
    boxes = jnp.array([[0, 0, 62, 62], [23, 23, 43, 43]], jnp.float32)  # centres 31, 31; 33, 33
    found = by_centre(points, jnp.array(EIGHT), boxes, jnp.ones(2, bool), radius=1.5)
    kind, target = (np.asarray(x).reshape(8, 8) for x in found)
    assert kind[3, 3] == POSITIVE and target[3, 3] == 0  # also within reach of the small one
    assert kind[4, 4] == POSITIVE and target[4, 4] == 1
