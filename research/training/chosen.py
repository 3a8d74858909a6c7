"""Describes the weights of a result and their choice: plain values for JSON, and words.

Weights chosen by a metric of a split have too good metrics on that split: they are no estimate for
new data. So a validation split chooses, and a result without one says so.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from research.data.sources.splits import VALIDATION
from research.training.checkpoint import Opened


def chosen_by(best: tuple[str, str]) -> dict[str, Any] | None:
    """Describes the choice of the best checkpoint: metric, "max" or "min", split and its purpose.

    Args:
      best: `Evaluation.best`, such as ("test/accuracy", "max"); returns None for ("", "max").
    """
    metric, mode = best
    split = metric.partition("/")[0]
    by = {"metric": metric, "mode": mode, "split": split, "for_validation": split in VALIDATION}
    return by if metric else None


class Weights(NamedTuple):
    """Weights that were measured.

    Attributes:
      checkpoint: its path, within the run's folder for a result of the run itself.
      step: how many steps they were trained for.
      average: whether they are a moving average over all steps.
      chosen_by: the value of `chosen_by`; None if they are just the last.
    """

    checkpoint: str
    step: int
    average: bool
    chosen_by: Mapping[str, Any] | None = None


def weights_of_run(
    best: tuple[str, str], last_step: int, best_step: int | None, averaged: bool
) -> dict[str, Any]:
    """Describes the weights of a run's result, and its best checkpoint, for result.json.

    "validation_split" names the split for validation that chooses the best, or is None: variants
    must not be ranked by a metric of another split, on which it is too good.

    Args:
      best: `Evaluation.best`; without a metric, no best checkpoint is described.
      best_step: of the best checkpoint; None if there is none.
    """
    by = chosen_by(best)
    last = Weights(f"checkpoints/latest/{last_step}", last_step, averaged)
    said: dict[str, Any] = {"weights": [last._asdict()] if by else []}
    said["validation_split"] = by["split"] if by and by["for_validation"] else None
    if by and best_step is not None:
        chosen = Weights(f"checkpoints/best/{best_step}", best_step, averaged, by)
        said["best_checkpoint"] = chosen._asdict()
    return said


def opened_weights(opened: Opened, best: tuple[str, str]) -> Weights:
    """Describes the weights of a checkpoint.

    Args:
      best: of its experiment, for older checkpoints, which do not name their metric.
    """
    metadata = opened.metadata
    # One in latest/ was taken as the newest, even where it was the best so far, too.
    chosen = metadata.get("best", False) and opened.path.parent.name != "latest"
    by = metadata.get("chosen_by") or chosen_by(best)
    return Weights(str(opened.path), metadata["step"], opened.averaged, by if chosen else None)


def in_words(weights: Mapping[str, Any]) -> str:
    """Writes one line, such as "runs/a/checkpoints/latest/12, step 12: not chosen by any metric".

    Args:
      weights: `Weights` as JSON.
    """
    by = weights["chosen_by"]
    average = ", moving average" if weights["average"] else ""
    said = f"{weights['checkpoint']}, step {weights['step']}{average}: "
    if by is None:
        return f"{said}not chosen by any metric"
    extreme = {"max": "highest", "min": "lowest"}[by["mode"]]
    said += f"chosen by the {extreme} {by['metric']}, so too good on the {by['split']} split"
    if by["for_validation"]:
        return said
    return f"{said}; --validation=0.1 would choose by examples held out of training"
