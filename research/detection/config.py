"""Options of detection; imports no JAX, so that --help answers at once."""

import dataclasses
from typing import Literal

from research.config import option

Model = Literal[
    "yolo",
    "yolo_v1",
    "localisation",
    "landmarks",
    "sliding_windows",
    "rcnn",
    "fast_rcnn",
    "faster_rcnn",
]


@dataclasses.dataclass(frozen=True)
class DetectionConfig:
    """Detector"""

    model: Model = option(
        "yolo",
        "yolo; yolo_v1: squared errors and two boxes a cell, as in 2016; localisation and "
        "landmarks: one object; sliding_windows: a classifier everywhere; rcnn, fast_rcnn, "
        "faster_rcnn: regions first.",
    )
    backbone: str = option("compact", "Classifier whose maps the detector works on.")
    strides: tuple[str, ...] = option(
        (), "Pixels a cell of the maps that predict, as 8,16,32; empty: the detector's own."
    )
    anchors: int = option(
        -1,
        "Anchor boxes, found by k-means on the training boxes; 0: none (yolo), -1: the "
        "detector's own.",
        minimum=-1,
    )
    reach: float = option(
        1.5,
        "Cells around an object's centre that answer for it (yolo); 0.5: the one cell it is in.",
        minimum=0.5,
    )
    box_loss: Literal["giou", "ciou"] = option("giou", "1 - GIoU or 1 - CIoU of boxes.")
    box_weight: float = option(2.0, "Weight of the box loss.", minimum=0.0)
    head_width: int = option(128, "Channels of the detector's own layers.", minimum=1)
    head_depth: int = option(1, "3x3 convolutions of yolo's head.", minimum=0)
    landmarks: int = option(64, "Points that --model=landmarks finds.", minimum=1)
    regions: int = option(
        200,
        "Regions of an image that are looked at (rcnn, fast_rcnn, faster_rcnn); Girshick's papers "
        "take 2,000.",
        minimum=1,
        learned=False,
    )
    max_detections: int = option(
        100, "Detections an image, at most; COCO counts 100.", minimum=1, learned=False
    )
    score_threshold: float = option(
        0.01, "Detections below this score are dropped.", minimum=0.0, maximum=1.0, learned=False
    )
    nms_threshold: float = option(
        0.5,
        "IoU from which the surer of two detections stays.",
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


_GRIDS: tuple[Model, ...] = ("yolo", "yolo_v1")
_REGIONS: tuple[Model, ...] = ("rcnn", "fast_rcnn", "faster_rcnn")
_SEVERAL: tuple[Model, ...] = (*_GRIDS, "sliding_windows", *_REGIONS)  # objects an image
_BACKBONES: tuple[Model, ...] = (*_GRIDS, "localisation", "landmarks", *_REGIONS)
# The detectors that a flag has an effect on, if not all.
USED_BY: dict[str, tuple[Model, ...]] = {
    "backbone": _BACKBONES,
    "init_from": _BACKBONES,
    "init_as": _BACKBONES,
    "strides": (*_GRIDS, "fast_rcnn", "faster_rcnn"),
    "anchors": ("yolo", "sliding_windows", "faster_rcnn"),
    "reach": ("yolo",),
    "box_loss": ("yolo", "localisation", *_REGIONS),
    "box_weight": ("yolo", "localisation"),
    "head_width": (*_GRIDS, "fast_rcnn", "faster_rcnn"),
    "head_depth": _GRIDS,
    "landmarks": ("landmarks",),
    "mosaic": (*_GRIDS, "sliding_windows", "faster_rcnn"),
    "regions": _REGIONS,
    "max_detections": _SEVERAL,
    "score_threshold": _SEVERAL,
    "nms_threshold": _SEVERAL,
    "soft_nms": _SEVERAL,
    "class_agnostic": _SEVERAL,
}
