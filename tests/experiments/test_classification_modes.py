"""--mode=study and --mode=diagnose as a person uses them; heads of files without names."""

import csv
import dataclasses
import json
import math

import jax
import numpy as np
import PIL.Image
import pytest
import toys
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

import launch
from experiments import classification
from research import models
from research.errors import UserError
from research.weights.naming import torch_name, torch_shape
from research.weights.origin import IMAGENET

XOR = [
    "--experiment=classification",
    "--dataset=xor",
    "--batch_size=4",
    "--optimizer=adam",
    "--schedule=constant",
    "--learning_rate=0.05",
    "--weight_decay=0",
    "--steps=120",
    "--log_every=20",
    *("--rotation=0", "--scale=0", "--shift=0"),
    "--parallel=single",
    "--compilation_cache=",
]


def study(folder, *flags):
    return launch.main(
        ["x", "--mode=study", *XOR, f"--data_dir={folder}", f"--workdir={folder / 'study'}", *flags]
    )


def read(path):
    """The rows of a file of comma-separated values; the content of one of JSON."""
    if path.suffix == ".json":
        return json.loads(path.read_text())
    with open(path) as file:
        return list(csv.DictReader(file))


@pytest.mark.families
def test_two_layers_learn_xor_and_one_does_not(tmp_path, capsys, figures):
    flags = ["--variant=--model=linear", "--variant=--model=xor", "--repeats=2"]
    assert study(tmp_path, *flags) == 0
    rows = read(tmp_path / "study" / "compare.csv")
    assert [(row["variant"], row["seed"]) for row in rows] == [
        ("model=linear", "0"),
        ("model=linear", "1"),
        ("model=xor", "0"),
        ("model=xor", "1"),
    ]
    for row in rows:
        if row["variant"] == "model=linear":
            # The best that a line can do is to say nothing: Minsky and Papert 1969.
            assert float(row["test/accuracy"]) <= 0.75
            assert float(row["test/cross_entropy"]) == pytest.approx(math.log(2), abs=0.01)
        else:
            assert row["test/accuracy"] == "1.0" and float(row["test/cross_entropy"]) < 0.1
    drawn = figures[tmp_path / "study" / "curves.png"]
    assert drawn.has("train/loss", "test/accuracy", "step", "model=linear", "model=xor")
    # The mean of both runs: in each panel a line for each variant, by step and by seconds.
    assert len(drawn.lines) == 8
    for linear, xor in (drawn.lines[4:6], drawn.lines[6:8]):
        assert xor[-1, 1] == 1 > linear[-1, 1]
    said = capsys.readouterr().out
    assert "100 ± 0" in next(x for x in said.splitlines() if x.startswith(" model=xor"))
    assert "verdict  model=xor: no inference" in said

    # Again: nothing is trained, the table is shown.
    assert study(tmp_path, *flags) == 0
    assert "step 20/120" not in capsys.readouterr().out
    assert read(tmp_path / "study" / "compare.csv") == rows


@pytest.mark.families
def test_a_variant_that_diverges_is_a_row_of_the_study(tmp_path, capsys):
    flags = ["--variant=--learning_rate=1e30", "--variant=--learning_rate=0.01", "--repeats=1"]
    assert study(tmp_path, "--model=xor", "--activation=relu", *flags) == 3
    first, second = read(tmp_path / "study" / "compare.csv")
    assert "the loss is" in first["failure"] and first["test/accuracy"] == ""
    assert second["failure"] == "" and 0 <= float(second["test/accuracy"]) <= 1
    said = capsys.readouterr().out
    assert "failed   learning_rate=1e30, seed=0: the loss is" in said
    assert "1 of 2 runs complete, 1 failed (1 not_finite)" in said


def test_a_study_is_refused_before_its_first_run_is_trained(tmp_path, capsys):
    assert study(tmp_path) == 2
    assert "needs variants" in capsys.readouterr().err
    assert study(tmp_path, "--variant=--model=xor", "--variant=--model=xoor") == 2
    assert "Did you mean 'xor'" in capsys.readouterr().err
    assert study(tmp_path, "--variant=--modell=xor") == 2
    assert "modell" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


