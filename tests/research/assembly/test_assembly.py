"""What most experiments share is put together from a checkpoint's facts alone, without data."""

import dataclasses

import numpy as np
import PIL.Image
import pytest

from experiments import open_experiment
from research import models
from research.assembly import assemble
from research.data.sources.splits import Dataset
from research.errors import UserError
from research.training.config import AugmentedTrainingConfig

ENTRY = models.available()["convnet"]


class Opened(Exception):
    """Data or weights were opened."""


def never():
    raise Opened


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """Pictures of two classes."""

    images: np.ndarray

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index, /):
        return {"image": self.images[index], "label": np.int32(self.labels[index])}

    @property
    def labels(self):
        return np.arange(len(self), dtype=np.int32) % 2


def images(count):
    return Images(np.random.default_rng(0).integers(0, 256, (count, 8, 6, 3), np.uint8))


def dataset(names=("a", "b")):
    splits = {"train": images(10), "test": images(4)}
    return Dataset("made", splits, tuple(names), (8, 6, 3), "for this test")


def faults(data):
    """The names of its splits, in place of faults."""
    return list(data.splits)


def put_together(facts, opening, **options):
    return assemble(AugmentedTrainingConfig(**options), facts, opening, ENTRY, inspect=faults)


def test_facts_are_learned_of_the_training_split_once():
    count = []
    data = put_together(None, lambda: count.append(1) or dataset())
    pixels = np.asarray(images(10).images, np.float64)
    found = data.preprocessing
    np.testing.assert_allclose(np.ravel(found.mean), pixels.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(np.ravel(found.std), pixels.std((0, 1, 2)), rtol=1e-2)
    assert found.image_size == (8, 6) and found.channels == 3
    assert data.facts["train_examples"] == 10 and data.best("psnr") == ("test/psnr", "max")
    assert data.class_names == ("a", "b") and data.trains
    assert data.sources().evals.keys() == {"test"}
    assert data.sources().inspect() == ["train", "test"]
    assert count == [1]


def test_mixup_is_refused_where_it_would_have_no_effect():
    with pytest.raises(UserError, match="--mixup: this experiment mixes no pairs"):
        put_together(None, never, mixup=0.2)


def test_from_facts_alone_neither_data_nor_weights_are_opened(tmp_path):
    learned = put_together(None, dataset, pca_colour=0.1)
    again = assemble(
        AugmentedTrainingConfig(init_from="/nowhere", pca_colour=0.1),
        learned.facts,
        never,
        ENTRY,
        inspect=never,
        classifier="convnet",  # whose weights, of a file that is not there, would be refused
    )
    assert not again.trains and again.trained is None
    assert again.facts == learned.facts and again.preprocessing == learned.preprocessing
    assert again.class_names == ("a", "b") and again.best("x", "min") == ("test/x", "min")
    np.testing.assert_array_equal(again.components, learned.components)
    assert not np.allclose(again.components, np.eye(3))
    PIL.Image.new("L", (5, 7), 9).save(tmp_path / "grey.png")
    files = [str(tmp_path / "grey.png")]
    assert again.read(files)["image"].shape == (1, 8, 6, 3)
    np.testing.assert_array_equal(again.read_whole(files), np.full((1, 7, 5, 3), 9))
    with pytest.raises(Opened):
        again.sources()


def test_a_data_set_of_other_classes_than_the_checkpoints_is_refused():
    facts = put_together(None, dataset).facts
    other = put_together(facts, lambda: dataset(("a", "c")))
    with pytest.raises(UserError, match=r"has 2 classes \(a, c"):
        other.sources()


@pytest.mark.parametrize("name", ["filtering", "language"])
def test_weights_that_nothing_starts_from_are_refused(name, tmp_path):
    module = open_experiment(name)
    config = module.Config(init_from="efficientnet_lite0", data_dir=str(tmp_path))
    if name == "filtering":
        for k in range(10):
            (tmp_path / "ab"[k % 2]).mkdir(exist_ok=True)
            PIL.Image.new("L", (8, 8), 20 * k).save(tmp_path / "ab"[k % 2] / f"{k}.png")
        config = dataclasses.replace(config, dataset=f"folder:{tmp_path}")
    with pytest.raises(UserError, match="--init_from: this experiment starts from no weights"):
        module.build(config)
