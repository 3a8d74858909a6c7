"""masks:IMAGES_DIR:MASKS_DIR: a person's own pictures and the masks that were painted for them."""

import dataclasses
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image

from research.data.files import at_home, by_name, count_line, few, find, natural, subfolders
from research.data.images.headers import DAMAGE
from research.data.images.masks import (
    IGNORE,
    MOST_CLASSES,
    Classes,
    decode_mask,
    ignoring,
    nameless,
    plain_classes,
    read_classes,
    to_classes,
)
from research.data.images.reading import (
    EXTENSIONS,
    WHITE,
    read,
    read_encoded,
    upright_size,
    white_of,
)
from research.data.own.folders import SPLITS
from research.data.sources.division import how_drawn
from research.data.sources.examples import Example
from research.data.sources.splits import Dataset, Labelled, with_test
from research.errors import UserError
from research.record.progress import console

Pair = tuple[str, str]  # files of an image and of its mask


@dataclasses.dataclass(frozen=True, eq=False)
class MaskSplit:
    """Image files and mask files."""

    pairs: tuple[Pair, ...]
    classes: Classes
    white: int = WHITE  # see `images.read`

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        return self.pairs[index][0]

    def __getitem__(self, index: int, /) -> Example:
        image, mask = self.pairs[index]
        values = decode_mask(read_encoded(mask), mask, self.classes.colours)
        return {
            "image": read(image, self.white),
            "segmentation": to_classes(values, self.classes, mask),
        }

    @property
    def labels(self) -> np.ndarray:
        """One class for all: pictures are not divided by what is in them."""
        return np.zeros(len(self), np.int32)


def load(
    rest: str, *, skip_corrupt: bool = False, split_seed: int = 0, ignore_label: int = -1
) -> Dataset:
    """Opens images and masks of the same names, with train/, val/ and test/ in both or in neither.

    A mask may be called as its image and a suffix that all of them have. Without such
    folders, a fifth becomes the test split: in natural order the middle one of each five.

    Masks hold class numbers, as grey values of 8 or 16 bits or as palette indices, or colours; a
    class table (third part of the name, or classes.txt beside the masks; see `read_classes`) names
    them and is needed for colours. Without one, 0 and 255 alone are background and foreground.
    Every mask is decoded once.

    Args:
      rest: IMAGES_DIR:MASKS_DIR or IMAGES_DIR:MASKS_DIR:CLASSES_FILE.
      skip_corrupt: leave pairs out that cannot be read, instead of stopping.
      split_seed: draws the fifth; 0: evenly spaced.
      ignore_label: value of pixels that count for nothing; -1 for 255, unless that is a class.

    Raises:
      UserError: names that have no partner, sizes that differ, values that are no class, masks that
        are all background, files that are damaged.
    """
    where = f"--dataset=masks:{rest}"
    parts = rest.split(":")
    if len(parts) not in (2, 3) or not all(parts):
        raise UserError(f"{where}: write masks:IMAGES_DIR:MASKS_DIR, or a class table after them")
    images, masks = (at_home(p) for p in parts[:2])
    for folder in (images, masks):
        if not folder.is_dir():
            raise UserError(f"{where}: {folder} is no folder")
    inner = subfolders(images)
    names = {SPLITS[f.name.lower()]: f.name for f in inner if f.name.lower() in SPLITS}
    left_out: Counter[str] = Counter()
    if names:
        if "train" not in names:
            raise UserError(f"{where}: {images} holds {', '.join(names.values())}, but no train")
        found = {}
        for split, name in sorted(names.items()):
            if not (masks / name).is_dir():
                raise UserError(f"{where}: {images} has a folder {name}, {masks} has none")
            found[split] = pair_up(images / name, masks / name, left_out)
        everywhere = len(find(images, EXTENSIONS).files)
        left_out["in no split"] = everywhere - sum(map(len, found.values()))
    else:
        found = {"train": pair_up(images, masks, left_out)}

    table = _table(parts, masks, ignore_label)
    everything = [pair for pairs in found.values() for pair in pairs]
    seen, bad = _look(everything, table, skip_corrupt)
    classes = table or _classes_of(seen, ignore_label)
    occurring = _occurring(seen, classes, table is not None, where)
    for number, name in enumerate(classes.names):
        if number not in occurring:
            console().print(f"{where}: class {name!r} occurs in no mask", markup=False)

    for split in [s for s, pairs in found.items() if not _counted(pairs, seen, classes, table)]:
        if split == "train" or found.keys() <= {"train", split}:
            raise UserError(f"{where}: every pixel of {split} is ignored; look at its masks")
        line = f"{where}: {split} is not evaluated: every pixel of it is ignored"
        console().print(line, markup=False)
        left_out["of a split that is all ignored"] += len(found.pop(split))
    splits: dict[str, Labelled] = {
        split: MaskSplit(tuple(p for p in pairs if p not in bad), classes)
        for split, pairs in found.items()
    }
    left_out["unreadable, or their mask"] = len(bad)
    used = sum(map(len, splits.values()))
    counts = count_line(used + left_out.total(), left_out)
    console().print(f"masks:{rest}: {counts}", markup=False)
    note = f"your own pictures; {counts}"
    if list(splits) == ["train"]:
        note += f"; a fifth, {how_drawn(split_seed)}, is the test split"
    splits = with_test(splits, where, split_seed)
    sizes = {look.size for look in seen.values()}
    height, width = next(iter(sizes)) if len(sizes) == 1 else (None, None)
    channels = 1 if all(look.grey for look in seen.values()) else 3
    white = white_of(image for image, _ in seen)
    return Dataset(f"masks:{rest}", splits, classes.names, (height, width, channels), note, white)


