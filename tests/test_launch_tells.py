"""What launch.py tells without training: --help, --mode=list, and what --mode=prepare needs."""

import subprocess
import sys

import pytest
from launched import ROOT, shell

import launch
from research import models
from research.models.counts import COUNTS


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.families)])
def test_list_names_everything_that_can_be_asked_for(tmp_path, capsys, monkeypatch, every):
    """Parameters are those that the models have now: of three, all of them take half a minute."""
    shown = models.available(task=None)
    counted = shown if every else ("resnet18", "lenet5", "unet")
    assert COUNTS.keys() == shown.keys()
    assert {n: COUNTS[n] for n in counted} == {
        n: models.count_parameters(shown[n]) for n in counted
    }
    monkeypatch.setenv("COLUMNS", "200")
    assert launch.main(["x", "--mode=list", f"--data_dir={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    for text in (
        "--experiment=classification",
        "--flagfile=experiments/presets/classification/mnist.flags",
        "--mode=study --study=xor",
        "11,689,512",  # resnet18
        "61,706",  # lenet5
        "digits",
        "--mode=prepare --dataset=cifar10",
        "folder:PATH",
        *(f"--model={name} " for name in shown),
    ):
        assert text in printed


def test_details_compare_what_models_cost(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    flags = ["x", "--mode=list", f"--data_dir={tmp_path}", "--details=lenet5,linear"]
    assert launch.main(flags) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "--model=" in line]
    assert [row[0] for row in rows] == ["--model=lenet5", "--model=linear"]
    assert "61,706" in rows[0] and all(row[-1] == "ms" and float(row[-2]) > 0 for row in rows)
    # Products of LeCun 1998: 117,600 + 240,000 + 48,000 + 10,080 + 840, two operations each.
    assert 832 < float(rows[0][rows[0].index("kFLOPs") - 1]) < 900
    assert launch.main([*flags[:-1], "--details=lenet"]) == 2
    assert launch.main(["x", "--experiment=classification", "--details=lenet5"]) == 2
    assert "--details: is for --mode=list" in capsys.readouterr().err


def test_prepare_says_at_once_what_is_missing(tmp_path):
    done = shell("--mode=prepare", "--dataset=mnist", f"--source={tmp_path}", cwd=tmp_path)
    assert done.returncode == 2
    assert "train-images-idx3-ubyte.gz" in done.stderr and len(done.stderr.splitlines()) == 1


def test_help_may_be_read_in_part():
    """`python launch.py --help | head`, whose reader has gone before a line is written."""
    code = "import os, sys, launch\nr, w = os.pipe()\nos.dup2(w, 1)\nos.close(r)\n"
    code += "sys.exit(launch.main(['x', '--help']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")


def test_help_is_the_manual_and_does_not_load_jax(tmp_path):
    done = shell("--experiment=classification", "--help", cwd=tmp_path)
    assert done.returncode == 0 and "--learning_rate=NUMBER" in done.stdout
    assert "--label_smoothing" in done.stdout and "Optimisation:" in done.stdout
    code = "import sys, launch, experiments\nfor name in experiments.names():\n"
    code += "    try: launch.main(['x', f'--experiment={name}', '--help'])\n"
    code += "    except SystemExit: pass\n"
    code += "heavy = {'jax', 'flax', 'optax', 'tensorflow', 'tensorflow_datasets', 'sklearn'}\n"
    code += "assert not heavy & set(sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 0
    )
