"""Renames the weights of older checkpoints to the names of today's models."""

import re
from collections.abc import Mapping
from typing import Any

from research.experiment import PyTree

SHARED_NORMALISATION = (
    "was trained when all strides shared one batch normalisation: a copy of it stands for each "
    "stride now, its boxes are worse than the network could give; train anew"
)


def upgrade(weights: PyTree, metadata: Mapping[str, Any]) -> tuple[PyTree, str]:
    """Returns weights under today's names, and a line on the changes; "" if there are none.

    Args:
      weights: nested dictionaries of arrays, as they lie in a checkpoint.
      metadata: of the checkpoint.
    """
    strides = metadata.get("config", {}).get("strides", ())
    if metadata.get("experiment") != "detection" or len(strides) < 2:
        return weights, ""
    upgraded, changed = _one_normalisation_a_stride(weights, strides)
    return upgraded, SHARED_NORMALISATION if changed else ""


def _one_normalisation_a_stride(tree: PyTree, strides: list[str]) -> tuple[PyTree, bool]:
    """Copies a head's only batch normalisation to each stride, in all trees of a checkpoint."""
    if not isinstance(tree, Mapping):
        return tree, False
    made: dict[str, PyTree] = {}
    changed = False
    for name, value in tree.items():
        if re.fullmatch(r"head\d+_bn", name):
            made |= {f"{name}_stride{stride}": value for stride in strides}
            changed = True
        else:
            made[name], below = _one_normalisation_a_stride(value, strides)
            changed |= below
    return made, changed
