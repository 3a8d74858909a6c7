"""--mode=compile: for this machine's CPU, and for accelerators whose compilers are installed."""

import importlib.util
import json

import pytest

import launch
from research.commands.compile import changes_of
from research.training.config import TrainingConfig

CLASSIFICATION = ("--experiment=classification", "--compilation_cache=")
LINEAR = (*CLASSIFICATION, "--model=linear")
# As they come: every experiment that trains by gradients.
DEFAULTS = (
    "classification",
    "detection",
    "segmentation",
    "embedding",
    "captioning",
    "denoising",
    "filtering",
)
SMALLEST = {
    "alexnet": 63,
    "compact": 64,
    "convnet": 28,
    "efficientnet_lite0": 32,
    "googlenet": 32,
    "inception_v3": 75,
    "lenet5": 32,
    "linear": 28,
    "mlp": 28,
    "mobilenet_v1": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "resnet18_cifar": 32,
    "resnet18": 32,
    "vgg16": 32,
}
MISSING = {"v5e:2x4": "libtpu", "h100:8": "jax_cuda12_plugin", "h100:2x4": "jax_cuda12_plugin"}


def compiled(topology, *flags):
    return launch.main(["x", "--mode=compile", f"--topology={topology}", *flags])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return f"--data_dir={tmp_path_factory.mktemp('data')}"


def test_both_steps_are_told(data, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    measured = {"examples_per_second": {"training": 1234.0}, "peak_memory_of": "process"}
    (tmp_path / "run" / "result.json").write_text(json.dumps(measured))
    small = "--model_options=widths=4+8,layers=1"
    given = [
        *CLASSIFICATION,
        small,
        data,
        f"--workdir={tmp_path / 'out'}",
        f"--run={tmp_path / 'run'}",
    ]
    assert compiled("cpu:8", *given) == 0
    said = capsys.readouterr().out
    assert "training: 64 examples a step on cpu:8, 8 devices" in said
    assert "1,234 examples a second" in said
    training, evaluation = json.loads((tmp_path / "out" / "compile.json").read_text())
    # A step reads and writes the state: parameters and AdamW's two moments.
    assert 0 < training["arguments"] < training["memory"]
    assert training["outputs"] < training["arguments"]  # the batch does not come out again
    assert 2.5 < training["flops"] / evaluation["flops"] < 3.5  # forward, and twice that backward
    assert training["collectives"]["all-reduce"]["number"] > 0
    assert training["fits"] and training["roofline"] is None


@pytest.mark.families
def test_what_does_not_fit_exits_with_1_and_says_what_would(data, capsys):
    memory = [*LINEAR, data, "--device_memory=1MiB", "--batch_size=512"]
    assert compiled("cpu:2", *memory) == 1
    said = capsys.readouterr().out
    assert "does NOT fit" in said
    assert "--accumulate=4: " in said and "--precision=bfloat16: " in said


def test_one_line_where_it_cannot_be(data, capsys):
    assert compiled("", *LINEAR, data) == 2
    assert "--mode=compile needs --topology" in capsys.readouterr().err
    assert compiled("cpu:8", *LINEAR, data, "--batch_size=12") == 2
    assert "does not divide by 8 devices" in capsys.readouterr().err
    assert compiled("cpu:8", *LINEAR, data, "--run=nowhere") == 2
    assert "--run=nowhere: holds no result.json" in capsys.readouterr().err


def test_sharing_out_is_not_offered_to_several_machines():
    flags = [{*changes} for changes in changes_of(TrainingConfig())]
    assert {"shard"} in flags and {"accumulate"} in flags
    assert [{*x} for x in changes_of(TrainingConfig(), several=True)] == [
        x for x in flags if "shard" not in x
    ]


def needs(topology):
    if importlib.util.find_spec(MISSING[topology]) is None:
        pytest.skip(f"{MISSING[topology]} is not installed: docs/scale.md says how")


@pytest.mark.families
@pytest.mark.parametrize("topology", ["v5e:2x4", "h100:8"])
@pytest.mark.parametrize("experiment", DEFAULTS)
def test_defaults_compile_for_accelerators(experiment, topology, data, tmp_path, capsys):
    needs(topology)
    given = [f"--experiment={experiment}", data, f"--workdir={tmp_path}"]
    assert compiled(topology, *given) == 0
    training, evaluation = json.loads((tmp_path / "compile.json").read_text())
    for row in (training, evaluation):
        assert 0 < row["memory"] < row["memory_there"]
        assert row["roofline"]["flops"] > 0
    assert sum(x["number"] for x in training["collectives"].values()) > 0


@pytest.mark.families
def test_two_hosts(data, tmp_path):
    needs("h100:2x4")
    assert compiled("h100:2x4", *LINEAR, data, f"--workdir={tmp_path}") == 0
    training = json.loads((tmp_path / "compile.json").read_text())[0]
    assert training["devices"] == 8


@pytest.mark.families
@pytest.mark.parametrize("model", SMALLEST)
def test_the_smallest_of_each_family_compiles_for_tpus(model, data, tmp_path):
    needs("v5e:2x4")
    given = [
        *CLASSIFICATION,
        f"--model={model}",
        f"--image_size={SMALLEST[model]}",
        "--batch_size=16",
    ]
    assert compiled("v5e:2x4", *given, data, f"--workdir={tmp_path}") == 0