def pair_up(images: Path, masks: Path, left_out: Counter[str]) -> list[Pair]:
    """Pairs the files of the same relative names below two folders, in natural order.

    Args:
      left_out: {reason: number} of images, to which those that are passed over are added.

    Raises:
      UserError: no images, names that are there twice, names without a partner, and masks of
        several kinds for each image.
    """
    seen = find(images, EXTENSIONS)
    left_out.update(seen.left_out)
    left = by_name(seen.files, images)
    right = by_name(find(masks, EXTENSIONS).files, masks)
    if not left:
        raise UserError(f"{images}: holds no images ({', '.join(EXTENSIONS)})")
    first = min(left, key=natural)
    if first not in right:
        suffixes = [n[len(first) :] for n in right if n.startswith(first)]
        suffixes = [s for s in suffixes if all(name + s in right for name in left)]
        if len(suffixes) > 1:
            raise UserError(
                f"{masks}: holds several masks of each image, {few([first + s for s in suffixes])};"
                " put those that are meant into a folder of their own"
            )
        for suffix in suffixes:
            right = {n.removesuffix(suffix): f for n, f in right.items() if n.endswith(suffix)}
    for mine, other, folder, what in (
        (left, right, masks, "mask"),
        (right, left, images, "image"),
    ):
        alone = sorted(mine.keys() - other.keys(), key=natural)
        if alone:
            raise UserError(
                f"{mine[alone[0]]}: has no {what} of that name in {folder} "
                f"({len(alone)} of {len(mine)} have none)"
            )
    return [(str(left[name]), str(right[name])) for name in sorted(left, key=natural)]


def _table(parts: list[str], masks: Path, ignore_label: int) -> Classes | None:
    if len(parts) == 3:
        path = at_home(parts[2])
    else:
        beside = [folder / "classes.txt" for folder in (masks, masks.parent)]
        path = next((file for file in beside if file.is_file()), Path())
        if not path.name:
            return None
    table = read_classes(path)
    if table.colours and ignore_label >= 0:
        raise UserError(
            f"--ignore_label={ignore_label}: masks of colours have no such value; call the colour "
            'to ignore "void" in the class table'
        )
    table = table if table.colours else ignoring(table, ignore_label)
    for line in nameless(table, path):
        console().print(line, markup=False)
    return table


