"""Proposals find what stands out, are the same every time, and survive images without anything."""

import numpy as np

from research.data.proposals import propose
from research.metrics.detection import numpy_iou


def test_two_rectangles_and_their_union_are_proposed():
    image = np.full((64, 64, 3), 40, np.uint8)
    image[10:30, 8:20] = (220, 40, 40)
    image[15:45, 21:40] = (40, 200, 60)
    found = propose(image)
    for box in ([8, 10, 20, 30], [21, 15, 40, 45], [8, 10, 40, 45]):
        assert numpy_iou(found, np.array([box], "f")).max() == 1.0
    np.testing.assert_array_equal(found, propose(image))


def test_noise_and_plain_images_give_fixed_shapes():
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    for image in (noise, np.zeros((16, 16, 3), np.uint8)):
        found = propose(image, 20)
        assert found.shape == (20, 4) and np.isfinite(found).all()
        assert (found[:, [0, 2]] <= image.shape[1]).all() and (found >= 0).all()
    assert not propose(np.zeros((16, 16, 3), np.uint8)).any()


def test_most_digits_of_scenes_are_proposed():
    """Scenes as `digit_scenes` draws them: 85 % at IoU 0.5 were seen on 100 of its test split."""
    from research.data.builtin.digits import read_digits
    from research.data.scenes import textures
    from research.data.scenes.drawing import cut_out, draw

    images, labels, rows = read_digits()
    part = rows["test"]
    digits = cut_out(images[part, :, :, 0], labels[part].tolist(), part.tolist())
    random = np.random.RandomState(0)
    best = []
    for _ in range(20):
        scene = draw(random, digits, textures.load().test)
        found = propose(scene.image)
        best += [numpy_iou(found, np.array([t.box], "f")).max() for t in scene.things]
    assert np.mean(np.array(best) >= 0.5) > 0.7
