"""Several trained networks that answer together: the mean of their probabilities."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from research.data.images.preprocessing import Preprocessing
from research.errors import UserError
from research.experiment import Batch, Experiment, PyTree


def ensemble(members: Sequence[Experiment]) -> Experiment:
    """Makes an experiment that predicts the log of the mean of its members' probabilities.

    Members predict log-probabilities, of classes or of each pixel's classes. Its variables are a
    list of the members' variables. Architectures may differ; inputs and outputs must be of the
    same kind.

    Raises:
      UserError: where members have different classes or none, or take images of different sizes;
        and, at the first prediction, where their outputs are not log-probabilities alone.
    """
    first = members[0]
    if "class_names" not in first.facts:
        raise UserError(
            "--checkpoint: an ensemble averages probabilities of classes, and this experiment has "
            "none; name one checkpoint."
        )
    for number, member in enumerate(members[1:], 2):
        for fact in ("class_names", "preprocessing"):
            theirs, ours = _comparable(member.facts[fact]), _comparable(first.facts[fact])
            if theirs != ours:
                raise UserError(
                    f"--checkpoint: the first and number {number} differ in {fact}; an ensemble "
                    "needs the same classes and images."
                )

    def predict(variables: Any, batch: Batch) -> PyTree:
        outputs = [m.evaluation.predict(v, batch) for m, v in zip(members, variables, strict=True)]
        if not isinstance(outputs[0], jax.Array):
            raise UserError(
                "--checkpoint: an ensemble averages probabilities, and this experiment predicts "
                "something else; name one checkpoint."
            )
        return functools.reduce(jnp.logaddexp, outputs) - math.log(len(outputs))

    return first._replace(evaluation=first.evaluation._replace(predict=predict))


def _comparable(fact: PyTree) -> PyTree:
    """Returns a fact without mean and deviation, which each member applies itself."""
    if not isinstance(fact, dict):
        return fact
    whole = Preprocessing.from_json(fact).to_json()  # older checkpoints lack what came later
    return {name: value for name, value in whole.items() if name not in ("mean", "std")}
