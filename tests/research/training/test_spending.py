"""Seconds by activity, from a clock that is set by hand; parts of a run add up."""

import jax.numpy as jnp
import pytest

from research.training import spending as spending_lib
from research.training.spending import (
    COMPILATION,
    EVALUATION,
    OTHER,
    TRAINING,
    Spending,
    count_parameters,
)


@pytest.fixture
def clock(monkeypatch):
    """Seconds of the only clock; memory is 5 bytes of a device."""
    now = [100.0]
    monkeypatch.setattr(spending_lib.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(spending_lib, "peak_memory", lambda: (5, "device"))

    def passes(seconds):
        now[0] += seconds

    return passes


def spent(clock, spending):
    """10 s of training with 3 s of evaluation in it, 2 of them compilation; a second outside."""
    with spending.on(TRAINING):
        clock(4)
        with spending.on(EVALUATION):
            clock(0.5)
            with spending.on(COMPILATION):
                clock(2)
            clock(0.5)
        clock(3)
    clock(1)
    spending.count(TRAINING, 70)
    spending.count(EVALUATION, 30)


def test_a_second_counts_for_the_innermost_activity_alone(clock):
    spending = Spending()
    spending.begin({"start": 0}, None)
    spent(clock, spending)
    assert spending.to_json()["seconds"] == {TRAINING: 7, EVALUATION: 1, COMPILATION: 2}
    assert spending.told() == {
        "peak_memory": 5,
        "peak_memory_of": "device",
        "compile_seconds": 2,
        "examples_per_second": {TRAINING: 10, EVALUATION: 30},
        "parts": [{"start": 0}],
    }


def test_parts_add_up_and_the_largest_memory_stays(clock, monkeypatch):
    first = Spending()
    first.begin({"start": 0}, None)
    with first.on(OTHER):
        clock(2)
    spent(clock, first)
    with first.on(TRAINING):
        clock(1)
        before = first.to_json()  # in the middle of an activity
        clock(100)  # lost with the process
    monkeypatch.setattr(spending_lib, "peak_memory", lambda: (3, "process"))
    second = Spending()
    with second.on(COMPILATION):  # before the checkpoint is read
        clock(5)
    second.begin({"start": 7}, before)
    spent(clock, second)
    told = second.told()
    assert second.to_json()["seconds"] == {
        TRAINING: 15, EVALUATION: 2, COMPILATION: 9, OTHER: 2
    }  # fmt: skip
    assert told["parts"] == [{"start": 0}, {"start": 7}]
    assert (told["peak_memory"], told["peak_memory_of"]) == (5, "device")
    assert told["examples_per_second"] == {
        TRAINING: pytest.approx(140 / 15, abs=1e-3),
        EVALUATION: 30,
    }


def test_an_error_ends_an_activity_and_without_seconds_there_is_no_rate(clock):
    spending = Spending()
    spending.begin({}, None)
    with pytest.raises(KeyError), spending.on(TRAINING):
        clock(1)
        raise KeyError
    clock(50)
    spending.count(EVALUATION, 3)
    assert spending.to_json()["seconds"] == {TRAINING: 1}
    assert spending.told()["examples_per_second"] == {}


def test_parameters_are_numbers_not_arrays():
    params = {"a": jnp.zeros((3, 4)), "b": {"c": jnp.zeros(()), "d": jnp.zeros(5)}}
    assert count_parameters(params) == 12 + 1 + 5
