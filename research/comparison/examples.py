"""Single examples of two sides: how far they bear a difference out, and on which the sides part.

Runs keep the outcomes of their examples (`record.outcomes`). Examples are drawn anew from these:
means are taken again, and scores that are no means (mAP, mIoU, BLEU) are computed again by the
experiment's own evaluator.
"""

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from research.comparison.resampling import (
    MIN_SEEDS,
    Means,
    Score,
    Scores,
    draw_scores,
    mcnemar,
    over_examples,
    over_seeds_and_examples,
)
from research.comparison.runs import Run
from research.comparison.verdict import one_run_verdict
from research.comparison.wording import Metric, digits
from research.errors import UserError
from research.experiment import Evaluation
from research.record.outcomes import Outcomes, path_of, read
from research.spacing import spaced
from research.training.evaluation import scores_of

DRAWS_OF_SCORES = 200  # each computes the score of a whole split again, for every run
LONGEST = 120.0  # seconds that a person waits for these
MOST = 12  # examples that are listed on each side


class Apart(NamedTuple):
    """An example on which one side does better: its outcomes are means over a side's runs."""

    index: int  # type: ignore[assignment]  # no tuple's method is called
    name: str
    variant: float
    baseline: float


class ByExample(NamedTuple):
    """A variant against the baseline, by examples.

    Attributes:
      line: in words: the difference on other examples, or why there is nothing to say.
      low, high: its 95 % interval; NaN where there is none.
      counts: how many examples both sides get right, the variant alone, the baseline alone, and
        neither, by the majority of a side's runs; () where outcomes are not right or wrong.
      better, worse: examples on which the variant does better, and worse, the largest differences
        first.
    """

    line: str
    low: float = math.nan
    high: float = math.nan
    counts: tuple[int, ...] = ()
    better: Sequence[Apart] = ()
    worse: Sequence[Apart] = ()


def compare_examples(
    name: str,
    baseline: str,
    variant_runs: Sequence[Run],
    baseline_runs: Sequence[Run],
    pairs: bool,
    metric: Metric,
    evaluation_of: Callable[[Run], Evaluation] | None = None,
) -> ByExample:
    """Compares two sides on single examples.

    Args:
      name, baseline: what the sides are called.
      variant_runs, baseline_runs: runs that finished; with `pairs`, those of one seed side by side.
      metric: what is compared.
      evaluation_of: a run -> how its experiment evaluates; only for scores that are no means.
    """
    split, _, measure = metric.name.partition("/")
    runs = [*variant_runs, *baseline_runs]
    if not variant_runs or not baseline_runs:
        return ByExample("examples are not compared: a side has no finished run.")
    if split == "train":
        return ByExample("examples are not compared: of those in training no outcomes are kept.")
    try:
        outcomes = _same_examples([read(path_of(run.folder, split), False) for run in runs], runs)
        count = len(variant_runs)
        if all(measure in one.values for one in outcomes):
            _check(outcomes, runs, measure, metric.name)
            return _means(outcomes, count, name, baseline, pairs, metric, measure)
        if evaluation_of is None:
            return ByExample(f"examples are not compared: {metric.name} is no mean over them.")
        a, b = (
            _scores(side, split, measure, evaluation_of) for side in (variant_runs, baseline_runs)
        )
        return _resampled(a, b, pairs, metric)
    except UserError as error:
        return ByExample(f"examples are not compared: {error}")


def to_json(one: ByExample) -> dict[str, Any]:
    """Returns plain values for compare.json."""
    apart = {name: [x._asdict() for x in getattr(one, name)] for name in ("better", "worse")}
    return {**one._asdict(), **apart}


def _means(
    outcomes: Sequence[Outcomes],
    count: int,
    name: str,
    baseline: str,
    pairs: bool,
    metric: Metric,
    measure: str,
) -> ByExample:
    """Compares sides by a mean over examples; the first `count` outcomes are the variant's."""
    values = np.array([one.values[measure] for one in outcomes], float)
    weights = np.array([one.weights[measure] for one in outcomes], float)
    counted = (weights > 0).all(0)
    right = bool(np.isin(values[:, counted], (0, 1)).all())
    a, b = (
        draw_scores(Means(values[side], weights[side]), values.shape[1])
        for side in (slice(count), slice(count, None))
    )
    found = _resampled(a, b, pairs, metric)
    means = values[:count].mean(0), values[count:].mean(0)
    if right and len(outcomes) == 2:
        test = mcnemar(*(side[counted] > 0.5 for side in means))
        found = ByExample(one_run_verdict(test, name, baseline, metric), test.low, test.high)
    if right:
        ours, theirs = (side[counted] > 0.5 for side in means)
        parts = (ours & theirs, ours & ~theirs, ~ours & theirs, ~ours & ~theirs)
        found = found._replace(counts=tuple(int(part.sum()) for part in parts))
    gain = np.where(counted, means[0] - means[1], 0) * (1 if metric.higher_is_better else -1)
    first = outcomes[0]

    def apart(sign: int) -> list[Apart]:
        names = first.names or [""] * len(gain)
        return [
            Apart(int(first.index[i]), names[i], float(means[0][i]), float(means[1][i]))
            for i in largest(sign * gain, MOST)
        ]

    return found._replace(better=apart(1), worse=apart(-1))