@dataclasses.dataclass(frozen=True)
class _Seen:
    """Findings about one pair of files."""

    size: tuple[int, int]
    grey: bool
    values: tuple[int, ...]  # in the mask: values, or class numbers if a table is given


def _look(
    pairs: list[Pair], table: Classes | None, skip: bool
) -> tuple[dict[Pair, _Seen], set[Pair]]:
    """Decodes every mask; what was seen, and the pairs that cannot be read."""

    def look(pair: Pair) -> _Seen | UserError:
        try:
            image, mask = pair
            values = decode_mask(read_encoded(mask), mask, table is not None and table.colours)
            if table is not None:
                values = to_classes(values, table, mask)
            try:
                with PIL.Image.open(image) as picture:
                    size, grey = upright_size(picture), picture.mode in ("L", "1", "I;16")
                    lies = size != (picture.height, picture.width)
            except PIL.Image.DecompressionBombError as error:
                raise UserError(f"{image}: is too large ({error})") from None
            except DAMAGE as error:
                raise UserError(f"{image}: is damaged, or no image ({error})") from None
            if lies and values.shape == size[::-1]:
                raise UserError(
                    f"{mask}: was painted on {image} as it is stored, {size[0]} x {size[1]} pixels;"
                    " its EXIF data turn it on its side; save the image turned, or turn the mask"
                )
            if values.shape != size:
                raise UserError(
                    f"{mask}: is {values.shape[1]} x {values.shape[0]} pixels, its image {image} "
                    f"{size[1]} x {size[0]}"
                )
            return _Seen(size, grey, tuple(np.unique(values).tolist()))
        except UserError as error:
            return error

    seen: dict[Pair, _Seen] = {}
    bad: set[Pair] = set()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for pair, result in zip(pairs, pool.map(look, pairs), strict=True):
            if isinstance(result, _Seen):
                seen[pair] = result
            elif skip:
                bad.add(pair)
                console().print(f"left out: {result}", markup=False)
            else:
                pool.shutdown(wait=False, cancel_futures=True)
                raise UserError(f"{result} (--skip_corrupt leaves such pairs out)")
    if not seen:
        raise UserError(f"none of the {len(pairs)} pairs can be read")
    return seen, bad


def _classes_of(seen: dict[Pair, _Seen], ignore_label: int) -> Classes:
    """Makes classes of the values that occur, when no table names them."""
    values = {value for look in seen.values() for value in look.values}
    if ignore_label < 0 and values in ({0, 255}, {255}):
        return Classes(("background", "foreground"), {0: 0, 255: 1})
    numbers = sorted(values - {IGNORE if ignore_label < 0 else ignore_label})
    count = max(numbers, default=0) + 1
    if count > MOST_CLASSES or 2 * len(numbers) < count > 2:
        file = next(mask for (_, mask), look in seen.items() if numbers[-1] in look.values)
        raise UserError(
            f"{file}: has the value {numbers[-1]}, yet only {len(numbers)} values occur in all; "
            'name them in a class table, classes.txt beside the masks, lines "VALUE NAME"'
        )
    names = ["background", "foreground"] if count <= 2 else [f"class {k}" for k in range(count)]
    return ignoring(plain_classes(names), ignore_label)


def _counted(
    pairs: list[Pair], seen: dict[Pair, _Seen], classes: Classes, table: Classes | None
) -> bool:
    """Returns whether a pixel of some masks counts, or none of these could be read."""
    values = {value for pair in pairs if pair in seen for value in seen[pair].values}
    numbers = values if table is not None else {classes.keys[value] for value in values}
    return not numbers or bool(numbers - {IGNORE})


def _occurring(seen: dict[Pair, _Seen], classes: Classes, numbered: bool, where: str) -> set[int]:
    """Returns the classes that occur; raises UserError if that is the first alone."""
    values = {value for look in seen.values() for value in look.values}
    occurring = values if numbered else {classes.keys[value] for value in values}
    if occurring <= {0, IGNORE}:
        raise UserError(
            f"{where}: every mask is {classes.names[0]} alone; there is nothing to learn"
        )
    return occurring
