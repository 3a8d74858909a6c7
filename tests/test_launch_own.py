"""Training on a person's own folder from the shell, and what goes wrong on the way."""

import contextlib
import resource
import shutil

import cv2
import numpy as np
import pytest
from launched import flags, read, shell

import launch


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def own(place):
    """The flags that train on a folder of thirty pictures, and did so in OWN."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(("dark", "light", "middle")):
        folder = place / "own" / name
        folder.mkdir(parents=True)
        for i in range(10):
            image = rng.integers(0, 80, (20, 24, 3)) + 80 * number
            cv2.imwrite(str(folder / f"{i}.png"), image.astype(np.uint8))
    given = [f"--dataset=folder:{place / 'own'}", "--batch_size=8", "--image_size=16"]
    given = [*flags(place), *given]
    done = shell(*given, f"--workdir={place / 'OWN'}", cwd=place)
    assert done.returncode == 0, done.stderr
    return given


@contextlib.contextmanager
def replaced(file, content):
    """A file with another content, for a while."""
    before = file.read_bytes()
    file.write_bytes(content)
    try:
        yield
    finally:
        file.write_bytes(before)


def test_ones_own_folder_is_trained_on_and_another_number_of_classes_refused(place, own, capsys):
    assert "test/accuracy/dark" in read(place / "OWN" / "result.json")["metrics"]

    evaluate = ["x", "--mode=evaluate", f"--checkpoint={place / 'OWN'}", "--compilation_cache="]
    assert launch.main([*evaluate, "--dataset=digits", f"--data_dir={place / 'data'}"]) == 2
    assert "has 10 classes (0, 1, 2, 3, 4, ...), the checkpoint" in capsys.readouterr().err

    with replaced(place / "own" / "dark" / "0.png", b"not an image"):
        assert launch.main(["x", *own, f"--workdir={place / 'NEVER'}"]) == 2
    assert "dark/0.png" in capsys.readouterr().err and not (place / "NEVER").exists()


def test_a_loss_that_is_not_finite_is_one_line_and_no_mistake_of_a_flag(place, own, capsys):
    run = f"--workdir={place / 'NAN'}"
    assert launch.main(["x", *own, "--optimizer=sgd", "--learning_rate=1e38", run]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and "at step" in lines[0] and lines[0].startswith("error: the loss is")


def test_a_full_disk_is_one_line(place, own):
    """A limit on the size of files refuses as a full disk does, and needs no disk to fill."""
    # The weights are 115 kB, in a few files, of sizes that differ from run to run.
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
    done = shell(*own, f"--workdir={place / 'FULL'}", cwd=place, preexec_fn=limit)
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    assert str(place / "FULL" / "checkpoints") in lines[0] and "File too large" in lines[0]
    assert "none was saved" in lines[0]
    # With room again, the same command does the rest.
    assert shell(*own, f"--workdir={place / 'FULL'}", cwd=place).returncode == 0
    assert (
        read(place / "FULL" / "result.json")["fingerprint"]
        == read(place / "OWN" / "result.json")["fingerprint"]
    )


def test_a_run_does_not_go_on_with_other_data(place, own, tmp_path, capsys):
    run = tmp_path / "run"  # as if it had been killed at its end
    shutil.copytree(place / "OWN", run, ignore=shutil.ignore_patterns("result.json"))
    other = cv2.imencode(".png", np.full((20, 24, 3), 90, np.uint8))[1].tobytes()
    with replaced(place / "own" / "dark" / "1.png", other):
        assert launch.main(["x", *own, f"--workdir={run}"]) == 2
    assert "the training data have changed" in capsys.readouterr().err
    assert not (run / "result.json").exists()
