"""What a comparison says of runs: the statistics' own figures, and every run that has no value."""

import math

import numpy as np
import pytest
from run_folders import write_run, write_side
from scipy import stats

from research.comparison.findings import find
from research.comparison.runs import read_run
from research.errors import UserError

SGD = [0.90, 0.91, 0.92, 0.90, 0.93]
ADAM = [0.93, 0.95, 0.94, 0.94, 0.96]


@pytest.fixture
def sides(tmp_path):
    """{label: runs} of values by label."""

    def make(**values):
        return {
            label: [
                read_run(folder)
                for folder in write_side(tmp_path / label, found, flags={"optimizer": label})
            ]
            for label, found in values.items()
        }

    return make


def test_means_intervals_and_differences_are_those_of_scipy(sides):
    found = find(sides(sgd=SGD, adam=ADAM))
    assert found.baseline == "sgd" and found.metric.points and found.repeats == "seed"
    one = found.summaries["adam"]
    low, high = stats.t.interval(0.95, 4, np.mean(ADAM), stats.sem(ADAM))
    assert (one.mean, one.low, one.high) == pytest.approx((np.mean(ADAM), low, high))
    test = stats.ttest_rel(ADAM, SGD)
    difference = found.comparisons["adam"].difference
    assert float(difference.p) == pytest.approx(test.pvalue)
    assert float(difference.low) == pytest.approx(test.confidence_interval().low)
    assert found.verdicts["adam"].kind == "higher" and found.cautions == []
    assert found.lines[0].startswith("adam is higher than sgd by 3.2 points")


def test_runs_without_a_value_stay_in_the_denominator_and_are_named(sides, tmp_path):
    read = sides(sgd=SGD, adam=[*ADAM[:4], None])
    read["adam"].append(read_run(write_run(tmp_path / "nan", math.nan, seed=5)))
    read["adam"].append(read_run(write_run(tmp_path / "else", 0.9, seed=6, metric="test/iou")))
    found = find(read)
    one = found.summaries["adam"]
    assert (one.n, one.runs) == (4, 7) and one.mean == pytest.approx(np.mean(ADAM[:4]))
    reasons = [found.reason(run) for run in read["adam"][4:]]
    assert reasons == [
        "unfinished: step 20 of 20",
        "test/accuracy is nan",
        "it has no test/accuracy",
    ]
    assert "3 of 7 runs of adam failed" in found.lines[0]
    for seed, reason in zip((4, 5, 6), reasons, strict=True):
        assert f"{seed}: {reason}" in found.lines[0]


def test_one_run_a_side_is_no_inference(sides):
    found = find(sides(sgd=[0.9], adam=[0.95]))
    assert found.verdicts["adam"].kind == "no inference"
    assert math.isnan(found.verdicts["adam"].p)


def test_a_single_side_is_summarised(sides):
    found = find(sides(sgd=SGD))
    assert found.comparisons == {} and found.lines == [] and found.summaries["sgd"].n == 5


def test_nothing_that_finished_is_said_and_no_error(sides):
    found = find(sides(sgd=[None, None], adam=[None, None]))
    assert found.verdicts["adam"].kind == "no inference" and found.summaries["sgd"].n == 0


def test_baseline_difference_and_direction_are_as_declared(sides):
    read = sides(sgd=SGD, adam=ADAM, lamb=[x + 0.001 for x in SGD])
    found = find(read, metric="train/loss", baseline="lamb", difference=0.5)
    assert list(found.comparisons) == ["sgd", "adam"] and not found.metric.higher_is_better
    assert found.comparisons["sgd"].smallest == 0.5 and found.verdicts["sgd"].kind == "identical"
    with pytest.raises(UserError, match=r"--baseline=adm: is no side. Did you mean 'adam'"):
        find(read, baseline="adm")


def test_variants_that_were_added_after_looking_are_marked(sides):
    found = find(sides(sgd=SGD, adam=ADAM), late=["adam"])
    assert "added after looking" in found.lines[0]


def test_json_holds_every_run_and_the_verdict(sides):
    values = find(sides(sgd=SGD, adam=ADAM), difference=0.005).to_json()
    assert [run["value"] for run in values["variants"]["adam"]["runs_of_it"]] == ADAM
    assert [run["seed"] for run in values["variants"]["sgd"]["runs_of_it"]] == [0, 1, 2, 3, 4]
    assert values["comparisons"]["adam"]["verdict"]["kind"] == "higher"
    assert values["comparisons"]["adam"]["difference"]["estimate"] == pytest.approx(0.032, abs=0.01)
    assert values["difference"] == 0.005 and values["protocol"] == "share of examples"
