"""Tuning: validation data rank the trials; the best of a rung go on as if never stopped."""

import csv
import json
import math
import types

import numpy as np
import optax
import pytest
import toys

import launch
from research import config as config_lib
from research.commands import study as study_command
from research.commands import tune as tune_command
from research.commands.train import train_to_end
from research.commands.tune import run_tuning
from research.comparison.study import read_study
from research.data.sources.examples import Arrays
from research.data.sources.source import Source
from research.errors import NotFiniteError, UserError
from research.experiment import Data
from research.training.config import TrainingConfig


def source(count, seed=None):
    rng = np.random.default_rng(count)
    images = rng.normal(size=(count, 8, 8, 3)).astype("f")
    return Source(Arrays({"image": images, "label": (images.mean((1, 2, 3)) > 0) * 1}), 16, seed)


class Toy(types.ModuleType):
    """The smallest experiment, whose learning rate is searched; `split` names the best."""

    Config = TrainingConfig

    def __init__(self, split="validation"):
        super().__init__("experiments.toy")
        self.split = split

    def build(self, config):
        def data():
            return Data(source(48, config.seed), {self.split: source(24), "test": source(24)})

        optimizer = optax.sgd(optax.cosine_decay_schedule(config.learning_rate, config.steps))
        best = (f"{self.split}/accuracy", "max")
        return toys.experiment(optimizer, data=data, best=best)


def tune(folder, *search, toy=None, seed=0, **said):
    config = TrainingConfig(
        workdir=str(folder), steps=9, batch_size=16, parallel="single", seed=seed, log_every=100
    )
    types_of = {row.flag: row.type for row in config_lib.options(TrainingConfig)}

    def variant(name, flags):
        values = dict(flag.removeprefix("--").split("=") for flag in flags)
        return config_lib.replace(config, {k: types_of[k](v) for k, v in values.items()})

    command = launch.LaunchConfig(experiment="toy", mode="tune", search=search, **said)
    return run_tuning(command, toy or Toy(), config, {"steps", "workdir"}, variant)


def ranks(folder):
    with open(folder / "tune.csv") as file:
        return list(csv.DictReader(file))


def result(folder, name="result.json"):
    return json.loads((folder / name).read_text())


def test_the_best_of_a_rung_end_bit_for_bit_as_runs_that_were_never_stopped(tmp_path):
    folder = tmp_path / "T"
    assert tune(folder, "learning_rate=1e-3..1", strategy="halving", trials=3) == 0
    rows = ranks(folder)
    assert [(row["trained"], row["steps"]) for row in rows] == [
        ("1.0", "9.0"),
        ("0.3333333333333333", "3.0"),
        ("0.3333333333333333", "3.0"),
    ]
    cell = folder / rows[0]["trial"] / "seed=0"
    config = TrainingConfig(
        workdir=str(tmp_path / "alone"),
        steps=9,
        batch_size=16,
        parallel="single",
        log_every=100,
        learning_rate=float(rows[0]["learning_rate"]),
    )
    alone = train_to_end("toy", Toy(), config, tmp_path / "alone")
    survivor = result(cell)
    assert [part["start"] for part in survivor["parts"]] == [0, 3]
    for name in ("fingerprint", "metrics", "best_checkpoint", "weights"):
        assert survivor[name] == alone[name]
    assert float(rows[0]["validation/accuracy"]) == alone["metrics"]["validation/accuracy"]

    rung = result(folder, "tune.json")["rungs"][0]
    assert len(rung["values"]) == 3
    assert rung["went_on"] == [max(rung["values"], key=rung["values"].get)] == [rows[0]["trial"]]
    budget = result(folder, "tune.json")["budget"]
    assert (budget["trials"], budget["steps"], budget["examples"]) == (3, 15, 15 * 16)
    assert not any("test/" in name for name in rows[0])
    text = (folder / "best.flags").read_text()
    assert f"\n--learning_rate={rows[0]['learning_rate']}\n" in text
    assert text.startswith("# The highest validation/accuracy")
    assert "\n--steps=9\n" in text and text.endswith("\n--tuning_trials=3\n")
    assert (folder / "tune.png").stat().st_size > 0


