"""Study files: what they become in a shell, and what is refused in one line."""

import functools

import pytest

import launch
from research.commands.study import study_of
from research.comparison import study_file
from research.errors import UserError

FILE = """
question = "Which?"
claim = "Momentum helps."
experiment = "classification"
metric = "test/accuracy"
difference = 1
baseline = "sgd learning_rate=0.1"
seeds = [3, 5]
budget = 60

[flags]
mirror = true
steps = 20
rotation = 0
model_options = ["normalise=false", "dropout=0.5"]

[variants.sgd]
optimizer = "sgd"

[variants."with momentum"]
optimizer = "momentum"
elastic_alpha = 1.5

[grid]
learning_rate = [0.1, 0.00001]
"""


def write(folder, text):
    file = folder / "study.toml"
    file.write_text(text)
    return file


def opened(*flags):
    """The study and the Configs of its variants, as the launcher has them."""
    argv = ["x", "--mode=study", *map(str, flags)]
    command, module, config, given = launch.parse(argv)
    variant = functools.partial(launch.variant_of, command, module, argv)
    return study_of(command, config, given, launch.PRESETS, variant)


def test_a_file_becomes_what_a_shell_would_say(tmp_path):
    study, configs = opened(f"--study={write(tmp_path, FILE)}")
    common = ["--mirror", "--steps=20", "--rotation=0"]
    common += ["--model_options=normalise=false,dropout=0.5"]
    for name, flags in {
        "sgd learning_rate=0.1": "--optimizer=sgd --learning_rate=0.1",
        "sgd learning_rate=1e-05": "--optimizer=sgd --learning_rate=0.00001",
        "with momentum learning_rate=0.1": "--optimizer=momentum --elastic_alpha=1.5"
        " --learning_rate=0.1",
        "with momentum learning_rate=1e-05": "--optimizer=momentum --elastic_alpha=1.5"
        " --learning_rate=0.00001",
    }.items():
        said = launch.parse(["x", "--experiment=classification", *common, *flags.split()])[2]
        assert configs.pop(name) == said
    assert not configs
    assert study.seeds == (3, 5) and study.metric == "test/accuracy" and study.difference == 1.0
    assert study.baseline == "sgd learning_rate=0.1" and study.budget == "60"
    assert study.question == "Which?" and study.claim == "Momentum helps."
    assert "--model_options=normalise=false,dropout=0.5" in study.flags
    assert study.variants["sgd learning_rate=0.1"] == ("--optimizer=sgd", "--learning_rate=0.1")


def test_the_shell_wins_over_the_file_and_a_variant_over_both(tmp_path):
    file = write(tmp_path, FILE)
    study, configs = opened(
        f"--study={file}", "--steps=7", "--optimizer=lamb", "--repeats=3", "--variant=--warmup=0"
    )
    assert {config.steps for config in configs.values()} == {7}
    assert [config.optimizer for config in configs.values()] == [
        *["sgd"] * 2,
        *["momentum"] * 2,
        "lamb",
    ]
    assert list(study.variants)[-1] == "warmup=0" and "--steps=7" in study.flags
    assert study.seeds == (0, 1, 2)
    with pytest.raises(UserError, match="lists the seeds"):
        opened(f"--study={file}", "--seed=1")


def test_without_a_file_variants_are_named_by_their_flags():
    study, configs = opened(
        "--experiment=classification", "--seed=4", "--variant=--steps=3 --mirror", "--variant="
    )
    assert study.variants == {"steps=3 mirror": ("--steps=3", "--mirror"), "default": ()}
    assert study.seeds == (4, 5, 6, 7, 8)
    assert configs["steps=3 mirror"].mirror and configs["steps=3 mirror"].steps == 3


