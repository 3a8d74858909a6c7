"""The language experiment as a person uses it, in this process."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

import launch
from experiments import language
from research.training import parallel as parallel_lib
from research.training.checkpoint import open_checkpoint
from research.training.evaluation import make_evaluate


def run(*flags):
    return launch.main(["launch.py", *map(str, flags)])


def written_text(folder):
    (folder / "loop.txt").write_text("olleh" * 4)
    return folder / "loop.txt"


def test_hello_is_learned_and_gone_on_with(tmp_path, capsys, figures):
    """A model without memory gets three of four characters: after l comes l, or o."""
    folder = tmp_path / "run"
    where = [f"--workdir={folder}", "--parallel=single", "--compilation_cache="]
    assert run("--experiment=language", "--steps=150", *where) == 0
    result = json.loads((folder / "result.json").read_text())
    assert result["metrics"]["text/accuracy"] == 1
    toys.check_outcomes(folder)
    assert result["metrics"]["text/bits_per_character"] < 0.1
    drawn = figures[folder / "figures/text/next_character.png"]
    assert drawn.has("probability of the next character", "hidden units")
    likely, hidden = drawn.images
    assert likely.shape[0] == len("ehlo") and likely.shape[1] == hidden.shape[1]
    np.testing.assert_allclose(likely.sum(0), 1, rtol=1e-4)

    assert run("--mode=evaluate", f"--checkpoint={folder},{folder}") == 2
    assert "an ensemble averages probabilities of classes" in capsys.readouterr().err

    # Each of 19 characters that follow another counts once; the last window holds three of them.
    opened = open_checkpoint(str(folder))
    facts, variables = opened.metadata["facts"], opened.variables
    experiment = language.build(language.Config(text=str(written_text(tmp_path))), facts)
    source = experiment.data().evals["text"]
    found = make_evaluate(experiment.evaluation, parallel_lib.create("single", 1))(
        variables, source
    )
    codes = [facts["characters"].index(c) for c in "olleh" * 4]
    nats, predict = [], jax.jit(experiment.evaluation.predict)
    for start in range(0, 19, 4):
        read = jnp.array([[*codes[start : start + 4], 0]])
        log_p = np.asarray(predict(variables, {"tokens": read})["log_probabilities"])[0]
        nats += [-log_p[i, c] for i, c in enumerate(codes[start + 1 : start + 5])]
    assert len(nats) == 19
    assert found.metrics["cross_entropy"] == pytest.approx(np.mean(nats), rel=1e-5)

    # Another text, such as the same file after it was moved, may be evaluated.
    elsewhere = [f"--text={tmp_path / 'loop.txt'}", f"--workdir={tmp_path / 'other'}"]
    assert run("--mode=evaluate", f"--checkpoint={folder}", *elsewhere, *where[1:]) == 0
    other = json.loads((tmp_path / "other" / "result.json").read_text())["metrics"]
    assert other["text/bits_per_character"] > 1

    (tmp_path / "h.txt").write_text("h\n")
    (tmp_path / "hel.txt").write_text("hel")
    (tmp_path / "x.txt").write_text("x")
    written = tmp_path / "written"
    ask = ["--mode=predict", f"--checkpoint={folder}", "--temperature=0.05"]
    given = f"--inputs={tmp_path / 'h.txt'},{tmp_path / 'hel.txt'}"
    assert run(*ask, given, "--written=2", f"--workdir={written}") == 0
    rows = [json.loads(line) for line in (written / "predictions.jsonl").open()]
    assert [row["text"] for row in rows] == ["el", "lo"]
    capsys.readouterr()
    assert run(*ask, f"--inputs={tmp_path / 'x.txt'}") == 2
    assert "x.txt: the character 'x' does not come" in capsys.readouterr().err


def test_bad_input_is_one_line(tmp_path, capsys):
    (tmp_path / "short.txt").write_text("ab")
    (tmp_path / "empty.txt").write_text("")
    cases = {
        f"--text={tmp_path / 'short.txt'}": "the text has 2 characters, and 5 at least are needed",
        f"--text={tmp_path / 'empty.txt'}": "is empty",
        f"--text={tmp_path / 'none.txt'}": "cannot be read",
        "--dataset=digits": "this experiment learns --text=PATH",
    }
    for flag, message in cases.items():
        assert run("--experiment=language", flag, f"--workdir={tmp_path / 'run'}") == 2
        error = capsys.readouterr().err
        assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "run").exists()
