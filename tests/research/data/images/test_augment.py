import colorsys
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from research.data.config import Augmentation
from research.data.images import augment as augmentation
from research.data.images import warps
from research.data.images.augment import draw_warp, example_keys, mixup
from research.errors import UserError

EVERYTHING = Augmentation(
    mirror=True,
    flip=True,
    crop_padding=2,
    rotation=15.0,
    shear=5.0,
    scale=0.1,
    shift=0.1,
    elastic_alpha=20.0,
    brightness=0.2,
    contrast=0.3,
    saturation=0.3,
    hue=0.1,
    pca_colour=0.1,
    cutout=0.3,
    mixup=0.4,
)
COMPONENTS = np.array([[0.1, 0.02, 0.0], [0.1, 0.0, 0.01], [0.1, -0.02, -0.01]], "f")


# Compiled whole: far quicker than one operation after the other.
augment = jax.jit(augmentation.augment, static_argnums=0)
jitted_mixup = jax.jit(mixup, static_argnums=0)


def pictures(n=16, height=10, width=8, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.array(rng.random((n, height, width, channels)), jnp.float32)


@functools.cache
def keys_of(n, seed=0):
    return example_keys(jax.random.key(seed), jnp.arange(n))


def test_without_any_kind_images_stay_and_nothing_is_compiled():
    images = pictures()
    np.testing.assert_array_equal(augment(Augmentation(), keys_of(16), images), images)
    program = jax.make_jaxpr(lambda k, x: augmentation.augment(Augmentation(), k, x))(
        keys_of(16), images
    )
    assert not program.eqns


def test_every_kind_together_stays_in_range_and_changes_every_image():
    images = pictures()
    changed = augment(EVERYTHING, keys_of(16), images, COMPONENTS)
    assert changed.shape == images.shape and changed.dtype == images.dtype
    assert float(changed.min()) >= 0 and float(changed.max()) <= 1 + 1e-6
    assert (np.abs(changed - images).max((1, 2, 3)) > 0.05).all()


def test_an_example_is_changed_alike_in_any_batch():
    images, rows = pictures(), jnp.array([11, 2, 7])
    whole = augment(EVERYTHING, keys_of(16), images, COMPONENTS)
    part = augment(EVERYTHING, keys_of(16)[rows], images[rows], COMPONENTS)
    np.testing.assert_allclose(part, whole[rows], atol=2e-6)
    other_step = augment(EVERYTHING, keys_of(16, seed=1), images, COMPONENTS)
    assert np.abs(other_step - whole).max() > 0.1


def test_turning_one_kind_on_leaves_the_others_draws():
    images = pictures()
    bright = augment(Augmentation(brightness=0.2), keys_of(16), images * 0.5 + 0.2)
    both = augment(Augmentation(brightness=0.2, mirror=True), keys_of(16), images * 0.5 + 0.2)
    flipped = np.asarray(bright)[:, :, ::-1]
    same = [np.allclose(b, a, atol=1e-6) for a, b in zip(bright, both, strict=True)]
    turned = [np.allclose(b, a, atol=1e-6) for a, b in zip(flipped, both, strict=True)]
    assert all(np.logical_xor(same, turned)) and 3 < sum(turned) < 13


def test_eight_devices_give_what_one_gives():
    images, index = pictures(), jnp.arange(16)
    targets = jax.nn.one_hot(index % 5, 5)
    mask = index < 13

    def apply(images, index, targets, mask, axis=None):
        keys = example_keys(jax.random.key(0), index)
        images = augmentation.augment(EVERYTHING, keys, images, COMPONENTS)
        return mixup(EVERYTHING.mixup, keys, images, targets, mask, axis)

    arguments = (images, index, targets, mask)
    alone = augment(EVERYTHING, keys_of(16), images, COMPONENTS)
    expected = jitted_mixup(EVERYTHING.mixup, keys_of(16), alone, targets, mask)

    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.jit(apply)(*jax.device_put(arguments, NamedSharding(mesh, P("data"))))
    assert len(sharded[0].sharding.device_set) == 8

    split = jax.tree.map(lambda x: x.reshape(8, 2, *x.shape[1:]), arguments)
    pmapped = jax.pmap(functools.partial(apply, axis="data"), axis_name="data")(*split)
    pmapped = jax.tree.map(lambda x: x.reshape(16, *x.shape[2:]), pmapped)

    for got in (sharded, pmapped):
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-6)


