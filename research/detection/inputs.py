"""Inputs of detectors: data sets, sizes of boxes, augmentation, a person's own files."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Array, Key

from research.data import datasets
from research.data.images import reading as images
from research.data.images.augment import Components, example_keys, move_points
from research.data.images.augment_objects import ObjectBatch, augment_objects, move_regions
from research.data.images.objects import fit_objects, to_original
from research.data.images.preprocessing import Preprocessing, read_batch
from research.data.images.proposals import propose
from research.data.sources.examples import Arrays, Example, Examples
from research.data.sources.splits import Dataset
from research.data.stored.sets import PreparedSplit
from research.data.tasks import detection, landmarks
from research.detection.config import DETECTORS, DetectionTrainingConfig
from research.errors import UserError, choose
from research.experiment import Axis
from research.geometry.anchors import k_means
from research.models import Entry, available
from research.record.progress import console
from research.spacing import spaced

COUNTED = 50_000  # examples of a prepared split that are read to count their objects
SEEN = 5_000  # training examples whose boxes give the typical sizes


def load(config: DetectionTrainingConfig) -> Dataset:
    """Loads the data set of --dataset. Raises UserError as `research.data.datasets.load` does."""
    if config.elastic_alpha:
        raise UserError("--elastic_alpha: boxes cannot follow a local warp; leave it out.")
    for flag in ("mirror", "flip"):
        if config.model == "landmarks" and getattr(config, flag):
            raise UserError(f"--{flag}: would exchange landmarks; leave it out.")
    task = landmarks.task if config.model == "landmarks" else detection.task
    found = datasets.load(
        config.dataset,
        config.data_dir,
        task(drop_bad_boxes=config.drop_bad_boxes),
        skip_corrupt=config.skip_corrupt,
        split_seed=config.split_seed,
        sample=config.sample,
    )
    if "train" not in found.splits:
        raise UserError(f"--dataset={config.dataset}: has no split called train.")
    found = detection.with_objects(found)
    most = max_objects(found, config)
    if DETECTORS[config.model].one_object and most > 1:
        raise UserError(
            f"--model={config.model}: finds one object, images of --dataset={config.dataset} hold "
            f"up to {most}; --dataset=single_digits has one at most."
        )
    return found


def max_objects(dataset: Dataset, config: DetectionTrainingConfig) -> int:
    """Returns --max_objects, or the largest number of objects in an image of the data set.

    Raises:
      UserError: where an image holds more than --max_objects, with the number needed; and where
        the flag is missing and the count would need reading a very large prepared set.
    """
    if config.max_objects:
        detection.check_room(dataset, config.max_objects)
        return int(config.max_objects)
    for split, examples in dataset.splits.items():
        if isinstance(examples, PreparedSplit) and len(examples) > COUNTED:
            raise UserError(
                f"--dataset={config.dataset}: {split} has {len(examples):,} examples, too many to "
                "count their objects; give --max_objects."
            )
    most = (detection.counts(split).max(initial=1) for split in dataset.splits.values())
    return int(max(most))


def entry_of(config: DetectionTrainingConfig) -> Entry:
    """Returns the backbone's entry, without a fixed size: its maps come from images of any size."""
    return choose(config.backbone, available(), "backbone")._replace(fixed_size=False)


def check_size(config: DetectionTrainingConfig, dataset: Dataset) -> None:
    """Raises UserError if neither --image_size nor the data say the images' size."""
    follows = "image_size" in config.unchosen and datasets.is_own(config.dataset)
    if not config.image_size and not follows and None in dataset.image_shape[:2]:
        raise UserError(f"--dataset={config.dataset}: images differ in size; give --image_size.")


def fit_of(
    config: DetectionTrainingConfig, dataset: Dataset
) -> Callable[[Example, Preprocessing], Example]:
    """Returns a function that brings an example to fixed shapes, with the regions of --model."""
    if config.model == "landmarks":
        return functools.partial(landmarks.fit_landmarks, max_objects=1, points=config.landmarks)
    most = max_objects(dataset, config)
    if not DETECTORS[config.model].proposed:
        return functools.partial(fit_objects, max_objects=most)
    console().print("proposing regions, once for each image", markup=False)
    return functools.partial(fit_with_proposals, max_objects=most, regions=config.regions)


