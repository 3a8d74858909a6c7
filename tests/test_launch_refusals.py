"""What launch.py refuses: one line, exit code 2, and nothing is begun."""

import pytest

import launch


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with prepared digits and a run of one step in RUN."""
    folder = tmp_path_factory.mktemp("refusals")
    given = ["--experiment=classification", "--model=linear", "--batch_size=64", "--steps=1"]
    given += [f"--data_dir={folder / 'data'}", f"--workdir={folder / 'RUN'}"]
    assert launch.main(["x", *given, "--compilation_cache="]) == 0
    return folder


HELD = ("--experiment=classification", "--dataset=digits")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--experiment=clasification"], "Did you mean 'classification'"),
        ([], "--experiment is needed"),
        (["--experiment=classification", "--lerning_rate=1"], "learning_rate"),
        (["--experiment=classification", "--learning_rate=fast"], "learning_rate"),
        (["--experiment=classification", "--learning_rate=-1"], "--learning_rate=-1.0: at least"),
        (["--experiment=classification", "--optimizer=adamx"], "adamw"),
        (["--experiment=classification", "--mode=trian"], "train"),
        (["--experiment=classification", "digits"], "'digits' is no flag"),
        (["--experiment=classification", "--model=resnet19"], "Did you mean 'resnet1"),
        (["--experiment=classification", "--activation=rleu"], "Did you mean 'relu'"),
        (["--experiment=classification", "--dataset=digts"], "Did you mean 'digits'"),
        (["--experiment=classification", "--batch_size=100"], "--batch_size=100 does not divide"),
        (["--experiment=classification", "--image_size=3"], "--image_size=3"),
        (["--experiment=classification", "--flagfile=/no/such.flags"], "/no/such.flags"),
        (["--mode=evaluate", "--experiment=classification"], "needs --checkpoint"),
        (["--mode=evaluate"], "--checkpoint=RUN or --experiment is needed"),
        (["--mode=evaluate", "--checkpoint=RUN", "--inputs=x.png"], "--inputs: is for --mode=pred"),
        (["--mode=evaluate", "--checkpoint=/no/such/run"], "/no/such/run"),
        (["--mode=predict", "--checkpoint=RUN"], "needs --inputs"),
        (["--mode=predict", "--checkpoint=RUN", "--inputs=/no/cat.png"], "/no/cat.png"),
        (["--mode=evaluate", "--checkpoint=RUN", "--model=lenet5"], "trained with --model=linear"),
        (["--mode=prepare"], "needs --dataset"),
        (["--experiment=classification", "--freeze=conv9"], "called fc/bias, fc/kernel, stage0_0"),
        (["--experiment=classification", "--model_options=width=3"], "Did you mean 'widths'"),
        (["--experiment=classification", "--mode=study"], "needs variants"),
        (["--experiment=classification", "--jobs=2"], "--jobs: is for --mode=study"),
        ([*HELD, "--fold=6/5"], "--fold=6/5: I/K is needed, such as 1/5"),
        ([*HELD, "--fold=1/5", "--validation=0.1"], "--fold=1/5: holds a part out itself"),
        ([*HELD, "--split_seed=1"], "--split_seed=1: nothing is held out that it could draw"),
        (["--experiment=language", "--fold=1/5"], "--fold=1/5: a text is held out at its end"),
        (["--mode=evaluate", "--checkpoint=RUN", "--split_seed=1"], "trained with --split_seed=0"),
        (["--mode=reproduce"], "--mode=reproduce needs --run=RUN"),
        (["--mode=reproduce", "--run=RUN", "--results"], "--mode=reproduce needs --run=RUN"),
        (["--mode=reproduce", "--run=RUN", "--steps=3"], "--steps: what is repeated has flags"),
        (["--mode=reproduce", "--run=/no/run"], "--run=/no/run: there is no such folder"),
        (["--mode=reproduce", "--run=data"], "--run=data: holds no run"),
        (["--mode=reproduce", "--results=tow"], "--results=tow: no row is marked so"),
        (["--experiment=classification", "--run=RUN"], "--run: is for --mode=reproduce"),
        (["--experiment=filtering", "--mode=diagnose"], "has no --mode=diagnose"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(place, capsys, monkeypatch, given, said):
    monkeypatch.chdir(place)
    where = [] if any(g.startswith("--flagfile") for g in given) else [f"--data_dir={place}/data"]
    cache = ["--compilation_cache="]
    assert launch.main(["launch.py", *given, *where, *cache]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    assert said in lines[0]
    assert not (place / "runs").exists(), "nothing may be begun"
