"""--experiment=embedding on a few letters: every loss, and every refusal."""

import jax
import jax.numpy as jnp
import letters
import numpy as np
import pytest

from experiments.embedding import build
from research.errors import UserError
from research.training import parallel as parallel_lib
from research.training import state as state_lib
from research.training.step import make_train_step


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of twelve letters, eight pictures each."""
    folder = tmp_path_factory.mktemp("letters")
    letters.save(folder)
    return folder


HEADS = {
    "triplet": {},
    "contrastive": {},
    "supcon": {},
    "siamese": {"same_weights", "same_bias"},
    "softmax": {"proxies"},
    "arcface": {"proxies"},
    "proxy_nca": {"proxies"},
}


@pytest.mark.parametrize("loss", HEADS)
def test_every_loss_falls_on_one_batch_and_reaches_every_parameter(place, loss):
    margin = {"margin": 1.0} if loss == "contrastive" else {}
    # Without weight decay, which moves what no gradient reaches.
    experiment = build(letters.config(place, loss=loss, model="mlp", weight_decay=0.0, **margin))
    batch = experiment.data().train.batch(0)
    parallel = parallel_lib.create("single", 16)
    state = state_lib.create(experiment.training, state_lib.init(experiment.network, 0), False)
    assert set(state.params) == {"backbone", "embedding", *HEADS[loss]}
    start, placed = jax.device_get(state.params), parallel.put_batch(batch)
    step = parallel.compile(lambda axis: make_train_step(experiment.training, axis), state, placed)
    values = []
    for _ in range(12):
        (state, totals), _ = step(state, placed)
        values.append(float(totals["loss"][0]))
        assert 0 < totals["spread"][0] / totals["spread"][1] < 1
    assert values[-1] < 0.9 * values[0]
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max() > 0, start, jax.device_get(state.params))
    still = [path for path, ok in jax.tree_util.tree_flatten_with_path(moved)[0] if not ok]
    # A city-block distance knows no common shift: the bias of the last layer has no gradient.
    assert not still


def test_a_batch_is_p_classes_of_k_images_and_tests_are_of_unseen_classes(place):
    experiment = build(letters.config(place))
    data = experiment.data()
    labels = data.train.batch(3)["label"].reshape(4, 4)
    assert (labels == labels[:, :1]).all() and len(set(labels[:, 0])) == 4
    trained = set(experiment.facts["train_classes"])
    tested = set(data.evals["test"].memory.fields["label"].tolist())
    assert len(trained) == 8 and len(tested) == 4 and not trained & tested
    assert experiment.evaluation.best == ("test/accuracy_4way_1shot", "max")


@pytest.mark.parametrize("sides", [1, 2], ids=["turned", "turned and mirrored"])
def test_copies_of_a_class_are_classes_and_all_its_images_are_changed_as_one(place, sides):
    still = {"rotation": 0, "shear": 0, "scale": 0, "shift": 0}
    made = letters.config(place, quarter_turns=True, mirrored_classes=sides == 2, **still)
    experiment, copies = build(made), 4 * sides
    batch = {k: jnp.asarray(v) for k, v in experiment.data().train.batch(0).items()}
    augment, seen = jax.jit(lambda key, batch: experiment.training.augment(key, batch, None)), set()
    for number in range(6 * sides):
        changed = augment(jax.random.key(number), batch)
        classes = np.asarray(changed["class"]).reshape(4, 4)
        assert (classes == classes[:, :1]).all() and classes.max() < copies * 8
        for image, label, kind, index in zip(
            changed["image"], batch["label"], classes.ravel(), range(16), strict=True
        ):
            number_of_class = experiment.facts["train_classes"].index(int(label))
            assert kind // copies == number_of_class
            want = np.asarray(batch["image"][index])
            want = want[:, ::-1] if kind % copies >= 4 else want
            np.testing.assert_allclose(image, np.rot90(want, kind % 4), atol=1e-3)
        seen |= {kind % copies for kind in classes.ravel().tolist()}
    assert seen == set(range(copies))


def test_copies_of_an_image_in_a_batch_are_augmented_apart(place):
    # Of classes of eight.
    experiment = build(letters.config(place, batch_size=32, images_per_class=16))
    batch = experiment.data().train.batch(0)
    changed = np.asarray(
        jax.jit(experiment.training.augment, static_argnums=2)(jax.random.key(0), batch, None)[
            "image"
        ]
    )
    pairs = [(i, j) for i in range(32) for j in range(i) if batch["index"][i] == batch["index"][j]]
    assert len(pairs) == 16
    for i, j in pairs:
        np.testing.assert_array_equal(batch["image"][i], batch["image"][j])
        assert np.abs(changed[i] - changed[j]).mean() > 1


def test_collapse_is_named_and_stops_where_asked(place):
    means = {"train/spread": 2e-5, "train/loss": 0.3}
    assert build(letters.config(place)).training.watch({**means, "train/spread": 0.4}) is None
    message = build(letters.config(place)).training.watch(means)
    assert "collapsed into one point" in message and "2.0e-05" in message
    with pytest.raises(UserError, match="collapsed"):
        build(letters.config(place, stop_on_collapse=True)).training.watch(means)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 18}, "--batch_size=18 is no multiple of --images_per_class=4"),
        ({"batch_size": 4}, "at least two classes"),
        ({"batch_size": 64}, "takes 16 classes .* has 8; at most --batch_size=32"),
        ({"images_per_class": 1}, "--images_per_class=1: mining needs at least two images"),
        (
            {"accumulate": 4},
            "--accumulate=4: its parts hold fewer than two .* --images_per_class=8",
        ),
        ({"mixup": 0.2}, "--mixup: this experiment mixes no"),
        ({"loss": "softmax", "mining": "batch_all"}, "--mining: has no effect on --loss=softmax"),
        ({"model": "conv5"}, "Did you mean 'conv4'"),
        ({"model": "linear"}, "--model: has no feature maps"),
        ({"image_size": 3}, "--image_size=3"),
        ({"model_options": ("width=3",)}, "--model_options=width=3"),
        ({"gallery": "a", "pairs": "b"}, "--gallery and --pairs: one at a time"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(place, changes, message):
    with pytest.raises(UserError, match=message):
        build(letters.config(place, **changes))


def test_a_class_of_one_image_is_refused_or_left_out(place):
    lonely = place / "lonely"
    if not lonely.exists():
        for letter in letters.LETTERS:
            (lonely / letter).mkdir(parents=True)
            for i in range(1 if letter == "A" else 2):
                file = place / "own" / letter / f"{i}.png"
                (lonely / letter / f"{i}.png").write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=r"class 'A' has one image in train; .*--drop_small"):
        build(letters.config(place, dataset=f"folder:{lonely}"))
    kept = build(letters.config(place, dataset=f"folder:{lonely}", drop_small=True))
    assert kept.facts["train_examples"] == 2 * len(kept.facts["train_classes"])
