"""Searches: what may be searched, and the trials that are drawn."""

import dataclasses

import numpy as np
import pytest

from research.comparison.search import Choices, Range, draw, grid, read_space
from research.errors import UserError
from research.training.config import AugmentedTrainingConfig, ModelConfig


@dataclasses.dataclass(frozen=True)
class Config(ModelConfig, AugmentedTrainingConfig):
    """A Config with flags of all types."""


def space(*said):
    return read_space(said, Config())


def test_values_are_those_of_the_flags_types():
    found = space(
        "learning_rate=1e-4..1e-1",
        "--warmup=linear:0..0.2/5",
        "batch_size=16..256",
        "optimizer=sgd,adamw",
        "mirror=true,false",
        "model_options=width=8,dropout=0.5|width=16",
    )
    assert found == {
        "learning_rate": Range(1e-4, 0.1, "log"),
        "warmup": Range(0.0, 0.2, "linear", False, 5),
        "batch_size": Range(16, 256, "log", True),
        "optimizer": Choices(("sgd", "adamw")),
        "mirror": Choices((True, False)),
        "model_options": Choices(("width=8,dropout=0.5", "width=16")),
    }
    for flag, one in found.items():
        if isinstance(one, Range):
            assert space(f"{flag}={one.text()}") == {flag: one._replace(points=0)}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("lerning_rate=1e-4..1e-1", "Did you mean 'learning_rate'"),
        ("learning_rate=0.1..0.1", "below the second"),
        ("learning_rate=1..0.1", "below the second"),
        ("learning_rate=0..0.1", "linear:0..0.1"),
        ("learning_rate=-1..0.1", "begins above 0"),
        ("learning_rate=linear:-1..0.1", "at least 0"),
        ("learning_rate=0.1..x", "a number is needed"),
        ("learning_rate=1e-4..inf", "a number is needed"),
        ("learning_rate=1e-4..1e-1/1", "at least 2"),
        ("learning_rate", "LOW..HIGH"),
        ("batch_size=8.5..16", "a whole number"),
        ("batch_size=0,16", "at least 1"),
        ("optimizer=sgd,adamm", "Did you mean 'adam'"),
        ("optimizer=sgd,sgd", "given twice"),
        ("mirror=yes,no", "true or false"),
        ("workdir=a,b", "does not change"),
        ("log_every=10,20", "does not change"),
        ("seed=1,2", "does not change"),
        ("validation=0.1,0.2", "does not change"),
    ],
)
def test_what_cannot_be_searched_is_one_line(said, reason):
    with pytest.raises(UserError, match=reason):
        space(said)


def test_nothing_searched_and_a_flag_searched_twice_are_refused():
    with pytest.raises(UserError, match="needs --search"):
        space()
    with pytest.raises(UserError, match="searched twice"):
        space("optimizer=sgd", "optimizer=adam")


def test_trials_depend_on_seed_number_and_flag_alone():
    said = ("learning_rate=1e-4..1e-1", "batch_size=16..256")
    few, many = draw(space(*said), 3, 4), draw(space(*said), 3, 9)
    assert many[:4] == few
    assert draw(space(*said), 4, 4) != few
    alone = draw(space(said[0]), 3, 9)
    assert [row["learning_rate"] for row in alone] == [row["learning_rate"] for row in many]


def test_drawn_numbers_are_uniform_in_what_the_range_says():
    rows = draw(space("learning_rate=1e-4..1e-1", "warmup=linear:0..0.2"), 0, 2000)
    rates = np.array([row["learning_rate"] for row in rows])
    assert 1e-4 <= rates.min() < 1.1e-4 and 0.09 < rates.max() <= 0.1
    # A third of all trials in each decade, with a standard deviation of 21.
    assert np.histogram(np.log10(rates), [-4, -3, -2, -1])[0] == pytest.approx(2000 / 3, abs=85)
    warmups = np.array([row["warmup"] for row in rows])
    assert np.histogram(warmups, 4, (0, 0.2))[0] == pytest.approx(500, abs=80)


def test_whole_numbers_reach_both_ends_and_no_trial_comes_twice():
    found = draw(space("statistics_batches=linear:1..4", "optimizer=sgd,adam"), 0, 8)
    assert sorted((row["statistics_batches"], row["optimizer"]) for row in found) == [
        (number, name) for number in (1, 2, 3, 4) for name in ("adam", "sgd")
    ]
    with pytest.raises(UserError, match="holds 8 combinations"):
        draw(space("statistics_batches=linear:1..4", "optimizer=sgd,adam"), 0, 9)
    # Each of four is as probable as another, the ends too.
    generator = np.random.default_rng(0)
    drawn = [Range(1, 4, "linear", True).draw(generator) for _ in range(2000)]
    assert np.bincount(drawn)[1:] == pytest.approx(500, abs=80)


def test_a_grid_is_all_combinations():
    found = grid(space("learning_rate=1e-3..1e-1/3", "optimizer=sgd,adam"))
    assert [(row["learning_rate"], row["optimizer"]) for row in found] == [
        (rate, name) for rate in (0.001, 0.01, 0.1) for name in ("sgd", "adam")
    ]
    assert [row["batch_size"] for row in grid(space("batch_size=1..4/9"))] == [1, 2, 3, 4]
    assert [row["warmup"] for row in grid(space("warmup=linear:0..1/3"))] == [0, 0.5, 1]
    with pytest.raises(UserError, match=r"learning_rate=0\.001\.\.0\.1/5"):
        grid(space("learning_rate=1e-3..1e-1"))
