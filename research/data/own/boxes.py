"""Splits of a person's own images with boxes, whatever the format of the annotations."""

import dataclasses
from collections import Counter
from collections.abc import Callable

import numpy as np

from research.data.files import count_line
from research.data.images.objects import Objects, clip, faults
from research.data.images.reading import WHITE, read, white_of
from research.data.own.annotations import Annotated, Annotations
from research.data.sources.division import how_drawn
from research.data.sources.examples import Example
from research.data.sources.splits import Dataset, Labelled, with_test
from research.errors import UserError
from research.record.progress import console


@dataclasses.dataclass(frozen=True, eq=False)
class AnnotatedSplit:
    """Image files and their objects."""

    images: tuple[Annotated, ...]
    white: int = WHITE  # see `images.read`

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return str(self.images[index].image)

    def __getitem__(self, index: int, /) -> Example:
        image, source, size, objects = self.images[index]
        try:
            pixels = read(image, self.white)
        except UserError as error:
            raise UserError(f"{error} (--skip_corrupt leaves such files out)") from None
        height, width = pixels.shape[:2]
        if size is None:
            boxes = objects.boxes * np.array([width, height] * 2, np.float32)
            objects = objects._replace(boxes=boxes)
        elif size != (height, width):
            turned = "; do its EXIF data turn it on its side?" if size == (width, height) else ""
            raise UserError(
                f"{source}: says that the image is {size[1]} x {size[0]} pixels; {image} is "
                f"{width} x {height}{turned}"
            )
        boxes = clip(objects.boxes, height, width)
        return {"image": pixels, **objects._replace(boxes=boxes).example()}

    @property
    def labels(self) -> np.ndarray:
        """One class for all: images are not divided by what is in them."""
        return np.zeros(len(self), np.int32)


def load(
    read_annotations: Callable[[str], Annotations],
    prefix: str,
    location: str,
    *,
    skip_corrupt: bool = False,
    split_seed: int = 0,
    drop_bad_boxes: bool = False,
) -> Dataset:
    """Opens a person's own images with boxes.

    Where nothing says what is for testing, a fifth of the images is: the middle one of each five.

    Args:
      read_annotations: of one format, which `prefix` names.
      skip_corrupt: leave images out that cannot be read, instead of stopping; decodes each once.
      split_seed: draws the fifth; 0: evenly spaced.
      drop_bad_boxes: leave boxes out that are no numbers, inverted, without area or outside.

    Raises:
      UserError: for such boxes, images that cannot be read, and what `read_annotations` refuses.
    """
    name = f"{prefix}:{location}"
    found = read_annotations(location)
    notes = ["your own pictures", *found.notes]
    images = {split: list(rows) for split, rows in found.splits.items()}
    for split, rows in images.items():
        if not rows:
            raise UserError(f"--dataset={name}: {split} holds no images")
    if not any(len(row.objects.classes) for rows in images.values() for row in rows):
        raise UserError(f"--dataset={name}: no image of it holds an object; there is none to learn")
    left_out = Counter(found.left_out)
    count = sum(map(len, images.values())) + left_out.total()
    if skip_corrupt:
        readable = {
            split: [row for row in rows if _can_be_read(row)] for split, rows in images.items()
        }
        left_out["unreadable"] = sum(map(len, images.values())) - sum(map(len, readable.values()))
        images = readable
    images, note = _sound(images, name, drop_bad_boxes)
    notes += [*note, count_line(count, left_out)]
    for line in notes[1:]:
        console().print(f"{name}: {line}", markup=False)
    splits: dict[str, Labelled] = {
        split: AnnotatedSplit(tuple(rows)) for split, rows in images.items()
    }
    if list(splits) == ["train"]:
        notes.append(f"a fifth, {how_drawn(split_seed, 'evenly spaced')}, is the test split")
    splits = with_test(splits, name, split_seed)
    sizes = {row.size for rows in images.values() for row in rows}
    (size,) = sizes if len(sizes) == 1 else (None,)
    height, width = size or (None, None)
    white = white_of(row.image for rows in images.values() for row in rows)
    citation = "; ".join(notes)
    return Dataset(name, splits, found.class_names, (height, width, None), citation, white)


def _can_be_read(row: Annotated) -> bool:
    try:
        read(row.image)
    except UserError as error:
        console().print(f"left out: {error}", markup=False)
        return False
    return True


def _sound(
    images: dict[str, list[Annotated]], name: str, drop: bool
) -> tuple[dict[str, list[Annotated]], list[str]]:
    """Returns the images with boxes that can be used, each once, and notes about the others."""
    reasons: Counter[str] = Counter()
    count = repeated = 0
    first = ""
    beyond = 0
    sound: dict[str, list[Annotated]] = {}
    for split, rows in images.items():
        sound[split] = []
        for row in rows:
            count += len(row.objects.classes)
            repeated += len(row.objects.classes)
            row = row._replace(objects=_once(row.objects))
            repeated -= len(row.objects.classes)
            height, width = row.size or (1, 1)
            messages = faults(row.objects.boxes, height, width)
            for number, message in enumerate(messages):
                if message:
                    reasons[message] += 1
                    box = ", ".join(f"{value:g}" for value in row.objects.boxes[number].tolist())
                    first = first or f"the box ({box}) of object {number + 1} of {row.source}"
            good = row.objects.take(np.array([not message for message in messages], bool))
            over = np.abs(clip(good.boxes, height, width) - good.boxes).max(1, initial=0.0)
            beyond += int((over > max(height, width) * 1e-3).sum())
            sound[split].append(row._replace(objects=Objects(*good)))
    notes = []
    if reasons:
        counted = ", ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items()))
        if not drop:
            raise UserError(
                f"--dataset={name}: boxes that cannot be used: {reasons.total()} ({counted}); "
                f"first {first}; mend them, or leave them out by --drop_bad_boxes"
            )
        notes.append(f"the first box left out is {first}")
    if beyond:
        notes.append(f"boxes that reach beyond their image, and end at its border: {beyond}")
    left_out = {"written twice": repeated, **dict(sorted(reasons.items()))}
    notes.append(count_line(count, left_out, "boxes"))
    return sound, notes


def _once(objects: Objects) -> Objects:
    """Removes objects that repeat the box, class and crowd of one before them."""
    rows = zip(map(tuple, objects.boxes.tolist()), objects.classes, objects.crowd, strict=True)
    first: dict[object, int] = {}
    for number, row in enumerate(rows):
        first.setdefault(row, number)
    if len(first) == len(objects.classes):
        return objects
    chosen = np.zeros(len(objects.classes), bool)
    chosen[list(first.values())] = True
    return objects.take(chosen)
