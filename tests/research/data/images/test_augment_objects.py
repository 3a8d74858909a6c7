import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from research.data.config import ObjectAugmentation
from research.data.images import augment_objects as library
from research.data.images.augment import example_keys, move_points
from research.data.images.augment_objects import ObjectBatch
from research.errors import UserError

HEIGHT, WIDTH = 32, 24
augment_objects = jax.jit(library.augment_objects, static_argnums=0, static_argnames="axis")


@functools.cache
def keys_of(n, seed=0):
    return example_keys(jax.random.key(seed), jnp.arange(n))


def rectangles(n, seed=0):
    """Images of one bright rectangle each (channel 1) on a grey of its own (channel 0).

    The second slot of each is empty.
    """
    rng = np.random.default_rng(seed)
    image = np.zeros((n, HEIGHT, WIDTH, 3), np.float32)
    image[..., 0] = (np.arange(n) + 1).reshape(n, 1, 1) / (n + 1)
    x0, y0 = rng.integers(0, WIDTH - 7, n), rng.integers(0, HEIGHT - 7, n)
    x1, y1 = rng.integers(x0 + 5, WIDTH + 1), rng.integers(y0 + 5, HEIGHT + 1)
    boxes = np.zeros((n, 2, 4), np.float32)
    boxes[:, 0] = np.stack([x0, y0, x1, y1], 1)
    for i in range(n):
        image[i, y0[i] : y1[i], x0[i] : x1[i], 1] = 1.0
    classes = np.stack([np.arange(n), np.zeros(n)], 1).astype(np.int32)
    valid = np.tile([True, False], (n, 1))
    crowd = np.stack([np.arange(n) % 3 == 0, np.zeros(n, bool)], 1)
    return ObjectBatch(*map(jnp.array, (image, boxes, classes, crowd, valid)))


def extent(bright):
    ys, xs = np.nonzero(bright)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])


@pytest.mark.parametrize(
    "options",
    [
        ObjectAugmentation(mirror=True),
        ObjectAugmentation(mirror=True, flip=True),
        ObjectAugmentation(scale=0.4),
        ObjectAugmentation(shift=0.6),
        ObjectAugmentation(crop_padding=12),
        ObjectAugmentation(mirror=True, scale=0.3, shift=0.4, visible=0.6),
    ],
    ids=["mirror", "both flips", "scale", "shift", "crop", "all"],
)
def test_boxes_stay_around_what_they_were_around(options):
    n = 128
    batch = rectangles(n)
    changed = augment_objects(options, keys_of(n), batch, jnp.ones(n, bool))
    image, boxes, valid = map(np.asarray, (changed.image, changed.boxes, changed.valid))
    assert not valid[:, 1].any() and not boxes[~valid].any()
    np.testing.assert_array_equal(changed.classes, batch.classes)
    np.testing.assert_array_equal(changed.crowd, batch.crowd)
    for i in np.flatnonzero(valid[:, 0]):
        np.testing.assert_allclose(boxes[i, 0], extent(image[i, ..., 1] >= 0.5), atol=0.6)
    # What is lost is lost by the pixels too; how far a box was enlarged, all pixels say.
    bright = image[..., 1].sum((1, 2))
    grown = image[..., 1].sum((1, 2)) / np.maximum(np.asarray(batch.image[..., 1].sum((1, 2))), 1)
    if not options.scale:
        share = bright / np.asarray(batch.image[..., 1].sum((1, 2)))
        # Of a crowd a pixel is enough.
        crowd, some = np.asarray(batch.crowd[:, 0]), image[..., 1].max((1, 2)) > 0.99
        kept = np.where(crowd, some, share >= options.visible - 1e-3)
        np.testing.assert_array_equal(valid[:, 0], kept)
    assert grown[~valid[:, 0]].max(initial=0.0) < options.visible * (1 + options.scale) ** 2
    assert valid[:, 0].mean() > 0.5 and (options.shift == 0 or not valid[:, 0].all())


