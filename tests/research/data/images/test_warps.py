import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from research.data.images import warps

# Compiled whole: far quicker than one operation after the other.
warp_image, warp_mask = jax.jit(warps.warp_image), jax.jit(warps.warp_mask, static_argnums=3)
warp_points, invert = jax.jit(warps.warp_points), jax.jit(warps.invert)
boxes_around = jax.jit(warps.boxes_around)
affine = jax.jit(warps.affine, static_argnums=(0, 1))


def picture(height=9, width=9, channels=2, seed=0):
    return np.random.default_rng(seed).random((height, width, channels)).astype("f")


@pytest.mark.parametrize("turns", [1, 2, 3, -1])
def test_rotation_by_right_angles_is_rot90(turns):
    image = picture()
    matrix = affine(9, 9, rotation=90.0 * turns)
    warped = warp_image(jnp.array(image), matrix)
    np.testing.assert_allclose(warped, np.rot90(image, turns), atol=1e-5)


@pytest.mark.parametrize("shape", [(9, 9, 1), (6, 11, 3)])
def test_the_identity_and_the_mirror_image_are_exact(shape):
    image = picture(*shape)
    height, width, _ = shape
    np.testing.assert_array_equal(warp_image(jnp.array(image), affine(height, width)), image)
    np.testing.assert_array_equal(
        warp_image(jnp.array(image), affine(height, width, flip=(-1.0, 1.0))), image[:, ::-1]
    )
    np.testing.assert_array_equal(
        warp_image(jnp.array(image), affine(height, width, flip=(1.0, -1.0))), image[::-1]
    )


@pytest.mark.parametrize(("dx", "dy"), [(2, 0), (-3, 1), (0, -4)])
def test_shift_by_whole_pixels_is_roll_with_zeros(dx, dy):
    image = picture(8, 10)
    padded = np.pad(image, ((8, 8), (10, 10), (0, 0)))
    expected = np.roll(padded, (dy, dx), (0, 1))[8:16, 10:20]
    matrix = affine(8, 10, shift=(float(dx), float(dy)))
    np.testing.assert_array_equal(warp_image(jnp.array(image), matrix), expected)


def test_a_warp_is_opencvs_but_for_its_rounding_of_weights():
    image = cv2.GaussianBlur(picture(40, 30, 3), (0, 0), 2)  # 5-bit weights matter less on it
    matrix = affine(
        40, 30, flip=(-1.0, 1.0), rotation=17.0, shear=5.0, scale=1.2, shift=(3.2, -1.7)
    )
    # OpenCV puts (0, 0) at the first pixel's centre.
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    square = np.vstack([matrix, [0, 0, 1]])
    expected = cv2.warpAffine(image, (np.linalg.inv(half) @ square @ half)[:2], (30, 40))
    np.testing.assert_allclose(warp_image(jnp.array(image), matrix), expected, atol=0.02)


def test_scale_and_shear_say_what_they_mean():
    corner = jnp.array([[20.0, 0.0]])
    np.testing.assert_allclose(
        warp_points(corner, affine(20, 20, scale=1.5)), [[25.0, -5.0]], rtol=1e-5
    )
    np.testing.assert_allclose(
        warp_points(corner, affine(20, 20, shear=45.0)), [[10.0, 0.0]], atol=1e-5
    )


def test_invert_leads_back():
    matrix = affine(12, 20, flip=(-1.0, 1.0), rotation=33.0, shear=8.0, scale=0.8, shift=(2.0, 5.0))
    points = jnp.array(np.random.default_rng(0).uniform(0, 20, (10, 2)), jnp.float32)
    there = warp_points(points, matrix)
    np.testing.assert_allclose(warp_points(there, invert(matrix)), points, rtol=1e-4, atol=1e-4)


