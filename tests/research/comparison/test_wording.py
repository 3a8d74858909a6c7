import math

import pytest

from research.comparison.wording import (
    Metric,
    chance,
    digits,
    in_points,
    lower_is_better,
    show,
)
from research.metrics import (
    captions,
    classification,
    detection,
    embedding,
    language,
    localisation,
    restoration,
    segmentation,
)

SHARE, PLAIN = Metric("test/accuracy", points=True), Metric("test/loss", False)


@pytest.mark.parametrize(
    ("name", "values", "points"),
    [
        ("test/accuracy", [0.9, 1.0], True),
        ("test/mask/map50", [0.3], True),
        ("validation/recall_at_1", [0.5, math.nan], True),
        ("test/equal_error_rate", [0.1], True),
        ("test/mean_iou", [0.7], True),
        ("test/bleu4", [0.2], True),
        ("test/accuracy", [91.0], False),
        ("test/cross_entropy", [0.4], False),
        ("test/kernel_error", [0.4], False),
        ("test/psnr", [0.9], False),
    ],
)
def test_shares_are_said_in_points(name, values, points):
    assert in_points(name, values) == points


def test_less_is_better_of_errors_losses_and_distances_alone():
    """Of every metric in the house, and of losses in training."""
    modules = (captions, classification, detection, localisation, restoration, segmentation)
    known = {name for module in modules for name in module.PROTOCOL}
    known |= {*embedding.protocols(), *language.protocol(64, 0.1)}
    known |= {"kernel_error", "squared_error", "loss"}
    assert len(known) > 80
    found = {name for name in known if lower_is_better(f"test/{name}")}
    assert (
        found
        == {
            *("cross_entropy", "loss", "perplexity", "bits_per_character", "calibration_error"),
            *("pixel_error", "one_shot_error", "pixel_one_shot_error", "equal_error_rate"),
            *("point_distance", "kernel_error", "squared_error", "identical_captions"),
        }
        & known
    )
    assert not lower_is_better("test/accuracy/error")  # of a class with that name


@pytest.mark.parametrize(
    ("low", "high", "metric", "written"),
    [
        (0.003, 0.013, SHARE, ("0.3", "1.3")),
        (-0.4, 1.1, PLAIN, ("-0.4", "1.1")),
        (0.11, 0.61, PLAIN, ("0.11", "0.61")),
        (0.0004, 0.013, SHARE, ("0.04", "1.30")),  # an end that isn't zero doesn't look so
        (0.0, 0.013, SHARE, ("0.0", "1.3")),
        (-0.0001, 0.9, PLAIN, ("-0.0001", "0.9000")),
        (1.91, 2.08, PLAIN, ("1.91", "2.08")),
        (1234.0, 5678.0, PLAIN, ("1234", "5678")),
        (2e-9, 3e-9, PLAIN, ("2e-09", "3e-09")),
    ],
)
def test_an_interval_has_the_digits_that_its_width_bears_out(low, high, metric, written):
    write = digits(metric, low, high)
    assert (write(low), write(high)) == written


def test_rounding_writes_no_negative_zero():
    assert digits(PLAIN, -0.5, 0.5)(-0.01) == "0.0"
    assert digits(PLAIN, math.nan, math.nan)(0.123456) == "0.123"


@pytest.mark.parametrize(
    ("p", "written"),
    [
        (1.0, "p = 1"),
        (0.0123, "p = 0.012"),
        (0.0002, "p < 0.001"),
        (0.0499, "p = 0.0499"),
        (0.0503, "p = 0.05"),
        (0.2, "p = 0.2"),
    ],
)
def test_rounding_never_decides(p, written):
    assert chance(p) == written


def test_values_have_their_unit():
    assert show(0.01, SHARE) == "1 point" and show(-0.01, SHARE, signed=True) == "-1 point"
    assert show(0.008, SHARE) == "0.8 points" and show(0.008, SHARE, signed=True) == "+0.8 points"
    assert show(-0.013, PLAIN) == "-0.013" and show(math.nan, SHARE) == "-"