@pytest.fixture
def trained(monkeypatch):
    """Trains nothing, but keeps (learning rate, share) of what would be; the best rate is 0.01.

    Rates above 1 diverge; accuracies of earlier steps are in the same order, except that 0.02
    begins as the best.
    """
    done = []

    def pretend(name, module, config, path, claim=None):
        rate, share = config.learning_rate, config.stop_after
        done.append((rate, round(share, 3)))
        path.mkdir(parents=True, exist_ok=True)
        about = {"experiment": "toy", "config": {"learning_rate": rate, "batch_size": 16}}
        (path / "config.json").write_text(json.dumps(about))
        if rate > 1:
            raise NotFiniteError("the loss is nan at step 3")
        value = 0.99 if rate == 0.02 and share < 1 else 0.9 - abs(math.log10(rate / 0.01)) / 10
        found = {
            "step": round(9 * share),
            "seconds": 2.0 * share,
            "best": ["validation/accuracy", "max"],
            "metrics": {"validation/accuracy": value, "test/accuracy": 1 - value},
        }
        file = "result.json" if share == 1 else "stopped.json"
        (path / file).write_text(json.dumps({"stop_after": share, **found}))
        return found

    monkeypatch.setattr(study_command, "train_to_end", pretend)
    monkeypatch.setattr(study_command, "check_workdir", lambda *_: None)
    monkeypatch.setattr(tune_command, "save_figures", lambda *_: None)
    return done


RATES = "learning_rate=0.0001,0.001,0.01,0.02,0.1,10,0.2,0.5,0.3"


def test_trials_are_ranked_by_validation_and_what_failed_comes_last(tmp_path, trained, capsys):
    assert tune(tmp_path / "T", RATES, strategy="grid") == 3
    rows = ranks(tmp_path / "T")
    assert [float(row["learning_rate"]) for row in rows] == [
        0.01, 0.02, 0.001, 0.1, 0.2, 0.3, 0.5, 0.0001, 10
    ]  # fmt: skip
    assert rows[-1]["failure"].startswith("the loss is nan") and not rows[-1]["validation/accuracy"]
    said = capsys.readouterr().out
    assert "8 of 9 trials, 1 failed" in said and "test/" not in said
    assert "--search=learning_rate=0.001,0.01,0.02 --tuning_trials=9" in said
    assert result(tmp_path / "T", "tune.json")["budget"]["failed"] == 1
    trained.clear()
    assert tune(tmp_path / "T", RATES, strategy="grid") == 3
    assert not trained, "what is done, or failed for good, is not done again"
    assert list(read_study(tmp_path / "T").variants) == [f"trial-{i:03d}" for i in range(1, 10)]


def test_each_rung_keeps_the_best_third_of_those_that_did_not_fail(tmp_path, trained):
    assert tune(tmp_path / "T", RATES, strategy="halving", trials=9) == 3
    assert [share for _, share in trained] == [0.111] * 9 + [0.333] * 3 + [1.0]
    second = [rate for rate, share in trained if share == 0.333]
    assert {0.02, 0.01} < set(second) < {0.02, 0.01, 0.001, 0.1}  # the last two are as good
    assert trained[-1] == (0.02, 1.0), "the best of the last rung, though not of all"


