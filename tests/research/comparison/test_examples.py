"""Single examples of two sides, against plain loops over them."""

import json

import numpy as np
import pytest
from run_folders import write_run

from research.comparison.examples import compare_examples, largest
from research.comparison.runs import read_run
from research.comparison.wording import Metric
from research.experiment import Evaluation, Evaluator
from research.record.outcomes import Outcomes, path_of, save

N = 300
ACCURACY = Metric("test/accuracy", points=True)


def run_of(folder, right, seed=0, order=None, weights=None, metric="accuracy", **more):
    """A run that was right on some examples, kept in some order."""
    right = np.asarray(right, np.float32)
    weights = np.ones(len(right), np.float32) if weights is None else weights
    order = np.arange(len(right)) if order is None else order
    value = float((right * weights).sum() / weights.sum())
    write_run(folder, value, seed=seed, metric=f"test/{metric}")
    save(
        path_of(folder, "test"),
        Outcomes(
            np.arange(len(right))[order],
            [f"{i}.png" for i in order],
            {metric: right[order]},
            {metric: weights[order]},
            **more,
        ),
    )
    return read_run(folder)


def drawn(random, share, count=1):
    return (random.random((count, N)) < share).astype(np.float32)


def compared(a, b, pairs=True, metric=ACCURACY, **options):
    return compare_examples("A", "B", a, b, pairs, metric, **options)


def test_one_run_against_one_run_is_mcnemar(tmp_path):
    random = np.random.default_rng(0)
    (a,), (b,) = drawn(random, 0.8), drawn(random, 0.6)
    found = compared([run_of(tmp_path / "a", a)], [run_of(tmp_path / "b", b)])
    only_a = sum(bool(x) and not y for x, y in zip(a, b, strict=True))
    only_b = sum(bool(y) and not x for x, y in zip(a, b, strict=True))
    assert found.counts[1:3] == (only_a, only_b) and sum(found.counts) == N
    assert f"A alone is right on {only_a}" in found.line and "exact McNemar" in found.line
    assert {x.index for x in found.better} <= {i for i in range(N) if a[i] > b[i]}
    assert {x.index for x in found.worse} <= {i for i in range(N) if a[i] < b[i]}
    assert found.better[0].name == f"{found.better[0].index}.png"


@pytest.mark.parametrize("seeds", [3, 10])
def test_examples_are_drawn_and_seeds_too_where_there_are_enough(tmp_path, seeds):
    random = np.random.default_rng(1)
    a, b = drawn(random, 0.8, seeds), drawn(random, 0.7, seeds)
    ours = [run_of(tmp_path / f"a{i}", x, i, random.permutation(N)) for i, x in enumerate(a)]
    theirs = [run_of(tmp_path / f"b{i}", x, i) for i, x in enumerate(b)]
    found = compared(ours, theirs)
    difference = (a - b).mean(0)
    error = difference.std(ddof=1) / np.sqrt(N)  # of the mean over examples, runs held
    middle = (found.low + found.high) / 2
    assert middle == pytest.approx(difference.mean(), abs=0.3 * error)
    if seeds == 3:
        assert "these very runs on other examples" in found.line
        assert found.high - found.low == pytest.approx(2 * 1.97 * error, rel=0.1)
    else:
        assert "other seeds and other examples" in found.line
    majority = a.mean(0) > 0.5, b.mean(0) > 0.5
    assert found.counts[1] == int((majority[0] & ~majority[1]).sum())


def test_examples_that_do_not_count_are_left_out(tmp_path):
    random = np.random.default_rng(2)
    (a,), (b,) = drawn(random, 0.8), drawn(random, 0.5)
    weights = (np.arange(N) % 3 > 0).astype(np.float32)
    runs = [run_of(tmp_path / name, x, weights=weights) for name, x in (("a", a), ("b", b))]
    found = compared(runs[:1], runs[1:])
    assert sum(found.counts) == weights.sum()
    assert all(weights[x.index] for x in (*found.better, *found.worse))


