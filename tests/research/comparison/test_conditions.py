"""A difference is of the flag under study only where nothing else differs: what does is said."""

import pytest
from run_folders import VERSIONS, write_side

from research.comparison.conditions import chosen_on, conditions, cost
from research.comparison.runs import read_run
from research.config import options
from research.training.config import TrainingConfig


@pytest.fixture
def sides(tmp_path):
    """(options of b) -> the conditions of two runs a and two runs b."""

    def make(under_study=None, values=(0.9, 0.8), **of_b):
        a = write_side(tmp_path / "a", [0.9, 0.8])
        b = write_side(tmp_path / "b", values, **of_b)
        read = {"a": [read_run(x) for x in a], "b": [read_run(x) for x in b]}
        return conditions(read, options(TrainingConfig), under_study)

    return make


def test_one_flag_may_differ(sides):
    found = sides(flags={"optimizer": "adam"})
    assert found.flags == {"optimizer": {"a": "sgd", "b": "adam"}} and found.warnings == []


def test_two_flags_are_one_too_many_unless_both_were_declared(sides):
    found = sides(flags={"optimizer": "adam", "weight_decay": 0.5})
    assert found.flags["weight_decay"] == {"a": "0.0001", "b": "0.5"}  # the default, not recorded
    assert len(found.warnings) == 1 and "2 flags (optimizer, weight_decay)" in found.warnings[0]


@pytest.mark.parametrize("declared", [("optimizer", "weight_decay"), ("optimizer",)])
def test_flags_beside_those_under_study_are_said(sides, declared):
    found = sides(declared, flags={"optimizer": "adam", "weight_decay": 0.5})
    if len(declared) == 2:
        assert found.warnings == []
    else:
        assert found.warnings == ["sides differ in more than the flags under study: weight_decay."]


def test_flags_that_change_no_result_and_seeds_are_passed_over(sides):
    found = sides(flags={"log_every": 7, "keep": 9, "workdir": "elsewhere"}, values=(0.1, 0.2, 0.3))
    assert found.flags == {}
    assert found.warnings == ["sides differ in no flag that changes results."]


def test_one_side_of_two_kinds_is_no_variant(tmp_path):
    a = write_side(tmp_path / "a", [0.9])
    b = write_side(tmp_path / "b", [0.9], flags={"momentum": 0.5})
    c = write_side(tmp_path / "c", [0.9], flags={"optimizer": "adam"})
    found = conditions({"ab": [read_run(x) for x in a + b], "c": [read_run(x) for x in c]})
    assert any("ab: its runs differ in --momentum" in line for line in found.warnings)


@pytest.mark.parametrize(
    ("of_b", "said"),
    [
        ({"environment": {"versions": {**VERSIONS, "jax": "0.11.0"}}}, "jax: a 0.10.2; b 0.11.0."),
        ({"environment": {"devices": ["gpu: H100"]}}, "devices: a cpu: cpu; b gpu: H100."),
        (
            {"environment": {"git_commit": "fedcba9876543210"}},
            "(git commit): a 0123456789ab; b f",
        ),
        ({"environment": {"python": "3.13.0"}}, "Python: a 3.11.2; b 3.13.0."),
        ({"trained_on": "other"}, "training data differ: a and b"),
        ({"steps": 30}, "budget, steps: a 20; b 30."),
        ({"seconds": 20.0}, "budget, seconds (median of a run): a 2 s, b 20 s."),
    ],
)
def test_what_else_differs_is_a_warning(sides, of_b, said):
    found = sides(flags={"optimizer": "adam"}, **of_b)
    assert any(said in line for line in found.warnings), found.warnings
    assert len(found.warnings) <= 2  # steps are examples too


@pytest.mark.parametrize(("of_a", "of_b"), [(0, 16), (16, 16)])
def test_what_was_tuned_is_stated_even_where_it_was_tuned_alike(tmp_path, of_a, of_b):
    sides = {
        name: [
            read_run(folder)
            for folder in write_side(
                tmp_path / name, [0.9], flags={"optimizer": name, "tuning_trials": trials}
            )
        ]
        for name, trials in (("a", of_a), ("b", of_b))
    }
    found = conditions(sides)
    assert found.warnings == [f"budget, trials of tuning: a {of_a}; b 16."]
    assert list(found.flags) == ["optimizer"]


def test_other_batches_are_another_budget_of_examples(sides):
    found = sides(flags={"batch_size": 16})
    assert found.warnings == ["budget, examples: a 160; b 320."]


def test_without_digests_of_pictures_the_order_of_one_seed_tells_data_apart(tmp_path):
    def side(name, data, seeds):
        folders = write_side(tmp_path / name, [0.9] * seeds, flags={"optimizer": name})
        runs = [read_run(folder) for folder in folders]
        return [
            run._replace(
                begun={**run.begun, "fingerprint": {"data_order": f"{data} {run.flags['seed']}"}}
            )
            for run in runs
        ]

    same = {"a": side("a", "text", 3), "b": side("b", "text", 2)}
    assert conditions(same).warnings == []
    other = {"a": same["a"], "c": side("c", "another text", 1)}
    assert "training data, or their order, differ" in conditions(other).warnings[0]


def test_a_split_that_chose_checkpoints_is_no_fair_judge_of_tuned_variants(tmp_path):
    def runs(split):
        by = {"metric": f"{split}/accuracy", "mode": "max", "split": split}
        (folder,) = write_side(tmp_path / split, [0.9], best_checkpoint={"chosen_by": by})
        return {"a": [read_run(folder)]}

    assert "'test' chose the best checkpoints" in chosen_on(runs("test"), "test/accuracy")
    assert chosen_on(runs("validation"), "test/accuracy") == ""
    assert chosen_on(runs("val"), "val/accuracy") == ""

    (folder,) = write_side(tmp_path / "tuned", [0.9], flags={"tuning_trials": 9})
    tuned = {**runs("other"), "tuned": [read_run(folder)]}
    said = chosen_on(tuned, "validation/accuracy")
    assert "'validation' chose the flags of tuned," in said and "--metric=test/accuracy" in said
    assert chosen_on(tuned, "test/accuracy") == ""


def test_cost_is_of_the_whole_run(tmp_path):
    (folder,) = write_side(tmp_path / "a", [0.9], flops=1e6, parameters=12, seconds=3.5)
    found = cost(read_run(folder))
    assert found["flops"] == 2e7 and found["examples"] == 160 and found["seconds"] == 3.5
    assert "peak_memory" not in found  # a run of earlier versions does not say
