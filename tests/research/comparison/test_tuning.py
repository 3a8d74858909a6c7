"""Tunings: rungs of halving, ranks, and where to look next."""

import math

import pytest

from research.comparison.search import Choices, Range
from research.comparison.tuning import Trial, finer, ranked, rungs
from research.config import options
from research.training.config import TrainingConfig


def trial(name, value, rate=0.1, share=1.0, failure="", **flags):
    return Trial(name, {"learning_rate": rate, **flags}, value, share, {}, failure)


def test_a_third_goes_on_three_times_as_far():
    assert rungs(16, halving=False) == [(16, 1.0)]
    found = rungs(16, halving=True)
    assert [rung.trials for rung in found] == [16, 5, 1]
    assert [rung.share for rung in found] == pytest.approx([1 / 9, 1 / 3, 1])
    assert found[-1].share == 1.0
    assert [rung.trials for rung in rungs(27, halving=True)] == [27, 9, 3, 1]
    assert [rung.trials for rung in rungs(26, halving=True)] == [26, 8, 2]
    assert rungs(2, halving=True) == [(2, 1.0)]


def test_what_got_furthest_leads_and_what_failed_comes_last():
    rows = [
        trial("a", 0.9, share=1 / 3),
        trial("b", 0.5),
        trial("c", math.nan, failure="the loss is nan"),
        trial("d", 0.6),
        trial("e", 0.5),
    ]
    assert [row.name for row in ranked(rows, "max")] == ["d", "b", "e", "a", "c"]
    assert [row.name for row in ranked(rows, "min")] == ["b", "e", "d", "a", "c"]


def test_the_next_search_lies_about_the_best_quarter():
    of = {"learning_rate": Range(1e-4, 1.0, "log"), "optimizer": Choices(("sgd", "adam"))}
    rates = [10 ** (-4 + 4 * i / 15) for i in range(16)]
    rows = [
        trial(str(i), -abs(math.log10(rate) + 2), rate, optimizer="sgd" if i % 2 else "adam")
        for i, rate in enumerate(rates)
    ]
    rate, optimizer = finer(of, ranked(rows, "max"), options(TrainingConfig))
    # The four nearest to 0.01 are half and one and a half gaps of 4/15 decades off; a gap more.
    low, high = (float(text) for text in rate.quarter.split(".."))
    assert (math.log10(low), math.log10(high)) == pytest.approx((-2.4, -1.6), abs=0.01)
    low, high = (float(text) for text in rate.next.split(".."))
    assert (math.log10(low), math.log10(high)) == pytest.approx((-2.65, -1.35), abs=0.01)
    assert rate.note == ""
    assert optimizer.quarter == "sgd 2 of 4, adam 2 of 4"
    assert optimizer.next == "sgd,adam"


def test_a_best_at_the_end_asks_to_look_past_it_as_far_as_the_flag_allows():
    of = {"learning_rate": Range(1e-4, 1.0, "log"), "warmup": Range(0.0, 1.0, "linear")}
    rows = [trial(str(i), i, 10 ** (-4 + 4 * i / 8), warmup=i / 8) for i in range(9)]
    rate, warmup = finer(of, ranked(rows, "max"), options(TrainingConfig))
    assert rate.note == "the best lies at the upper end: look above"
    assert float(rate.next.split("..")[1]) == pytest.approx(10)
    assert warmup.next.endswith("..1")
    rate, warmup = finer(of, ranked(rows, "min"), options(TrainingConfig))
    assert rate.note == "the best lies at the lower end: look below"
    assert float(rate.next.split("..")[0]) == pytest.approx(1e-5)
    assert warmup.next.startswith("linear:0..")
