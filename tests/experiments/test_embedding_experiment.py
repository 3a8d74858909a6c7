"""--experiment=embedding on a few letters: every loss, every refusal, and a person's own use."""

import dataclasses
import itertools
import json
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys
from sklearn.metrics import roc_auc_score
from toys import save_turned

import launch
from experiments import input_optimization
from experiments.embedding import Config, build
from research.errors import UserError
from research.recognition.identification import names_of
from research.training import parallel as parallel_lib
from research.training import state as state_lib
from research.training.checkpoint import open_checkpoint
from research.training.step import make_train_step

LETTERS = "ABEFHKLNRTXZ"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of twelve letters, eight pictures each."""
    folder, rng = tmp_path_factory.mktemp("letters"), np.random.default_rng(0)
    for letter in LETTERS:
        (folder / "own" / letter).mkdir(parents=True)
        for i in range(8):
            image = np.zeros((16, 16), np.uint8)
            at = (2 + int(rng.integers(0, 3)), 13 + int(rng.integers(-1, 2)))
            cv2.putText(image, letter, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 255, 1 + i % 2)
            cv2.imwrite(str(folder / "own" / letter / f"{i}.png"), image)
    return folder


def config(place, **changes):
    values = {
        "dataset": f"folder:{place / 'own'}",
        "model": "convnet",
        "image_size": 16,
        "batch_size": 16,
        "steps": 12,
        "learning_rate": 0.01,
        "warmup": 0.0,
        "embedding_size": 8,
    }
    return dataclasses.replace(Config(), **(values | changes))


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
    experiment = build(config(place, loss=loss, model="mlp", weight_decay=0.0, **margin))
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
    experiment = build(config(place))
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
    made = config(place, quarter_turns=True, mirrored_classes=sides == 2, **still)
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
    experiment = build(config(place, batch_size=32, images_per_class=16))  # of classes of eight
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
    assert build(config(place)).training.watch({**means, "train/spread": 0.4}) is None
    message = build(config(place)).training.watch(means)
    assert "collapsed into one point" in message and "2.0e-05" in message
    with pytest.raises(UserError, match="collapsed"):
        build(config(place, stop_on_collapse=True)).training.watch(means)


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
        build(config(place, **changes))


def test_a_class_of_one_image_is_refused_or_left_out(place):
    lonely = place / "lonely"
    if not lonely.exists():
        for letter in LETTERS:
            (lonely / letter).mkdir(parents=True)
            for i in range(1 if letter == "A" else 2):
                file = place / "own" / letter / f"{i}.png"
                (lonely / letter / f"{i}.png").write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=r"class 'A' has one image in train; .*--drop_small"):
        build(config(place, dataset=f"folder:{lonely}"))
    kept = build(config(place, dataset=f"folder:{lonely}", drop_small=True))
    assert kept.facts["train_examples"] == 2 * len(kept.facts["train_classes"])


# --- As a person uses it ---


def run(*flags):
    return launch.main(["launch.py", "--compilation_cache=", *map(str, flags)])


@pytest.fixture(scope="module")
def trained(place, figures):
    """The folder of a short run."""
    folder = place / "RUN"
    code = run(
        "--experiment=embedding",
        f"--dataset=folder:{place / 'own'}",
        "--model=convnet",
        "--image_size=16",
        "--batch_size=16",
        "--eval_batch_size=16",
        "--steps=16",
        "--eval_every=16",
        "--checkpoint_every=8",
        "--learning_rate=0.01",
        "--embedding_size=8",
        f"--workdir={folder}",
    )
    assert code == 0
    return folder


def test_classes_that_were_trained_on_are_not_evaluated_as_unseen(place, trained, capsys):
    """Two people join a folder, and its classes are split otherwise: all files were renamed too."""
    grown = place / "grown"
    for number, letter in enumerate(LETTERS):
        for i in range(8):
            file = grown / f"person {number}" / f"photo {i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes((place / "own" / letter / f"{i}.png").read_bytes())
    rng = np.random.default_rng(1)
    for name in ("a", "b"):
        (grown / name).mkdir()
        for i in range(8):
            image = rng.integers(0, 256, (16, 16), np.uint8)
            cv2.imwrite(str(grown / name / f"{i}.png"), image)
    evaluate = ["--mode=evaluate", f"--checkpoint={trained}", f"--dataset=folder:{grown}"]
    out = place / "evaluated on grown"
    assert run(*evaluate, f"--workdir={out}") == 0
    result = json.loads((out / "result.json").read_text())
    row = result["trained_on"]["splits"]["test"]
    # Outcomes keep the numbers that examples have in the whole split, and their files' names.
    left = toys.check_outcomes(out, trained)["test"]
    assert len(left.index) == 16 and left.index.max() >= 16
    assert {Path(name).parent.parent for name in left.names} == {grown}
    # Of 12 letters the numbers 1, 4, 7 and 10 were the test; of 14 classes 1, 5, 8 and 12 are.
    assert row == {
        "examples": 32, "trained_on": 16, "left_out": 16, "classes": 4, "classes_left_out": 2
    }  # fmt: skip
    assert "test: 2 of 4 classes left out, 16 of 32 examples" in capsys.readouterr().out
    assert "test/accuracy_2way_1shot" in result["metrics"]
    assert "accuracy_2way_1shot" in result["protocol"]

    # Damaged, the list stops everything before anything is written.
    file = trained / "trained_on.txt"
    content = file.read_text()
    try:
        file.write_text(content[:-2] + ("0" if content[-2] != "0" else "1") + "\n")
        assert run(*evaluate, f"--workdir={place / 'never'}") == 2
        error = capsys.readouterr().err
        assert "trained_on.txt: is damaged" in error and len(error.splitlines()) == 1
        assert not (place / "never").exists()
    finally:
        file.write_text(content)


def rows(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").open()]


def test_a_run_reports_its_protocol_and_pictures(trained, figures):
    result = json.loads((trained / "result.json").read_text())
    found = toys.check_outcomes(trained)["test"]
    assert {"recall_at_1", "map_at_r"} <= found.values.keys()
    for name in ("accuracy_4way_1shot", "pixel_accuracy_4way_1shot", "verification_auc", "nmi"):
        assert 0 <= result["metrics"][f"test/{name}"] <= 1
        assert name in result["protocol"]
    drawn = {
        name: figures[trained / "figures" / "test" / f"{name}.png"]
        for name in ("map", "neighbours", "roc", "recognition")
    }
    assert drawn["map"].has("PCA, ", "t-SNE, ")
    assert [len(points) for points in drawn["map"].points] == [32, 32]  # all of the test split
    assert drawn["neighbours"].has("query", "by embedding: ", "by pixels: ")
    assert len(drawn["neighbours"].images) == 10 * 13
    assert drawn["roc"].has("Verification, 112 same and 384 different pairs")
    assert (np.diff(drawn["roc"].lines[0], axis=0) >= 0).all()
    name = "test/accuracy_4way_1shot"
    learned, pixels, chance = (line[-1, 1] for line in drawn["recognition"].lines)
    assert learned == pytest.approx(result["metrics"][name], abs=0.1)
    assert pixels == pytest.approx(result["metrics"][name.replace("/", "/pixel_")], abs=0.1)
    assert chance == 1 / 4


def test_known_identities_are_named_and_others_unknown(place, trained):
    known = place / "known"
    for letter in "AEK":
        (known / letter).mkdir(parents=True)
        for i in (0, 1):
            file = place / "own" / letter / f"{i}.png"
            (known / letter / f"{i}.png").write_bytes(file.read_bytes())
    predict = ["--mode=predict", f"--checkpoint={trained}", f"--gallery={known}"]
    inputs = f"--inputs={place / 'own' / 'A'},{place / 'own' / 'K' / '1.png'}"
    out = place / "named"
    assert run(*predict, inputs, "--threshold=10", f"--workdir={out}") == 0
    found = rows(out)
    assert [row["identity"] for row in found if row["file"].endswith(("A/0.png", "K/1.png"))] == [
        "A",
        "K",
    ]
    assert found[0]["distance"] == pytest.approx(0, abs=1e-3)  # the very same file
    assert found[0]["nearest_file"].endswith("A/0.png")
    assert (out / "matches.png").exists() and (out / "map.png").exists()
    with np.load(out / "embeddings.npz") as stored:
        assert stored["embedding"].shape == (9, 8)
        np.testing.assert_allclose(np.linalg.norm(stored["embedding"], axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(stored["embedding"][2], found[2]["embedding"], rtol=1e-6)
    config_text = (out / "projector" / "projector_config.pbtxt").read_text()
    tensors, metadata = (
        out / "projector" / config_text.partition(key)[2].split('"')[1]
        for key in ("tensor_path: ", "metadata_path: ")
    )
    np.testing.assert_allclose(np.loadtxt(tensors)[2], found[2]["embedding"], rtol=1e-5)
    assert metadata.read_text().splitlines()[:2] == ["file\tidentity", "0.png\tA"]

    strict = place / "strict"
    known_again = f"--gallery={out / 'gallery.npz'}"  # embeddings are as good as the pictures
    assert run(*predict[:2], known_again, inputs, "--threshold=1e-3", f"--workdir={strict}") == 0
    again = rows(strict)
    assert {row["identity"] for row in again} == {"A", "K", "unknown"}
    for one, other in zip(found, again, strict=True):
        assert one["distance"] == pytest.approx(other["distance"], abs=1e-4)
        assert one["nearest"] == other["nearest"]

    measured = place / "measured"
    assert run(*predict, inputs, f"--workdir={measured}") == 0
    metrics = json.loads((trained / "result.json").read_text())["metrics"]
    assert rows(measured)[0]["threshold"] == pytest.approx(metrics["test/verification_threshold"])


def test_identities_are_the_folders_below_the_common_one():
    assert names_of(["a/anna/1.png", "a/anna/x/2.png", "a/bob/1.png", "a/carl.png"]) == [
        *("anna", "anna", "bob", "carl"),
    ]
    assert names_of(["a/1.png", "a/2.png"]) == ["1", "2"] and names_of(["3.png"]) == ["3"]


def test_pairs_are_verified(place, trained, capsys):
    same, other = "own/A/0.png,own/A/0.png", "own/A/0.png,own/X/1.png"
    (place / "pairs.csv").write_text(f"{same}\n{other}\n{same}\n")  # an answer for each line
    out = place / "verified"
    flags = ["--mode=predict", f"--checkpoint={trained}", f"--pairs={place / 'pairs.csv'}"]
    assert run(*flags, "--threshold=0.01", f"--workdir={out}") == 0
    found = rows(out)
    assert [row["same"] for row in found] == [True, False, True]
    assert found[0]["distance"] == pytest.approx(0, abs=1e-3) and found[1]["distance"] > 0.01
    assert "the same, distance 0.000 (threshold 0.010)" in capsys.readouterr().out


def test_verified_pairs_of_the_test_files_score_as_the_test_split_does(place, trained):
    """Letters of odd sizes, some of which lie on their side in their files."""
    odd, rng = place / "odd", np.random.default_rng(1)
    for letter in LETTERS:
        (odd / letter).mkdir(parents=True)
        for i in range(3):
            picture = np.zeros((int(rng.integers(14, 30)), int(rng.integers(14, 30)), 3), np.uint8)
            cv2.putText(picture, letter, (2, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255,) * 3, 1)
            if i == 1:
                save_turned(odd / letter / f"{i}.jpg", picture)
            else:
                cv2.imwrite(str(odd / letter / f"{i}.png"), picture)
    checkpoint, out = f"--checkpoint={trained}", [place / "odd_evaluated", place / "odd_verified"]
    evaluate = ["--mode=evaluate", checkpoint, f"--dataset=folder:{odd}", "--parallel=single"]
    assert run(*evaluate, f"--workdir={out[0]}") == 0
    metrics = json.loads((out[0] / "result.json").read_text())["metrics"]

    files = [str(file) for letter in "BHNX" for file in sorted((odd / letter).iterdir())]
    pairs = list(itertools.combinations(files, 2))
    (place / "odd.csv").write_text("".join(f"{a},{b}\n" for a, b in pairs))
    verify = ["--mode=predict", checkpoint, f"--pairs={place / 'odd.csv'}"]
    assert run(*verify, f"--workdir={out[1]}") == 0
    found = rows(out[1])
    distance = np.array([row["distance"] for row in found])
    same = np.array([Path(a).parent == Path(b).parent for a, b in pairs])
    assert len(found) == 66 and same.sum() == 12
    assert metrics["test/verification_auc"] == pytest.approx(roc_auc_score(same, -distance))
    assert 0 < metrics["test/verification_auc"] < 1
    # The threshold is halfway between the distances of two pairs, and no other is better.
    threshold = metrics["test/verification_threshold"]
    balanced = lambda t: (distance[same] < t).mean() - (distance[~same] < t).mean()
    steps = np.sort(distance)
    assert balanced(threshold) == pytest.approx(max(map(balanced, (steps[1:] + steps[:-1]) / 2)))
    assert np.abs((steps[1:] + steps[:-1]) / 2 - threshold).min() < 1e-5


def test_neighbours_and_maps_of_a_run_are_of_its_embedding(place, trained):
    """Nearest by what the run was trained for, as a loop over predicted embeddings finds it."""
    opened = open_checkpoint(str(trained))
    experiment = build(config(place), opened.metadata["facts"])
    split = experiment.data().evals["test"].memory.fields
    batch = {"image": split["image"]}
    x = np.asarray(jax.jit(experiment.evaluation.predict)(opened.variables, batch)["embedding"])
    away = ((x[:, None] - x) ** 2).sum(-1) + np.where(np.eye(len(x)), np.inf, 0)
    expected = (split["label"][away.argmin(1)] == split["label"]).mean()

    config_of_look = {"method": "neighbours", "checkpoint": (str(trained),)}
    look = input_optimization.build(input_optimization.Config(**config_of_look))
    rows = {row["metric"]: row for row in look.report().rows}
    assert rows["data/same_class_features"]["value"] == pytest.approx(expected)
    assert "outputs/embedding" in rows["data/same_class_features"]["protocol"]


def test_who_it_is_is_asked_in_prediction_alone(place, capsys):
    assert run("--experiment=embedding", "--pairs=pairs.csv", f"--workdir={place / 'x'}") == 2
    assert "--pairs: is for --mode=predict; leave it out" in capsys.readouterr().err
    assert not (place / "x").exists()


def test_embeddings_alone_need_no_identities(place, trained):
    out = place / "alone"
    predict = ["--mode=predict", f"--checkpoint={trained}", f"--workdir={out}"]
    assert run(*predict, f"--inputs={place / 'own' / 'B' / '0.png'}") == 0
    assert len(rows(out)[0]["embedding"]) == 8 and (out / "embeddings.npz").exists()
    assert not (out / "map.png").exists()  # of one image there is none


def test_what_cannot_be_predicted_is_one_line_and_writes_nothing(place, trained, capsys):
    empty = place / "empty"
    empty.mkdir()
    other = place / "other.npz"
    from research.recognition.identities import save_embeddings

    save_embeddings(other, np.ones((1, 8), "f"), ["a"], ["a"], {"preprocessing": {}, "weights": ""})
    between = f"--checkpoint={trained / 'checkpoints' / 'latest' / '8'}"
    inputs = f"--inputs={place / 'own' / 'B'}"
    for given, said in (
        ([f"--gallery={empty}", inputs], "is empty"),
        ([f"--gallery={other}", inputs], "was made with other preprocessing than the checkpoint"),
        ([f"--gallery={place / 'nowhere'}", inputs], "no such folder"),
        ([f"--gallery={place / 'own'}", inputs, between], "set --threshold"),
        ([f"--pairs={place / 'nowhere.csv'}"], "nowhere.csv"),
        ([f"--pairs={place / 'nowhere.csv'}", inputs], "another flag says what to predict"),
        ([], "needs --inputs"),
    ):
        checkpoint = [] if between in given else [f"--checkpoint={trained}"]
        out = place / "never"
        assert run("--mode=predict", *checkpoint, *given, f"--workdir={out}") == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and said in lines[0], lines
        assert not out.exists()
