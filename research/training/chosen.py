"""Which weights a result is of, and what they were chosen by: plain values for JSON, and in words.

What is chosen by a metric of a split makes that split's metrics too good: they are no estimate of
what new data will give. So a validation split chooses, and where there is none the result says so.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from research.data.splits import VALIDATION
from research.training.checkpoint import Opened


def chosen_by(best: tuple[str, str]) -> dict[str, Any] | None:
    """What names the best checkpoint: a metric, "max" or "min", its split, and what that is for.

    Args:
      best: as an experiment states it, ("test/accuracy", "max"); None for ("", "max").
    """
    metric, mode = best
    split = metric.partition("/")[0]
    by = {"metric": metric, "mode": mode, "split": split, "for_validation": split in VALIDATION}
    return by if metric else None


class Weights(NamedTuple):
    """Weights that something was measured of.

    Attributes:
      checkpoint: its path, within the run's folder for a result of the run itself.
      step: how many steps they were trained for.
      average: whether they are the moving average of those of all steps.
      chosen_by: as of `chosen_by`; None where they are just the last.
    """

    checkpoint: str
    step: int
    average: bool
    chosen_by: Mapping[str, Any] | None = None


def weights_of_run(
    best: tuple[str, str], last_step: int, best_step: int | None, averaged: bool
) -> dict[str, Any]:
    """What a run's result says of the weights that it is of, and of the best checkpoint beside it.

    Args:
      best: as an experiment states it; where nothing names the best, nothing is said.
      best_step: of the best checkpoint; None where there is none.
    """
    by = chosen_by(best)
    last = Weights(f"checkpoints/latest/{last_step}", last_step, averaged)
    said: dict[str, Any] = {"weights": [last._asdict()] if by else []}
    if by and best_step is not None:
        chosen = Weights(f"checkpoints/best/{best_step}", best_step, averaged, by)
        said["best_checkpoint"] = chosen._asdict()
    return said


def opened_weights(opened: Opened, best: tuple[str, str]) -> Weights:
    """The weights of a checkpoint.

    Args:
      best: of its experiment, for older checkpoints, which do not say what they were chosen by.
    """
    metadata = opened.metadata
    # One in latest/ was taken as the newest, even where it was the best so far, too.
    chosen = metadata.get("best", False) and opened.path.parent.name != "latest"
    by = metadata.get("chosen_by") or chosen_by(best)
    return Weights(str(opened.path), metadata["step"], opened.averaged, by if chosen else None)


def in_words(weights: Mapping[str, Any]) -> str:
    """One line, such as "runs/a/checkpoints/latest/12, step 12: not chosen by any metric".

    Args:
      weights: `Weights` as JSON has it.
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
