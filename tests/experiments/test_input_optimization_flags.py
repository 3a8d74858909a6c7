"""The flags of input optimisation: which methods use them, and those of earlier versions."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

import launch
from experiments.input_optimization import Config
from research import config as config_lib
from research.errors import UserError
from research.record.run_folder import check_workdir
from research.understanding import methods
from research.understanding.config import LookConfig, PictureConfig, QuestionConfig


def test_of_every_flag_it_is_said_which_methods_use_it():
    own = {
        field.name
        for kind in (QuestionConfig, PictureConfig, LookConfig)
        for field in dataclasses.fields(kind)
    }
    used_by = methods.USED_BY
    assert own - used_by.keys() == {"method", "checkpoint", "layer"}
    assert used_by.keys() <= {field.name for field in dataclasses.fields(Config)}
    assert used_by["octaves"] == ("dream",) and used_by["epsilon"] == ("fgsm", "pgd", "smallest")
    assert set(methods.METHODS) - set(used_by["inputs"]) == {"filters", "list", "layers"}


# What version d5b8d65 wrote for `--steps=4`: it holds 19 flags of training that are gone.
EARLIER = Path(__file__).parents[1] / "fixtures" / "input_optimization"


def test_what_earlier_versions_wrote_is_read(tmp_path):
    assert launch.parse(["x", f"--flagfile={EARLIER / 'flags.txt'}"])[2] == Config(steps=4)
    values = json.loads((EARLIER / "config.json").read_text())["config"]
    assert Config.RETIRED.keys() <= values.keys()
    assert config_lib.from_json(Config, values, "there") == Config(steps=4, workdir="RUN")
    # The same command goes on with a run that one of them began.
    shutil.copy(EARLIER / "config.json", tmp_path)
    check_workdir(tmp_path, "input_optimization", Config(steps=4))
    assert "optimizer" not in config_lib.to_json(Config())


@pytest.mark.parametrize(
    ("flag", "value"), [("optimizer", "sgd"), ("skip_corrupt", True), ("epochs", 3.0)]
)
def test_a_flag_that_is_gone_is_refused_by_name_elsewhere_than_at_its_default(flag, value):
    said = f"--{flag}={config_lib.show(value)}: is a flag of earlier versions"
    given = ["x", "--experiment=input_optimization", f"--{flag}={config_lib.show(value)}"]
    with pytest.raises(UserError, match=f"^{said}"):
        launch.parse(given)
    with pytest.raises(UserError, match=f"^there: {said}"):
        config_lib.from_json(Config, {flag: value}, "there")