def largest(gains: Float[np.ndarray, " n"], most: int) -> Int[np.ndarray, " chosen"]:
    """Returns at most `most` positions of positive gains, the largest first.

    Of equal ones at the end, evenly spaced ones: sets are often ordered.
    """
    order = np.argsort(-gains, kind="stable")
    count = min(most, int((gains > 0).sum()))
    if not count:
        return order[:0]
    last = gains[order[count - 1]]
    above, equal = order[gains[order] > last], order[gains[order] == last]
    return np.concatenate([above, equal[spaced(len(equal), count - len(above))]])


def _resampled(a: Scores, b: Scores, pairs: bool, metric: Metric) -> ByExample:
    """Says what the difference is on other examples, and with other seeds if there are enough."""
    both = min(len(a.observed), len(b.observed)) >= MIN_SEEDS
    found = over_seeds_and_examples(a, b, pairs) if both else over_examples(a, b)
    write = digits(metric, found.low, found.high)
    unit = " points" if metric.points else ""
    what = "other seeds and other examples" if both else "these very runs on other examples"
    rest = "" if both else f"; other seeds are drawn too from {MIN_SEEDS} on"
    of = f"{len(a.drawn):,} draws of {a.examples:,} examples"
    return ByExample(
        f"{what}: a difference of {write(found.estimate)}{unit} (95 % {write(found.low)} to "
        f"{write(found.high)}; {of}{rest}).",
        found.low,
        found.high,
    )


def _scores(
    runs: Sequence[Run],
    split: str,
    measure: str,
    evaluation_of: Callable[[Run], Evaluation],
) -> Scores:
    """Computes the runs' score on examples that are drawn anew.

    Raises:
      UserError: where runs did not keep what it takes, or it takes too long.
    """
    evaluation = evaluation_of(runs[0])
    functions = []
    for run in runs:
        outcomes = read(path_of(run.folder, split))
        order = np.argsort(outcomes.index, kind="stable")
        held, targets = _take(outcomes.held, order), _take(outcomes.targets, order)
        functions.append(_score(evaluation, held, targets, measure, run))
    examples = len(order)
    began = time.perf_counter()
    if not math.isclose(
        functions[0](np.arange(examples)),
        runs[0].value(f"{split}/{measure}"),
        rel_tol=1e-3,
        abs_tol=1e-6,
    ):
        raise UserError(
            f"{path_of(runs[0].folder, split)}: gives another {measure} than its result.json says."
        )
    seconds = (time.perf_counter() - began) * len(runs) * DRAWS_OF_SCORES
    if seconds > LONGEST:
        raise UserError(
            f"{measure} is computed again for each of {DRAWS_OF_SCORES} draws and {len(runs)} "
            f"runs, which would take {seconds / 60:.0f} minutes."
        )
    return draw_scores(functions, examples, DRAWS_OF_SCORES)


def _score(
    evaluation: Evaluation, held: Mapping[str, Any], targets: Mapping[str, Any], name: str, run: Run
) -> Score:
    """Returns examples -> the score that the only evaluator that gives it computes of them."""
    giving = {
        key: one
        for key, one in evaluation.evaluators.items()
        if key in held and one.score is not None and (name in one.protocol or "/" in name)
    }
    evaluation = evaluation._replace(evaluators=giving)
    if not giving:
        raise UserError(f"{run.folder}: did not keep what {name} is computed from.")

    def score(chosen: np.ndarray) -> float:
        found = scores_of(evaluation, _take(held, chosen), _take(targets, chosen))
        return found.get(name, math.nan)

    return score


def _take(tree: Any, chosen: np.ndarray) -> Any:
    return jax.tree.map(lambda x: x[chosen], tree)


def _same_examples(outcomes: Sequence[Outcomes], runs: Sequence[Run]) -> list[Outcomes]:
    """Returns the outcomes in the order of their examples.

    Raises:
      UserError: where runs were not evaluated on the same.
    """
    found: list[Outcomes] = []
    for one, run in zip(outcomes, runs, strict=True):
        order = np.argsort(one.index, kind="stable")
        sort = functools.partial(_take, chosen=order)
        names = tuple(one.names[i] for i in order) if one.names else ()
        one = Outcomes(one.index[order], names, sort(one.values), sort(one.weights))
        if found and not np.array_equal(one.index, found[0].index):
            raise UserError(f"{run.folder} was evaluated on other examples than {runs[0].folder}.")
        if found and one.names and found[0].names and one.names != found[0].names:
            raise UserError(f"{run.folder} was evaluated on other files than {runs[0].folder}.")
        found.append(one)
    return found


def _check(outcomes: Sequence[Outcomes], runs: Sequence[Run], measure: str, metric: str) -> None:
    """Raises UserError where outcomes are not those of the result."""
    for one, run in zip(outcomes, runs, strict=True):
        if not math.isclose(one.mean(measure), run.value(metric), rel_tol=1e-3, abs_tol=1e-6):
            raise UserError(
                f"{run.folder}: its examples give {one.mean(measure):.6g}, its result.json "
                f"{run.value(metric):.6g}; --mode=evaluate writes them anew."
            )