def test_mirror_and_crop_are_numpys():
    images = pictures(64, 6, 6)
    changed = augment(Augmentation(mirror=True, crop_padding=1), keys_of(64), images)
    seen = set()
    for before, after in zip(np.asarray(images), np.asarray(changed), strict=True):
        padded = {False: np.pad(before, ((1, 1), (1, 1), (0, 0)))}
        padded[True] = padded[False][:, ::-1]
        matches = [
            (turned, y, x)
            for turned in (False, True)
            for y in range(3)
            for x in range(3)
            if np.array_equal(padded[turned][y : y + 6, x : x + 6], after)
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) > 14  # of 18


def test_both_flips_are_numpys_and_independent():
    images = pictures(64, 6, 5)
    changed = augment(Augmentation(mirror=True, flip=True), keys_of(64), images)
    ways = [np.s_[:], np.s_[:, ::-1], np.s_[::-1], np.s_[::-1, ::-1]]
    counts = np.zeros(4, int)
    for before, after in zip(np.asarray(images), np.asarray(changed), strict=True):
        counts += [np.array_equal(before[way], after) for way in ways]
    assert counts.sum() == 64 and counts.min() >= 8


def test_draws_fill_their_ranges():
    options = Augmentation(rotation=30.0, scale=0.2)
    matrices = jax.jit(jax.vmap(lambda k: draw_warp(options, k, 10, 10)[0]))(keys_of(1000))
    a, c = np.asarray(matrices)[:, 0, 0], np.asarray(matrices)[:, 1, 0]
    scale, angle = np.hypot(a, c), np.degrees(np.arctan2(-c, a))
    for values, low, high in ((scale, 0.8, 1.2), (angle, -30, 30)):
        assert low <= values.min() and values.max() <= high
        np.testing.assert_allclose(
            [values.mean(), values.std()],
            [(low + high) / 2, (high - low) / np.sqrt(12)],
            atol=0.05 * (high - low),
        )


def test_a_mask_is_moved_by_the_pair_that_moves_its_image():
    options = Augmentation(mirror=True, rotation=20.0, elastic_alpha=30.0)
    mask = np.zeros((28, 28), np.int32)
    mask[8:20, 5:15] = 1

    @jax.jit
    def move(keys):
        images = jnp.tile(jnp.array(mask, jnp.float32)[..., None], (4, 1, 1, 1))
        masks = jax.vmap(
            lambda key: warps.warp_mask(jnp.array(mask), *draw_warp(options, key, 28, 28))
        )(keys)
        return augmentation.augment(options, keys, images)[..., 0], masks

    images, masks = map(np.asarray, move(keys_of(16)[:4]))
    assert ((images > 0.5) == (masks == 1)).mean() > 0.98


def test_brightness_shifts_a_constant_image():
    images = jnp.full((1000, 3, 3, 1), 0.5)
    changed = np.asarray(augment(Augmentation(brightness=0.2), keys_of(1000), images))
    assert (changed == changed[:, :1, :1]).all()
    values = changed[:, 0, 0, 0]
    assert 0.3 <= values.min() < 0.33 and 0.67 < values.max() <= 0.7


def test_contrast_keeps_the_mean_and_scales_the_deviation():
    images = pictures(64) * 0.2 + 0.4
    changed = augment(Augmentation(contrast=0.5), keys_of(64), images)
    np.testing.assert_allclose(changed.mean((1, 2)), images.mean((1, 2)), atol=1e-5)
    factor = np.asarray(changed.std((1, 2)) / images.std((1, 2)))
    np.testing.assert_allclose(factor, np.tile(factor[:, :1], 3), rtol=1e-4)
    assert 0.5 <= factor.min() < 0.6 and 1.4 < factor.max() <= 1.5


@pytest.mark.parametrize("kind", ["hue", "saturation"])
def test_hue_and_saturation_are_colorsys(kind):
    image, draw = pictures(1, 4, 4)[0], 0.7
    got = np.asarray(
        jax.jit(getattr(augmentation, kind), static_argnums=2)(jnp.array([draw]), image, 0.3)
    )
    for before, after in zip(np.asarray(image).reshape(-1, 3), got.reshape(-1, 3), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*before.tolist())
        if kind == "hue":
            h = (h + 0.3 * draw) % 1
        else:
            s = min(s * (1 + 0.3 * draw), 1.0)
        np.testing.assert_allclose(after, colorsys.hsv_to_rgb(h, s, v), atol=1e-5)


