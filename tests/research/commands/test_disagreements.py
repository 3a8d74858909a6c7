"""--show=disagreements on two real runs: what is drawn is what one alone gets right."""

import json
import re

import numpy as np
import PIL.Image
import pytest

import launch
from research.commands import disagreements
from research.record.outcomes import path_of, read

FLAGS = ["--compilation_cache=", "--parallel=single"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two runs of a linear network on noisy stripes of three kinds: long/0 and short/0.

    They see pictures of different sizes, so each can draw its own alone.
    """
    place = tmp_path_factory.mktemp("disagreements")
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:12, :12]
    kinds = {"across": rows % 4 < 2, "down": columns % 4 < 2, "slanted": (rows + columns) % 4 < 2}
    for split, count in (("train", 20), ("test", 12)):
        for kind, shape in kinds.items():
            folder = place / "data" / split / kind
            folder.mkdir(parents=True)
            for k in range(count):
                noisy = 60 + 120 * shape + random.normal(0, 60, shape.shape)
                picture = np.clip(noisy, 0, 255).astype(np.uint8)
                PIL.Image.fromarray(picture).save(folder / f"{kind}{k}.png")
    given = ["--experiment=classification", "--model=linear", "--batch_size=12", *FLAGS]
    given += [f"--dataset=folder:{place / 'data'}", "--learning_rate=0.003"]
    for name, steps, size in (("long", 60, 12), ("short", 1, 10)):
        flags = [*given, f"--steps={steps}", f"--image_size={size}", "--resize=stretch"]
        flags += [f"--workdir={place / name / '0'}"]
        assert launch.main(["x", *flags]) == 0
    return place


def compare(place, out, *flags):
    sides = [f"--runs={place / name}" for name in ("short", "long")]
    return launch.main(["x", "--mode=compare", *sides, f"--workdir={out}", *flags])


def test_the_pictures_are_of_examples_that_one_alone_gets_right(place, tmp_path, monkeypatch):
    drawn = []

    def remember(evaluation, parallel, variables, source, index):
        rows = source.picked(source.rows_of(index))
        answers = np.asarray(evaluation.predict(variables, rows)).argmax(-1)[: len(index)]
        right = answers == rows["label"][: len(index)]
        drawn.append((index.tolist(), right.tolist()))
        return draw(evaluation, parallel, variables, source, index)

    draw = disagreements.draw_examples
    monkeypatch.setattr(disagreements, "draw_examples", remember)
    out = tmp_path / "out"
    assert compare(place, out, "--show=disagreements") == 0
    right = {
        name: read(path_of(place / name / "0", "test")).values["accuracy"]
        for name in ("short", "long")
    }
    (better, ours), (same, theirs), *worse = drawn
    assert better == same and all(ours) and not any(theirs)
    assert all(right["long"][i] > right["short"][i] for i in better)
    if worse:
        assert not any(worse[0][1]) and all(worse[1][1])
    page = (out / "compare.html").read_text()
    assert (out / "disagreements-long-better.png").is_file()
    assert "<h3>disagreements-long-better</h3>" in page and "http" not in page
    examples = json.loads((out / "compare.json").read_text())["comparisons"]["long"]["examples"]
    only_long = int(((right["long"] > 0.5) & (right["short"] < 0.5)).sum())
    assert examples["counts"][1] == only_long
    assert re.search(rf"long alone is right on {only_long}, ", page)


def test_show_is_of_its_mode_and_says_where_nothing_differs(place, tmp_path, capsys):
    assert compare(place, tmp_path / "out", "--show=suspicious") == 2
    assert "--show=suspicious: is for --mode=evaluate" in capsys.readouterr().err
    same = [f"--runs=a={place / 'long'}", "--metric=train/loss", "--show=disagreements"]
    assert launch.main(["x", "--mode=compare", *same, f"--workdir={tmp_path / 'out'}"]) == 2
    assert "no example sets the sides apart" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
