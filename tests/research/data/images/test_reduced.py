"""--decode=reduced: JPEGs decoded at a part of their size show the model what whole ones do."""

import io

import cv2
import flax.linen as nn
import numpy as np
import pytest
import skimage.data
import tensorflow_datasets as tfds
from PIL import Image

from research.assembly.images import assemble, check_reduced
from research.data import datasets, pipeline
from research.data.config import DataConfig
from research.data.images import masks, objects
from research.data.images.headers import ORIENTATION
from research.data.images.preprocessing import Preprocessing, fit, place, read_batch, reduction
from research.data.images.reading import decode_image
from research.data.sources.examples import file_of
from research.data.sources.source import Source
from research.data.stored.sets import install
from research.data.tasks import captioning, classification, embedding, images
from research.errors import UserError
from research.models import Entry
from research.training.config import ImageTrainingConfig

REDUCED = Preprocessing((56, 56), resize="crop", decode="reduced")
WHOLE = Preprocessing((56, 56), resize="crop")


def photograph(height, width):
    return cv2.resize(skimage.data.coffee(), (width, height), interpolation=cv2.INTER_AREA)


def jpeg(image, **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=92, **options)
    return buffer.getvalue()


def rms(one, other):
    return np.sqrt(np.mean((one.astype(float) - other) ** 2))


def near(one, other):
    """Whether images differ by less than what half a pixel's shift changes, about."""
    return rms(one, other) < 0.6 * rms(other[:, 1:], other[:, :-1])


def test_an_eighth_is_the_average_of_each_block():
    data = jpeg(photograph(448, 448)[:, :, 1])
    blocks = decode_image(data, "a").reshape(56, 8, 56, 8).mean((1, 3))
    reduced = decode_image(data, "a", reduce=REDUCED.reduce)
    assert reduced.shape == (56, 56, 1)  # grey stays grey
    assert abs(reduced[:, :, 0] - blocks).max() < 1.5


@pytest.mark.parametrize("resize", ["pad", "letterbox", "stretch", "crop"])
@pytest.mark.parametrize("size", [(375, 500), (333, 500), (500, 667), (1001, 1333), (500, 375)])
def test_the_model_sees_what_it_sees_of_the_whole_image(size, resize):
    data = jpeg(photograph(*size))
    for side in (56, 112):
        reduced = Preprocessing((side, side), resize=resize, decode="reduced")
        whole = decode_image(data, "a")
        part = decode_image(data, "a", reduce=reduced.reduce)
        assert part.size < whole.size / 3.9
        assert place(*part.shape[:2], reduced).put == place(*size, reduced).put
        assert near(fit(part, reduced), fit(whole, reduced))


