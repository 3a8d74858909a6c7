"""Options of the losses on embeddings, by the losses that use them; imports no JAX.

A loss is added to `LOSSES`, and computed in `losses/embedding.py`. The first line of a docstring is
the heading in --help.
"""

import dataclasses
from typing import Literal

from research.config import option, used_by


@dataclasses.dataclass(frozen=True)
class Triplets:
    """Loss on embeddings"""

    mining: Literal["batch_hard", "batch_all", "semi_hard", "random"] = option(
        "batch_hard", "triplet: which triplets of the global batch."
    )
    distance: Literal["plain", "squared"] = option("plain", "triplet: Euclidean, or its square.")


@dataclasses.dataclass(frozen=True)
class Margin:
    """Loss on embeddings"""

    margin: float = option(
        0.3,
        "triplet, contrastive: a distance; arcface: an angle, radians (0.5 as published).",
        minimum=0.0,
    )


@dataclasses.dataclass(frozen=True)
class LogitScale:
    """Loss on embeddings"""

    logit_scale: float = option(
        16.0,
        "supcon, softmax, arcface, proxy_nca: factor of the cosines or distances.",
        minimum=0.0,
    )


# --loss -> the classes of flags that have an effect on it, of those that not every loss uses.
LOSSES = {
    "triplet": (Triplets, Margin),
    "contrastive": (Margin,),
    "supcon": (LogitScale,),
    "siamese": (),
    "softmax": (LogitScale,),
    "arcface": (Margin, LogitScale),
    "proxy_nca": (LogitScale,),
}
# The losses that a flag has an effect on, if not all.
USED_BY = used_by(LOSSES)


@dataclasses.dataclass(frozen=True)
class ChosenLoss:
    """Loss on embeddings"""

    loss: str = option("triplet", "Loss that is minimised.", choices=LOSSES)


@dataclasses.dataclass(frozen=True)
class LossConfig(LogitScale, Margin, Triplets, ChosenLoss):
    """Loss on embeddings"""

    stop_on_collapse: bool = option(
        False, "Stop when all embeddings have become one.", changes_result=False
    )
