"""Runs that are the same to the bit, and runs that part at a known step by a known amount."""

import json
import math
import os
import signal
from pathlib import Path

import numpy as np
import optax
import pytest
import toys

from research.comparison import reproduction
from research.comparison.runs import Run
from research.data.sources.examples import Arrays
from research.data.sources.source import Source
from research.experiment import Data
from research.record.run_folder import RunFolder
from research.training import parallel as parallel_lib
from research.training.config import TrainingConfig
from research.training.interrupts import Stopped
from research.training.loop import train

CONFIG = TrainingConfig(
    steps=8, batch_size=16, eval_every=4, log_every=2, keep=4, parallel="single"
)


class Interrupting(Source):
    """A source that sends SIGTERM where batch 5 is made."""

    def batch(self, step):
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().batch(step)


def run(folder, made=Source, rate=lambda step: 0.05):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(40, 8, 8, 3)).astype("f")
    examples = Arrays({"image": images, "label": (images.mean((1, 2, 3)) > 0).astype("i")})

    def data():
        return Data(made(examples, 16, 0), {"test": Source(examples, 16)})

    experiment = toys.experiment(optax.sgd(rate), data=data)
    parallel = parallel_lib.create("single", 16, 1)
    with RunFolder(folder, "toy", CONFIG) as record:
        record.finish(train(experiment, CONFIG, parallel, record).result)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run, the same that SIGTERM stopped on the way, and one whose rate rises after step 4."""
    folder = tmp_path_factory.mktemp("runs")
    found = {"one": run(folder / "one")}
    with pytest.raises(Stopped):
        run(folder / "stopped", Interrupting)
    found["stopped"] = run(folder / "stopped")
    found["other"] = run(folder / "other", rate=lambda step: 0.05 + 0.01 * (step >= 4))
    return found


def test_a_run_that_a_signal_stopped_and_that_went_on_is_identical(runs):
    logs = [reproduction.read_log(runs[name]) for name in ("one", "stopped")]
    extra = {line["step"] for line in logs[1]} - {line["step"] for line in logs[0]}
    assert len(extra) <= 1  # of the step where the signal was heard, if no log line was due there
    verdict = reproduction.compare_runs(runs["one"], runs["stopped"])
    assert verdict == ([], None, [], None, True, "") and verdict.identical
    assert reproduction.in_words(verdict) == ["identical to the bit"]
    assert reproduction.compare_runs(runs["stopped"], runs["one"]).identical


def test_where_two_runs_part_is_found_in_the_log_and_in_the_tensors(runs):
    verdict = reproduction.compare_runs(runs["one"], runs["other"])
    assert not verdict.identical and not verdict.inputs and not verdict.fingerprints
    # The rate of step 5 is the first that differs. Step 6 sees it; the gradient of 5 does not.
    assert verdict.logged[:2] == (6, "train/gradient_norm")
    assert verdict.logged.before != verdict.logged.again
    at = verdict.tensor
    assert (at.step, at.name) == (8, "params/Conv_0/kernel")
    kernels = [
        reproduction.read_arrays(r / "checkpoints" / "latest" / "8", "weights")["params"]["Conv_0"]
        for r in (runs["one"], runs["other"])
    ]
    distance = np.abs(kernels[0]["kernel"].astype("d") - kernels[1]["kernel"])
    assert at.largest == distance.max() > 0 and at.size == 216
    assert at.differing == (distance > 0).sum()
    said = reproduction.in_words(verdict)
    assert said[0] == "NOT identical" and "first at step 6: train/gradient_norm" in said[1]
    assert "params/Conv_0/kernel" in said[2] and "test/" in said[3]


def test_a_run_without_checkpoints_is_compared_by_its_fingerprint(runs, tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        for file in ("config.json", "result.json", "metrics.jsonl"):
            (tmp_path / name / file).write_bytes((runs[name] / file).read_bytes())
    verdict = reproduction.compare_runs(runs["one"], tmp_path / "one")
    assert verdict.identical and "keep no checkpoint of the same step" in verdict.missing
    verdict = reproduction.compare_runs(runs["one"], tmp_path / "other")
    assert not verdict.identical and any(
        "fingerprints" in x for x in reproduction.in_words(verdict)
    )


def test_other_data_and_flags_are_named(runs, tmp_path):
    (tmp_path / "result.json").write_bytes((runs["one"] / "result.json").read_bytes())
    record = json.loads((runs["one"] / "config.json").read_text())
    record["fingerprint"]["data_order"] = "other"
    record["config"]["learning_rate"] = 2.0
    (tmp_path / "config.json").write_text(json.dumps(record))
    verdict = reproduction.compare_runs(runs["one"], tmp_path)
    assert verdict.inputs == ["training data or order", "--learning_rate"]


def test_the_first_tensor_by_name_and_every_bit_counts():
    def found(a, b):
        return reproduction.different_tensor({"b": a, "a": np.zeros(3)}, {"b": b, "a": np.zeros(3)})

    nan = np.array([1.0, math.nan], "f")
    assert found(nan, nan.copy()) is None
    assert found(np.zeros(2, "f"), -np.zeros(2, "f"))[1:4] == ("b", 2, 2)
    assert found(np.ones(2, "f"), np.array([1, 1 + 2**-23], "f"))[1:] == ("b", 1, 2, 2.0**-23)
    assert math.isnan(found(np.ones(2, "f"), np.ones(2)).largest)
    assert found(np.int32(3), np.int32(5))[1:] == ("b", 1, 1, 2.0)
    assert reproduction.different_tensor({"a": nan, "b": nan}, {"b": nan}).name == "a"


CPU = {"cores": 2, "threads": 2, "devices": ["cpu: cpu"]}
GPU = {**CPU, "devices": ["gpu: NVIDIA H100"]}


@pytest.mark.parametrize(
    ("environment", "config", "parts", "cores", "said"),
    [
        (CPU, {}, [CPU], 2, ""),
        (CPU, {}, [], 8, ""),
        (CPU, {}, [CPU], 1, "used 2 cores, and 1 are here"),
        (CPU, {}, [CPU, {**CPU, "cores": 1}], 2, "went on with other cores"),
        ({"devices": ["cpu: cpu"]}, {}, [], 2, "does not say on how many cores"),
        (GPU, {}, [GPU], 2, "only with --deterministic"),
        (GPU, {"deterministic": True}, [GPU], 2, ""),
        ({**CPU, "devices": ["tpu: v4"]}, {"deterministic": True}, [], 2, "tpu promises no bits"),
    ],
)
def test_what_is_promised(environment, config, parts, cores, said):
    run = Run(Path("run"), "x", config, {"environment": environment}, {"parts": parts}, {})
    found = reproduction.promise(run, cores)
    assert said in found if said else found == ""


def test_versions_and_machines_that_differ_are_named():
    then = {**CPU, "python": "3.11.7", "versions": {"jax": "0.10.2", "flax": None, "old": "1"}}
    now = {**GPU, "python": "3.11.7", "versions": {"jax": "0.11.0", "flax": None}, "cores": 4}
    assert reproduction.different_surroundings(then, now) == [
        "jax: 0.10.2 then, 0.11.0 now",
        "cores: 2 then, 4 now",
        "devices: cpu: cpu then, gpu: NVIDIA H100 now",
    ]
    assert not reproduction.different_surroundings({}, now)