def test_diagnosis_shows_which_initialisation_keeps_signals_alive(tmp_path, capsys, figures):
    out = tmp_path / "out"
    code = launch.main(
        [
            "x",
            "--experiment=classification",
            "--mode=diagnose",
            "--model=mlp",
            "--model_options=hidden=50+50+50+50",
            "--compilation_cache=",
            f"--data_dir={tmp_path}",
            f"--workdir={out}",
        ]
    )
    assert code == 0
    rows = read(out / "diagnose.json")
    assert len(rows) == 2 * 5 * 5
    gradient = {}
    for row in rows:
        gradient.setdefault((row["activation"], row["initialiser"]), []).append(row["gradient"])
    for activation in ("tanh", "relu"):
        assert gradient[activation, "zeros"] == [0] * 5
        assert max(gradient[activation, "normal"]) < 1e-3 < min(gradient[activation, "he"])
    assert rows[-1]["saturated"] is None  # no nonlinearity after the last layer
    drawn = figures[out / "signals.png"]
    assert drawn.has("tanh: ", "relu: ", "zeros", "normal", "xavier", "he")
    assert {len(line) for line in drawn.lines} == {5}  # a point for each layer
    printed = capsys.readouterr().out
    assert "saturated" in printed and "xavier" in printed


def weights_file(folder, name, options, side=32):
    """Random weights of a model of 37 classes. safetensors sorts names: the last is no head's."""
    entry = models.available()[name]
    model = entry.make(num_classes=37, **models.attributes(entry, options))
    image = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
    shapes = flatten_dict(dict(jax.eval_shape(model.init, jax.random.key(0), image)))
    rng = np.random.default_rng(0)
    file = folder / "weights.safetensors"
    save_file(
        {
            torch_name(path): rng.uniform(0.5, 1, torch_shape(x.shape, path)).astype("f")
            for path, x in shapes.items()
        },
        file,
    )
    return file


@pytest.mark.parametrize(
    ("name", "options"), [("resnet18", ("width=4",)), ("vgg16", ("width=4", "hidden=8"))]
)
def test_the_classes_of_a_file_are_counted_at_the_models_head(tmp_path, name, options):
    file = weights_file(tmp_path, name, options)
    config = classification.Config(
        model=name, init_from=str(file), image_size=32, model_options=options
    )
    _, facts, variables = classification.pretrained(config)
    assert facts["class_names"] == [f"class {k}" for k in range(37)]
    head = {"resnet18": "fc", "vgg16": "classifier_6"}[name]
    assert variables["params"][head]["bias"].shape == (37,)


