"""The lectures' numbers, from the library's own functions; some are derived by hand."""

import functools
import math

import course_pages
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.worked_examples import Config
from research.course.boxes import at_least
from research.course.convolution import A6, HORIZONTAL, STEP, VERTICAL, slide
from research.course.examples import EXAMPLES
from research.course.neurons import threshold
from research.course.pooling import M5, P4
from research.data.images.normalisation import fixed
from research.data.images.preprocessing import Preprocessing
from research.geometry.nms import nms
from research.losses.triplet import triplet_loss
from research.models.filter import EDGE_FILTERS
from research.nn.initialisers import INITIALISERS
from research.nn.pooling import average_pool, max_pool

# {example: {quantity: its value}}, where it is a number of the lectures' or follows by hand.
NUMBERS = {
    "angles": {"vertical_share": math.cos(math.radians(23)), "turned_share": 1, "angle_found": 23},
    "mirrored": {"correlate2d_difference": 0, "convolve2d_difference": 0, "convolution_gap": 0},
    "padding": {
        "corner_uses": 1, "border_uses": 3, "centre_uses": 9, "valid_size": 4, "padded_size": 6,
        "same_sizes": 0,
    },
    "strides": {
        "stride_two_difference": 0, "size_6_3_0_1": 4, "size_6_3_1_1": 6, "size_7_2_0_2": 3,
        "size_6_3_0_2": 2, "size_224_11_0_4": 54, "size_227_11_0_4": 55, "size_224_11_2_4": 55,
    },
    "volumes": {
        "sum_difference": 0, "out_rows": 4, "out_channels": 2, "one_filter_parameters": 28,
        "two_filter_parameters": 56, "mismatch_refused": 1, "layer_difference": 0,
    },
    "one_by_one": {"parameters_a_filter": 33, "channels": 16},
    "costs": {
        "shared_parameters": 456, "dense_parameters": 14_455_392, "hundred_to_ten": 1010,
        "pixel_factor": 4, "dense_factor": 4, "direct_products": 120_422_400,
        "bottleneck_products": 12_443_648, "plain_products": 2160, "separable_products": 672,
        "separable_ratio": 1 / 5 + 1 / 9,
    },
    "equivariance": {"dependencies": 9, "shift_difference": 0, "stride_shift_two": 0},
    "dilation": {"extent_1": 3, "extent_2": 5, "extent_4": 9, "weights": 9, "size_kept": 11},
    "transposed": {
        "stamps_difference": 0, "cut_size": 3, "output_padded_size": 4,
        "lax_transposed_difference": 0, "adjoint_difference": 0,
    },
    "bottleneck": {"error_rank_6": 0},
    "convolution_backward": {
        "wrongly_rotated_first": 7, "gradient_difference": 0, "chain_rule_sum": 11,
        "true_convolution_difference": 0, "correlate_difference": 0,
    },
    "pooling_backward": {
        "routed_to_nine": 4, "routed_first_tie": 2, "routed_second_tie": 0, "routed_to_corner": 1,
        "routed_cells": 5, "routed_sum": 9, "spread_share": 0.25,
    },
    "relu_rules": {
        "plain_0": 0, "plain_1": -4, "plain_2": 5, "deconvnet_0": 3, "deconvnet_1": 0,
        "deconvnet_2": 5, "guided_0": 0, "guided_1": 0, "guided_2": 5,
    },
    "saturated_saliency": {"gradient_at_two": 0, "rise": 1, "integrated": 1},
    "pyramid": {"length_10": 21, "length_13": 21, "roi_difference": 0},
    "roi_pooling": {"region_rows": 2, "quantised_shift": 0, "aligned_shift": 0.4},
    "dense_as_convolution": {
        "windows_14": 1, "windows_16": 2, "windows_28": 8, "crop_difference": 0,
        "dense_units": 400, "places_at_once": 576, "places_by_crop": 6400,
    },
    "iou": {"iou_half": 0.5, "iou_seventh": 1 / 7, "iou_disjoint": 0, "iou_equal": 1},
    "suppression": {"boxes_kept": 2, "first_kept": 0.9, "second_kept": 0.7},
    "anchors": {
        "numbers_a_cell": 16, "kept_of_two": 2, "kept_without_anchors": 1, "lost_of_three": 1,
    },
    "yolo_target": {"target_numbers": 72, "anchored_numbers": 144, "objects_in_target": 2},
    "localisation_loss": {
        "target_entries": 8, "loss_with_object": 0.08, "loss_without": 0.01,
        "dont_care_gradient": 0, "landmark_outputs": 129,
    },
    "windows": {
        "windows_of_8": 225, "windows_of_16": 169, "windows_of_32": 81, "pixels_of_8": 14_400,
        "pixels_of_32": 82_944, "best_iou_step_1": 16 * 16 / (18 * 16),
    },
    "xor": {
        "xor_00": 0, "xor_01": 1, "xor_10": 1, "xor_11": 0, "one_unit_right": 3,
        "relu_difference": 0, "learned_accuracy": 1,
    },
    "activations": {
        "sigmoid_slope_0": 0.25, "sigmoid_slope_10": 4.54e-5, "leaky_relu_low": -1,
        "elu_low": -1, "elu_slope": 0, "leaky_slope": 0.01,
    },
    "linear_depth": {"matrix_difference": 0},
    "zigzag": {"one_sign_1": 1},
    "zero_start": {"first_loss": 1, "units_apart": 0, "relu_moved": 0, "tanh_moved": 0},
    "initialisation": {"lecun_deviation": 0.0447, "he_deviation": 0.0632},
    "dropout": {"scaled_output": 0.9696, "growth": 0.25, "kept_factor": 1.25, "test_difference": 0},
    "batch_norm": {"small_variance_after": 1, "shifted_mean": 0.5, "running_mean": 0.1},
    "compression": {"share_and_loss": 1},
    "augmentation": {"mirrored_twice": 0, "box_difference": 0, "same_key_difference": 0},
    "ensembles": {"passes": 5},
    "softmax": {"probability_sum": 1, "loss_of_10": 0, "loss_of_1000": 0, "cat": 0.1, "dog": 0.9},
    "scaling": {"unit_low": 0, "unit_high": 1, "signed_low": -1, "signed_high": 1},
    "components": {"green_shift": 0},
    "learning_rate": {"one_step": 5, "steps_large": 4},
    "valley": {
        "flips_plain": 100, "flips_momentum": 50, "flips_averaged": 14, "flips_plain_half": 0,
        "flips_momentum_half": 24,
    },
    "adaptive_steps": {
        "frequent_weight": 9.95, "rare_weight": 9.9, "adagrad_last": 1000**-0.5,
        "adagrad_total": sum(t**-0.5 for t in range(1, 1001)), "rmsprop_first": 10**0.5,
        "rmsprop_last": 1,
    },
    "residual_block": {
        "residual_difference": 0, "plain_output": 0, "residual_jacobian": 0, "plain_jacobian": 0,
        "negative_output": 0, "projected_channels": 6, "padded_channels": 6,
        "padding_parameters": 0, "padded_difference": 0,
    },
    "inception": {
        "stacked_channels": 256, "channels_without": 416, "expanded": 144, "projected": 24,
        "skip_difference": 0, "no_skip": 0, "compound_scaling": 1.2 * 1.1**2 * 1.15**2,
    },
    "networks": {
        "lenet_parameters": 61_706, "vgg_parameters": 138_357_544, "lenet_layers": 5,
        "vgg_layers": 16, "alexnet_first_side": 55, "alexnet_filter_side": 11,
        "alexnet_filter_channels": 3, "alexnet_conv5_side": 13, "alexnet_conv5_channels": 256,
        "alexnet_features": 4096, "vgg_last_side": 7,
    },
    "cell_state": {"kept_cell": 2, "added_cell": 1.5, "replaced_cell": 0.5},
    "hello": {
        "rnn_right": 1, "lstm_right": 1, "right_without_memory": 0.75,
        "loss_without_memory": math.log(2) / 2, "states_difference": 0,
    },
    "triplets": {
        "hard_triplet": 0.19, "easy_triplet": 0, "zero_codes": 0.2, "zero_codes_gradient": 0,
        "error_of_1": 0.01, "error_of_100": 1 - 0.99**100, "difference_order": 0,
    },
    "style": {
        "style_cost": 0.125, "content_cost": 1, "style_of_itself": 0, "content_of_itself": 0,
        "style_of_shuffled": 0,
    },
}  # fmt: skip
# {example: {quantity: (more than, less than)}}, where the lectures claim a direction.
BOUNDS = {
    "mirrored": {"correlation_gap": (1, math.inf)},
    "equivariance": {"stride_shift_one": (0, math.inf), "pooled_difference": (0, math.inf)},
    "transposed": {"lax_difference": (0, math.inf)},
    "bottleneck": {"error_rank_2": (0.1, 1), "error_rank_4": (0, 0.2)},
    "convolution_backward": {"loss_change": (-math.inf, 0)},
    "relu_rules": {"wrong_mask_difference": (0, math.inf)},
    "regularised_ascent": {"norm_ratio": (1.95, 2.05), "unsquared_growth": (1.9, 2.1)},
    "pyramid": {"window_difference": (0, math.inf)},
    "yolo_target": {
        "largest_offset": (0, 1), "largest_size": (1, 3), "round_trip": (-1, 0.01),
        "shared_cell_3": (1 / 9 - 0.005, 1 / 9 + 0.005),
        "shared_cell_19": (1 / 361 - 0.001, 1 / 361 + 0.001),
    },
    "windows": {"best_iou_step_8": (0, 16 / 18)},
    "xor": {"linear_accuracy": (0, 0.76), "linear_loss": (math.log(2) - 1e-6, 0.7)},
    "activations": {"saturated_1": (0, 0.2), "saturated_25": (0.9, 1)},
    "linear_depth": {"relu_gap": (0.1, math.inf)},
    "zigzag": {"one_sign_8": (0, 1), "one_sign_64": (-1, 0.1), "one_sign_centred": (0.45, 0.55)},
    "zero_start": {"constant_moved": (0.01, math.inf), "sigmoid_moved": (0, math.inf)},
    "initialisation": {
        "linear_factor": (0.22, 0.228), "linear_end": (2.8e-7, 3.4e-7), "he_least": (0.7, 1.6),
        "he_most": (0.7, 1.6), "lecun_end": (0.02, 0.08), "unit_saturated": (0.8, 1),
    },
    "dropout": {"kept_share": (0.79, 0.81), "mean_difference": (-1, 0.02)},
    "batch_norm": {
        "plain_gradient": (0, 1e-5), "normed_gradient": (1, math.inf), "modes_differ": (0.1, 99),
        "growth_of_gradients": (1, math.inf),
    },
    "scaling": {"unit_deviation": (0.28, 0.3), "signed_deviation": (0.56, 0.6),
                "standard_deviation": (1 - 1e-5, 1 + 1e-5), "rescaled_difference": (-1, 1e-9)},
    "components": {
        "axes_product": (-1, 1e-5), "correlation": (-1, 1e-3), "three_of_ten": (0.99, 1),
        "red_shift": (0.01, 1), "green_shift_mixed": (0.001, 1),
    },
    "learning_rate": {
        "end_large": (0.547, 0.607), "end_small": (0.14, 0.18), "end_falling": (0.062, 0.082),
        "steps_small": (43, 49), "end_without_noise": (-1, 1e-20), "diverged": (1e4, math.inf),
    },
    "inception": {"weights_saved": (2, 3)},
    "gradient_reach": {
        "rnn_reach": (0, 1e-6), "bias_0_reach": (0, 1e-6), "bias_1_reach": (1e-8, 1e-2),
        "bias_3_reach": (0.01, 10), "explosion": (1e6, math.inf),
    },
    "compression": {
        "share_of_16": (0.8, 0.9), "pixel_correlation": (0.1, 1), "zca_correlation": (0, 0.05),
        "lost_of_2": (0.5, 0.9), "lost_of_32": (0, 0.05),
        "zca_likeness": (0.5, 1), "pca_likeness": (-0.2, 0.2),
    },
    "augmentation": {"other_epochs": (0.01, 1)},
    "shifts": {
        "still_accuracy": (0.9, 1), "shifted_accuracy": (0, 0.7),
        "shifted_accuracy_learned": (0.8, 1), "mirrored_accuracy": (0.8, 0.95),
    },
    "ensembles": {"jensen_gap": (0, 1), "best_member_gap": (-1, 0)},
    "side_branches": {"branch_gain": (1, 3), "faded_branch_gain": (5, 20)},
    "hello": {"states_apart": (0.1, 2)},
    "triplets": {"stated_accepts": (-1, 0.01)},
    "style": {"style_rise": (-9, 0), "content_fall": (0, 9), "share_rise": (-9, 0)},
}  # fmt: skip
# They train, or compile much; what the lectures' table has of them is tested below, and where the
# library's functions are: losses, geometry, models.
DEAR = {
    "anchors", "augmentation", "batch_norm", "bottleneck", "components", "compression",
    "dense_as_convolution", "equivariance", "gradient_reach", "hello", "inception",
    "initialisation", "localisation_loss", "networks", "pyramid", "regularised_ascent",
    "residual_block", "saturated_saliency", "scaling", "shifts", "side_branches", "triplets",
    "windows", "xor", "yolo_target", "zero_start",
}  # fmt: skip


