"""--mode=predict of files some of which cannot be read, for every experiment that predicts."""

import json
import os
import runpy
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import launch

OLD = runpy.run_path(str(Path(__file__).parents[2] / "fixtures/generate_old_runs.py"))
PREDICTING = sorted(OLD["FLAGS"].keys() - {"input_optimization", "filtering"})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run of each experiment, and what can and cannot be read by it."""
    folder = tmp_path_factory.mktemp("predict")
    OLD["write_data"](folder / "own")
    for experiment in PREDICTING:
        shutil.copytree(OLD["RUNS"] / experiment, folder / experiment)
    pictures, texts = folder / "mixed", folder / "texts"
    shutil.copytree(folder / "own/pictures", pictures)
    good = (pictures / "0.png").read_bytes()
    (pictures / "1.png").write_bytes(good[: len(good) // 2])
    (pictures / "3.png").write_bytes(b"")
    pages(pictures / "8.png")
    texts.mkdir()
    for number in range(10):
        (texts / f"{number}.txt").write_text("the cat")
    (texts / "1.txt").write_text("")
    (texts / "3.txt").write_bytes(b"\xff\xff")
    (texts / "8.txt").write_text("$")
    return folder


def pages(path):
    """Writes a picture of two pages, of which nothing says which is meant: it is not damaged."""
    page = PIL.Image.fromarray(np.zeros((4, 4), np.uint8))
    page.save(path, "TIFF", save_all=True, append_images=[page])


def predict(place, experiment, out, *given, inputs=None):
    """launch.main in the folder, of all ten files."""
    before = Path.cwd()
    os.chdir(place)
    try:
        names = f"{'texts/#.txt' if experiment == 'language' else 'mixed/#.png'}"
        files = inputs or [names.replace("#", str(number)) for number in range(10)]
        asked = ["--mode=predict", f"--checkpoint={experiment}", f"--inputs={','.join(files)}"]
        return launch.main(["x", *asked, f"--workdir={out}", "--compilation_cache=", *given])
    finally:
        os.chdir(before)


def rows(out):
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("experiment", PREDICTING)
def test_what_cannot_be_read_is_left_out_and_counted_if_that_is_asked(
    place, tmp_path, experiment, capsys
):
    out = tmp_path / "OUT"
    size = "--eval_batch_size=4"  # one batch each of good, mixed and short
    assert predict(place, experiment, out, "--skip_corrupt", size) == 0
    said = capsys.readouterr().out
    found = rows(out)
    assert [Path(row["file"]).stem for row in found] == list("0245679")
    (last,) = [line for line in said.splitlines() if line.startswith("files: ")]
    assert last.startswith("files: 10 found, 7 used, 3 left out (")
    assert last.endswith(("1.png, mixed/3.png, mixed/8.png", "1.txt, texts/3.txt, texts/8.txt"))
    assert said.count("left out: ") == 3
    # The others are told what they are told alone.
    alone = tmp_path / "ALONE"
    intact = [row["file"] for row in found]
    assert predict(place, experiment, alone, "--eval_batch_size=7", inputs=intact) == 0
    for one, other in zip(found, rows(alone), strict=True):
        for (name, value), (_, again) in zip(one.items(), other.items(), strict=True):
            if isinstance(value, (float, list)) and name != "detections":
                np.testing.assert_allclose(value, again, rtol=1e-3, atol=1e-5)
    numbered = "files: 7 found, 7 used"
    assert numbered in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("experiment", PREDICTING)
def test_what_looks_damaged_stops_before_anything_is_computed(place, tmp_path, experiment, capsys):
    out = tmp_path / "OUT"
    assert predict(place, experiment, out, "--eval_batch_size=1") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert Path("mixed/1.png").name in line or "texts/1.txt: is empty" in line
    assert line.endswith("(--skip_corrupt leaves such files out)")
    assert not out.exists()


def test_the_rows_before_a_file_that_only_reading_finds_out_are_kept(place, tmp_path, capsys):
    out = tmp_path / "OUT"
    files = [f"mixed/{number}.png" for number in (0, 2, 8, 4)]
    assert predict(place, "segmentation", out, "--eval_batch_size=1", inputs=files) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "mixed/8.png: holds 2 pages" in line and "--skip_corrupt" in line
    assert line.endswith(f"{out / 'predictions.jsonl'} holds the 2 rows before")
    assert [Path(row["file"]).stem for row in rows(out)] == ["0", "2"]
    assert {path.stem for path in (out / "masks").iterdir()} == {"0", "2"}


def test_rows_are_in_the_file_before_the_next_batch_is_read(place, tmp_path, monkeypatch):
    from research.data.images import restoring

    out, known = tmp_path / "OUT", []
    read = restoring.Restoring.read

    def interrupted(self, files):
        if (out / "predictions.jsonl").exists():
            known.append(len(rows(out)))
        if files == ["mixed/5.png"]:
            raise KeyboardInterrupt
        return read(self, files)

    monkeypatch.setattr(restoring.Restoring, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict(place, "segmentation", out, "--eval_batch_size=1", "--skip_corrupt")
    assert [Path(row["file"]).stem for row in rows(out)] == ["0", "2", "4"]
    assert 1 in known and 2 in known


def test_a_run_that_left_files_out_in_training_does_not_so_in_prediction(place, tmp_path, capsys):
    path = shutil.copytree(place / "classification", tmp_path / "trained")
    metadata = next(path.rglob("metadata/metadata"))
    text = metadata.read_text()
    assert '"skip_corrupt": false' in text
    metadata.write_text(text.replace('"skip_corrupt": false', '"skip_corrupt": true'))
    assert predict(place, path, tmp_path / "OUT") == 2
    assert "mixed/1.png" in capsys.readouterr().err


def test_where_nothing_can_be_read_nothing_is_written(place, tmp_path, capsys):
    out, files = tmp_path / "OUT", ["mixed/1.png", "mixed/3.png"]
    assert predict(place, "classification", out, "--skip_corrupt", inputs=files) == 2
    assert "none of the 2 files can be read; first: mixed/1.png" in capsys.readouterr().err
    assert not (out / "predictions.jsonl").exists()


def test_what_a_person_has_in_the_folder_stays(place, tmp_path):
    mine = {name: f"my {name}" for name in ("results.json", "images.json", "predictions.png")}
    for name, text in mine.items():
        (tmp_path / name).write_text(text)
    for experiment in ("detection", "classification"):
        assert predict(place, experiment, tmp_path, "--skip_corrupt") == 0
        (tmp_path / "predictions.jsonl").unlink()
    assert {name: (tmp_path / name).read_text() for name in mine} == mine
    assert len(json.loads((tmp_path / "images-2.json").read_text())["images"]) == 7
    assert PIL.Image.open(tmp_path / "predictions-2.png").size[0] > 100
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_known_images_and_pairs_that_cannot_be_read_are_left_out_too(place, tmp_path, capsys):
    known = tmp_path / "known"
    for name, files in {"anna": "02", "bob": "13", "carl": "41"}.items():
        (known / name).mkdir(parents=True)
        for number in files:
            shutil.copy(place / f"mixed/{number}.png", known / name)
    named = [f"--gallery={known}", "--threshold=100"]
    inputs = ["mixed/0.png", "mixed/3.png", "mixed/4.png"]
    out = tmp_path / "OUT"
    assert predict(place, "embedding", out, *named, inputs=inputs[::2]) == 2
    assert "bob/1.png" in capsys.readouterr().err and not out.exists()
    assert predict(place, "embedding", out, *named, "--skip_corrupt", inputs=inputs) == 0
    said = capsys.readouterr().out
    assert "files: 6 found, 3 used, 3 left out" in said and "files: 3 found, 2 used" in said
    assert "nobody is taken for bob: none of their images can be read" in said
    assert [row["identity"] for row in rows(out)] == ["anna", "carl"]
    with np.load(out / "gallery.npz") as stored:
        assert stored["identity"].tolist() == ["anna", "anna", "carl"]

    pairs = tmp_path / "pairs.csv"
    files = [place / f"mixed/{number}.png" for number in (0, 2, 3)]
    pairs.write_text(f"{files[0]},{files[1]}\n{files[0]},{files[2]}\n{files[1]},{files[0]}\n")
    asked = [f"--pairs={pairs}", "--threshold=1", "--inputs=", "--compilation_cache="]
    flags = ["x", "--mode=predict", f"--checkpoint={place / 'embedding'}", *asked]
    assert launch.main([*flags, f"--workdir={tmp_path / 'P'}", "--skip_corrupt"]) == 0
    found = rows(tmp_path / "P")
    assert len(found) == 2 and found[0]["distance"] == pytest.approx(found[1]["distance"])
    assert "files: 3 found, 2 used, 1 left out" in capsys.readouterr().out
