"""Options of detection, by the detectors that use them; imports no JAX, so --help answers at once.

A detector is added to `DETECTORS`, with its file in this folder. The first line of a docstring is
the heading in --help.
"""

import dataclasses
from typing import Literal, NamedTuple

from research.config import option, used_by
from research.data.config import ObjectAugmentation
from research.training.config import AugmentedTrainingConfig


@dataclasses.dataclass(frozen=True)
class Backbone:
    """Detector"""

    backbone: str = option("compact", "Classifier whose maps the detector works on.")


@dataclasses.dataclass(frozen=True)
class Maps:
    """Detector"""

    strides: tuple[str, ...] = option(
        (), "Pixels a cell of the maps that predict, as 8,16,32; empty: the detector's own."
    )
    head_width: int = option(128, "Channels of the detector's own layers.", minimum=1)


@dataclasses.dataclass(frozen=True)
class Anchors:
    """Detector"""

    anchors: int = option(
        -1,
        "Anchor boxes, found by k-means on the training boxes; 0: none (yolo), -1: the "
        "detector's own.",
        minimum=-1,
    )


@dataclasses.dataclass(frozen=True)
class Reach:
    """Detector"""

    reach: float = option(
        1.5,
        "Cells around an object's centre that answer for it (yolo); 0.5: the one cell it is in.",
        minimum=0.5,
    )


@dataclasses.dataclass(frozen=True)
class BoxLoss:
    """Detector"""

    box_loss: Literal["giou", "ciou", "smooth_l1", "squared"] = option(
        "giou",
        "Loss of boxes: 1 - GIoU or 1 - CIoU; smooth L1 or squares of their centres and sides, "
        "relative to the true ones; squared for localisation: of all outputs, and only p_c's where "
        "nothing is.",
    )


@dataclasses.dataclass(frozen=True)
class BoxWeight:
    """Detector"""

    box_weight: float = option(2.0, "Weight of the box loss.", minimum=0.0)


@dataclasses.dataclass(frozen=True)
class HeadDepth:
    """Detector"""

    head_depth: int = option(1, "3x3 convolutions of yolo's head.", minimum=0)


@dataclasses.dataclass(frozen=True)
class Points:
    """Detector"""

    landmarks: int = option(64, "Points that --model=landmarks finds.", minimum=1)


@dataclasses.dataclass(frozen=True)
class Regions:
    """Detector"""

    regions: int = option(
        200,
        "Regions of an image that are looked at (rcnn, fast_rcnn, faster_rcnn); Girshick's papers "
        "take 2,000.",
        minimum=1,
        learned=False,
    )


@dataclasses.dataclass(frozen=True)
class RegionPooling:
    """Detector"""

    region_pooling: Literal["align", "pool"] = option(
        "align",
        "How regions get one size (fast_rcnn, faster_rcnn): sampled between cells, or rounded to "
        "cells (RoI pooling). rcnn warps the image itself.",
    )


@dataclasses.dataclass(frozen=True)
class DrawnProposals:
    """Detector"""

    draw_proposals: bool = option(
        False, "Also draw the regions that are looked at.", changes_result=False, learned=False
    )


@dataclasses.dataclass(frozen=True)
class Windows:
    """Detector"""

    windows: Literal["together", "naive"] = option(
        "together",
        "Sliding windows in evaluation and prediction: all in one pass over the image, or cut out "
        "and classified one by one, with the same results.",
        learned=False,
    )


@dataclasses.dataclass(frozen=True)
class Selection:
    """Detector"""

    max_detections: int = option(
        100, "Detections an image, at most; COCO counts 100.", minimum=1, learned=False
    )
    score_threshold: float = option(
        0.01, "Detections below this score are dropped.", minimum=0.0, maximum=1.0, learned=False
    )
    nms_threshold: float = option(
        0.5,
        "IoU above which the surer of two detections alone stays.",
        minimum=0.0,
        maximum=1.0,
        learned=False,
    )
    soft_nms: float = option(
        0.0,
        "Sigma of soft suppression (0.5), which lowers scores instead; 0: hard.",
        minimum=0.0,
        learned=False,
    )
    class_agnostic: bool = option(
        False, "Detections suppress those of other classes too.", learned=False
    )


class Entry(NamedTuple):
    """A detector that --model names.

    Attributes:
      file: the file of this folder whose `make` makes it.
      summary: what it is, in a few words.
      options: classes of the flags that have an effect on it, of those that not every detector
        uses; and names of single flags of classes that are shared.
      one_object: whether it finds one object an image.
      proposed: whether it gets its regions with the data.
      anchors: how many boxes of typical sizes it takes, where --anchors does not say.
    """

    file: str
    summary: str
    options: tuple[type | str, ...]
    one_object: bool = False
    proposed: bool = False
    anchors: int = 0


_BACKBONE = (Backbone, "init_from", "init_as")
_GRID = (*_BACKBONE, Maps, HeadDepth, "mosaic", Selection)
_REGIONS = (*_BACKBONE, BoxLoss, Regions, DrawnProposals, Selection)

DETECTORS = {
    "yolo": Entry("yolo", "boxes from a grid", (*_GRID, Anchors, Reach, BoxLoss, BoxWeight)),
    "yolo_v1": Entry("yolo", "squared errors and two boxes a cell, as in 2016", _GRID),
    "localisation": Entry(
        "single", "one object's box", (*_BACKBONE, BoxLoss, BoxWeight), one_object=True
    ),
    "landmarks": Entry("single", "one object's points", (*_BACKBONE, Points), one_object=True),
    "sliding_windows": Entry(
        "windows", "a classifier everywhere", (Anchors, "mosaic", Windows, Selection), anchors=4
    ),
    "rcnn": Entry("regions", "a classifier of proposed regions", _REGIONS, proposed=True),
    "fast_rcnn": Entry(
        "regions", "the same on one map", (*_REGIONS, Maps, RegionPooling), proposed=True
    ),
    "faster_rcnn": Entry(
        "regions",
        "proposes its own regions",
        (*_REGIONS, Maps, RegionPooling, Anchors, "mosaic"),
        anchors=3,
    ),
}
# The detectors that a flag has an effect on, if not all.
USED_BY = used_by({name: entry.options for name, entry in DETECTORS.items()})


@dataclasses.dataclass(frozen=True)
class Chosen:
    """Detector"""

    model: str = option(
        "yolo",
        "; ".join(f"{name}: {entry.summary}" for name, entry in DETECTORS.items()) + ".",
        choices=DETECTORS,
    )


@dataclasses.dataclass(frozen=True)
class DetectionConfig(
    Selection,
    Windows,
    DrawnProposals,
    RegionPooling,
    Regions,
    Points,
    HeadDepth,
    BoxWeight,
    BoxLoss,
    Reach,
    Anchors,
    Maps,
    Backbone,
    Chosen,
):
    """The options of detection, all together."""


@dataclasses.dataclass(frozen=True)
class DetectionTrainingConfig(DetectionConfig, ObjectAugmentation, AugmentedTrainingConfig):
    """Detection"""

    max_objects: int = option(
        0, "Room for objects in an image, at least 1; 0: as many as the data need.", minimum=0
    )
    drop_bad_boxes: bool = option(
        False, "Leave out boxes that are inverted, without area, outside or no numbers."
    )
