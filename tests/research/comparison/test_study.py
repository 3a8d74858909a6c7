"""A study's declaration: what is refused, what is kept, and what was added after looking."""

import json

import pytest

from research.comparison.study import (
    Study,
    check_metric,
    checked,
    declare,
    folder_of,
    read_study,
)
from research.errors import UserError

STUDY = Study(
    "classification",
    {"sgd": ("--optimizer=sgd",), "adam": ("--optimizer=adam", "--learning_rate=0.003")},
    (0, 1),
    ("--steps=20",),
    "test/accuracy",
    0.01,
    "sgd",
    "Which?",
)


def finish(study, folder, number=0):
    """Finishes a cell as a run does."""
    cell = study.cells(folder)[number].folder
    cell.mkdir(parents=True)
    (cell / "result.json").write_text("{}")


def test_cells_are_laid_out_by_variant_and_seed_and_run_seed_by_seed(tmp_path):
    cells = STUDY.cells(tmp_path)
    assert [(cell.variant, cell.seed) for cell in cells] == [
        ("sgd", 0),
        ("adam", 0),
        ("sgd", 1),
        ("adam", 1),
    ]
    assert cells[3].folder == tmp_path / "adam" / "seed=1"
    groups = STUDY.groups(tmp_path)
    assert groups["adam"] == [tmp_path / "adam" / f"seed={seed}" for seed in (0, 1)]
    # No name leads out of the study's folder, or is a list where a flag takes one.
    assert folder_of("../a/b, c=1") == "a-b-c=1"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"variants": {}}, "needs variants"),
        ({"variants": {"a b": (), "a/b": ("--x=1",)}}, "'a b' and 'a/b': would share the folder"),
        ({"variants": {"A": (), "a": ("--x=1",)}, "baseline": ""}, "would share the folder a"),
        ({"variants": {"..": ()}}, "no name that a folder can have"),
        ({"variants": {"logs": ()}}, "no name that a folder can have"),
        ({"variants": {"x" * 300: ()}}, "no name that a folder can have"),
        ({"seeds": (1, 2, 1)}, "1 is given twice"),
        ({"seeds": ()}, "at least one"),
        ({"baseline": "sdg"}, "Did you mean 'sgd'"),
        ({"metric": "accuracy"}, "test/accuracy does"),
        ({"metric": "test/"}, "does not say of which split"),
        ({"difference": 0.0}, "not above 0"),
        ({"difference": float("nan")}, "not above 0"),
    ],
)
def test_what_is_no_study_is_refused(changes, said):
    assert checked(STUDY) is STUDY
    with pytest.raises(UserError, match=said):
        checked(STUDY._replace(**changes))


def test_a_metric_that_no_run_will_have_is_refused():
    protocol, splits = ["accuracy", "cross_entropy"], ["test"]
    for fine in ("", "test/accuracy", "test/accuracy/cat", "train/loss"):
        check_metric(fine, protocol, splits)
    check_metric("test/anything", [], splits)  # an experiment need not say what it measures
    with pytest.raises(UserError, match="Did you mean 'accuracy'"):
        check_metric("test/acuracy", protocol, splits)
    with pytest.raises(UserError, match="no split 'validation'"):
        check_metric("validation/accuracy", protocol, splits)


def test_a_declaration_is_read_as_it_was_written(tmp_path):
    assert declare(STUDY, tmp_path) == STUDY == read_study(tmp_path)
    assert declare(STUDY, tmp_path) == STUDY
    written = json.loads((tmp_path / "study.json").read_text())
    assert written["variants"]["sgd"] == {"flags": ["--optimizer=sgd"], "folder": "sgd"}
    (tmp_path / "study.json").write_text("[]")  # as earlier versions wrote it
    with pytest.raises(UserError, match="no declaration of a study"):
        declare(STUDY, tmp_path)
    with pytest.raises(UserError, match="no study's folder"):
        read_study(tmp_path / "nowhere")


def test_before_any_result_all_but_leaving_out_is_free(tmp_path):
    declare(STUDY, tmp_path)
    other = STUDY._replace(
        variants={**STUDY.variants, "lamb": ()}, seeds=(0, 1, 2), metric="test/top5", baseline=""
    )
    assert declare(other, tmp_path) == other
    with pytest.raises(UserError, match="the variant 'lamb' too"):
        declare(STUDY, tmp_path)


def test_what_joins_after_looking_is_marked_and_what_decides_stays(tmp_path):
    declare(STUDY, tmp_path)
    finish(STUDY, tmp_path)
    more = STUDY._replace(
        variants={**STUDY.variants, "adam": ("--optimizer=adam",), "lamb": ()}, seeds=(0, 1, 2)
    )
    found = declare(more, tmp_path)
    assert found.added == ("adam", "lamb")  # the one was redefined, the other is new
    assert found.added_seeds == (2,)
    assert declare(more, tmp_path) == found == read_study(tmp_path)  # and stays marked
    written = json.loads((tmp_path / "study.json").read_text())["variants"]
    assert [row.get("added") for row in written.values()] == [
        None,
        "after looking",
        "after looking",
    ]
    for name, value in (("metric", "test/top5"), ("difference", 0.5), ("baseline", "adam")):
        with pytest.raises(UserError, match=f"a study with {name} .* what decides is declared"):
            declare(more._replace(**{name: value}), tmp_path)
    with pytest.raises(UserError, match="the seed 2 too"):
        declare(more._replace(seeds=(0, 1)), tmp_path)
    assert read_study(tmp_path) == found
