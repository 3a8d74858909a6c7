"""Options of decoding, by the ways that use them; imports no JAX, so --help answers at once."""

import dataclasses
from typing import Literal

from research.config import option, used_by


@dataclasses.dataclass(frozen=True)
class Beams:
    """Decoding"""

    beam_width: int = option(5, "Sentences that beam search keeps.", minimum=1, learned=False)
    length_penalty: float = option(
        0.7,
        "Beams are compared by log p / words^this; 0 prefers short ones.",
        minimum=0.0,
        learned=False,
    )


@dataclasses.dataclass(frozen=True)
class Temperature:
    """Decoding"""

    temperature: float = option(
        1.0,
        "For sampling: near 0 the likeliest word, large any.",
        minimum=0.01,
        learned=False,
    )


# The ways of decoding, and the options that have an effect on each.
USED_BY = used_by({"greedy": (), "beam": (Beams,), "sample": (Temperature,)})


@dataclasses.dataclass(frozen=True)
class ChosenDecoding:
    """Decoding"""

    decoding: Literal["greedy", "beam", "sample"] = option(
        "greedy",
        "The way of decoding sentences: the likeliest word, beam search, by chance.",
        learned=False,
    )


@dataclasses.dataclass(frozen=True)
class DecodingConfig(Temperature, Beams, ChosenDecoding):
    """The options of decoding, all together.

    They change captions, not what is learned: a checkpoint may decode in each way.
    """
