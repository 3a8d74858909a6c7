"""Which runs are compared: found by patterns, named, refused where they are no comparison."""

import math

import pytest
from run_folders import write_run, write_side

from research.comparison.groups import (
    check_sides,
    choose_metric,
    find_groups,
    samples,
)
from research.comparison.runs import read_run
from research.errors import UserError


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Two sides of runs below runs/, seen from the folder above it."""
    monkeypatch.chdir(tmp_path)
    write_side(tmp_path / "runs" / "adam", [0.9, 0.8])
    write_side(tmp_path / "runs" / "sgd", [0.7])
    for seed in (9, 10):
        write_run(tmp_path / "runs" / f"mlp-{seed}", 0.5, seed=seed)
    return tmp_path


def names(folders):
    return ["/".join(folder.parts[-2:]) for folder in folders]


def sides_of(**folders):
    return {label: [read_run(folder) for folder in group] for label, group in folders.items()}


def test_patterns_match_runs_and_folders_of_runs(place):
    groups, notes = find_groups(["runs/adam", "runs/sgd/*", "best one=runs/mlp-*"])
    assert list(groups) == ["adam", "sgd", "best one"] and notes == []
    assert names(groups["adam"]) == ["adam/seed=0", "adam/seed=1"]
    assert names(groups["best one"]) == ["runs/mlp-9", "runs/mlp-10"]  # by number


def test_an_equals_sign_in_a_folder_is_no_label(place):
    groups, _ = find_groups(["runs/adam/seed=*", "seed=runs/sgd"])
    assert {label: len(found) for label, found in groups.items()} == {"adam": 2, "seed": 1}


def test_labels_that_would_be_the_same_are_the_patterns(place):
    write_side(place / "other" / "adam", [0.9])
    groups, _ = find_groups(["runs/adam", "other/adam"])
    assert list(groups) == ["runs/adam", "other/adam"]


def test_what_is_no_run_is_counted(place):
    (place / "runs" / "adam-notes").mkdir()
    groups, notes = find_groups(["runs/adam*", "runs/sgd"])
    assert len(groups["adam"]) == 2
    assert notes == ["--runs=runs/adam*: 1 left out that hold no run: adam-notes"]


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        (["runs/adm*"], "matches no run.*Did you mean 'adam'"),
        (["rums/adam"], "matches no run.*There is no folder rums"),
        (["runs/adam", "runs/adam/*"], "is in both sides, 'runs/adam' and 'runs/adam/\\*'"),
        (["a=runs/adam", "a=runs/sgd"], "'a' is a side already"),
    ],
)
def test_patterns_that_make_no_comparison_are_refused(place, patterns, said):
    with pytest.raises(UserError, match=said):
        find_groups(patterns)


def test_a_folder_without_a_run_is_refused(place):
    (place / "empty").mkdir()
    with pytest.raises(UserError, match="holds no run"):
        find_groups(["empty"])


def test_runs_of_two_experiments_are_refused(tmp_path):
    a = write_side(tmp_path / "a", [0.9])
    b = write_side(tmp_path / "b", [0.9], experiment="detection")
    with pytest.raises(UserError, match=r"is a run of --experiment=detection, .*classification"):
        check_sides(sides_of(a=a, b=b))


def test_a_seed_counts_once_in_a_side_and_a_fold_makes_it_another(tmp_path):
    a = [write_run(tmp_path / name, 0.9, seed=4) for name in ("a0", "a1")]
    with pytest.raises(UserError, match=r"a0 and .*a1 have the same --seed=4"):
        check_sides(sides_of(a=a))
    b = [write_run(tmp_path / f"b{k}", 0.9, flags={"fold": f"{k}/5"}) for k in (1, 2)]
    check_sides(sides_of(b=b))
    found, what = samples(sides_of(b=b), lambda run: run.value("test/accuracy"))
    assert what == "fold" and found["b"].seeds == [1, 2]


def test_seeds_pair_and_a_failed_run_is_no_number(tmp_path):
    sides = sides_of(a=write_side(tmp_path / "a", [0.9, None, 0.7]))
    found, what = samples(sides, lambda run: run.value("test/accuracy"))
    assert what == "seed" and found["a"].seeds == [0, 1, 2]
    assert found["a"].values[[0, 2]].tolist() == [0.9, 0.7] and math.isnan(found["a"].values[1])


def test_a_cell_that_never_began_has_the_seed_that_its_folder_names(tmp_path):
    begun = write_side(tmp_path / "a", [0.9, 0.8])
    sides = sides_of(a=[*begun, tmp_path / "a" / "seed=7"])
    found, what = samples(sides, lambda run: run.value("test/accuracy"))
    assert what == "seed" and found["a"].seeds == [0, 1, 7]


def test_seeds_and_folds_together_are_numbered_alike_on_both_sides(tmp_path):
    def side(name):
        return [
            write_run(tmp_path / name / f"{s}{k}", 0.9, seed=s, flags={"fold": f"{k}/2"})
            for s in (0, 1)
            for k in (1, 2)
        ]

    found, what = samples(sides_of(a=side("a"), b=side("b")), lambda run: 0.5)
    assert what == "repeat" and found["a"].seeds == found["b"].seeds
    assert len(set(found["a"].seeds)) == 4


def test_the_metric_is_the_experiments_own_or_the_one_that_is_named(tmp_path):
    sides = sides_of(a=write_side(tmp_path / "a", [0.9], best=["test/accuracy", "max"]))
    assert choose_metric(sides, "") == ("test/accuracy", "max", "share of examples")
    assert choose_metric(sides, "train/loss")[:2] == ("train/loss", "min")
    with pytest.raises(
        UserError, match=r"test/acuracy: no run has it. Did you mean 'test/accuracy'"
    ):
        choose_metric(sides, "test/acuracy")


def test_one_name_for_two_measures_is_refused(tmp_path):
    a = write_side(tmp_path / "a", [0.9], metric="test/map", protocol="COCO, 101 points")
    b = write_side(tmp_path / "b", [0.9], metric="test/map", protocol="VOC, 11 points")
    with pytest.raises(UserError, match=r"'VOC, 11 points' in .*'COCO, 101 points'"):
        choose_metric(sides_of(a=a, b=b), "")


def test_nothing_finished_is_no_error(tmp_path):
    assert choose_metric(sides_of(a=write_side(tmp_path / "a", [None])), "test/x").name == "test/x"