@pytest.mark.parametrize("height, width", [(111, 300), (112, 112), (224, 230), (447, 448), (9, 9)])
def test_no_side_of_what_is_kept_becomes_smaller_than_the_model_takes(height, width):
    assert reduction(height, width, REDUCED).part == max(
        k for k in (1, 2, 4, 8) if k == 1 or min(height, width) // k >= 56
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = jpeg(photograph(250, 337), exif=exif)
    part, whole = decode_image(data, "a", reduce=REDUCED.reduce), decode_image(data, "a")
    assert (part.shape[0] < part.shape[1]) == (whole.shape[0] < whole.shape[1])
    assert near(fit(part, WHOLE), fit(whole, WHOLE))
    stretched = Preprocessing((60, 80), resize="stretch", decode="reduced")
    rows = len(decode_image(data, "a", reduce=stretched.reduce))
    # 337 rows become 60 and 250 columns 80: a half; else a quarter.
    assert rows in ((168, 169) if orientation >= 5 else (62, 63))


def test_photographs_are_turned_by_exif_alone_as_whole_ones_are():
    exif = Image.Exif()
    exif[0x10F] = "Camera"
    xmp = b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    data = jpeg(photograph(250, 337), exif=exif, xmp=xmp)
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.getexif()[ORIENTATION] == 6  # Pillow alone would turn it
    part, whole = decode_image(data, "a", reduce=REDUCED.reduce), decode_image(data, "a")
    assert whole.shape[:2] == (250, 337)
    assert near(fit(part, WHOLE), fit(whole, WHOLE))


def test_other_images_are_decoded_whole():
    image = photograph(300, 300)
    png = io.BytesIO()
    Image.fromarray(image).save(png, "PNG")
    small = jpeg(photograph(111, 200))
    for data in (png.getvalue(), small):
        both = (decode_image(data, "a", reduce=way) for way in (None, REDUCED.reduce))
        np.testing.assert_array_equal(*both)
    colours = Image.fromarray(image).convert("CMYK")
    buffer = io.BytesIO()
    colours.save(buffer, "JPEG")
    part = decode_image(buffer.getvalue(), "a", reduce=REDUCED.reduce)
    assert part.shape == (75, 75, 3)
    assert near(fit(part, WHOLE), fit(decode_image(buffer.getvalue(), "a"), WHOLE))


def test_damage_is_still_an_error():
    data = jpeg(photograph(300, 300))
    for damaged in (data[:5000], data[:2] + b"\0" * 500 + data[-2:], data[:2]):
        with pytest.raises(UserError, match=r"^a.jpg: is (truncated|damaged)"):
            decode_image(damaged, "a.jpg", reduce=REDUCED.reduce)


class Photographs(tfds.core.GeneratorBasedBuilder):
    """Eight JPEGs with a class."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")}
        features["label"] = tfds.features.ClassLabel(names=["a", "b"])
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for k in range(8):
            image = photograph(240 + k, 320)
            yield k, {"image": io.BytesIO(jpeg(image)), "label": k % 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """One folder of everything: classes below pictures/, captions of them, and a prepared set."""
    root = tmp_path_factory.mktemp("reduced")
    for k in range(8):
        (root / "pictures" / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
        (root / "pictures" / "ab"[k % 2] / f"{k}.jpg").write_bytes(jpeg(photograph(240 + k, 320)))
    rows = "".join(f"{'ab'[k % 2]}/{k}.jpg,a cup\n" for k in range(8))
    (root / "c.csv").write_text("image,caption\n" + rows)
    install(lambda folder: Photographs(data_dir=folder, file_format="array_record"), root / "data")
    return root


@pytest.mark.parametrize(
    "name, task",
    [
        ("folder:{0}/pictures", classification.TASK),
        ("folder:{0}/pictures", embedding.TASK),
        ("folder:{0}/pictures", images.TASK),
        ("captions:{0}/pictures:{0}/c.csv", captioning.TASK),
        ("photographs", classification.TASK),
        ("photographs", embedding.TASK),
        ("photographs", images.TASK),
    ],
)
@pytest.mark.parametrize("cache_mb", [0, 100])
def test_training_evaluation_and_prediction_read_alike(name, task, cache_mb, root):
    dataset = datasets.load(name.format(root), root / "data", task)
    config = DataConfig(dataset=name, cache_mb=cache_mb)
    splits = pipeline.fitted(dataset.splits, REDUCED, config)
    whole = pipeline.fitted(dataset.splits, WHOLE, config)
    for split, examples in splits.items():
        read = Source(examples, len(examples), cache_bytes=0).batch(0)["image"]
        assert len(read) == len(whole[split])
        for k, image in enumerate(read):
            full = whole[split][k]["image"]
            assert (image != full).any() and near(image, full)
            if file := file_of(dataset.splits[split], k):
                np.testing.assert_array_equal(image, read_batch([file], REDUCED)["image"][0])
    # What was trained on is known by whole pictures, however they are decoded.
    digests = [s.contents.splits["train"].digests(read=True) for s in (splits, whole)]
    assert digests[0] == digests[1]


def test_a_flag_without_effect_is_refused(root, capsys):
    train = datasets.load(f"folder:{root}/pictures", "nowhere").splits["train"]
    check_reduced(train, REDUCED)
    assert "reduces 6 of 6 evenly spaced training images" in capsys.readouterr().out
    large = Preprocessing((200, 200), resize="crop", decode="reduced")
    with pytest.raises(UserError, match="--decode=reduced: reduces none of 6 evenly"):
        check_reduced(train, large)
    entry = Entry(nn.Module, image_size=56)
    for fit_more in (masks.fit_pair, objects.fit_objects):
        config = ImageTrainingConfig(decode="reduced")
        with pytest.raises(UserError, match="--decode=reduced: what belongs to places"):
            assemble(config, None, lambda: None, entry, list, fit=lambda _, fit=fit_more: fit)


def test_facts_of_older_checkpoints_decode_whole_images():
    facts = REDUCED.to_json()
    assert Preprocessing.from_json(facts) == REDUCED
    del facts["decode"]
    assert Preprocessing.from_json(facts) == WHOLE