def test_a_bright_dot_its_mask_and_its_point_arrive_together():
    image, mask = np.zeros((30, 40, 1), "f"), np.zeros((30, 40), np.int32)
    image[9:12, 19:22], mask[9:12, 19:22] = 1.0, 7
    matrix = affine(30, 40, flip=(-1.0, 1.0), rotation=25.0, scale=1.1, shift=(-4.0, 3.0))
    warped = np.asarray(warp_image(jnp.array(image), matrix))[..., 0]
    warped_mask = np.asarray(warp_mask(jnp.array(mask), matrix))
    point = np.asarray(warp_points(jnp.array([[20.5, 10.5]]), matrix))[0]
    for values in (warped, warped_mask == 7):
        y, x = scipy.ndimage.center_of_mass(values)
        np.testing.assert_allclose((x + 0.5, y + 0.5), point, atol=0.3)
    assert set(np.unique(warped_mask)) == {0, 7}


def test_outside_of_a_mask_is_what_the_caller_says():
    mask = warp_mask(jnp.ones((4, 4), jnp.int32), affine(4, 4, shift=(2.0, 0.0)), outside=255)
    np.testing.assert_array_equal(mask, [[255, 255, 1, 1]] * 4)


@pytest.mark.parametrize("seed", range(3))
def test_boxes_are_the_extent_of_warped_rectangles(seed):
    rng = np.random.default_rng(seed)
    (x0, x1), (y0, y1) = np.sort(rng.integers(0, 60, (2, 2)), 1)
    x1, y1 = x1 + 3, y1 + 3
    mask = np.zeros((64, 64), np.int32)
    mask[y0:y1, x0:x1] = 1
    matrix = affine(
        64, 64, flip=(1.0, -1.0), rotation=float(rng.uniform(-40, 40)), scale=0.9, shift=(5.0, -9.0)
    )
    around = boxes_around(jnp.array([[x0, y0, x1, y1]], jnp.float32), matrix)
    box = warps.clip_boxes(around, 64, 64)[0]
    rows, columns = np.nonzero(warp_mask(jnp.array(mask), matrix))
    extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(box, extent, atol=1.5)


def test_a_box_that_leaves_has_no_area():
    around = boxes_around(jnp.array([[0.0, 0.0, 4.0, 4.0]]), affine(20, 20, shift=(-9.0, 0.0)))
    box = warps.clip_boxes(around, 20, 20)[0]
    assert (box[2] - box[0]) * (box[3] - box[1]) == 0


@pytest.mark.parametrize("sigma", [2.0, 4.0])
def test_elastic_displacements_have_the_stated_size_and_smoothness(sigma):
    keys = jax.random.split(jax.random.key(0), 400)
    draw = jax.vmap(lambda key: warps.elastic_field(key, 28, 20, 34.0, sigma))
    fields = np.asarray(jax.jit(draw)(keys))
    expected = 34 / (2 * sigma * np.sqrt(3 * np.pi))
    assert abs(fields.mean()) < 0.1 * expected
    for part in (fields, fields[:, :3], fields[:, -3:], fields[:, :, :3]):  # the border too
        np.testing.assert_allclose(part.std(), expected, rtol=0.06)
    # Gaussian-smoothed white noise correlates as exp(-d² / 4σ²).
    middle = fields[:, 8:20, 6:14]
    for d in (1, 3):
        correlation = (fields[:, 8 : 20 - d, 10] * fields[:, 8 + d : 20, 10]).mean() / np.var(
            middle
        )
        np.testing.assert_allclose(correlation, np.exp(-(d**2) / (4 * sigma**2)), atol=0.06)


def test_a_constant_field_is_a_shift():
    image = picture(8, 8)
    field = jnp.full((8, 8, 2), jnp.array([1.0, -2.0]))
    warped = warp_image(jnp.array(image), affine(8, 8), field)
    np.testing.assert_array_equal(
        warped, warp_image(jnp.array(image), affine(8, 8, shift=(-1.0, 2.0)))
    )
