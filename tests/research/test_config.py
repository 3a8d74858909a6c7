import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import pytest

from research import config as config_lib
from research.config import option
from research.errors import UserError
from research.training.config import TrainingConfig
from research.training.plan import make_plan


@dataclasses.dataclass(frozen=True)
class Base(config_lib.Retiring):
    """Things all have"""

    RETIRED: ClassVar[Mapping[str, Any]] = {"speed": 1.0}

    seed: int = option(0, "A seed.", minimum=0)
    workdir: str = option("", "A folder.", changes_result=False, saved=False)
    logs: int = option(5, "Steps.", changes_result=False)


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Own things

    More words.
    """

    rate: float = option(0.1, "A rate.", minimum=0.0, maximum=1.0)
    kind: Literal["a", "b"] = option("a", "A kind.")
    names: tuple[str, ...] = option((), "Names.")
    on: bool = option(False, "A switch.")
    seed: int = config_lib.redefault(Base, "seed", 7)


def test_options_carry_type_choices_limits_and_the_group_that_defines_them():
    rows = {row.name: row for row in config_lib.options(Config)}
    assert rows["seed"].default == 7 and rows["seed"].minimum == 0
    assert rows["seed"].group == "Things all have" and rows["rate"].group == "Own things"
    assert rows["kind"].choices == ("a", "b") and rows["names"].type is tuple


def test_json_round_trip():
    config = Config(rate=1 / 3, names=("x", "y"), on=True)
    assert config_lib.from_json(Config, config_lib.to_json(config), "there") == config


def test_a_field_that_is_gone_is_named_with_its_origin():
    with pytest.raises(UserError, match=r"run/config.json: .*'rates'.* Did you mean 'rate'"):
        config_lib.from_json(Config, {"rates": 1.0}, "run/config.json")


def test_a_field_that_is_retired_is_read_at_its_default_alone():
    assert config_lib.from_json(Config, {"speed": 1.0, "seed": 3}, "there") == Config(seed=3)
    with pytest.raises(UserError, match=r"there: --speed=2.0: is a flag of earlier versions"):
        config_lib.from_json(Config, {"speed": 2.0}, "there")


def test_the_flag_file_leaves_out_what_must_not_be_repeated():
    text = config_lib.to_flagfile("classification", Config(workdir="/x", rate=1 / 3))
    assert "workdir" not in text
    assert text.splitlines()[0] == "--experiment=classification"
    assert "--rate=0.3333333333333333" in text.splitlines()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, r"--seed=-1: at least 0"),
        ({"rate": 1.5}, r"--rate=1.5: at most 1.0"),
        ({"rate": float("nan")}, r"--rate=nan: a finite number"),
        ({"rate": float("-inf")}, r"--rate=-inf: a finite number"),
        ({"seed": 2**63}, r"--seed=9223372036854775808: is beyond the whole numbers of 64 bits"),
        (
            {"workdir": "ftp://b/r"},
            r"--workdir=ftp://b/r: a folder, or an address of gs:// or s3://",
        ),
        ({"kind": "c"}, r"--kind=c: one of a, b"),
    ],
)
def test_values_that_are_not_allowed_name_their_flag(changes, message):
    with pytest.raises(UserError, match=message):
        config_lib.replace(Config(), changes)


def test_only_what_changes_the_result_makes_two_configurations_differ():
    assert config_lib.differences(Config(), Config(logs=9, workdir="/y")) == []
    assert config_lib.differences(Config(), Config(seed=1)) == ["--seed=7 there, 1 here"]


def test_every_shared_flag_has_help_and_the_promised_names_exist():
    rows = {row.name: row for row in config_lib.options(TrainingConfig)}
    promised = """workdir seed dataset data_dir steps epochs batch_size optimizer learning_rate
        schedule parallel precision checkpoint_every eval_every resume"""
    assert set(promised.split()) <= set(rows)
    assert all(row.help.endswith(".") for row in rows.values())
    manual = config_lib.manual(TrainingConfig)
    assert all(f"--{name}=" in manual for name in rows)


def test_seeds_that_jax_would_take_for_others_are_refused():
    # jax.random.key takes the last 32 bits.
    config_lib.validate(TrainingConfig(seed=2**32 - 1))
    with pytest.raises(UserError, match="--seed=4294967296: at most 4294967295"):
        config_lib.validate(TrainingConfig(seed=2**32))


def test_more_steps_than_are_counted_are_refused():
    assert make_plan(TrainingConfig(epochs=2.0, batch_size=10), 100).steps == 20
    with pytest.raises(UserError, match=r"--epochs=1e\+30: are 1e\+31 steps; 2,147,483,647 are"):
        make_plan(TrainingConfig(epochs=1e30, batch_size=10), 100)


def test_what_a_flag_has_an_effect_on_follows_from_the_class_that_declares_it():
    declared = {"a": (Base, "other"), "b": (), "c": (Base,)}
    expected = dict.fromkeys((f.name for f in dataclasses.fields(Base)), ("a", "c"))
    assert config_lib.used_by(declared) == {**expected, "other": ("a",)}


def test_a_table_may_hold_the_choices():
    @dataclasses.dataclass(frozen=True)
    class Chosen:
        kind: str = option("x", "Which.", choices={"x": 1, "y": 2})

    (row,) = config_lib.options(Chosen)
    assert row.choices == ("x", "y") and "--kind=x|y" in config_lib.manual(Chosen)
    with pytest.raises(UserError, match="--kind=z: one of x, y is needed"):
        config_lib.validate(Chosen("z"))