def test_halving_that_was_cut_goes_on_where_it_was(tmp_path, trained, monkeypatch):
    tune(tmp_path / "WHOLE", RATES, strategy="halving", trials=9)
    whole = [*trained]
    for count in (4, 10):  # in the first rung, and in the second
        trained.clear()
        monkeypatch.setattr(study_command, "is_full", lambda error: isinstance(error, KeyError))
        pretend, folder = study_command.train_to_end, tmp_path / f"CUT{count}"

        def cut(*given, pretend=pretend, count=count):
            if len(trained) == count:
                raise KeyError("power cut")
            return pretend(*given)

        monkeypatch.setattr(study_command, "train_to_end", cut)
        with pytest.raises(KeyError):
            tune(folder, RATES, strategy="halving", trials=9)
        monkeypatch.setattr(study_command, "train_to_end", pretend)
        assert tune(folder, RATES, strategy="halving", trials=9) == 3
        assert trained == whole
        assert ranks(folder) == ranks(tmp_path / "WHOLE")


def test_more_random_trials_keep_the_first_and_another_search_is_refused(tmp_path, trained):
    search = "learning_rate=1e-3..1"
    assert tune(tmp_path / "T", search, trials=4) == 0
    first = [*trained]
    assert tune(tmp_path / "T", search, trials=6) == 0
    assert len(trained) == 6 and trained[:4] == first
    assert (tmp_path / "T" / "best.flags").read_text().endswith("--tuning_trials=6\n")
    for given, reason in (
        ({"trials": 5}, "trials 6 there, 5 here"),
        ({"trials": 6, "seed": 1}, "seed 0 there, 1 here"),
        ({"trials": 6, "strategy": "halving"}, "strategy random there, halving here"),
    ):
        with pytest.raises(UserError, match=reason):
            tune(tmp_path / "T", search, **given)
    with pytest.raises(UserError, match=r"0\.001\.\.1 there, learning_rate=0\.001\.\.0\.5 here"):
        tune(tmp_path / "T", "learning_rate=1e-3..0.5", trials=6)
    assert len(trained) == 6


@pytest.mark.parametrize(
    ("search", "said", "reason"),
    [
        ((), {}, "needs --search"),
        (("learning_rate=1e-3..1",), {"strategy": "grid"}, "learning_rate=0.001..1/5"),
        (("learning_rate=1e-3..1/4",), {"strategy": "grid", "trials": 4}, "leave it out"),
        (("learning_rate=1e-3..1",), {"strategy": "halving", "trials": 2}, "at least 3"),
        (("learning_rate=1e-3..1",), {"share": "1/2"}, "--share=I/N"),
        (("learning_rate=0.1,0.2",), {"trials": 3}, "holds 2 combinations"),
    ],
)
def test_what_cannot_be_tuned_is_refused_before_anything_is_written(tmp_path, search, said, reason):
    with pytest.raises(UserError, match=reason):
        tune(tmp_path / "T", *search, **said)
    assert not (tmp_path / "T").exists()


def test_trials_are_not_ranked_by_what_no_validation_split_measured(tmp_path, trained):
    with pytest.raises(UserError, match=r"add --validation=0\.1, or --fold"):
        tune(tmp_path / "T", "learning_rate=1e-3..1", toy=Toy("test"))
    assert not trained and not (tmp_path / "T").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--search=learning_rate=1e-3..1"], "add --validation=0.1, or --fold"),
        (["--search=learning_rat=1e-3..1", "--fold=1/5"], "Did you mean 'learning_rate'"),
        (["--search=learning_rate=1e-3..1", "--strategy=grad"], "grad"),
        (["--search=learning_rate=1e-3..1", "--variant=--steps=3"], "is for --mode=study"),
        (["--search=model=mlp,mpl", "--validation=0.1", "--strategy=grid"], "'mlp'"),
        (["--search=optimizer=sgd", "--mode=study"], "--search: is for --mode=tune"),
    ],
)
def test_a_mistake_in_the_shell_is_one_line(tmp_path, monkeypatch, capsys, flags, said):
    monkeypatch.chdir(tmp_path)
    ours = ["x", "--mode=tune", "--experiment=classification", "--compilation_cache="]
    where = [f"--workdir={tmp_path / 'T'}", f"--data_dir={tmp_path / 'data'}"]
    assert launch.main([*ours, *where, *flags]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and said in lines[0], lines
    assert not (tmp_path / "T").exists()
