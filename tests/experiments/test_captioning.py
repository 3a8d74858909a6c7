"""The captioning experiment as a person uses it, in this process, on a made-up set of their own."""

import functools
import json
from functools import partial
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys
from toys import save_turned, train

import launch
from experiments import captioning
from research import models
from research.data.images.preprocessing import Preprocessing
from research.data.own import captions as own_captions
from research.data.text.captions import tokens_of
from research.data.text.tokens import BEGIN, END, PADDING, words
from research.metrics.captions import score
from research.models import convnet

COLOURS = {"red": (40, 40, 230), "green": (40, 220, 40), "blue": (230, 80, 40)}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """24 pictures of a coloured square on noise, with two sentences each, in Flickr8k's form."""
    folder = tmp_path_factory.mktemp("captioning")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for i in range(24):
        colour, side = list(COLOURS)[i % 3], ("left", "right")[i // 3 % 2]
        image = rng.integers(0, 60, (40, 48, 3), np.uint8)
        x = 4 if side == "left" else 28
        image[12:28, x : x + 16] = COLOURS[colour]
        cv2.imwrite(str(folder / "images" / f"{i}.png"), image)
        rows.append(f"{i}.png#0\tA {colour} square on the {side} .")
        rows.append(f"{i}.png#1\tOn the {side} there is a {colour} square !")
    (folder / "token.txt").write_text("\n".join(rows) + "\n")
    return folder


FROZEN = ["--freeze=^backbone/", "--cache_features", "--learning_rate=0.01", "--steps=80"]


def run(*flags):
    return launch.main(["launch.py", *map(str, flags)])


def common(place, *more):
    return [
        "--experiment=captioning",
        f"--dataset=captions:{place / 'images'}:{place / 'token.txt'}",
        f"--data_dir={place / 'data'}",
        "--backbone=convnet",
        "--image_size=32",
        "--model_options=embedding=16,features=32",
        "--batch_size=8",
        "--eval_batch_size=0",
        "--max_length=8",
        "--parallel=single",
        f"--compilation_cache={place / 'cache'}",
        *more,
    ]


def read(path):
    return json.loads(path.read_text())


@pytest.mark.families
def test_a_frozen_encoders_maps_are_made_once_and_the_checkpoint_captions_new_pictures(
    place, trained, figures, capsys
):
    folder = trained
    result = read(folder / "result.json")
    found = toys.check_outcomes(folder)["test"]  # BLEU, ROUGE-L and CIDEr among its metrics
    assert all(Path(name).suffix == ".png" and Path(name).exists() for name in found.names)
    names = {"bleu1", "bleu4", "rouge_l", "cider", "exact_match", "identical_captions", "words"}
    assert {f"test/{name}" for name in names} <= result["metrics"].keys()
    assert result["metrics"]["test/bleu1"] > 0.6  # "a red square on the left" has no other form
    assert "greedy decoding, never teacher-forced" in result["protocol"]["bleu4"]
    drawn = {
        name: figures[folder / "figures" / "test" / f"{name}.png"]
        for name in ("captions", "attention")
    }
    said_and_true = 2 * len(drawn["captions"].images)
    assert sum("square" in text for text in drawn["captions"].texts) == said_and_true
    assert drawn["attention"].has("square", "(end)")
    picture, *lit = drawn["attention"].images
    assert len(lit) > 4 and all((picture >= image).all() for image in lit)
    files = sorted((place / "data" / "features").iterdir())
    assert len(files) == 2

    # Other training reads the same maps.
    again = [*FROZEN[:-1], "--steps=1", f"--workdir={place / 'AGAIN'}"]
    assert run(*common(place, *again)) == 0
    assert "encoding" not in capsys.readouterr().out
    assert sorted((place / "data" / "features").iterdir()) == files

    # The checkpoint holds the encoder: images are encoded anew, and sentences sought by beams.
    beam = ["--mode=evaluate", f"--checkpoint={folder}", f"--data_dir={place / 'data'}"]
    where = f"--workdir={place / 'EVALUATED'}"
    how = ["--decoding=beam", "--beam_width=3", "--parallel=single", "--show=suspicious"]
    assert run(*beam, *how, where) == 0
    evaluated = read(place / "EVALUATED" / "result.json")
    assert "beam search of width 3" in evaluated["protocol"]["cider"]
    assert evaluated["metrics"]["test/bleu1"] > 0.6
    toys.check_outcomes(place / "EVALUATED", folder)
    doubted = read(place / "EVALUATED" / "examples" / "suspicious.json")
    losses = [row["loss"] for row in doubted]  # of true words; a guess has about 2.5
    assert losses == sorted(losses, reverse=True) and 0 < losses[-1] <= losses[0] < 1.5

    asked = ["--mode=predict", f"--checkpoint={folder}", f"--workdir={place / 'SAID'}"]
    assert run(*asked, f"--inputs={place / 'images' / '3.png'},{place / 'images' / '7.png'}") == 0
    rows = [json.loads(line) for line in (place / "SAID" / "predictions.jsonl").open()]
    assert len(rows) == 2 and all("square" in row["caption"] for row in rows)
    # A folder is filled under another name before it gets its own.
    seen = {file.name: shown for file, shown in figures.items() if "attention" in file.parts}
    for row, file in zip(rows, ("3.png", "7.png"), strict=True):
        said = [*row["caption"].split(), "(end)"]
        assert seen[file].texts == said and len(seen[file].images) == 1 + len(said)
        assert (place / "SAID" / "attention" / file).exists()
    assert (place / "SAID" / "captions.png").exists()

    # A word can be asked about by its name: the picture that makes it be said.
    look = ["--experiment=input_optimization", f"--checkpoint={folder}", "--steps=40"]
    look += [f"--workdir={place / 'BLUE'}", f"--compilation_cache={place / 'cache'}"]
    assert run(*look) == 2
    assert "--class=WORD says which of the network's" in capsys.readouterr().err
    assert run(*look, "--class=bleu") == 2
    assert "Did you mean 'blue'" in capsys.readouterr().err
    assert run(*look, "--class=blue") == 0
    metrics = read(place / "BLUE" / "result.json")["metrics"]
    assert metrics["inputs/score_after"] > metrics["inputs/score_before"] + 1
    seen = place / "BLUE" / "figures" / "inputs" / "image_0.png"
    asked = ["--mode=predict", f"--checkpoint={folder}", f"--workdir={place / 'SAID_BLUE'}"]
    assert run(*asked, f"--inputs={seen}") == 0
    assert "blue" in json.loads((place / "SAID_BLUE" / "predictions.jsonl").read_text())["caption"]


@pytest.fixture(scope="module")
def trained(place, figures):
    """The folder of a run, of a decoder that learned from the maps of a frozen encoder."""
    folder = place / "RUN"
    assert run(*common(place, *FROZEN, f"--workdir={folder}")) == 0
    return folder


def test_predicted_sentences_of_the_test_files_score_as_the_test_split_does(place, trained):
    """Pictures of odd sizes, some of which lie on their side in their files."""
    images, rng, rows = place / "odd", np.random.default_rng(1), []
    images.mkdir()
    for i in range(30):
        colour, side = list(COLOURS)[i % 3], ("left", "right")[i // 3 % 2]
        height, width = (int(n) for n in rng.integers(23, 71, 2))
        picture = rng.integers(0, 60, (height, width, 3), np.uint8)
        x = width // 12 if side == "left" else 7 * width // 12
        picture[height // 3 : 2 * height // 3, x : x + width // 3] = COLOURS[colour][::-1]  # RGB
        if i % 3 == 1:
            save_turned(images / f"{i}.jpg", picture)
        else:
            cv2.imwrite(str(images / f"{i}.jpg"), picture[..., ::-1])
        rows.append(f"{i}.jpg#0\tA {colour} square on the {side} .")
    (place / "odd.txt").write_text("\n".join(rows) + "\n")
    given = f"captions:{images}:{place / 'odd.txt'}"
    checkpoint, out = f"--checkpoint={trained}", [place / "EVALUATED_ODD", place / "SAID_ODD"]
    evaluate = ["--mode=evaluate", checkpoint, "--parallel=single", f"--dataset={given}"]
    assert run(*evaluate, f"--workdir={out[0]}") == 0

    split = own_captions.load(given.removeprefix("captions:")).splits["test"]
    files = [split.examples.files[i] for i in split.positions]
    asked = f"--inputs={','.join(files)}"
    assert run("--mode=predict", checkpoint, asked, f"--workdir={out[1]}") == 0
    said = [json.loads(line) for line in (out[1] / "predictions.jsonl").open()]
    sentences = {row["file"]: row["caption"].split() for row in said}
    true = [[words(text) for text in split[i]["captions"]] for i in range(len(files))]
    scores = score([sentences[file] for file in files], true)
    metrics = read(out[0] / "result.json")["metrics"]
    assert {f"test/{name}" for name in scores} <= metrics.keys() and len(files) == 6
    for name, value in scores.items():
        assert metrics[f"test/{name}"] == pytest.approx(value, abs=1e-9), name
    assert metrics["test/bleu1"] > 0.3 and len({" ".join(s) for s in sentences.values()}) > 1


def test_another_network_of_the_same_weights_has_maps_of_its_own(place, monkeypatch):
    """As AlexNet with and without local response normalisation, which has no weights."""
    entry = models.available()["convnet"]
    other = entry._replace(make=functools.partial(entry.make, activation=jnp.tanh))
    monkeypatch.setitem(convnet.MODELS, "other", other)
    folder = place / "maps"

    def maps_of(backbone):
        config = captioning.Config(
            dataset=f"captions:{place / 'images'}:{place / 'token.txt'}",
            data_dir=str(folder),
            backbone=backbone,
            freeze="^backbone/",
            cache_features=True,
            image_size=16,
            model_options=("embedding=8", "features=8"),
            batch_size=8,
        )
        return np.asarray(captioning.build(config).data().train.examples.fields["features"])

    assert np.abs(maps_of("convnet") - maps_of("other")).max() > 0.1
    assert len(list((folder / "features").iterdir())) == 4  # train and test of two networks


def test_a_words_score_is_its_highest_logit_up_to_the_end_of_the_sentence():
    facts = {
        "words": ["a", "red", "square"],
        "preprocessing": Preprocessing((16, 16), 3, mean=(128.0,), std=(64.0,)).to_json(),
        "train_examples": 8,
        "monitored": "test",
    }
    sizes = {"embedding": 8, "features": 8}
    options = tuple(f"{name}={value}" for name, value in sizes.items())
    config = captioning.Config(backbone="convnet", model_options=options, max_length=6)
    experiment = captioning.build(config, facts)
    colours = np.random.default_rng(0).integers(0, 256, (16, 1, 1, 3))
    images = np.broadcast_to(colours, (16, 16, 16, 3)).astype(np.uint8)
    variables = jax.jit(experiment.network.init)(jax.random.key(0))
    last = variables["params"]["logits"]  # larger, so that sentences are of several lengths
    last |= {"kernel": 8 * last["kernel"], "bias": last["bias"].at[END].set(0.5)}
    outputs = jax.jit(experiment.evaluation.predict)(variables, {"image": images})
    assert experiment.network.names.of[3:] == ("<unknown>", "a", "red", "square")

    model = models.create("spatial_attention", vocabulary=7, backbone_name="convnet", **sizes)
    standardised = jnp.asarray((images.astype("f") - 128) / 64)
    maps_of, begin, step = (
        jax.jit(partial(model.apply, method=name)) for name in ("maps", "begin", "step")
    )
    lengths = set()
    for i, tokens in enumerate(np.asarray(outputs["tokens"])):
        state = begin(variables, maps_of(variables, standardised[i : i + 1]))
        highest, previous = np.full(7, -np.inf), BEGIN
        for token in tokens:
            state, logits = step(variables, state, jnp.array([previous]))
            highest, previous = np.maximum(highest, logits[0]), token
            if token == END:
                break
        lengths.add(np.count_nonzero(tokens))
        np.testing.assert_allclose(outputs["words"][i, 4:], highest[4:], rtol=1e-4, atol=1e-4)
    assert len(lengths) > 1


@pytest.mark.families
def test_without_attention_the_whole_network_learns_from_captions_cut_short(place):
    folder = place / "TELL"
    flags = ["--model=show_and_tell", "--steps=2", "--validation=0.2", f"--workdir={folder}"]
    assert run(*common(place, *flags, "--max_length=6", "--cut_long")) == 0
    metrics = read(folder / "result.json")["metrics"]
    assert {"validation/bleu4", "test/bleu4"} <= metrics.keys()
    assert not (folder / "figures" / "test" / "attention.png").exists()


def test_what_is_held_out_keeps_all_its_words(place):
    config = captioning.Config(
        dataset=f"captions:{place / 'images'}:{place / 'token.txt'}",
        backbone="convnet",
        image_size=16,
        model_options=("embedding=8", "features=8"),
        batch_size=8,
        max_length=6,
        cut_long=True,
        validation=0.2,
    )
    data = captioning.build(config).data()
    longest = lambda tokens: (tokens != PADDING).sum(-1).max() - 1  # END is no word
    assert longest(tokens_of(data.train.examples)) == 6
    assert longest(tokens_of(data.evals["test"].examples)) == 8
    assert longest(tokens_of(data.evals["validation"].examples)) == 8
    assert len(data.train.examples) == 15 and len(data.evals["validation"].examples) == 4


@pytest.mark.families
@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_eight_devices_train_the_same_captioner_as_one(place, mode):
    """Attention, its penalty, dropout, chosen references, moved pictures; by plain SGD."""
    config = captioning.Config(
        dataset=f"captions:{place / 'images'}:{place / 'token.txt'}",
        backbone="convnet",
        image_size=16,
        model_options=("embedding=8", "features=8", "dropout=0.2"),
        references=1,
        batch_size=16,
        shift=0.1,
        attention_penalty=0.5,
        optimizer="sgd",
        learning_rate=0.1,
        steps=2,
    )
    experiment = captioning.build(config)
    batches = [experiment.data().train.batch(step) for step in range(2)]
    batches[0]["mask"][13:] = False  # a ragged batch
    alone, many = train(experiment, "single", batches), train(experiment, mode, batches)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=2e-5), alone, many)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max_length=6"], "--max_length=6: 19 of 38 captions are longer, the longest has 8"),
        (["--min_count=99"], "--min_count=99: no word of the captions comes so often"),
        (["--beam_width=3"], "--beam_width: has no effect on --decoding=greedy, only on beam"),
        (["--mixup=0.2"], "--mixup: this experiment mixes no"),
        (
            ["--model=show_and_tell", "--attention_penalty=1"],
            "--attention_penalty: --model=show_and_tell has no attention",
        ),
        (["--cache_features"], "--cache_features: the encoder changes; add --freeze"),
        (["--cache_features", "--freeze=^backbone/", "--mirror"], "--mirror changes the maps"),
        (["--feature_map=stage9"], "unknown feature_map 'stage9'. Did you mean 'stage"),
        (["--backbone=resnet19"], "unknown backbone 'resnet19'"),
        (["--model_options=embeding=3"], "Did you mean 'embedding'"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_before_anything_is_written(place, capsys, flags, message):
    assert run(*common(place, *flags, f"--workdir={place / 'BAD'}")) == 2
    error = capsys.readouterr().err
    assert message in error, error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not (place / "BAD").exists()
