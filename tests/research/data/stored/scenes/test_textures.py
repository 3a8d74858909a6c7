import importlib.util
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from research.data.stored.scenes import textures
from research.errors import UserError


def test_training_and_test_share_no_part_of_a_photograph():
    folder = Path(importlib.util.find_spec("skimage").origin).parent / "data"
    parts = textures.load()
    for name, train, test in zip(textures.PHOTOGRAPHS, parts.train, parts.test, strict=True):
        whole = np.asarray(PIL.Image.open(folder / f"{name}.png").convert("RGB"))
        np.testing.assert_array_equal(np.concatenate([train, test], axis=1), whole)
        assert min(*train.shape[:2], *test.shape[:2]) >= 64


def test_backgrounds_are_dark_and_of_every_kind():
    random, photographs = np.random.RandomState(0), textures.load().train
    images = np.stack([textures.background(random, photographs, 64) for _ in range(200)])
    assert images.dtype == np.uint8 and np.percentile(images, 99) < 150
    flat = (np.ptp(images, axis=(1, 2)).max(1) == 0).mean()
    assert 0.08 < flat < 0.3  # one colour: 2 of 11 kinds


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install scikit-image"):
        textures.load()
