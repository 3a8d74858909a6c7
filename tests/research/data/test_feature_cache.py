import dataclasses
import os

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from research.data import feature_cache
from research.data.config import Augmentation
from research.data.images.preprocessing import Mapped, Preprocessing
from research.data.own.captions import CaptionedSplit
from research.data.text.captions import tokenise
from research.data.text.tokens import Vocabulary
from research.errors import UserError
from research.record.checksums import DamagedError

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


def encoder(encode=encode, identity="encoder"):
    return feature_cache.Encoder(encode, identity)


def test_maps_are_those_of_their_image_and_made_once(files, tmp_path):
    folder = tmp_path / "cache"
    maps = feature_cache.features(opened(files), encoder(), folder)
    assert maps.shape == (COUNT, 2, 3, 3) and maps.dtype == np.float16
    np.testing.assert_array_equal(maps, np.arange(COUNT)[:, None, None, None] + np.zeros((2, 3, 3)))

    def again(images):
        raise AssertionError("encoded twice")

    feature_cache.features(opened(files), encoder(again), folder)
    # Other sentences about the same pictures: the maps are the same.
    feature_cache.features(opened(files, said="another sentence"), encoder(again), folder)
    assert len(list(folder.iterdir())) == 1


def test_a_bit_that_flips_in_the_maps_is_noticed(files, tmp_path):
    folder = tmp_path / "cache"
    whole = np.array(feature_cache.features(opened(files), encoder(), folder))
    (file,) = folder.iterdir()
    for place in (0, 100, file.stat().st_size - 1):
        content = bytearray(file.read_bytes())
        content[place] ^= 1
        file.write_bytes(content)
        os.utime(file, ns=(place, place))  # another process would compare it again
        with pytest.raises(DamagedError, match=rf"{file.name}: is damaged"):
            feature_cache.features(opened(files), encoder(), folder)
        content[place] ^= 1
        file.write_bytes(content)
    old = file.rename(folder / f"{file.name.partition('-')[0]}.npy")  # of earlier versions
    np.testing.assert_array_equal(feature_cache.features(opened(files), encoder(), folder), whole)
    assert [*folder.iterdir()] == [old]


@pytest.mark.parametrize("which", [0, 1, 50, 99])
def test_any_other_image_or_encoder_has_other_maps(files, tmp_path, which):
    folder = tmp_path / "cache"
    feature_cache.features(opened(files), encoder(), folder)
    cv2.imwrite(files[which], np.full((4, 6, 3), 200, np.uint8))
    maps = feature_cache.features(opened(files), encoder(), folder)
    assert (maps[which] == 200).all() and len(list(folder.iterdir())) == 2
    feature_cache.features(opened(files), encoder(identity="other"), folder)
    assert len(list(folder.iterdir())) == 3


def test_an_encoder_is_named_by_its_program_and_all_its_variables():
    """Another network of the same weights, other batch statistics, other preprocessing."""
    blank = {"image": np.zeros((1, 4, 6, 3), np.uint8)}
    names, layers = [], {"params": {"scale": np.float32(2)}, "batch_stats": {"mean": np.ones(3)}}

    def name(function, variables):
        def maps(variables, batch):
            x = (batch["image"] - variables["batch_stats"]["mean"]) * variables["params"]["scale"]
            return function(x)

        return feature_cache.encoder_of(maps, variables, blank).identity

    names = [name(jnp.tanh, layers) for _ in range(2)]
    assert names[0] == names[1]
    names.append(name(jnp.sin, layers))
    names.append(name(lambda x: jnp.tanh(x / 1.001), layers))
    names.append(name(jnp.tanh, {**layers, "batch_stats": {"mean": 2 * np.ones(3)}}))
    names.append(name(jnp.tanh, {**layers, "params": {"scale": np.float32(3)}}))
    assert len(set(names)) == len(names) - 1


def test_images_that_are_read_otherwise_have_other_maps(files, tmp_path, monkeypatch):
    """The bytes of the files are the same, what becomes of them is not."""
    folder = tmp_path / "cache"
    feature_cache.features(opened(files), encoder(), folder)
    mapped = dataclasses.replace(opened(files), preprocessing=Preprocessing((4, 6), 3, "crop"))
    feature_cache.features(mapped, encoder(), folder)
    assert len(list(folder.iterdir())) == 1  # no pixel differs: of this size already
    monkeypatch.setattr(Mapped, "__getitem__", lambda self, i: darker(self.examples[i]))
    monkeypatch.setattr(Mapped, "__getitems__", lambda self, rows: [self[i] for i in rows])
    maps = feature_cache.features(opened(files), encoder(), folder)
    assert (maps[50] == 25).all() and len(list(folder.iterdir())) == 2


def darker(example):
    return {**example, "image": example["image"] // 2}


def test_an_encoder_that_is_stopped_leaves_nothing(files, tmp_path):
    def stopped(images):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        feature_cache.features(opened(files), encoder(stopped), tmp_path / "cache")
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