def test_regions_and_points_move_as_boxes_do():
    options = ObjectAugmentation(mirror=True, scale=0.3, shift=0.2)
    batch, n = rectangles(64), 64
    changed = augment_objects(options, keys_of(n), batch, jnp.ones(n, bool))
    move = lambda f: jax.jit(f, static_argnums=(0, 3, 4))
    regions = move(library.move_regions)(options, keys_of(n), batch.boxes, HEIGHT, WIDTH)
    np.testing.assert_allclose(regions, changed.boxes, atol=1e-5)
    corners = batch.boxes[:, 0].reshape(n, 2, 2)
    moved = np.asarray(move(move_points)(options, keys_of(n), corners, HEIGHT, WIDTH))
    whole = ((moved >= 0) & (moved <= [WIDTH, HEIGHT])).all((1, 2))
    around = np.concatenate([moved.min(1), moved.max(1)], axis=1)
    assert whole.sum() > 15
    np.testing.assert_allclose(around[whole], np.asarray(changed.boxes[:, 0])[whole], atol=1e-4)


def test_without_any_kind_everything_stays():
    batch = rectangles(8)
    changed = augment_objects(ObjectAugmentation(), keys_of(8), batch, jnp.ones(8, bool))
    for before, after in zip(batch, changed, strict=True):
        np.testing.assert_array_equal(after, before)


def test_colour_moves_no_box():
    batch = rectangles(8)
    options = ObjectAugmentation(brightness=0.3, contrast=0.3)
    changed = augment_objects(options, keys_of(8), batch, jnp.ones(8, bool))
    np.testing.assert_array_equal(changed.boxes, batch.boxes)
    assert np.abs(changed.image - batch.image).max() > 0.1


@pytest.mark.parametrize("valid", [range(12), (0, 3, 4, 7, 11), (5,)], ids=["all", "some", "one"])
def test_a_mosaic_shows_four_images_and_their_boxes(valid):
    """Grey tells which image a pixel is of; the bright part of each tile is its box."""
    n, valid = 12, list(valid)
    batch = rectangles(n)
    mask = jnp.array([i in valid for i in range(n)])
    options = ObjectAugmentation(mosaic=1.0)
    changed = jax.device_get(augment_objects(options, keys_of(n), batch, mask))
    before = jax.device_get(batch)
    assert changed.boxes.shape == (n, 8, 4)
    scales = []
    for i in range(n):
        image, boxes = changed.image[i], changed.boxes[i]
        members = [i]
        for _ in range(3):
            members.append(next(j % n for j in range(members[-1] + 1, n * 3) if j % n in valid))
        of = np.rint(image[..., 0] * (n + 1)).astype(int) - 1
        assert of.min() >= 0  # no gap
        # The meeting point, from the corner images if they differ, else from the boxes alone.
        assert set(of[[0, 0, -1, -1], [0, -1, 0, -1]].tolist()) <= set(members)
        if len(set(members)) < 4:
            continue
        down = int((of[:, 0] == members[0]).sum())
        across = int((of[0] == members[0]).sum())
        tiles = [np.s_[:down, :across], np.s_[:down, across:], np.s_[down:, :across]]
        tiles.append(np.s_[down:, across:])
        for k, (member, tile) in enumerate(zip(members, tiles, strict=True)):
            # A row and a column between two tiles mix them.
            inner = of[tile][1:-1, 1:-1]
            assert (inner == member).mean() > 0.98 if inner.size else True
            slot = 2 * k
            assert changed.classes[i, slot] == member and not changed.valid[i, slot + 1]
            assert changed.crowd[i, slot] == (member % 3 == 0)
            alone = np.zeros((HEIGHT, WIDTH), bool)
            alone[tile] = image[tile][..., 1] >= 0.5
            if changed.valid[i, slot] and alone.any():  # the seam may hide a sliver of a crowd
                np.testing.assert_allclose(boxes[slot], extent(alone), atol=1.1)
                x0, _, x1, _ = before.boxes[member, 0]
                whole = (boxes[slot] > 0.5).all() and (boxes[slot] < [23.5, 31.5] * 2).all()
                if whole:
                    scales.append((boxes[slot, 2] - boxes[slot, 0]) / (x1 - x0))
            else:
                assert alone.sum() <= 0.3 * before.image[member, ..., 1].sum()
    if len(valid) == n:
        assert min(scales) < 0.62 and max(scales) > 0.8
        assert min(scales) >= 0.5 - 1e-3 and max(scales) <= 1 + 1e-3


