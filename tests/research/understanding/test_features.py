"""Units over data sets, GrabCut: against loops and known answers."""

import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import UserError
from research.understanding import features
from research.understanding.segmentation import segment, without_fragments

RNG = np.random.default_rng(0)


def test_strongest_names_the_place_of_the_largest_value():
    maps = RNG.normal(size=(3, 4, 5, 2)).astype("f")
    found = features.strongest(jnp.asarray(maps))
    for i in range(3):
        for c in range(2):
            place = np.unravel_index(maps[i, :, :, c].argmax(), (4, 5))
            assert (found.row[i, c], found.column[i, c]) == place
            assert found.value[i, c] == maps[i, place[0], place[1], c]
    dense = features.strongest(jnp.asarray(maps[:, 0, 0]))
    np.testing.assert_array_equal(dense.value, maps[:, 0, 0])
    assert not dense.row.any() and not dense.column.any()


def test_a_unit_is_dead_where_no_example_activates_it():
    largest = np.array([[0.0, -1.0, 2.0], [0.0, 0.1, -3.0]], "f")
    np.testing.assert_array_equal(features.dead_units(largest), [0])


def test_grabcut_finds_a_disc_from_saliency_on_a_part_of_it():
    rows, columns = np.mgrid[:80, :90]
    disc = (rows - 40) ** 2 + (columns - 50) ** 2 < 20**2
    image = np.where(disc[..., None], [200, 60, 40], [40, 90, 180])
    image = np.clip(image + RNG.normal(0, 12, image.shape), 0, 255).astype(np.uint8)
    saliency = np.exp(-((rows - 36) ** 2 + (columns - 46) ** 2) / 150).astype("f")
    found = segment(image, saliency)
    assert (found & disc).sum() / (found | disc).sum() > 0.95
    with pytest.raises(UserError, match="same everywhere"):
        segment(image, np.zeros((80, 90), "f"))


def test_small_pieces_of_a_mask_are_left_out():
    mask = np.zeros((20, 20), bool)
    mask[2:12, 2:12] = True  # 100 pixels
    mask[15:19, 2:8] = True  # 24
    mask[15:18, 15:18] = True  # 9
    kept = without_fragments(mask)
    assert kept.sum() == 124 and not kept[15:18, 15:18].any()
    assert not without_fragments(np.zeros((4, 4), bool)).any()


def test_filters_on_colours_are_colour_tiles_and_zero_is_grey():
    kernel = np.zeros((2, 2, 3, 2), "f")
    kernel[0, 0, 0, 1] = -4.0
    plain, coloured = features.filter_tiles(kernel)
    assert (plain == 127).all() and coloured[0, 0].tolist() == [0, 127, 127]
    assert len(features.filter_tiles(np.ones((2, 2, 4, 5), "f"))) == 20