def test_pca_colour_spreads_along_the_training_sets_axes():
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    variances = np.array([0.0004, 0.0025, 0.01])
    colours = 0.5 + (rng.normal(size=(40_000, 3)) * np.sqrt(variances)) @ axes.T
    components = augmentation.colour_components(colours.reshape(40, 50, 20, 3).astype("f"))
    # Each column is an axis, as long as its variance; its sign is free.
    np.testing.assert_allclose(np.linalg.norm(components, axis=0), variances, rtol=0.03)
    np.testing.assert_allclose(np.abs(np.sum(components * axes, 0)), variances, rtol=0.03)

    images = jnp.full((1000, 2, 2, 3), 0.5)
    shift = np.asarray(augment(Augmentation(pca_colour=2.0), keys_of(1000), images, components))
    assert (shift == shift[:, :1, :1]).all()
    covariance = np.cov(shift[:, 0, 0], rowvar=False)
    np.testing.assert_allclose(covariance, axes * (2 * variances) ** 2 @ axes.T, atol=8e-5)


@pytest.mark.parametrize(("share", "side"), [(0.5, 8), (0.45, 7), (0.01, 1)])
def test_cutout_takes_out_one_square_of_the_stated_side(share, side):
    images = pictures(64, 16, 16)
    changed = np.asarray(augment(Augmentation(cutout=share), keys_of(64), images))
    sizes = set()
    for before, after in zip(np.asarray(images), changed, strict=True):
        hole = (before != after).any(-1)
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert hole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        np.testing.assert_allclose(after[hole], np.tile(before.mean((0, 1)), (hole.sum(), 1)), 1e-5)
        sizes.add((len(rows), len(columns)))
    assert max(sizes) == (side, side)
    assert side == 1 or min(min(s) for s in sizes) < side  # some stick out


@pytest.mark.parametrize("valid", [range(6), (0, 2, 3), (4,), (1, 5)], ids=str)
def test_mixup_by_a_loop(valid):
    n, valid = 6, list(valid)
    images, mask = pictures(n), np.isin(np.arange(n), valid)
    targets = np.random.default_rng(0).dirichlet(np.ones(4), n).astype("f")
    mixed, labels = jitted_mixup(0.7, keys_of(16)[:n], images, jnp.array(targets), jnp.array(mask))
    np.testing.assert_allclose(np.sum(labels, 1), 1.0, rtol=1e-5)  # label mass is kept
    for i in range(n):
        partner = next(j % n for j in range(i + 1, i + 1 + n) if mask[j % n])
        if partner == i:
            np.testing.assert_allclose(mixed[i], images[i], rtol=1e-5)
            continue
        # The weight that explains the image explains the label too.
        a, b = np.asarray(images[i]).ravel(), np.asarray(images[partner]).ravel()
        weight = (np.asarray(mixed[i]).ravel() - b) @ (a - b) / ((a - b) @ (a - b))
        assert -1e-5 <= weight <= 1 + 1e-5
        np.testing.assert_allclose(np.ravel(mixed[i]), weight * a + (1 - weight) * b, atol=1e-5)
        expected = weight * targets[i] + (1 - weight) * targets[partner]
        np.testing.assert_allclose(labels[i], expected, atol=1e-5)


def test_mixing_weights_are_beta_distributed():
    n = 1000
    alternating = (jnp.arange(n) % 2).astype(jnp.float32).reshape(n, 1, 1, 1)
    mixed, _ = jitted_mixup(0.4, keys_of(n), alternating, jnp.ones((n, 1)), jnp.ones(n, bool))
    weight = np.abs(1 - np.arange(n) % 2 - np.ravel(mixed))
    assert scipy.stats.kstest(weight, scipy.stats.beta(0.4, 0.4).cdf).pvalue > 0.05


def test_colour_changes_refuse_grey_images():
    with pytest.raises(UserError, match="hue needs RGB"):
        augment(Augmentation(hue=0.1), keys_of(16)[:2], pictures(2, channels=1))
    with pytest.raises(ValueError, match="colour_components"):
        augment(Augmentation(pca_colour=0.1), keys_of(16)[:2], pictures(2))