def test_a_grid_alone_is_enough_and_an_experiment_beside_the_file_is_meant(tmp_path):
    (tmp_path / "mine.py").write_text("")
    text = 'experiment = "mine.py"\n[grid]\nboost = [1, 2]\nrates = [[0.1, 0.2], []]'
    found = study_file.read(write(tmp_path, text))
    assert found.experiment == str(tmp_path / "mine.py")
    assert list(found.variants) == [
        "boost=1 rates=0.1,0.2",
        "boost=1 rates=",
        "boost=2 rates=0.1,0.2",
        "boost=2 rates=",
    ]
    assert study_file.arguments(found.variants["boost=2 rates=0.1,0.2"]) == (
        "--boost=2",
        "--rates=0.1,0.2",
    )


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            "learning_rate = [",
            "lerning_rate = [",
            "lerning_rate: is no flag. Did you mean 'learning_rate'",
        ),
        ("steps = 20", "setps = 20", "[flags]: setps: is no flag. Did you mean 'steps'"),
        (
            "elastic_alpha",
            "elastic_alhpa",
            "variant with momentum learning_rate=0.1: elastic_alhpa",
        ),
        ("metric", "metrics", "'metrics' is no key of a study. Did you mean 'metric'"),
        ("difference = 1", 'difference = "1"', "difference = '1': a number is needed"),
        ("seeds = [3, 5]", "seeds = [3, 3]", "3 is given twice"),
        ("seeds = [3, 5]", "seeds = [3, true]", "whole numbers"),
        ("seeds = [3, 5]", "seeds = []", "not both"),
        ("seeds = [3, 5]", "seeds = [3]\nrepeats = 2", "not both"),
        ("seeds = [3, 5]", "repeats = 0", "at least 1"),
        ("steps = 20", "seed = 20", "[flags]: seed: is no flag of a variant; seeds = [...]"),
        ("steps = 20", "baseline = 20", "baseline: is a key of the study; it stands above"),
        ("steps = 20", "steps = [20, 30]", "takes one value, not a list; [grid]"),
        ("steps = 20", 'steps = "many"', "steps"),
        ("steps = 20", "steps = 1979-05-27", "a text, a number, true, false or a list"),
        ("steps = 20", "steps = inf", "steps"),
        ("mirror = true", "mode = 'train'", "mode: is no flag"),
        ("[0.1, 0.00001]", "[0.1, 0.1]", "'sgd learning_rate=0.1' twice"),
        ("[0.1, 0.00001]", "0.1", "[grid] learning_rate: a list of values"),
        (
            '"momentum"',
            '"momentum"\nlearning_rate = 1',
            "in [grid] and in [variants.with momentum]",
        ),
        ('"momentum"\nelastic_alpha = 1.5', '"sgd"', "are the same"),
        ('[variants."with momentum"]', "[variants.sgd]", "is no TOML"),
        ('"momentum"', '"momentun"', "variant with momentum learning_rate=0.1: "),
        ('"classification"', '"clasification"', "Did you mean 'classification'"),
        ('baseline = "sgd ', 'baseline = "sgt ', "Did you mean 'sgd learning_rate=0.1'"),
        ('"test/accuracy"', '"accuracy"', "does not say of which split"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, before, after, said):
    monkeypatch.chdir(tmp_path)
    assert FILE.count(before) >= 1
    file = write(tmp_path, FILE.replace(before, after, 1))
    assert launch.main(["x", "--mode=study", f"--study={file}", "--compilation_cache="]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and said in lines[0]
    assert list(tmp_path.iterdir()) == [file], "nothing may be begun"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--mode=study", "--study=optimizer"], "Did you mean 'optimizers'"),
        (["--study=optimizers"], "--study: is for --mode=study"),
        (["--mode=study", "--study=xor", "--experiment=detection"], "--experiment=classification"),
        (["--mode=study", "--study=xor", "--share=1/2"], "--share needs --workdir"),
        (["--mode=study", "--study=xor", "--share=3/2", "--workdir=S"], "I from 1 to N"),
        (["--mode=study", "--study=xor", "--share=1/2", "--workdir=S", "--jobs=2"], "leave --jobs"),
        (["--mode=study", "--study=xor", "--variant=--seed=2"], "variant seed=2: seed is the"),
        (["--mode=study", "--study=xor", "--variant=--model=xor"], "are the same"),
        (
            [
                *("--mode=study", "--experiment=classification"),
                *("--variant=--model=xor", "--variant=--model=xor"),
            ],
            "--variant=--model=xor: is given twice",
        ),
        (
            [
                *("--mode=study", "--experiment=classification"),
                "--variant=--experiment=detection",
            ],
            "a study is of one experiment",
        ),
    ],
)
def test_flags_that_make_no_study_are_refused(tmp_path, monkeypatch, capsys, flags, said):
    monkeypatch.chdir(tmp_path)
    assert launch.main(["x", *flags, "--compilation_cache="]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and said in lines[0]
    assert not list(tmp_path.iterdir())


def test_a_variant_takes_what_a_tuning_found_from_its_flag_file(tmp_path):
    (tmp_path / "best.flags").write_text(
        "# The highest\n--experiment=classification\n--learning_rate=0.0518\n--tuning_trials=9\n"
    )
    text = (
        'experiment = "classification"\n[variants.tuned]\nflagfile = "best.flags"\nsteps = 7\n'
        "[variants.default]\nsteps = 7\n"
    )
    study, configs = opened(f"--study={write(tmp_path, text)}")
    tuned, default = configs["tuned"], configs["default"]
    assert (tuned.learning_rate, tuned.tuning_trials, tuned.steps) == (0.0518, 9, 7)
    assert (default.learning_rate, default.tuning_trials) == (0.01, 0)
    assert study.variants["tuned"][0] == f"--flagfile={tmp_path / 'best.flags'}"
    with pytest.raises(UserError, match="flagfile: is no flag"):
        opened(f"--study={write(tmp_path, text + '[flags]' + chr(10) + 'flagfile = ' + repr('a'))}")


def test_every_study_that_ships_is_one_with_what_decides_declared():
    files = sorted((launch.PRESETS / "studies").glob("*.toml"))
    assert len(files) >= 13
    for file in files:
        study, configs = opened(f"--study={file.stem}")  # found by name, from any folder
        assert len(configs) > 1 and len(study.seeds) >= 5
        assert study.question.endswith("?") and study.claim.endswith(".") and study.budget
        assert study.metric and study.baseline and study.difference
