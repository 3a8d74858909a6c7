"""Options of worked examples, by the examples that use them; imports no JAX."""

import dataclasses
from typing import ClassVar

from research.config import option, redefault
from research.training.config import ParallelMode, RunConfig, Untrained


@dataclasses.dataclass(frozen=True)
class Filtered:
    """Worked example"""

    kernel: str = option(
        "sobel",
        "Filter: a name, such as scharr or sobel_horizontal, or its numbers row by row, "
        "'1 0 -1 1 0 -1 1 0 -1'.",
    )
    inputs: tuple[str, ...] = option((), "Your own pictures, to be filtered: files and folders.")


@dataclasses.dataclass(frozen=True)
class Angle:
    """Worked example"""

    angle: float = option(
        23.0, "Direction in which the brightness falls, degrees.", minimum=-180.0, maximum=180.0
    )


@dataclasses.dataclass(frozen=True)
class Suppressed:
    """Worked example"""

    boxes: str = option(
        "0 0 3 1 0.9; 1 0 4 1 0.8; 2 0 5 1 0.7; 10 0 13 1 0.6",
        "Boxes, 'left top right bottom score; ...'.",
    )
    score_threshold: float = option(
        0.6, "Boxes whose score is not above it are dropped.", minimum=0.0, maximum=1.0
    )
    nms_threshold: float = option(
        0.5, "IoU with a better box from which a box is dropped.", minimum=0.0, maximum=1.0
    )


@dataclasses.dataclass(frozen=True)
class WorkedExamplesConfig(Suppressed, Angle, Filtered, RunConfig, Untrained):
    """Worked example"""

    example: str = option("edges", "Example; list shows all with the topics they belong to.")
    # One small array has nothing to share out over devices.
    parallel: ParallelMode = redefault(RunConfig, "parallel", "single")

    # What commands read, and no flag says here.
    data_dir: ClassVar[str] = ""
    init_from: ClassVar[str] = ""
    batch_size: ClassVar[int] = 1
    steps: ClassVar[int] = 0
