"""Flags: those of presets, what nobody chose, and what the configuration holds of them."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import launch
from research import config as config_lib

ROOT = Path(__file__).resolve().parent.parent


def read(path):
    return json.loads(Path(path).read_text())


PRESETS = sorted((ROOT / "experiments" / "presets").rglob("*.flags"))


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_flag_of_a_preset_is_one(preset):
    launched, module, config, given = launch.parse(["x", f"--flagfile={preset}"])
    assert launched.experiment == preset.parent.name and config == module.Config(
        **{name: getattr(config, name) for name in given}
    )


def test_what_nobody_chose_follows_from_the_set_and_stands_in_the_run(tmp_path, capsys):
    for number in range(12):
        folder = tmp_path / "few" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.full((40, 50 + number, 3), 20 * number, np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), pixels)
    few = ["x", "--experiment=classification", f"--dataset=folder:{tmp_path / 'few'}"]
    few += ["--steps=1", "--compilation_cache=", f"--workdir={tmp_path / 'RUN'}"]
    assert launch.main(few) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "--batch_size=8 instead of 64: train has 10 examples" in said
    assert "--image_size=48: the longer sides of 10 images are 54 at the median" in said
    lines = (tmp_path / "RUN" / "flags.txt").read_text().splitlines()
    assert {"--batch_size=8", "--image_size=48", "--parallel=jit"} <= set(lines)
    held = read(tmp_path / "RUN" / "config.json")["config"]
    assert (held["batch_size"], held["image_size"], held["parallel"]) == (8, 48, "jit")
    assert launch.main(few) == 0  # the same command finds the run, which is finished
    _, _, config, _ = launch.parse(["x", f"--flagfile={tmp_path / 'RUN' / 'flags.txt'}"])
    unsaved = {row.name for row in config_lib.options(type(config)) if not row.saved}
    assert set(config.unchosen) == unsaved  # its flag file leaves nothing open that it may hold
    assert {**config_lib.to_json(config), "workdir": str(tmp_path / "RUN")} == held


def test_what_the_shell_gets_is_what_the_config_holds():
    given = ["--learning_rate=0.05", "--model=resnet18", "--seed=3", "--mirror", "--schedule=step"]
    config, names = launch.parse(["x", "--experiment=classification", *given])[2:]
    assert (config.learning_rate, config.model, config.seed) == (0.05, "resnet18", 3)
    assert config.mirror is True and config.schedule == "step"
    assert names == {"learning_rate", "model", "seed", "mirror", "schedule"}
