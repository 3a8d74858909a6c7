"""Objects in images: boxes and their classes, and functions that move them with the image.

Boxes are (x0, y0, x1, y1) in pixels as `data.images.warps` counts them: a box around the whole
image is (0, 0, width, height).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32

from research.data.images.preprocessing import Preprocessing, fit, place
from research.data.sources.examples import Example
from research.errors import UserError


class Objects(NamedTuple):
    """The objects of one image.

    Attributes:
      boxes: pixels of the image.
      classes: number of the class.
      crowd: objects that detection may find or miss without penalty: COCO's crowds, VOC's
        difficult objects.
    """

    boxes: Float32[np.ndarray, "n 4"]
    classes: Int32[np.ndarray, " n"]
    crowd: Bool[np.ndarray, " n"]

    @classmethod
    def of(cls, boxes: object, classes: object, crowd: object = None) -> "Objects":
        """Makes objects from lists, which may be empty; without `crowd`, none is a crowd."""
        numbers = np.asarray(classes, np.int32).reshape(-1)
        some = np.zeros(len(numbers), bool) if crowd is None else np.asarray(crowd, bool)
        with np.errstate(over="ignore"):  # `faults` finds what is infinite
            places = np.asarray(boxes, np.float32).reshape(-1, 4)
        return cls(places, numbers, some.reshape(-1))

    def take(self, chosen: Bool[np.ndarray, " n"]) -> "Objects":
        """Returns the chosen objects."""
        return Objects(*(values[chosen] for values in self))

    def example(self) -> Example:
        """Returns the objects as fields of an example."""
        return self._asdict()


def faults(boxes: Float[np.ndarray, "n 4"], height: int, width: int) -> list[str]:
    """Returns for each box the fault that makes it unusable; "" if there is none.

    A box that reaches beyond the image in part is usable: `clip` ends it at the border.
    """
    clipped = clip(np.nan_to_num(boxes), height, width)
    found = []
    for (x0, y0, x1, y1), (a, b, c, d) in zip(boxes.tolist(), clipped.tolist(), strict=True):
        if not np.isfinite([x0, y0, x1, y1]).all():
            found.append("is not a number")
        elif x1 < x0 or y1 < y0:
            found.append("is inverted")
        elif x1 == x0 or y1 == y0:
            found.append("has no area")
        elif c <= a or d <= b:
            found.append("lies outside its image")
        else:
            found.append("")
    return found


def clip(boxes: Float[np.ndarray, "*n 4"], height: int, width: int) -> Float[np.ndarray, "*n 4"]:
    """Ends boxes at the image's border."""
    return np.clip(boxes, 0, np.array([width, height, width, height], boxes.dtype))


def usable(
    objects: Objects, height: int, width: int, classes: int, where: str, drop: bool
) -> Objects:
    """Returns the objects, clipped to their image, if each can be used.

    Args:
      classes: number of classes.
      where: names the image in messages.
      drop: leave unusable boxes out, instead of stopping.

    Raises:
      UserError: for a class that is not in the list, and a box with a fault.
    """
    unknown = (objects.classes < 0) | (objects.classes >= classes)
    if unknown.any():
        raise UserError(
            f"{where}: class {objects.classes[unknown][0]} of object {unknown.argmax() + 1} is not "
            f"in the list; the numbers of {classes} classes are 0 to {classes - 1}"
        )
    messages = faults(objects.boxes, height, width)
    bad = np.array([bool(message) for message in messages], bool)
    if bad.any() and not drop:
        number = int(bad.argmax())
        box = ", ".join(f"{value:g}" for value in objects.boxes[number].tolist())
        raise UserError(
            f"{where}: the box ({box}) of object {number + 1} {messages[number]} "
            "(--drop_bad_boxes leaves such boxes out)"
        )
    objects = objects.take(~bad)
    return objects._replace(boxes=clip(objects.boxes, height, width))


def matrix(height: int, width: int, preprocessing: Preprocessing) -> Float32[np.ndarray, "2 3"]:
    """Returns the matrix from points (x, y) of an image of this size to the model's pixels."""
    (top, left, cut_height, cut_width), put = place(height, width, preprocessing)
    x, y = put[3] / cut_width, put[2] / cut_height
    return np.array([[x, 0, put[1] - x * left], [0, y, put[0] - y * top]], np.float32)


def fit_objects(example: Example, preprocessing: Preprocessing, *, max_objects: int) -> Example:
    """Brings an example to the model's size, with room for a fixed number of objects.

    Returns:
      "image" uint8 [height, width, channel]; "size" int32 [2], the original height and width; and
      with N = max_objects, padded by zeros and False: "boxes" float32 [N, 4], pixels of that image,
      "classes" int32 [N], "crowd" bool [N], "valid" bool [N]. Boxes may reach beyond a cropped
      image, or lie outside: evaluation counts objects that were cut away as missed, training
      leaves them out (augment_objects.py).

    Raises:
      UserError: for more objects than max_objects.
    """
    height, width = example["image"].shape[:2]
    objects = Objects(*(example[name] for name in Objects._fields))
    (a, _, left), (_, d, top) = matrix(height, width, preprocessing)
    moved = objects.boxes * np.array([a, d, a, d]) + np.array([left, top, left, top])
    objects = objects._replace(boxes=moved.astype(np.float32))
    count = len(objects.classes)
    if count > max_objects:
        raise UserError(
            f"an image holds {count} objects; --max_objects={max_objects} must be {count} or more"
        )
    fields = {
        name: np.concatenate(
            [values, np.zeros((max_objects - count, *values.shape[1:]), values.dtype)]
        )
        for name, values in objects.example().items()
    }
    return {
        "image": fit(example["image"], preprocessing),
        "size": np.array([height, width], np.int32),
        "valid": np.arange(max_objects) < count,
        **fields,
    }


def to_original(
    boxes: Float[np.ndarray, "batch n 4"],
    sizes: Int[np.ndarray, "batch 2"],
    preprocessing: Preprocessing,
) -> Float32[np.ndarray, "batch n 4"]:
    """Converts boxes of the model's images to pixels of the originals, clipped to these.

    Args:
      sizes: height and width of each original.
    """
    returned = np.empty(boxes.shape, np.float32)
    for i, (height, width) in enumerate(sizes.tolist()):
        (a, _, left), (_, d, top) = matrix(height, width, preprocessing)
        back = (boxes[i] - np.array([left, top, left, top])) / np.array([a, d, a, d])
        returned[i] = clip(back, height, width)
    return returned