@functools.cache
def worked(name):
    return EXAMPLES[name].load()(Config(example=name))


CASES = [
    pytest.param(name, marks=pytest.mark.families) if name in DEAR else name for name in EXAMPLES
]


@pytest.mark.parametrize("name", CASES)
def test_an_example_finds_the_numbers(name):
    found = {quantity: value for quantity, (value, _) in worked(name).found.items()}
    numbers, bounds = NUMBERS.get(name, {}), BOUNDS.get(name, {})
    assert numbers or bounds or name == "edges" or name == "pooling"
    for quantity, expected in numbers.items():
        assert found[quantity] == pytest.approx(expected, rel=1e-3, abs=1e-5), quantity
    for quantity, (low, high) in bounds.items():
        assert low < found[quantity] < high, quantity
    assert all(meaning for _, meaning in worked(name).found.values())
    assert worked(name).steps and worked(name).draw()


@pytest.mark.parametrize("name", CASES)
def test_what_the_pages_say_of_an_example_holds(name):
    """Relations of one example alone; `-m course` runs the others' commands."""
    found = {f"{name}/{quantity}": value for quantity, (value, _) in worked(name).found.items()}
    relations = [
        relation
        for topic in course_pages.every()
        for relation in topic.holds
        if relation.startswith(f"{name}/")
    ]
    for relation in relations:
        assert course_pages.holds(relation, [found], "")[0], relation
    assert relations or not EXAMPLES[name].topics


