import cv2
import numpy as np
import pytest

from research.data import feature_cache
from research.data.captioned import CaptionedSplit
from research.data.captions import tokenise
from research.data.config import Augmentation
from research.data.preprocessing import Mapped, Preprocessing
from research.data.tokens import Vocabulary
from research.errors import UserError

COUNT = 100


@pytest.fixture
def files(tmp_path):
    """Pictures of one grey each, as many as their number."""
    for i in range(COUNT):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((4, 6, 3), i, np.uint8))
    return tuple(str(tmp_path / f"{i}.png") for i in range(COUNT))


def opened(files, said="a picture"):
    split = CaptionedSplit(files, tuple((f"{said} {i}",) for i in range(len(files))))
    texts = {"train": [list(texts) for texts in split.captions]}
    known = Vocabulary.of(text for image in texts["train"] for text in image)
    told = tokenise({"train": split}, texts, known, 5, cut_long=False)["train"]
    return Mapped(told, Preprocessing((4, 6), 3, "stretch"))


def encode(images):
    assert images.shape == (32, 4, 6, 3)  # the last batch too: one program
    return images[:, ::2, ::2].astype(np.float32)


def test_maps_are_those_of_their_image_and_made_once(files, tmp_path):
    folder = tmp_path / "cache"
    maps = feature_cache.features(opened(files), encode, folder, "encoder")
    assert maps.shape == (COUNT, 2, 3, 3) and maps.dtype == np.float16
    np.testing.assert_array_equal(maps, np.arange(COUNT)[:, None, None, None] + np.zeros((2, 3, 3)))

    def again(images):
        raise AssertionError("encoded twice")

    feature_cache.features(opened(files), again, folder, "encoder")
    # Other sentences about the same pictures: the maps are the same.
    feature_cache.features(opened(files, said="another sentence"), again, folder, "encoder")
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("which", [0, 1, 50, 99])
def test_any_other_image_or_encoder_has_other_maps(files, tmp_path, which):
    folder = tmp_path / "cache"
    feature_cache.features(opened(files), encode, folder, "encoder")
    cv2.imwrite(files[which], np.full((4, 6, 3), 200, np.uint8))
    maps = feature_cache.features(opened(files), encode, folder, "encoder")
    assert (maps[which] == 200).all() and len(list(folder.iterdir())) == 2
    feature_cache.features(opened(files), encode, folder, "other")
    assert len(list(folder.iterdir())) == 3


def test_an_encoder_that_is_stopped_leaves_nothing(files, tmp_path):
    def stopped(images):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        feature_cache.features(opened(files), stopped, tmp_path / "cache", "encoder")
    assert not list((tmp_path / "cache").iterdir())


def test_what_changes_the_maps_is_refused():
    encoder = {"backbone": {"conv": {"kernel": np.zeros(1)}, "fc": {"bias": np.zeros(1)}}}
    frozen = lambda path: path.startswith("backbone/")
    feature_cache.check(Augmentation(), encoder, frozen)
    for part in (None, lambda path: path == "backbone/conv/kernel"):
        with pytest.raises(UserError, match="the encoder changes; add --freeze"):
            feature_cache.check(Augmentation(), encoder, part)
    with pytest.raises(UserError, match="--shift changes the maps"):
        feature_cache.check(Augmentation(shift=0.1), encoder, frozen)
