"""Findings of a comparison: values, differences, verdicts, and the conditions they hold under."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from research.comparison import groups as groups_lib
from research.comparison.conditions import Conditions, chosen_on, conditions, cost
from research.comparison.examples import ByExample, compare_examples, to_json
from research.comparison.groups import Chosen
from research.comparison.runs import Run
from research.comparison.sides import Comparison, Sample, compare
from research.comparison.statistics import Summary, summarise
from research.comparison.study import Study
from research.comparison.verdict import Verdict, verdicts
from research.comparison.wording import Metric, in_points
from research.config import Option
from research.errors import UserError, nearest
from research.experiment import Evaluation


class Findings(NamedTuple):
    """All that is known of the sides of a comparison, by their labels.

    Attributes:
      metric: how its values are said.
      chosen: its name, direction and protocol.
      baseline: the label of the side that others are compared with.
      difference: the smallest of interest; None where none was declared.
      sides: the runs.
      samples: their values, with what pairs them.
      repeats: what that is: "seed", "fold", ...
      summaries: of each side.
      comparisons, verdicts: of each side but the baseline.
      conditions: what differs beside the metric.
      warnings: further lines, which qualify all verdicts.
      by_example: what single examples say of each side but the baseline.
      study: what declared all this before; None where no study did.
    """

    metric: Metric
    chosen: Chosen
    baseline: str
    difference: float | None
    sides: Mapping[str, Sequence[Run]]
    samples: Mapping[str, Sample]
    repeats: str
    summaries: Mapping[str, Summary]
    comparisons: Mapping[str, Comparison]
    verdicts: Mapping[str, Verdict]
    conditions: Conditions
    warnings: Sequence[str]
    by_example: Mapping[str, ByExample] = {}
    study: Study | None = None

    @property
    def lines(self) -> list[str]:
        """Returns the verdicts, a line each."""
        said = [(label, verdict.text) for label, verdict in self.verdicts.items()]
        return [text if text.startswith(label) else f"{label}: {text}" for label, text in said]

    @property
    def cautions(self) -> list[str]:
        """Returns all warnings, of the whole first."""
        own = [
            f"{label}: {line}"
            for label, verdict in self.verdicts.items()
            for line in verdict.warnings
        ]
        return [*self.warnings, *self.conditions.warnings, *own]

    def reason(self, run: Run) -> str:
        """Returns why a run has no value; "" where it has one."""
        if run.failure or math.isfinite(run.value(self.chosen.name)):
            return run.failure
        has = self.chosen.name in run.numbers
        return (
            f"{self.chosen.name} is {run.numbers[self.chosen.name]:g}"
            if has
            else (f"it has no {self.chosen.name}")
        )

    def to_json(self) -> dict[str, Any]:
        """Returns plain values for compare.json."""
        return {
            "metric": self.chosen.name,
            "mode": self.chosen.mode,
            "protocol": self.chosen.protocol,
            "baseline": self.baseline,
            "difference": self.difference,
            "pairs_by": self.repeats,
            "variants": {
                label: {
                    **self.summaries[label]._asdict(),
                    "runs_of_it": [
                        {
                            "folder": str(run.folder),
                            self.repeats: number,
                            "value": value,
                            "failure": self.reason(run),
                            **cost(run),
                        }
                        for run, number, value in zip(
                            runs, self.samples[label].seeds, self.samples[label].values, strict=True
                        )
                    ],
                }
                for label, runs in self.sides.items()
            },
            "comparisons": {
                label: {
                    **_plain(one._replace(variant=None, baseline=None)),  # type: ignore[arg-type]
                    "verdict": _plain(self.verdicts[label]),
                    "examples": to_json(self.by_example[label]),
                }
                for label, one in self.comparisons.items()
            },
            "flags": self.conditions.flags,
            "warnings": self.cautions,
        }


def find(
    sides: Mapping[str, Sequence[Run]],
    metric: str = "",
    difference: float | None = None,
    baseline: str = "",
    late: Collection[str] = (),
    under_study: Collection[str] | None = None,
    fields: Sequence[Option] = (),
    notes: Sequence[str] = (),
    evaluation_of: Callable[[Run], Evaluation] | None = None,
) -> Findings:
    """Compares the sides with the baseline.

    Args:
      sides: {label: runs}, finished or not.
      metric: by default that by which the experiment is judged.
      difference: the smallest of interest, in the metric's units.
      baseline: by default the first.
      late: sides that were added after results had been looked at.
      under_study, fields: see `conditions`.
      notes: warnings that the caller has already.
      evaluation_of: see `compare_examples`.

    Raises:
      UserError: for runs that cannot be compared, and names that nothing has.
    """
    groups_lib.check_sides(sides)
    chosen = groups_lib.choose_metric(sides, metric)
    baseline = baseline or next(iter(sides))
    if baseline not in sides:
        raise UserError(
            f"--baseline={baseline}: is no side.{nearest(baseline, sides)} There are "
            f"{', '.join(sides)}."
        )
    samples, repeats = groups_lib.samples(sides, lambda run: run.value(chosen.name))
    values = [float(x) for sample in samples.values() for x in sample.values]
    higher = chosen.mode == "max"
    said = Metric(chosen.name, higher, in_points(chosen.name, values))
    comparisons = {
        label: compare(sample, samples[baseline], difference, higher)
        for label, sample in samples.items()
        if label != baseline
    }
    found = Findings(
        metric=said,
        chosen=chosen,
        baseline=baseline,
        difference=difference,
        sides=sides,
        samples=samples,
        repeats=repeats,
        summaries={label: summarise(sample.values) for label, sample in samples.items()},
        comparisons=comparisons,
        verdicts={},
        conditions=conditions(sides, fields, under_study),
        warnings=[*notes, *filter(None, [chosen_on(sides, chosen.name)])],
    )
    reasons = {
        label: {
            number: reason
            for run, number in zip(runs, samples[label].seeds, strict=True)
            if (reason := found.reason(run))
        }
        for label, runs in sides.items()
    }
    return found._replace(
        verdicts=verdicts(comparisons, baseline, said, late, reasons),
        by_example={
            label: compare_examples(
                label,
                baseline,
                *finished_pairs(found, label),
                comparisons[label].pairs,
                said,
                evaluation_of,
            )
            for label in comparisons
        },
    )


def finished_pairs(found: Findings, label: str) -> tuple[list[Run], list[Run]]:
    """Returns the finished runs of a side and of the baseline, side by side where seeds pair."""
    ours, theirs = (
        {
            number: run
            for run, number in zip(found.sides[side], found.samples[side].seeds, strict=True)
            if math.isfinite(run.value(found.chosen.name))
        }
        for side in (label, found.baseline)
    )
    if not found.comparisons[label].pairs:
        return list(ours.values()), list(theirs.values())
    shared = sorted(ours.keys() & theirs.keys())
    return [ours[number] for number in shared], [theirs[number] for number in shared]


def _plain(values: Any) -> Any:
    """Returns named tuples as mappings."""
    if hasattr(values, "_asdict"):
        return {name: _plain(x) for name, x in values._asdict().items() if x is not None}
    return values
