import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from research.assembly.images import learn_facts
from research.data.images.augment import colour_components
from research.data.images.normalisation import statistics
from research.data.images.preprocessing import Mapped, Preprocessing, at_scale, fit, scale_of
from research.data.sources.examples import Arrays, decode
from research.training.config import AugmentedTrainingConfig

PICTURE = (np.random.default_rng(0).integers(0, 256, (4, 6, 3)) // 8 * 8).astype(np.uint8)
SMOOTH = np.linspace(0, 255, 40 * 60 * 3).reshape(40, 60, 3).astype(np.uint8)


def test_pad_centres_and_never_enlarges():
    image = np.full((28, 28, 1), 200, np.uint8)
    padded = fit(image, Preprocessing((32, 32), 1, "pad"))
    assert padded.shape == (32, 32, 1)
    np.testing.assert_array_equal(padded[2:30, 2:30], image)
    assert padded.sum() == image.sum()
    wide = fit(np.full((50, 100, 3), 200, np.uint8), Preprocessing((32, 32), 3, "pad"))
    assert (wide[8:24] == 200).all() and wide[:8].max() == wide[24:].max() == 0


def test_letterbox_enlarges_too():
    wide = fit(np.full((4, 8, 3), 200, np.uint8), Preprocessing((32, 32), 3, "letterbox"))
    assert (wide[8:24] == 200).all() and wide[:8].max() == wide[24:].max() == 0


def test_stretch_averages_when_it_shrinks():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1) * 10
    small = fit(image, Preprocessing((2, 2), 1, "stretch"))
    blocks = image.reshape(2, 2, 2, 2).astype(float).mean((1, 3))
    assert abs(small[:, :, 0] - blocks).max() <= 0.5