@pytest.mark.parametrize("share", [0.0, 1.0], ids=["alone", "mosaic"])
def test_a_crowd_stays_while_any_part_of_it_is_seen(share):
    """Or what is left of it would be background."""
    n = 64
    batch = rectangles(n)
    objects = batch._replace(crowd=jnp.zeros_like(batch.crowd))
    crowds = batch._replace(crowd=batch.valid)
    options = ObjectAugmentation(mosaic=share, shift=0.9, visible=0.6)
    cut, seen = (
        jax.device_get(augment_objects(options, keys_of(n), x, jnp.ones(n, bool)))
        for x in (objects, crowds)
    )
    brightest = seen.image[..., 1].max((1, 2))
    assert seen.valid.any(1)[brightest > 0.99].all() and brightest[seen.valid.any(1)].min() > 0.4
    assert cut.valid.sum() < 0.9 * seen.valid.sum()
    np.testing.assert_array_equal(cut.boxes[cut.valid], seen.boxes[cut.valid])
    x0, y0, x1, y1 = seen.boxes[seen.valid].T
    assert (x0 < x1).all() and (y0 < y1).all() and x1.max() <= WIDTH and y1.max() <= HEIGHT


def test_a_share_of_examples_stays_as_it_is():
    n = 256
    batch = rectangles(n)
    changed = augment_objects(ObjectAugmentation(mosaic=0.25), keys_of(n), batch, jnp.ones(n, bool))
    same = (np.asarray(changed.image) == np.asarray(batch.image)).all((1, 2, 3))
    assert 0.15 < 1 - same.mean() < 0.35
    np.testing.assert_array_equal(changed.boxes[same][:, :2], batch.boxes[same])
    np.testing.assert_array_equal(changed.valid[same][:, :2], batch.valid[same])
    assert not changed.valid[same][:, 2:].any() and changed.valid[~same][:, 2:].any()


def test_eight_devices_give_what_one_gives():
    options = ObjectAugmentation(mosaic=0.7, mirror=True, scale=0.2, shift=0.2, brightness=0.1)
    n = 16
    batch, mask = rectangles(n), jnp.arange(n) < 13
    expected = augment_objects(options, keys_of(n), batch, mask)

    def apply(index, batch, mask, axis=None):
        keys = example_keys(jax.random.key(0), index)
        return library.augment_objects(options, keys, batch, mask, axis=axis)

    arguments = (jnp.arange(n), batch, mask)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.jit(apply)(*jax.device_put(arguments, NamedSharding(mesh, P("data"))))
    split = jax.tree.map(lambda x: x.reshape(8, 2, *x.shape[1:]), arguments)
    pmapped = jax.pmap(functools.partial(apply, axis="data"), axis_name="data")(*split)
    pmapped = jax.tree.map(lambda x: x.reshape(n, *x.shape[2:]), pmapped)
    for got in (sharded, pmapped):
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=3e-5)


def test_what_boxes_cannot_follow_is_refused():
    batch = rectangles(2)
    for options, flag in (
        (ObjectAugmentation(elastic_alpha=3.0), "elastic_alpha"),
        (ObjectAugmentation(mixup=0.2), "mixup"),
    ):
        with pytest.raises(UserError, match=flag):
            library.augment_objects(options, keys_of(2), batch, jnp.ones(2, bool))


@pytest.mark.parametrize("share", [0.0, 1.0], ids=["alone", "mosaic"])
def test_what_a_crop_cut_away_is_no_object_to_train_on(share):
    """Else a mosaic would put it into the neighbouring tile."""
    boxes = jnp.array([[-6, 1, 6, 11], [-20, 1, 2, 11], [WIDTH + 2, 1, WIDTH + 8, 9]], jnp.float32)
    batch = ObjectBatch(
        jnp.full((4, HEIGHT, WIDTH, 3), 0.5),
        jnp.tile(boxes, (4, 1, 1)),
        jnp.tile(jnp.arange(3), (4, 1)),
        jnp.zeros((4, 3), bool),
        jnp.ones((4, 3), bool),
    )
    changed = augment_objects(
        ObjectAugmentation(mosaic=share), keys_of(4), batch, jnp.ones(4, bool)
    )
    assert set(np.asarray(changed.classes[changed.valid])) == {0}
    if not share:
        np.testing.assert_array_equal(changed.boxes[:, 0], [[0, 1, 6, 11]] * 4)
