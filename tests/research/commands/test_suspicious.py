"""--show=suspicious: labels that were planted wrong are among those that it shows."""

import csv

import numpy as np
import PIL.Image
import pytest
import toys

import launch
from experiments import classification
from research.commands import suspicious

CLASSES, EACH, PLANTED = ("bar", "disc", "stripes"), 20, 7
FLAGS = ["--compilation_cache=", "--parallel=single"]


def picture(rng, kind):
    """A noisy picture of 12 x 12 pixels of a class."""
    rows, columns = np.mgrid[:12, :12]
    middle = rng.integers(4, 8)
    shape = {
        "bar": abs(rows - middle) < 2,
        "disc": (rows - middle) ** 2 + (columns - middle) ** 2 < 12,
        "stripes": columns % 4 < 2,
    }[kind]
    noisy = 60 + 120 * shape + rng.normal(0, 25, shape.shape)
    return PIL.Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run on clean pictures, and a copy of its test where seven lie in the wrong folder."""
    root = tmp_path_factory.mktemp("suspicious")
    rng = np.random.default_rng(0)
    for data in ("clean", "planted"):
        for split in ("train", "test"):
            for number, kind in enumerate(CLASSES):
                for k in range(EACH):
                    wrong = data == "planted" and split == "test" and number * EACH + k < PLANTED
                    folder = root / data / split / (CLASSES[1 + k % 2] if wrong else kind)
                    folder.mkdir(parents=True, exist_ok=True)
                    picture(rng, kind).save(folder / f"{kind}{k}{'_planted' * wrong}.png")
    flags = [f"--dataset=folder:{root / 'clean'}", "--model=linear", "--batch_size=12"]
    flags += ["--steps=120", "--eval_every=120", "--learning_rate=0.003", *FLAGS]
    assert (
        launch.main(["x", *flags, "--experiment=classification", f"--workdir={root / 'run'}"]) == 0
    )
    return root


def test_planted_labels_are_drawn_and_listed_first(place, figures, capsys, monkeypatch):
    monkeypatch.setattr(suspicious, "MOST", 12)
    out = place / "out"
    asked = ["--mode=evaluate", f"--checkpoint={place / 'run'}", "--show=suspicious", *FLAGS]
    where = [f"--dataset=folder:{place / 'planted'}", f"--workdir={out}"]
    assert launch.main(["x", *asked, *where]) == 0
    with open(out / "examples" / "suspicious.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and [int(row["rank"]) for row in rows] == list(range(1, 13))
    # 7 of 60 examples: by chance one or two of twelve.
    first = sum("_planted" in row["name"] for row in rows[: PLANTED + 1])
    assert first >= PLANTED - 1
    losses = [float(row["loss"]) for row in rows]
    assert losses == sorted(losses, reverse=True)
    for row in rows:
        if "_planted" in row["name"]:
            assert row["label"] == row["name"].split("/")[-2] != row["answer"]

    # The list is of the examples that it names, and so is the picture.
    found = toys.check_outcomes(out, place / "run")["test"]
    for row in rows:
        assert found.names[int(row["index"])] == row["name"]
        loss = found.values["cross_entropy"][int(row["index"])]
        assert float(row["loss"]) == pytest.approx(float(loss))
    drawn = figures[out / "figures" / "test" / "suspicious.png"]
    assert len(drawn.images) == 12
    for row in rows:
        assert drawn.has("/".join(row["name"].split("/")[-2:]))
    assert "doubtful test 1. " in capsys.readouterr().out


def test_it_is_of_evaluate_and_of_experiments_with_a_loss(place, capsys, tmp_path, monkeypatch):
    def refused(*given):
        assert launch.main(["x", *given, f"--workdir={tmp_path / 'never'}", *FLAGS]) == 2
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1 and not (tmp_path / "never").exists()
        return said

    train = ("--experiment=classification", f"--dataset=folder:{place / 'clean'}")
    assert "--show: is for --mode=evaluate" in refused(*train, "--show=suspicious")
    evaluate = ("--mode=evaluate", f"--checkpoint={place / 'run'}")
    build = classification.build

    def without_loss(*given):
        made = build(*given)
        return made._replace(evaluation=made.evaluation._replace(loss=""))

    monkeypatch.setattr(classification, "build", without_loss)
    said = refused(*evaluate, "--show=suspicious")
    assert "measures no loss of single examples" in said


def test_what_does_not_count_is_never_doubted():
    values = np.array([1, 9, np.nan, 3, np.inf, 3], "f")
    weights = np.array([1, 0, 1, 1, 1, 1], "f")
    assert suspicious.most_doubted(values, weights, 9).tolist() == [4, 3, 5, 0]
    assert suspicious.most_doubted(values, weights, 2).tolist() == [4, 3]