@pytest.mark.parametrize("method", ["area", "bilinear", "bicubic"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_side_that_shrinks_is_averaged_though_the_other_grows(turned, method):
    """Lines of noise: what is taken of each fifth without smoothing is one line of it."""
    lines = np.random.default_rng(0).integers(0, 256, 60).astype(np.uint8)
    image = np.repeat(lines[:, None], 20, 1)[..., None]
    preprocessing = Preprocessing((12, 90), 1, "stretch", method)
    if turned:
        image, preprocessing = (
            image.transpose(1, 0, 2),
            Preprocessing((90, 12), 1, "stretch", method),
        )
    fitted = fit(image, preprocessing)[..., 0].astype(float)
    fitted = fitted.T if turned else fitted
    assert np.ptp(fitted, axis=1).max() == 0
    means = lines.reshape(12, 5).mean(1)
    assert abs(fitted[:, 0] - means).max() <= (0.5 if method == "area" else 60)
    assert fitted[:, 0].std() < 0.7 * lines.std()


def test_the_scale_is_the_median_of_how_images_are_resized():
    sizes = [(64, 32), (128, 256), (100, 200), (10, 12)]
    pad = Preprocessing((64, 64), 3, "pad")
    assert scale_of(sizes, pad) == [(0.32 + 1) / 2, (0.32 + 1) / 2]  # 1, 0.25, 0.32, 1
    stretch = Preprocessing((64, 64), 3, "stretch")
    assert scale_of(sizes, stretch) == [(0.64 + 1) / 2, (0.32 + 2) / 2]
    crop = Preprocessing((64, 64), 3, "crop")
    assert scale_of(sizes[:2], crop) == [1.25, 1.25]  # 2 and 0.5
    resized = at_scale(31, 50, (0.5, 2.0), crop)
    assert resized.image_size == (16, 100)
    assert fit(np.zeros((31, 50, 3), np.uint8), resized).shape == (16, 100, 3)


def test_crop_takes_the_centre_of_the_short_side():
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 255
    assert (fit(image, Preprocessing((5, 5), 3, "crop")) == 255).all()
    # The usual evaluation crop: the shorter side to 256 pixels, and 224 of the middle.
    image = np.random.default_rng(1).integers(0, 256, (400, 600, 3)).astype(np.uint8)
    whole = Image.fromarray(image).resize((384, 256), Image.Resampling.BICUBIC)
    preprocessing = Preprocessing((224, 224), 3, "crop", "bicubic", 224 / 256)
    np.testing.assert_array_equal(fit(image, preprocessing), np.asarray(whole)[16:240, 80:304])


def test_channels_are_converted():
    grey = np.full((8, 8, 1), 77, np.uint8)
    np.testing.assert_array_equal(fit(grey, Preprocessing((8, 8), 3)), np.full((8, 8, 3), 77))
    colour = np.full((8, 8, 3), (255, 0, 0), np.uint8)
    assert fit(colour, Preprocessing((8, 8), 1))[0, 0, 0] == 76  # 0.299 of red (ITU-R BT.601)


@pytest.mark.parametrize("resize", ["pad", "letterbox", "stretch", "crop"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 500, 3), (37, 20, 3), (500, 3, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_fits(resize, shape, channels):
    image = fit(np.ones(shape, np.uint8), Preprocessing((24, 32), channels, resize))
    assert image.shape == (24, 32, channels) and image.dtype == np.uint8


def test_preprocessing_survives_json():
    preprocessing = Preprocessing(
        (24, 32), 3, "crop", "bicubic", 0.875, (1.5, 2.5, 3.5), (4.0, 5.0, 6.0)
    )
    assert Preprocessing.from_json(json.loads(json.dumps(preprocessing.to_json()))) == preprocessing


@pytest.mark.parametrize(
    "options",
    [{"channels": 2}, {"image_size": (0, 4)}, {"resize": "squash"}, {"interpolation": "sinc"}],
)
def test_bad_preprocessing_is_refused(options):
    with pytest.raises(Exception, match=r"channels|image size|squash|sinc"):
        Preprocessing(**{"image_size": (4, 4), **options})


def test_statistics_are_exact_and_standardise():
    images = np.random.default_rng(2).integers(0, 256, (300, 5, 4, 3)).astype(np.uint8)
    images[..., 2] = 9
    arrays = Arrays({"image": images, "label": np.zeros(300, np.int32)})
    mean, std = statistics(arrays)
    np.testing.assert_allclose(mean, images.reshape(-1, 3).mean(0, dtype=float), rtol=1e-12)
    np.testing.assert_allclose(std[:2], images.reshape(-1, 3).std(0, dtype=float)[:2], rtol=1e-12)
    assert std[2] == 1  # a channel that never changes stays finite
    preprocessing = Preprocessing((5, 4), 3, mean=mean, std=std)
    for module in (np, jnp):
        scaled = preprocessing.standardise(module.asarray(images))
        assert scaled.dtype == np.float32
        values = np.asarray(scaled, np.float64).reshape(-1, 3)
        np.testing.assert_allclose(values.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(values.std(0), [1, 1, 0], atol=1e-5)
        np.testing.assert_allclose(preprocessing.restore(scaled), images, atol=1e-3)


class Varied:
    """Images of many sizes."""

    labels = np.arange(30, dtype=np.int32)

    def __len__(self):
        return 30

    def __getitem__(self, index):
        image = np.full((10 + index, 20, 3), index, np.uint8)
        return {"image": image, "label": np.asarray(index, np.int32)}


def test_mapped_examples_have_one_size():
    mapped = Mapped(Varied(), Preprocessing((16, 16), 3, "stretch"))
    arrays = decode(mapped)
    assert arrays.fields["image"].shape == (30, 16, 16, 3)
    np.testing.assert_array_equal(arrays.fields["image"][:, 8, 8, 0], np.arange(30))
    assert mapped.labels is Varied.labels
    # In memory, or read one by one, the numbers are the same; few evenly spaced ones estimate them.
    assert statistics(arrays) == statistics(mapped)
    assert statistics(mapped, most=10)[0][0] == pytest.approx(14.5)


def test_colour_components_are_those_of_the_whole_training_split():
    """Of 3,000 images in the order of their classes; the first 1,000 vary in red alone."""
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(3), 1000)
    varies = np.array([[60, 5, 5], [5, 60, 5], [5, 5, 60]])[labels]
    colours = 128 + varies[:, None, None] * rng.uniform(-1, 1, (3000, 2, 2, 3))
    train = Arrays({"image": colours.astype(np.uint8)})
    raw, config = Preprocessing((2, 2), 3, "stretch"), AugmentedTrainingConfig(pca_colour=0.1)
    facts = learn_facts(config, raw, {"train": train, "test": train}, None)
    found = np.linalg.norm(facts["colour_components"], axis=0)
    whole = np.linalg.norm(colour_components(train.fields["image"] / np.float32(255)), axis=0)
    np.testing.assert_allclose(found, whole, rtol=0.1)
    assert found.max() < 2 * found.min()  # of the first class alone: 140 times