def test_the_lecture_vertical_edges_of_6x6_numbers():
    answer = [[-5, -4, 0, 8], [-10, -2, 2, 3], [0, -2, -4, -7], [-3, -2, -3, -16]]
    np.testing.assert_array_equal(slide(A6, VERTICAL), answer)
    np.testing.assert_array_equal(slide(A6, VERTICAL[::-1, ::-1]), -np.array(answer))
    np.testing.assert_array_equal(slide(A6, VERTICAL, stride=2), [[-5, 0], [0, -4]])


def test_an_edge_and_the_filters_answers_to_it():
    def rows(value):
        return np.tile([0.0, value, value, 0.0], (4, 1))

    np.testing.assert_array_equal(slide(STEP, VERTICAL), rows(30))
    np.testing.assert_array_equal(slide(STEP[:, ::-1], VERTICAL), rows(-30))
    np.testing.assert_array_equal(slide(STEP, EDGE_FILTERS["sobel"]), rows(40))
    np.testing.assert_array_equal(slide(STEP, EDGE_FILTERS["scharr"]), rows(160))
    np.testing.assert_array_equal(slide(STEP, HORIZONTAL), rows(0))
    np.testing.assert_array_equal(HORIZONTAL, [[1, 1, 1], [0, 0, 0], [-1, -1, -1]])
    f4 = [[2, 7, 2, 5], [0, 1, 3, 1], [4, 2, 1, 6], [2, 4, 5, 2]]
    np.testing.assert_array_equal(slide(np.array(f4), VERTICAL), [[0, -2], [-3, -2]])


