"""Flag files: where they are found, and what their lines become."""

from pathlib import Path

import pytest

import launch
from research.errors import UserError
from research.flagfiles import expand

PRESETS = Path(launch.EXPERIMENTS, "presets")
MNIST = "experiments/presets/classification/mnist.flags"


def test_lines_stand_in_the_place_of_the_file_with_comments_left_out(tmp_path):
    (tmp_path / "inner.flags").write_text("--seed=2\n")
    inner = f"--flagfile={tmp_path / 'inner.flags'}"
    (tmp_path / "a.flags").write_text(f"# A recipe\n// too\n\n  --steps=1 \n{inner}\n--on\n")
    given = ["--first", "--flagfile", str(tmp_path / "a.flags"), inner, "--last=--flagfile=x"]
    lines = ["--first", "--steps=1", "--seed=2", "--on", "--seed=2", "--last=--flagfile=x"]
    assert expand(given, PRESETS) == lines


def test_presets_are_found_from_any_folder_but_those_of_the_folder_come_first(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert expand([f"--flagfile={MNIST}"], PRESETS)[:2] == [
        "--experiment=classification",
        "--dataset=mnist",
    ]
    (tmp_path / "outer.flags").write_text(f"--flagfile={MNIST}\n--seed=1\n")
    assert "--dataset=mnist" in expand(["--flagfile=outer.flags"], PRESETS)
    own = tmp_path / MNIST
    own.parent.mkdir(parents=True)
    own.write_text("--experiment=mine")
    assert expand([f"--flagfile={MNIST}"], PRESETS) == ["--experiment=mine"]


def test_an_experiment_beside_the_flag_file_is_meant(tmp_path, monkeypatch):
    (tmp_path / "mine.py").touch()
    (tmp_path / "a.flags").write_text("--experiment=mine.py\n--experiment=other.py\n")
    lines = [f"--experiment={tmp_path / 'mine.py'}", "--experiment=other.py"]
    assert expand([f"--flagfile={tmp_path / 'a.flags'}"], PRESETS) == lines
    monkeypatch.chdir(tmp_path)
    assert expand(["--flagfile=a.flags"], PRESETS) == lines
    assert expand(["--experiment=mine.py"], PRESETS) == ["--experiment=mine.py"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.flag", r"--flagfile=.*a.flag: cannot be read \(No such .*Did you mean 'a.flags'\?"),
        ("", r"cannot be read \(Is a directory\)"),
        ("none/a.flags", r"cannot be read \(No such file or directory\)\.$"),
        ("b.flags", r"--flagfile=.*b.flags: is not UTF-8"),
        ("a.flags", r"--flagfile=.*a.flags: holds itself"),
    ],
)
def test_a_flag_file_that_cannot_be_read_is_named(tmp_path, name, said):
    (tmp_path / "a.flags").write_text(f"--seed=1\n--flagfile={tmp_path / 'a.flags'}\n")
    (tmp_path / "b.flags").write_bytes(b"--text=\xff")
    with pytest.raises(UserError, match=said):
        expand([f"--flagfile={tmp_path / name}"], PRESETS)
