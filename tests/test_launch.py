"""A run from the shell: repeated, stopped, killed, evaluated and used, in processes of its own."""

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from launched import ENVIRONMENT, ROOT, flags, read, shell

import launch
from research.record import checksums


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with prepared digits, a compilation cache, and one short run in RUN."""
    folder = tmp_path_factory.mktemp("launch")
    done = shell(*flags(folder), f"--workdir={folder / 'RUN'}", cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "output.txt").write_text(done.stdout)
    return folder


def test_training_leaves_a_run_folder_that_explains_itself(place):
    run = place / "RUN"
    result = read(run / "result.json")
    assert result["experiment"] == "classification" and result["step"] == 8
    assert len(result["fingerprint"]) == 64 and result["seconds"] > 0
    assert 0 <= result["metrics"]["test/accuracy"] <= 1
    assert "accuracy" in result["protocol"]
    config = read(run / "config.json")
    assert config["config"]["model"] == "convnet" and config["environment"]["versions"]["jax"]
    assert set(config["fingerprint"]) == {"initial_parameters", "data_order", "trained_on"}
    assert len((run / "trained_on.txt").read_text().split()) == 4000
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").open()]
    assert steps == [2, 4, 6, 8]
    assert list(run.glob("events.out.tfevents.*"))
    # What they show, test_input_optimization.py sees; here, that they hold more than a frame.
    for picture in ("predictions", "confusion"):
        drawn = cv2.imread(str(run / "figures" / "test" / f"{picture}.png"), cv2.IMREAD_GRAYSCALE)
        assert (drawn < 250).any(1).mean() > 0.7 and (drawn < 250).any(0).mean() > 0.7
    output = (place / "output.txt").read_text()
    assert "step 8/8" in output and "test/accuracy" in output and str(run) in output


def test_the_flag_file_repeats_the_run_bit_for_bit(place):
    again = place / "AGAIN"
    done = shell("--mode=reproduce", "--run=RUN", f"--workdir={again}", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "identical to the bit" in done.stdout and "bits     were promised" in done.stdout
    report = read(again / "reproduce.json")
    assert report["identical"] and report["promised"] and report["not_compared"] == ""
    first, second = read(place / "RUN" / "result.json"), read(again / "result.json")
    assert first["fingerprint"] == second["fingerprint"]
    assert first["metrics"] == second["metrics"]
    assert (place / "RUN" / "flags.txt").read_text() == (again / "flags.txt").read_text()


def test_a_run_that_differs_is_told_by_exit_code_1(place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    shutil.copytree("RUN", "DIFFERS")
    lines = [json.loads(x) for x in Path("DIFFERS/metrics.jsonl").read_text().splitlines()]
    lines[1]["train/loss"] += 1e-9
    Path("DIFFERS/metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    listed = read("DIFFERS/checksums.json")["files"]  # another run, not a damaged one
    checksums.write(
        Path("DIFFERS"),
        listed | {"metrics.jsonl": checksums.of_file(Path("DIFFERS/metrics.jsonl"))},
    )
    command = ["x", "--mode=reproduce", "--run=RUN", "--compilation_cache="]
    assert launch.main([*command, "--workdir=DIFFERS"]) == 1
    out = capsys.readouterr().out
    assert "NOT identical" in out and "first at step 4: train/loss" in out
    assert read("DIFFERS/reproduce.json")["first_tensor"] is None
    assert launch.main([*command, "--workdir=RUN"]) == 2  # not into itself
    assert launch.main([*command, "--workdir=DIFFERS"]) == 2  # nor over a report
    said = capsys.readouterr().err
    assert "is the run itself" in said and "holds a reproduce.json already" in said


def test_a_finished_run_is_shown_not_repeated(place):
    before = (place / "RUN" / "result.json").read_bytes()
    done = shell(*flags(place), f"--workdir={place / 'RUN'}", cwd=place)
    assert done.returncode == 0 and "test/accuracy" in done.stdout
    assert "step 2/8" not in done.stdout
    assert (place / "RUN" / "result.json").read_bytes() == before


@pytest.mark.parametrize("kills", [1, pytest.param(8, marks=pytest.mark.processes)])
def test_kill_9_at_random_moments_does_not_change_a_bit(place, kills):
    """Promise 1, with real processes: killed anywhere, started again, the same parameters."""
    folder, killed = place / f"KILLED{kills}", 0
    command = [sys.executable, str(ROOT / "launch.py"), *flags(place), f"--workdir={folder}"]
    moments = random.Random(kills)
    for _ in range(kills):
        process = subprocess.Popen(
            command,
            cwd=place,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:  # until it trains; then for a random moment more
            if line.startswith("step "):
                break
        time.sleep(moments.uniform(0.0, 1.5))
        if process.poll() is None:
            killed += 1
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    done = shell(*flags(place), f"--workdir={folder}", cwd=place)
    assert done.returncode == 0, done.stderr
    assert killed > 0
    whole, pieces = read(place / "RUN" / "result.json"), read(folder / "result.json")
    assert pieces["fingerprint"] == whole["fingerprint"]
    assert pieces["metrics"] == whole["metrics"]


def test_sigterm_saves_and_the_exit_code_says_so(place):
    folder = place / "TERMINATED"
    command = [sys.executable, str(ROOT / "launch.py"), *flags(place, steps=100_000)]
    command += ["--eval_every=100000", f"--workdir={folder}"]
    with subprocess.Popen(
        command, cwd=place, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("step "))
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)  # what started it may pass on what a group got
        rest = process.stdout.read()
    assert process.returncode == 128 + signal.SIGTERM
    saved = re.search(r"SIGTERM: saved after step (\d+) of 100000", rest)
    assert saved and (folder / "checkpoints" / "latest" / saved[1]).is_dir()


def test_evaluate_reproduces_the_metrics_exactly_from_the_checkpoint_alone(place):
    checkpoint = place / "moved"  # nothing but the checkpoints, somewhere else
    checkpoint.mkdir()
    (checkpoint / "checkpoints").symlink_to(place / "RUN" / "checkpoints")
    out = place / "evaluated"
    done = shell("--mode=evaluate", f"--checkpoint={checkpoint}", f"--workdir={out}", cwd=place)
    assert done.returncode == 0, done.stderr
    trained, evaluated = read(place / "RUN" / "result.json"), read(out / "result.json")
    assert evaluated["metrics"] == trained["metrics"]
    assert evaluated["trained_on"] == trained["trained_on"]
    # Both say which weights these are, and what the best ones were chosen by.
    printed = (place / "output.txt").read_text()
    assert "weights  checkpoints/latest/8, step 8: not chosen by any metric" in printed
    assert "test/accuracy, so too good on the test split; --validation" in printed
    weights = checkpoint / "checkpoints" / "latest" / "8"
    assert f"weights  {weights}, step 8: not chosen by any metric" in done.stdout
    assert evaluated["weights"][0]["chosen_by"] is None
    assert trained["best_checkpoint"]["chosen_by"]["split"] == "test"


def test_a_damaged_checkpoint_is_neither_evaluated_nor_predicted_with(place, tmp_path, capsys):
    shutil.copytree(place / "RUN" / "checkpoints" / "best", tmp_path / "best")
    files = [file for file in tmp_path.rglob("*/weights/**/*") if file.is_file()]
    file = max(files, key=lambda file: file.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    for mode in ("evaluate", "predict"):
        flags = [f"--checkpoint={tmp_path / 'best'}", f"--workdir={tmp_path / 'out'}"]
        assert launch.main(["x", f"--mode={mode}", *flags, "--compilation_cache="]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and f"{file.name} is not what was written" in said
        assert not (tmp_path / "out").exists()


def test_an_ensemble_reports_each_member_and_the_mean_of_their_probabilities(place):
    """The run, and itself of half its steps; of that one it cannot be told what it trained on."""
    second = place / "SECOND"
    shutil.copytree(place / "RUN", second, ignore=shutil.ignore_patterns("trained_on.txt", "8"))
    out = place / "ensemble"
    done = shell(
        "--mode=evaluate",
        f"--checkpoint={place / 'RUN'},{second}",
        f"--workdir={out}",
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    result = read(out / "result.json")
    assert result["trained_on"]["unknown"] == f"{second / 'trained_on.txt'} is missing"
    assert "cannot be told" in done.stdout and "trained_on.txt is missing" in done.stdout
    alone = list(result["members"].values())
    lines = [json.loads(line) for line in (place / "RUN" / "metrics.jsonl").open()]
    logged = {line["step"]: line for line in lines}
    for member, step in zip(alone, (8, 4), strict=True):
        assert member == {name: logged[step][name] for name in member}
    assert alone[0] == read(place / "RUN" / "result.json")["metrics"] != alone[1]
    # Cross-entropy is convex: the mean's is at most the members' mean (Jensen).
    name = "test/cross_entropy"
    assert result["metrics"][name] <= (alone[0][name] + alone[1][name]) / 2


def test_predict_names_the_classes_of_ones_own_files_without_the_data_set(place):
    pictures = place / "pictures"
    pictures.mkdir()
    for i in range(3):
        image = np.zeros((40 + i, 30, 3), np.uint8)
        cv2.putText(image, str(i), (5, 32), cv2.FONT_HERSHEY_SIMPLEX, 1, (255, 255, 255), 3)
        cv2.imwrite(str(pictures / f"{i}.png"), image)
    out = place / "predicted"
    done = shell(
        "--mode=predict",
        f"--checkpoint={place / 'RUN'}",
        f"--inputs={pictures},{pictures / '1.png'}",
        "--data_dir=/nonexistent",
        f"--workdir={out}",
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (out / "predictions.jsonl").open()]
    assert [Path(row["file"]).name for row in rows] == ["0.png", "1.png", "2.png", "1.png"]
    for row in rows:
        assert set(row["probabilities"]) <= set(map(str, range(10)))
        assert max(row["probabilities"], key=row["probabilities"].get) == row["class"]
    assert rows[1]["probabilities"] == rows[3]["probabilities"]
    assert list(out.glob("*.png"))
    assert "1.png: " in done.stdout


@pytest.mark.processes
def test_check_says_what_a_long_run_would_meet(place):
    done = shell("--mode=check", *flags(place), cwd=place)
    assert done.returncode == 0, done.stderr
    for text in ("39,474", "MFLOPs", "loss", "it falls", "4,000 examples"):
        assert text in done.stdout


def test_training_imports_no_tensorflow_and_no_torch(place):
    code = (
        "import sys, launch\n"
        f"launch.main(['x', '--flagfile={place / 'RUN' / 'flags.txt'}', "
        f"'--workdir={place / 'RUN'}'])\n"
        "import research.data.datasets as d, tensorflow_datasets\n"
        f"d.load('digits', '{place / 'data'}')\n"
        "assert not {'tensorflow', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_workdir_that_holds_another_run_is_refused_with_the_difference(place, capsys):
    before = {p: p.stat().st_mtime_ns for p in (place / "RUN").rglob("*") if p.is_file()}
    code = launch.main(
        ["x", *flags(place), "--learning_rate=0.5", "--seed=3", f"--workdir={place / 'RUN'}"]
    )
    error = capsys.readouterr().err
    assert code == 2
    assert "--learning_rate=0.01 there, 0.5 here" in error and "--seed=0 there, 3 here" in error
    assert {p: p.stat().st_mtime_ns for p in (place / "RUN").rglob("*") if p.is_file()} == before


def test_a_second_process_on_a_live_workdir_is_refused(place, capsys):
    from research.record.run_folder import RunFolder

    module, config = launch.parse(["x", *flags(place)])[1:3]
    assert module is not None
    with RunFolder(place / "LIVE", "classification", config):
        assert launch.main(["x", *flags(place), f"--workdir={place / 'LIVE'}"]) == 2
    assert "another process" in capsys.readouterr().err


def test_a_workdir_that_cannot_be_written_is_named(place, capsys):
    (place / "file").write_text("kept")
    assert launch.main(["x", *flags(place), f"--workdir={place / 'file' / 'run'}"]) == 2
    assert str(place / "file" / "run") in capsys.readouterr().err
    assert (place / "file").read_text() == "kept"