def test_grey_images_become_what_trained_weights_expect(tmp_path):
    file = weights_file(tmp_path, "resnet18", ("width=4",))
    config = classification.Config(
        model="resnet18",
        init_from=str(file),
        image_size=32,
        model_options=("width=4",),
        data_dir=str(tmp_path),
    )
    facts = classification.build(config).facts
    assert facts["preprocessing"]["channels"] == 3
    assert facts["preprocessing"]["mean"] == list(IMAGENET["mean"])
    # MNIST has mean 0.1307, on 28x28 of the 32x32 pixels.
    mean = 0.1307 * 255 * (28 / 32) ** 2
    own = classification.build(dataclasses.replace(config, input_normalisation="standardised"))
    assert own.facts["preprocessing"]["mean"] == pytest.approx([mean] * 3, abs=0.3)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Pictures of many sizes: grey, palette, RGB, and taken with the camera on its side."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 5)):
        for k, name in enumerate(("dark", "left", "up")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                height, width = rng.integers(9, 60, 2)
                pixels = rng.integers(0, 120, (height, width, 3))
                pixels[: height // 2 if k == 2 else height, : width // 2 if k == 1 else width] += (
                    40 * k
                )
                picture = PIL.Image.fromarray(pixels.astype("u1"))
                if i == 0:
                    exif = PIL.Image.Exif()
                    exif[0x0112] = 8  # shown turned a quarter anticlockwise
                    picture = picture.transpose(PIL.Image.Transpose.ROTATE_270)
                    picture.save(folder / f"{i}.jpg", exif=exif)
                else:
                    picture.convert({1: "L", 2: "P"}.get(i, "RGB")).save(folder / f"{i}.png")
    return root


def test_predictions_of_the_test_files_score_what_evaluation_says(pictures, tmp_path):
    """Training's end, --mode=evaluate and files of --mode=predict: one pipeline, one number."""
    shared = ["x", "--experiment=classification", "--compilation_cache=", "--parallel=single"]
    run = [*shared, f"--dataset=folder:{pictures}", "--resize=crop", "--image_size=16"]
    run += ["--model=linear", "--batch_size=4", "--steps=6", "--learning_rate=0.001"]
    assert launch.main([*run, f"--workdir={tmp_path / 'run'}"]) == 0
    again = ["x", "--experiment=classification", f"--checkpoint={tmp_path / 'run'}"]
    again += ["--compilation_cache="]
    assert launch.main([*again, "--mode=evaluate", f"--workdir={tmp_path / 'evaluated'}"]) == 0
    metrics = read(tmp_path / "evaluated/result.json")["metrics"]
    assert metrics == read(tmp_path / "run/result.json")["metrics"]
    for folder in ("run", "evaluated"):
        found = toys.check_outcomes(tmp_path / folder, tmp_path / "run")["test"]
        assert sorted(found.names) == sorted(map(str, (pictures / "test").rglob("*.*")))

    out = tmp_path / "predicted"
    files = f"--inputs={pictures / 'test'}"
    assert launch.main([*again, "--mode=predict", files, f"--workdir={out}"]) == 0
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    true = [row["file"].split("/")[-2] for row in rows]
    right = [row["class"] == name for row, name in zip(rows, true, strict=True)]
    nats = [-math.log(row["probabilities"][name]) for row, name in zip(rows, true, strict=True)]
    assert len(rows) == 15 and 0 < sum(right) < 15
    assert metrics["test/accuracy"] == pytest.approx(np.mean(right))
    assert metrics["test/cross_entropy"] == pytest.approx(np.mean(nats), rel=1e-5)


def pretrained(file, *flags):
    """What --mode=predict makes of these flags."""
    _, module, config, given = launch.parse(
        ["x", f"--init_from={file}", "--model=alexnet", "--model_options=hidden=8", *flags]
    )
    _, facts, _ = module.pretrained(config, given)
    return facts["preprocessing"]


def test_flags_of_images_say_otherwise_than_the_weights_own_preprocessing(tmp_path):
    file = weights_file(tmp_path, "alexnet", ("hidden=8",), side=64)
    own = pretrained(file)
    assert own["image_size"] == [224, 224] and own["interpolation"] == "bilinear"
    assert own["crop_share"] == 224 / 256
    assert pretrained(file, "--image_size=64") == own | {"image_size": [64, 64]}
    assert pretrained(file, "--resize=pad") == own | {"resize": "pad"}
    raw = pretrained(file, "--input_normalisation=raw")
    assert raw == own | {"mean": [0.0], "std": [1.0]}


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--input_normalisation=whitened", "is learned from training images"),
        ("--optimizer=sgd", "--optimizer: is about training"),
        ("--rotation=0", "--rotation: is about training"),
        ("--init_as=resnet19", "Did you mean 'resnet18'"),
        ("--init_as=resnet18", "give --model=resnet18"),
    ],
)
def test_flags_without_effect_on_trained_weights_are_refused(tmp_path, flag, said):
    file = tmp_path / "weights.safetensors"
    save_file({"fc.weight": np.zeros((37, 8), "f")}, file)
    with pytest.raises(UserError, match=said):
        pretrained(file, flag)


def test_a_name_has_its_own_model():
    _, module, config, given = launch.parse(
        ["x", "--init_from=efficientnet_lite0", "--model=resnet18"]
    )
    with pytest.raises(UserError, match="leave --model out"):
        module.pretrained(config, given)


@pytest.mark.parametrize(
    "flags", [["--init_as=resnet18"], ["--init_as=b", "--init_from=hed_vgg16"]]
)
def test_what_weights_are_is_said_of_files_alone(tmp_path, flags):
    _, module, config, _ = launch.parse(["x", "--experiment=classification", *flags])
    with pytest.raises(UserError, match="--init_as: is for --init_from=FILE"):
        module.build(config)
