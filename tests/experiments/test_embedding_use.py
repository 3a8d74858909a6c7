"""--experiment=embedding as a person uses it: identities, pairs, neighbours of own pictures."""

import itertools
import json
from pathlib import Path

import cv2
import jax
import letters
import numpy as np
import pytest
import toys
from sklearn.metrics import roc_auc_score
from toys import save_turned

import launch
from experiments import input_optimization
from experiments.embedding import build
from research.recognition.identification import names_of
from research.training.checkpoint import open_checkpoint


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of twelve letters, eight pictures each."""
    folder = tmp_path_factory.mktemp("letters")
    letters.save(folder)
    return folder


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
        "--parallel=single",
        f"--workdir={folder}",
    )
    assert code == 0
    return folder


def test_classes_that_were_trained_on_are_not_evaluated_as_unseen(place, trained, capsys):
    """Two people join a folder, and its classes are split otherwise: all files were renamed too."""
    grown = place / "grown"
    for number, letter in enumerate(letters.LETTERS):
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
    for letter in letters.LETTERS:
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
    experiment = build(letters.config(place), opened.metadata["facts"])
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
