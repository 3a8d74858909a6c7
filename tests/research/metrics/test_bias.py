"""What a bias says to a person, and from when on it is one."""

import math

import pytest

from research.metrics.bias import Bias, Ratio


@pytest.mark.parametrize(
    ("ratio", "off"),
    [
        ((1.28, 0.02), True),
        ((1.28, 0.10), False),  # 1.08 is within two standard errors
        ((1.09, 0.001), False),
        ((0.70, 0.05), True),
        ((0.85, 0.03), False),
        ((0.0, 0.0), True),
        ((math.nan, math.nan), False),
        ((1.5, math.nan), False),  # of a single image
    ],
)
def test_a_ratio_is_off_beyond_a_tenth_and_two_standard_errors(ratio, off):
    assert Ratio(*ratio).off == off


def test_the_line_and_the_warnings_name_what_is_furthest_from_one():
    ratios = {
        "width": Ratio(1.28, 0.02),
        "height": Ratio(1.31, 0.02),
        "depth": Ratio(1.0, 0.01),
        "x": Ratio(0.99, 0.01),
        "y": Ratio(1.02, 0.01),
        "z": Ratio(math.nan, math.nan),
    }
    bias = Bias("predicted / true", ratios, {"matches": 12.0}, "few")
    assert bias.line() == (
        "predicted / true: width 1.28 ± 0.02, height 1.31 ± 0.02, x 0.99 ± 0.01, y 1.02 ± 0.01 "
        "(the furthest from 1 of 5), matches 12"
    )
    few, off = bias.warnings()
    assert few == "few" and off.startswith("predicted / true is biased: height 1.31 ± 0.02 and 1 ")
    assert not Bias("predicted / true", {"width": Ratio(1.02, 0.01)}).warnings()
    assert Bias("area", {"a": Ratio(math.nan, math.nan)}).line() == "area: unknown"
    assert bias.to_json()["ratios"]["z"] == [None, None]
