import numpy as np
import pytest

from research.data.images.objects import Objects, clip, faults, fit_objects, to_original, usable
from research.data.images.preprocessing import Preprocessing
from research.errors import UserError

WAYS = [("pad", 1.0), ("letterbox", 1.0), ("stretch", 1.0), ("crop", 1.0), ("crop", 0.875)]
SIZES = [(40, 90), (90, 40), (150, 131), (37, 37), (64, 64)]


def preprocessing(resize, share, size=(64, 48)):
    return Preprocessing(size, 1, resize, crop_share=share)


def example(image, boxes, classes=None, crowd=None):
    objects = Objects.of(boxes, [1] * len(boxes) if classes is None else classes, crowd)
    return {"image": image, **objects.example()}


@pytest.mark.parametrize(("resize", "share"), WAYS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_box_stays_around_what_it_was_around(resize, share, size):
    """The extent of bright pixels is the truth, before and after."""
    rng = np.random.default_rng(0)
    height, width = size
    compared = 0
    for _ in range(20):
        x0, y0 = rng.integers(0, width - 12), rng.integers(0, height - 12)
        x1, y1 = rng.integers(x0 + 8, width + 1), rng.integers(y0 + 8, height + 1)
        image = np.zeros((height, width, 1), np.uint8)
        image[y0:y1, x0:x1] = 255
        fitted = fit_objects(
            example(image, [[x0, y0, x1, y1]]), preprocessing(resize, share), max_objects=2
        )
        assert fitted["image"].shape == (64, 48, 1) and fitted["size"].tolist() == [height, width]
        ys, xs = np.nonzero(fitted["image"][..., 0] >= 128)
        assert fitted["valid"].tolist() == [True, False]  # even where a crop cut it away
        box = clip(fitted["boxes"][0], 64, 48)
        if min(box[2] - box[0], box[3] - box[1]) >= 2:
            extent = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            np.testing.assert_allclose(box, extent, atol=1.0)
            compared += 1
        else:
            assert len(xs) <= 2 * 64
    assert compared > 5


@pytest.mark.parametrize(("resize", "share"), WAYS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_boxes_come_back_to_the_original(resize, share, size):
    rng = np.random.default_rng(1)
    height, width = size
    corners = rng.uniform(0, [width, height], (2, 6, 2))
    boxes = np.concatenate([corners.min(0), corners.max(0)], 1).astype("f")
    prep = preprocessing(resize, share)
    fitted = fit_objects(
        example(np.zeros((height, width, 1), np.uint8), boxes), prep, max_objects=9
    )
    assert fitted["valid"].sum() == 6  # evaluation must not lose what a crop cuts away
    back = to_original(fitted["boxes"][None], fitted["size"][None], prep)[0][fitted["valid"]]
    np.testing.assert_allclose(back, boxes, atol=2e-3)


def test_padding_and_kinds():
    image = np.zeros((64, 48, 1), np.uint8)
    boxes = [[1, 2, 30, 40], [5, 5, 9, 9], [0, 0, 48, 64]]
    fitted = fit_objects(
        example(image, boxes, [4, 0, 2], [False, True, False]),
        preprocessing("pad", 1.0),
        max_objects=5,
    )
    assert {name: (values.dtype.name, values.shape) for name, values in fitted.items()} == {
        "image": ("uint8", (64, 48, 1)),
        "size": ("int32", (2,)),
        "boxes": ("float32", (5, 4)),
        "classes": ("int32", (5,)),
        "crowd": ("bool", (5,)),
        "valid": ("bool", (5,)),
    }
    np.testing.assert_array_equal(fitted["boxes"], [*boxes, [0] * 4, [0] * 4])
    assert fitted["classes"].tolist() == [4, 0, 2, 0, 0]
    assert fitted["crowd"].tolist() == [False, True, False, False, False]
    assert fitted["valid"].tolist() == [True, True, True, False, False]


def test_an_image_without_objects_is_kept():
    fitted = fit_objects(
        example(np.zeros((9, 9, 1), np.uint8), []), preprocessing("pad", 1.0), max_objects=3
    )
    assert fitted["boxes"].shape == (3, 4) and not fitted["valid"].any()


def test_more_objects_than_room_are_refused_with_the_number():
    many = example(np.zeros((64, 48, 1), np.uint8), [[1, 1, 5, 5]] * 7)
    with pytest.raises(UserError, match=r"holds 7 objects; --max_objects=6 must be 7 or more"):
        fit_objects(many, preprocessing("pad", 1.0), max_objects=6)
    assert fit_objects(many, preprocessing("pad", 1.0), max_objects=7)["valid"].all()


FAULTS = [
    ([2, 3, 8, 9], ""),
    ([-5, -5, 4, 4], ""),  # reaches beyond the image in part
    ([0, 0, 20, 10], ""),
    ([np.nan, 3, 8, 9], "is not a number"),
    ([2, 3, np.inf, 9], "is not a number"),
    ([8, 3, 2, 9], "is inverted"),
    ([2, 9, 8, 3], "is inverted"),
    ([2, 3, 2, 9], "has no area"),
    ([2, 3, 2, 3], "has no area"),
    ([20, 3, 25, 9], "lies outside its image"),
    ([2, -9, 8, 0], "lies outside its image"),
]


def test_every_fault_has_its_name():
    boxes = np.array([box for box, _ in FAULTS], np.float32)
    assert faults(boxes, 10, 20) == [message for _, message in FAULTS]
    assert faults(np.zeros((0, 4), np.float32), 10, 20) == []


@pytest.mark.parametrize(("box", "message"), [f for f in FAULTS if f[1]], ids=str)
def test_a_fault_stops_unless_it_is_dropped(box, message):
    objects = Objects.of([[1, 1, 30, 5], box], [0, 1], [True, False])
    with pytest.raises(UserError, match=rf"a\.png: the box \(.*\) of object 2 {message} .*--drop"):
        usable(objects, 10, 20, 2, "a.png", drop=False)
    left = usable(objects, 10, 20, 2, "a.png", drop=True)
    assert left.classes.tolist() == [0] and left.crowd.tolist() == [True]
    np.testing.assert_array_equal(left.boxes, [[1, 1, 20, 5]])


def test_classes_out_of_the_list_are_never_dropped():
    objects = Objects.of([[1, 1, 3, 5], [1, 1, 3, 5]], [0, 2])
    with pytest.raises(UserError, match=r"a\.png: class 2 of object 2 .* 2 classes are 0 to 1"):
        usable(objects, 10, 20, 2, "a.png", drop=True)


def test_clipping():
    np.testing.assert_array_equal(
        clip(np.array([[[-1.0, 2, 30, 40], [3, 4, 5, 6]]]), 10, 20),
        [[[0, 2, 20, 10], [3, 4, 5, 6]]],
    )
