"""What nobody chose follows from counts and sizes of the set alone; what was given stays."""

import dataclasses
import json

import numpy as np
import PIL.Image
import pytest

from experiments import detection, embedding, open_experiment
from research import models
from research.assembly import assemble, defaults
from research.data.images.preprocessing import Preprocessing
from research.data.sources.splits import Dataset
from research.detection.inputs import check_size
from research.errors import UserError
from research.record.run_folder import as_begun, check_workdir
from research.training.config import AugmentedTrainingConfig
from research.weights.trained import Trained

ENTRY = models.available()["convnet"]
OPEN = ("batch_size", "image_size", "parallel")


@dataclasses.dataclass(frozen=True, eq=False)
class Mixed:
    """Pictures of these sizes, of classes of two."""

    sizes: list

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index, /):
        return {"image": np.zeros((*self.sizes[index], 3), np.uint8), "label": np.int32(index // 2)}

    @property
    def labels(self):
        return np.arange(len(self), dtype=np.int32) // 2


def config(config_class=AugmentedTrainingConfig, unchosen=OPEN, **given):
    return config_class(**{"dataset": "folder:mine", "unchosen": unchosen, **given})


@pytest.mark.parametrize(
    ("there", "given", "batch"),
    [
        (20, {}, 16),
        (127, {}, 64),
        (1, {}, 1),
        (128, {}, None),  # as many as the default asks for
        (100, {"batch_size": 100}, None),  # a recipe's own default need be no power of two
        (20, {"accumulate": 3}, 12),  # three parts of 4
        (20, {"unchosen": ("image_size",)}, None),  # --batch_size was given
    ],
)
def test_a_default_batch_shrinks_to_what_there_is(there, given, batch, capsys):
    found = defaults.choose_batches(
        config(parallel="single", **given), {"train": Mixed([(8, 8)] * there)}
    )
    assert found == ({} if batch is None else {"batch_size": batch})
    line = f"--batch_size={batch} instead of 128: train has {there} examples\n"
    assert capsys.readouterr().out == (line if found else "")


def test_one_device_takes_what_eight_cannot_share(capsys):
    mixed = {"train": Mixed([(8, 8)] * 6)}
    assert defaults.choose_batches(config(), mixed) == {"batch_size": 4, "parallel": "single"}
    assert "on one device, as 8 could not share it" in capsys.readouterr().out
    assert defaults.choose_batches(config(), {"train": Mixed([(8, 8)] * 9)}) == {"batch_size": 8}


def test_a_batch_of_classes_takes_fewer_classes_and_one_that_was_given_is_refused():
    people = {"train": Mixed([(8, 8)] * 56)}  # 28 of them
    asked = config(embedding.Config, parallel="single")
    assert defaults.choose_batches(asked, people) == {"batch_size": 64}  # 16 of 4 images
    with pytest.raises(UserError, match=r"takes 32 classes .* has 28; at most --batch_size=112"):
        defaults.choose_batches(dataclasses.replace(asked, unchosen=()), people)


def test_evaluation_takes_no_more_than_there_is(capsys):
    parts = {"train": Mixed([(8, 8)] * 20), "test": Mixed([(8, 8)] * 30), "val": Mixed([(8, 8)])}
    asked = config(unchosen=(*OPEN, "eval_batch_size"), parallel="single", eval_batch_size=64)
    assert defaults.choose_batches(asked, parts) == {"batch_size": 16, "eval_batch_size": 32}
    said = "--eval_batch_size=32 instead of 64: 30 examples at most are evaluated\n"
    assert capsys.readouterr().out.endswith(said)
    for given in ({"unchosen": OPEN}, {"eval_batch_size": 32}, {"eval_batch_size": 0}):
        asked = dataclasses.replace(asked, **given)
        assert defaults.choose_batches(asked, parts) == {"batch_size": 16}


@pytest.mark.parametrize(
    ("longer", "side"),
    [
        ([640, 480, 4000], 128),  # the most
        ([50, 57, 120], 48),  # down to a multiple of 16
        ([100, 100], 100),  # alike: as they are
        ([28, 29, 31], 29),  # small: every pixel counts
        ([1, 1], 1),
    ],
)
def test_one_rule_says_the_size(longer, side):
    assert defaults.side_of(longer, 128) == side


def size_of(asked, sizes, shape=(None, None), entry=ENTRY, weights=None, most=128):
    train = Mixed(sizes)
    made = Dataset("made", {"train": train}, ("a",), (*shape, 3), "for this test")
    return defaults.choose_size(asked, made, train, entry, weights, most).get("image_size")


def test_a_size_is_chosen_of_own_sets_alone_and_never_over_one_that_was_given(capsys):
    photos = [(300, 400), (500, 640), (480, 640)]
    assert size_of(config(), photos) == 128
    said = capsys.readouterr().out
    assert "--image_size=128: the longer sides of 3 images are 640 at the median; a larger" in said
    assert size_of(config(), photos, most=224) == 224
    assert size_of(config(image_size=64, unchosen=()), photos) is None
    assert size_of(config(unchosen=()), photos) is None  # --image_size=0, as an old flags.txt says
    assert size_of(config(dataset="digits"), photos) is None
    assert size_of(config(), photos, entry=models.available()["lenet5"]) is None
    assert size_of(config(), [(20, 30)] * 3, entry=models.available()["alexnet"]) == 63
    cut = [(20, 90), (30, 90), (40, 90)]
    assert size_of(config(resize="crop"), cut) == 30 and size_of(config(), cut) == 90
    # Of one size that is known: as they are, if that is small.
    assert size_of(config(), [(48, 64)] * 3, (48, 64)) is None
    assert size_of(config(), [(480, 640)] * 3, (480, 640)) == 128


def test_trained_weights_keep_their_own_size():
    weights = Trained("mine", {}, Preprocessing((96, 96)))
    assert size_of(config(), [(300, 400), (20, 20)], weights=weights) == 96
    assert size_of(config(), [(300, 400)] * 2, (300, 400), weights=weights) == 96
    assert size_of(config(), [(48, 64)] * 2, (48, 64), weights=weights) is None


def test_what_was_taken_travels_among_the_facts():
    mixed = Mixed([(40, 50), (60, 70), (80, 90), (70, 70)])
    made = Dataset("made", {"train": mixed, "test": mixed}, ("a", "b"), (None, None, 3), "")
    data = assemble(config(), None, lambda: made, ENTRY, inspect=list)
    wanted = {"batch_size": 4, "image_size": 64, "parallel": "single"}
    assert data.facts["taken"] == wanted and data.preprocessing.image_size == (64, 64)
    assert data.sources().train.batch_size == data.config.batch_size == 4
    assert defaults.taken(config(), data.facts).image_size == 64
    plain = assemble(config(unchosen=()), None, lambda: made, ENTRY, inspect=list)
    assert "taken" not in plain.facts and plain.preprocessing.image_size == (28, 28)
    parts = assemble(config(), None, lambda: made, ENTRY, inspect=list, largest=0)
    assert "image_size" not in parts.facts["taken"]


def test_a_run_goes_on_with_what_it_began_with(tmp_path):
    old = {"batch_size": 64, "image_size": 0, "parallel": "auto", "dataset": "folder:mine"}
    text = json.dumps({"experiment": "toy", "config": old})
    (tmp_path / "config.json").write_text(text)
    found = as_begun(tmp_path, config(seed=1))
    assert (found.batch_size, found.image_size, found.seed) == (64, 0, 1)
    assert found.unchosen == ()  # nothing is left to choose
    given = as_begun(tmp_path, config(unchosen=("image_size",), batch_size=8))
    with pytest.raises(UserError, match="--batch_size=64 there, 8 here"):
        check_workdir(tmp_path, "toy", given)
    assert as_begun(tmp_path / "new", config()) == config()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Five pictures of two sizes, with masks, boxes and classes."""
    root = tmp_path_factory.mktemp("photos")
    rows = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "thing"}]}
    for folder in ("images", "masks", "folder/a", "folder/b"):
        (root / folder).mkdir(parents=True)
    for k in range(10):
        height, width = (240, 300) if k % 2 else (300, 260)
        picture = PIL.Image.fromarray(np.full((height, width, 3), 20 * k, np.uint8))
        picture.save(root / f"images/{k}.png")
        picture.save(root / f"folder/{'ab'[k % 2]}/{k}.png")
        mask = np.zeros((height, width), np.uint8)
        mask[50:90, 50:90] = 255
        PIL.Image.fromarray(mask).save(root / f"masks/{k}.png")
        rows["images"].append({"id": k, "file_name": f"{k}.png", "height": height, "width": width})
        box = {"id": k, "image_id": k, "category_id": 1, "bbox": [50, 50, 40, 40], "area": 1600}
        rows["annotations"].append({**box, "iscrowd": 0})
    (root / "boxes.json").write_text(json.dumps(rows))
    return root


def test_where_things_lie_is_learned_of_larger_pictures_than_what_they_are(photos):
    def size(name, dataset, **given):
        module = open_experiment(name)
        asked = module.Config(dataset=dataset, unchosen=OPEN, **given)
        return module.build(asked).facts["preprocessing"]["image_size"][0]

    masks = f"masks:{photos}/images:{photos}/masks"
    assert size("classification", f"folder:{photos}/folder") == 128
    assert size("segmentation", masks) == 224
    assert size("segmentation", masks, crop_size=48) == 64  # of parts: the model's own
    assert size("detection", f"coco:{photos}/images:{photos}/boxes.json") == 224


def test_a_detector_refuses_pictures_of_which_nothing_says_the_size():
    def refused(**given):
        made = Dataset("made", {}, (), (None, None, 3), "")
        check_size(detection.Config(**given), made)

    refused(dataset="folder:mine", unchosen=("image_size",))
    for given in ({"dataset": "folder:mine"}, {"dataset": "voc", "unchosen": ("image_size",)}):
        with pytest.raises(UserError, match="images differ in size; give --image_size"):
            refused(**given)