def test_gradients_of_a_convolution():
    x = np.arange(1.0, 10.0, dtype=np.float32).reshape(3, 3)
    k = np.array([[1, 2], [3, 4]], np.float32)
    np.testing.assert_array_equal(slide(x, k), [[37, 47], [67, 77]])
    expected = {
        ((1, 1), (1, 1)): ([[12, 16], [24, 28]], [[1, 3, 2], [4, 10, 6], [3, 7, 4]]),
        ((1, 0), (0, 2)): ([[11, 14], [20, 23]], [[1, 2, 0], [3, 6, 4], [0, 6, 8]]),
    }
    for error, (of_kernel, of_image) in expected.items():
        at_map = np.array(error)
        loss = lambda image, kernel, e=at_map: (slide(image, kernel) * e).sum()
        image, kernel = jax.grad(loss, (0, 1))(jnp.asarray(x), jnp.asarray(k))
        np.testing.assert_array_equal(kernel, of_kernel)
        np.testing.assert_array_equal(image, of_image)


def test_pooling_of_the_lectures_numbers():
    def pool(function, image, size, stride):
        return np.asarray(function(jnp.asarray(image)[None, :, :, None], size, stride))[0, :, :, 0]

    np.testing.assert_array_equal(pool(max_pool, M5, 3, 1), [[9, 9, 5], [9, 9, 5], [8, 6, 9]])
    np.testing.assert_array_equal(pool(max_pool, M5, 3, 2), [[9, 5], [8, 9]])
    np.testing.assert_array_equal(pool(average_pool, P4, 2, 2), [[3.75, 1.25], [4, 2]])
    np.testing.assert_array_equal(pool(max_pool, P4, 2, 2), [[9, 2], [6, 3]])
    found = {name: value for name, (value, _) in worked("pooling").found.items()}
    assert found["pooling_parameters"] == 0 and found["channel_difference"] == 0
    assert (found["pooled_rows"], found["pooled_channels"]) == (3, 2)


