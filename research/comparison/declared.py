"""The question of a comparison, and what was declared before: the lines above its tables."""

from research.comparison.findings import Findings
from research.comparison.wording import show


def title(found: Findings) -> str:
    """Returns the question of the study, or which sides are compared."""
    if found.study is not None and found.study.question:
        return found.study.question
    others = [label for label in found.sides if label != found.baseline]
    return f"{', '.join(others)} against {found.baseline}" if others else found.baseline


def declared(found: Findings) -> list[str]:
    """Returns what is claimed, what decides, and what it may cost, a line each."""
    study = found.study
    lines = [f"Claim: {study.claim}"] if study is not None and study.claim else []
    lines.append(_metric(found))
    if study is not None:
        seeds = ", ".join(map(str, study.seeds))
        lines.append(f"Compared with {found.baseline}, over the seeds {seeds}.")
        if study.budget:
            lines.append(f"Budget: {study.budget}")
    return lines


def _metric(found: Findings) -> str:
    better = "higher is better" if found.metric.higher_is_better else "lower is better"
    said = f"{found.chosen.name} ({better})"
    if found.chosen.protocol:
        said += f": {found.chosen.protocol}"
    if found.difference is None:
        return f"{said}. No smallest difference of interest was declared."
    smallest = show(found.difference, found.metric)
    return f"{said}. Declared smallest difference of interest: {smallest}."