def test_where_less_is_better_the_lower_one_does_better(tmp_path):
    random = np.random.default_rng(3)
    a, b = random.random((2, N))
    runs = [run_of(tmp_path / name, x, metric="loss") for name, x in (("a", a), ("b", b))]
    found = compared(runs[:1], runs[1:], metric=Metric("test/loss", higher_is_better=False))
    gain = b.astype(np.float32) - a.astype(np.float32)
    assert [x.index for x in found.better] == np.argsort(-gain, kind="stable")[:12].tolist()
    assert [x.index for x in found.worse] == np.argsort(gain, kind="stable")[:12].tolist()
    assert found.counts == () and "a difference of" in found.line


def test_of_equal_gains_evenly_spaced_ones_are_shown():
    gains = np.array([0.0, 0.5] + [1.0] + [0.5] * 30 + [-1.0])
    found = largest(gains, 5).tolist()
    assert found[0] == 2 and len(set(found)) == 5 and set(gains[found[1:]]) == {0.5}
    assert max(np.diff(found[1:])) < 12 and found[-1] > 25
    assert largest(gains, 100).tolist() == [2, 1, *range(3, 33)]
    assert largest(np.zeros(3), 5).tolist() == []


def median_evaluation(run):
    """A score that is no mean: the median of held values, times a target."""

    def score(held, targets):
        return {"median": float(np.median(held["x"] * targets["scale"]))}

    return Evaluation(
        lambda variables, batch: batch, {"one": Evaluator({"median": "of all"}, score=score)}
    )


def test_a_score_that_is_no_mean_is_computed_again_by_its_evaluator(tmp_path):
    random = np.random.default_rng(4)
    x = random.normal(size=(2, 3, N)).astype(np.float32) + np.array([1.0, 0.0])[:, None, None]
    scale = random.random(N).astype(np.float32) + 0.5
    sides = []
    for side, name in zip(x, "ab", strict=True):
        runs = []
        for seed, values in enumerate(side):
            folder = tmp_path / f"{name}{seed}"
            order = random.permutation(N)
            held = {"one": {"x": values[order]}}
            run_of(folder, values, seed, order, held=held, targets={"scale": scale[order]})
            result = json.loads((folder / "result.json").read_text())
            result["metrics"] = {"test/median": float(np.median(values * scale))}
            (folder / "result.json").write_text(json.dumps(result))
            runs.append(read_run(folder))
        sides.append(runs)
    metric = Metric("test/median")
    found = compared(*sides, metric=metric, evaluation_of=median_evaluation)
    chosen = np.random.default_rng(9).integers(N, size=(2000, N))
    medians = np.median((x.astype(float) * scale)[:, :, chosen], -1).mean(1)
    spread = (medians[0] - medians[1]).std()
    assert found.high - found.low == pytest.approx(2 * 1.97 * spread, rel=0.25)
    assert "200 draws of 300 examples" in found.line
    assert "is no mean over them" in compared(*sides, metric=metric).line


def test_what_cannot_be_compared_says_why(tmp_path):
    random = np.random.default_rng(5)
    right = drawn(random, 0.8, 2)
    a = run_of(tmp_path / "a", right[0])
    shorter = run_of(tmp_path / "b", right[1][:-1])
    assert "on other examples than" in compared([a], [shorter]).line
    bare = read_run(write_run(tmp_path / "c", 0.9))
    assert "test.npz: is missing" in compared([a], [bare]).line
    assert "no finished run" in compared([a], []).line
    training = Metric("train/accuracy", points=True)
    assert "in training no outcomes are kept" in compared([a], [a], metric=training).line
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    result["metrics"]["test/accuracy"] += 0.01
    (tmp_path / "a" / "result.json").write_text(json.dumps(result))
    assert "its result.json" in compared([read_run(tmp_path / "a")], [a]).line