def test_the_lecture_suppresses_from_the_threshold_on_and_the_library_above_it():
    boxes = jnp.array([[0, 0, 3, 1], [1, 0, 4, 1]], jnp.float32)  # IoU one half
    scores = jnp.array([0.9, 0.8])
    assert int(nms(boxes, scores, 2, 0.5).valid.sum()) == 2
    assert int(nms(boxes, scores, 2, at_least(0.5)).valid.sum()) == 1
    apart = boxes.at[1].add(jnp.array([5.0, 0, 5, 0]))  # an IoU of 0 is at least 0
    assert int(nms(apart, scores, 2, at_least(0.0)).valid.sum()) == 1
    nearly = boxes.at[1].add(jnp.array([1e-3, 0, 1e-3, 0]))  # a little less than half
    assert int(nms(nearly, scores, 2, at_least(0.5)).valid.sum()) == 2


def test_rows_of_numbers_whose_examples_are_dear():
    """Anchors and the triplets' loss have tests of their own, beside what computes them."""
    images = np.array([[[0], [255]]], np.uint8)
    for how, ends in (("unit", [0, 1]), ("signed", [-1, 1])):
        ready = fixed(Preprocessing((1, 2), 1), how).standardise(images)
        np.testing.assert_array_equal(np.ravel(ready), ends)
    bits = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    both = np.stack([threshold(bits, (-1, -1), 1.5), threshold(bits, (1, 1), -0.5)], 1)
    assert threshold(both.astype(np.float32), (1, 1), -1.5).tolist() == [False, True, True, False]
    shapes = {n: (INITIALISERS[n], (500, 10 if n == "xavier" else 500)) for n in ("lecun", "he")}
    shapes["xavier"] = INITIALISERS["xavier"], (500, 10)
    expected = {"lecun": 0.0447, "he": 0.0632, "xavier": 0.0626}
    for name, (initialise, shape) in shapes.items():
        drawn = initialise(jax.random.key(0), shape).std()
        assert drawn == pytest.approx(expected[name], rel=0.03)
    codes = jnp.array([[0.0, 0.0], [0.5**0.5, 0.0], [0.0, 0.51**0.5]])
    labels, mask = jnp.array([0, 0, 1]), jnp.ones(3, bool)
    for embeddings, wanted in ((codes, 0.19), (0 * codes, 0.2)):
        loss, _ = triplet_loss(embeddings, labels, mask, jax.random.key(0), squared=True)
        assert loss[0] == pytest.approx(wanted, abs=1e-5)


def test_quantities_have_names_of_their_own():
    """Results hold them without their example's name."""
    names = [n for one in EXAMPLES if one not in DEAR for n in worked(one).found]
    assert len(names) == len(set(names))