def fit_with_proposals(
    example: Example, preprocessing: Preprocessing, *, max_objects: int, regions: int
) -> Example:
    """Adds "proposals" [regions, 4] of research/data/images/proposals.py to `fit_objects`."""
    fitted = fit_objects(example, preprocessing, max_objects=max_objects)
    return {**fitted, "proposals": propose(images.with_channels(fitted["image"], 3), regions)}


# Anchors, or typical sizes, where --anchors=-1.


def typical_sizes(train: Examples, config: DetectionTrainingConfig) -> list[list[float]]:
    """Returns [[width, height], ...] of training boxes by k-means, pixels of the model's image.

    Crowds are left out. Where boxes must be squares, as sliding windows are, the sizes are those of
    squares with the objects' longer sides.

    Raises:
      UserError: if there is no object to learn sizes from.
    """
    count = config.anchors if config.anchors >= 0 else DETECTORS[config.model].anchors
    if not count:
        return []
    if isinstance(train, Arrays):
        boxes, valid, crowd = (train.fields[name] for name in ("boxes", "valid", "crowd"))
    else:
        examples = [train[i] for i in spaced(len(train), config.sample or SEEN).tolist()]
        boxes, valid, crowd = (
            np.stack([x[name] for x in examples]) for name in ("boxes", "valid", "crowd")
        )
    found = boxes[valid & ~crowd]
    sides = found[:, 2:] - found[:, :2]
    if config.model == "sliding_windows":
        sides = np.repeat(sides.max(1, keepdims=True), 2, axis=1)
    try:
        sizes, _ = k_means(sides, count, config.seed)
    except ValueError:
        raise UserError(f"--dataset={config.dataset}: its train split holds no objects.") from None
    return sizes.round(2).tolist()


def read(
    files: list[str], preprocessing: Preprocessing, config: DetectionTrainingConfig
) -> dict[str, np.ndarray]:
    """Reads a batch of a person's images: "image", and "size", the original (height, width)."""
    batch = read_batch(files, preprocessing)
    if DETECTORS[config.model].proposed:
        rgb = (images.with_channels(x, 3) for x in batch["image"])
        batch["proposals"] = np.stack([propose(x, config.regions) for x in rgb])
    return batch


def augment(
    config: DetectionTrainingConfig,
    key: Key[Array, ""],
    batch: Mapping[str, Any],
    components: Components,
    axis: Axis,
) -> dict[str, Any]:
    """Changes a batch's images at random, and moves boxes, landmarks and proposals along."""
    keys = example_keys(key, batch["index"], batch["occurrence"])
    fields = {name: batch[name] for name in ObjectBatch._fields}
    objects = ObjectBatch(**{**fields, "image": batch["image"] / 255.0})
    changed = augment_objects(config, keys, objects, batch["mask"], components, axis)._asdict()
    height, width = batch["image"].shape[1:3]
    if config.model == "landmarks":
        changed["points"] = move_points(config, keys, batch["points"], height, width)
    if DETECTORS[config.model].proposed:
        changed["proposals"] = move_regions(config, keys, batch["proposals"], height, width)
    return {**batch, **changed, "image": changed["image"] * 255.0}


def in_original(values: Mapping[str, Any], sizes: Any, preprocessing: Preprocessing) -> Any:
    """Converts boxes, and points if there are any, to pixels of the original images.

    Args:
      values: outputs or targets, "boxes" [n, k, 4] and "points" [n, k, 2] among them.
      sizes: [n, 2], height and width of the images.
    """
    moved = {"boxes": to_original(values["boxes"], sizes, preprocessing)}
    if "points" in values:
        flat = np.concatenate([values["points"]] * 2, axis=-1)  # boxes without area
        moved["points"] = to_original(flat, sizes, preprocessing)[..., :2]
    return {**values, **moved}
