import numpy as np
import pytest

from research.spacing import some_of, spaced, worst_first


@pytest.mark.parametrize(
    ("n", "count"), [(10, 3), (1000, 200), (7, 7), (5, 9), (9, 1), (4, 0), (0, 3)]
)
def test_a_few_of_many_are_the_middles_of_equal_parts(n, count):
    chosen = spaced(n, count).tolist()
    assert len(chosen) == min(n, count) and chosen == sorted(set(chosen))
    for k, position in enumerate(chosen):
        low, high = n * k / len(chosen), n * (k + 1) / len(chosen)
        assert low <= position < high and abs(position - (low + high) / 2) <= 1


def test_a_sample_of_a_set_ordered_by_class_has_all_classes_alike():
    labels = np.repeat(np.arange(7), 300)
    assert np.ptp(np.bincount(labels[spaced(2100, 200)], minlength=7)) <= 1


def test_the_worst_come_first_and_the_faultless_are_spread():
    faults = np.zeros(100, int)
    faults[[3, 50, 51]] = [1, 4, 4]
    found = worst_first(faults, 7).tolist()
    assert found[:3] == [50, 51, 3]
    rest = np.setdiff1d(np.arange(100), found[:3])
    assert found[3:] == rest[spaced(97, 4)].tolist()
    assert worst_first(faults, 2).tolist() == [50, 51]
    assert worst_first(np.ones(3), 9).tolist() == [0, 1, 2]


def test_a_protocol_says_how_many_there_were():
    assert some_of(1000, 200) == "200 of 1,000 images, evenly spaced"
    assert some_of(80, 200) == "80 images"
