import pickle
from collections import Counter

import numpy as np
import pytest

from research.data.sources.examples import Arrays
from research.data.sources.sampling import ClassesByImages
from research.data.sources.source import Source
from research.errors import UserError

LABELS = np.repeat([3, 5, 8, 9, 11], [6, 4, 9, 5, 2])[np.random.default_rng(0).permutation(26)]


def order(seed=0, classes=2, images=4, labels=LABELS):
    return ClassesByImages(labels, classes, images, seed)


def test_a_batch_has_k_images_of_each_of_p_classes_class_by_class():
    for step in range(20):
        rows = order()(step)
        labels = LABELS[rows].reshape(2, 4)
        assert (labels == labels[:, :1]).all() and labels[0, 0] != labels[1, 0]
        for label, images in zip(labels[:, 0], rows.reshape(2, 4), strict=True):
            # Class 11 has two images only: each comes twice.
            assert Counter(images.tolist()).most_common(1)[0][1] == (2 if label == 11 else 1)


def test_a_batch_is_a_pure_function_of_seed_and_step():
    batches = [order()(step) for step in range(12)]
    for step in (11, 0, 5, 5):
        np.testing.assert_array_equal(order()(step), batches[step])
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(order()))(step), batches[step])
    assert any((order(seed=1)(step) != batches[step]).any() for step in range(12))
    assert len({tuple(b) for b in batches}) == 12


def test_classes_and_images_come_equally_often():
    rows = np.concatenate([order()(step) for step in range(4000)])
    classes = Counter(LABELS[rows].tolist())
    assert all(abs(n / len(rows) - 1 / 5) < 0.02 for n in classes.values())
    images = Counter(rows[LABELS[rows] == 8].tolist())
    assert len(images) == 9 and max(images.values()) < 1.15 * min(images.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 6}, "--batch_size=24 takes 6 classes .* has 5; at most --batch_size=20"),
        ({"classes": 1}, "at least two classes"),
        ({"images": 1}, "--images_per_class=1: mining needs at least two images"),
    ],
)
def test_batches_that_cannot_be_made_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        order(**options)


def test_a_source_takes_its_rows_from_an_order():
    examples = Arrays({"image": np.arange(26, dtype=np.uint8)[:, None, None, None]})
    source = Source(examples, 8, seed=0, order=order())
    batch = source.batch(7)
    np.testing.assert_array_equal(batch["index"], order()(7))
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["index"])
    assert batch["index"].dtype == np.int32 and batch["mask"].all()
    for step, found in zip(range(3, 6), source.iterate(3, 6), strict=True):
        np.testing.assert_array_equal(found["index"], order()(step))
    parts = [Source(examples, 8, seed=0, order=order(), part=(i, 4)).batch(7) for i in range(4)]
    np.testing.assert_array_equal(np.concatenate([p["index"] for p in parts]), batch["index"])


def test_the_fingerprint_of_a_source_names_its_order():
    examples = Arrays({"image": np.zeros((26, 2, 2, 1), np.uint8)})
    make = lambda **options: Source(examples, 8, seed=0, **options).fingerprint()
    prints = {make(), make(order=order()), make(order=order(seed=1)), make(order=order(2, 4, 2))}
    assert len(prints) == 4 and make(order=order()) in prints
    with pytest.raises(ValueError, match="only a stream"):
        Source(examples, 8, order=order())
