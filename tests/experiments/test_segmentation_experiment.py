"""The segmentation experiment on a person's own small pictures, in one process."""

import dataclasses
import json

import jax
import numpy as np
import PIL.Image
import pytest

import launch
from experiments import segmentation
from research.data.masks import IGNORE
from research.evaluation import make_evaluate
from research.training import parallel as parallel_lib

SIDE = 24
TINY = ("width=4", "depth=1")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Ten pictures of a bright square on a dark ground, of two sizes, with palette masks."""
    root = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    (root / "images").mkdir()
    (root / "masks").mkdir()
    for i in range(10):
        mask = np.zeros((SIDE, SIDE), "u1")
        top, left = rng.integers(0, SIDE - 10, 2)
        mask[top : top + 10, left : left + 10] = 1
        image = (40 + 150 * mask[..., None] + rng.integers(0, 20, (SIDE, SIDE, 3))).astype("u1")
        PIL.Image.fromarray(image).save(root / "images" / f"{i}.png")
        picture = PIL.Image.fromarray(mask)
        picture.putpalette([0, 0, 0, 255, 0, 0])
        picture.save(root / "masks" / f"{i}.png")
    (root / "masks" / "classes.txt").write_text("0 ground\n1 square\n")
    return root


def config(scenes, **options):
    options = {"model_options": TINY, "batch_size": 4, "steps": 4, "parallel": "single"} | options
    return segmentation.Config(
        **{"dataset": f"masks:{scenes / 'images'}:{scenes / 'masks'}", **options}
    )


def test_training_evaluation_and_masks_of_a_person_s_own_files(scenes, tmp_path, capsys):
    run = tmp_path / "run"
    flags = [
        "launch.py",
        "--experiment=segmentation",
        f"--dataset=masks:{scenes / 'images'}:{scenes / 'masks'}",
        f"--model_options={','.join(TINY)}",
        "--batch_size=8",
        "--eval_batch_size=8",
        "--steps=6",
        "--eval_every=6",
        "--border_weight=5",
        "--class_weights=balanced",
        "--rand_score",
        "--crop_size=16",
        "--compilation_cache=",
        f"--data_dir={tmp_path / 'data'}",
    ]
    assert launch.main([*flags, f"--workdir={run}"]) == 0
    result = json.loads((run / "result.json").read_text())
    metrics = result["metrics"]
    assert {"test/mIoU", "test/dice", "test/boundary_f1", "test/rand_score"} <= set(metrics)
    assert {"test/iou/ground", "test/iou/square", "test/cross_entropy"} <= set(metrics)
    assert {name.partition("/")[2] for name in metrics if name.count("/") == 1} <= set(
        result["protocol"]
    )
    assert (run / "figures/test/predictions.png").stat().st_size > 10_000
    assert (run / "figures/test/classes.png").exists()

    # Two files of one name, one of them larger than the model's images.
    mine = tmp_path / "mine"
    (mine / "a").mkdir(parents=True)
    (mine / "b").mkdir()
    rng = np.random.default_rng(0)
    sizes = {"a": (31, 47), "b": (20, 18)}
    for name, size in sizes.items():
        pixels = rng.integers(0, 255, (*size, 3)).astype("u1")
        PIL.Image.fromarray(pixels).save(mine / name / "x.png")
    for options in ([], ["--tile=44"]):
        out = tmp_path / f"predicted{len(options)}"
        predict = ["launch.py", "--mode=predict", f"--checkpoint={run}", f"--inputs={mine}"]
        predict += [f"--workdir={out}", "--compilation_cache=", *options]
        assert launch.main(predict) == 0
        rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
        for row, size, file in zip(rows, sizes.values(), ("x.png", "x-2.png"), strict=True):
            picture = PIL.Image.open(out / "masks" / file)
            assert picture.mode == "P" and picture.size == size[::-1]
            labels = np.asarray(picture)
            assert set(np.unique(labels)) <= {0, 1}
            assert row["shares"].get("square", 0.0) == pytest.approx((labels == 1).mean())
        assert (out / "predictions.png").exists()
    # In tiles an image keeps its own size, whatever the others' are.
    predict[3:] = [f"--inputs={mine / 'b'}", f"--workdir={tmp_path / 'alone'}", *predict[5:]]
    assert launch.main(predict) == 0
    both, alone = out / "masks/x-2.png", tmp_path / "alone/masks/x.png"
    np.testing.assert_array_equal(PIL.Image.open(both), PIL.Image.open(alone))
    capsys.readouterr()


def test_augmentation_moves_image_mask_and_border_weights_together(scenes):
    options = {"rotation": 40.0, "shift": 0.2, "elastic_alpha": 20.0, "mirror": True}
    experiment = segmentation.build(config(scenes, border_weight=5.0, **options))
    batch = experiment.data().train.batch(0)
    mask = batch["segmentation"]
    # Pictures of their own masks: wherever those go, the pictures must show it.
    batch["image"] = np.repeat(mask[..., None] * 200, 3, axis=-1)
    batch["border"] = mask.astype(np.float16)
    new = jax.jit(lambda b: experiment.augment(jax.random.key(0), b, None))(batch)
    known = np.asarray(new["segmentation"]) != IGNORE
    square = np.asarray(new["segmentation"]) == 1
    for seen in (np.asarray(new["image"])[..., 0] > 100, np.asarray(new["border"]) > 0.5):
        assert (seen == square)[known].mean() > 0.97
    assert not np.array_equal(new["segmentation"], mask)
    # What came from outside counts for nothing, and is there.
    assert (~known).any() and not np.asarray(new["border"])[~known].max() > 0.6


def test_crops_are_the_same_of_image_and_mask_and_reach_every_place(scenes):
    experiment = segmentation.build(config(scenes, crop_size=10))
    batch = experiment.data().train.batch(0)
    place = np.arange(SIDE**2).reshape(SIDE, SIDE)
    batch["image"] = np.stack([np.stack([place // SIDE, place % SIDE, 0 * place], -1)] * 4)
    batch["image"] = batch["image"].astype("u1")
    batch["segmentation"] = np.stack([place % 7] * 4).astype("u1")
    crop = jax.jit(lambda key, b: experiment.augment(key, b, None))
    corners = set()
    for seed in range(30):
        new = crop(jax.random.key(seed), batch)
        rows, columns = (np.rint(np.asarray(new["image"])[..., k]).astype(int) for k in (0, 1))
        assert rows.shape == (4, 10, 10)
        np.testing.assert_array_equal(new["segmentation"], (rows * SIDE + columns) % 7)
        corners |= {(int(r), int(c)) for r, c in zip(rows[:, 0, 0], columns[:, 0, 0], strict=True)}
    rows, columns = zip(*corners, strict=True)
    assert min(rows) == min(columns) == 0 and max(rows) == max(columns) == SIDE - 10


def test_ignored_pixels_change_neither_loss_nor_metrics(scenes):
    experiment = segmentation.build(config(scenes))
    data = experiment.data()
    batch = data.train.batch(0)
    # The network without statistics of the batch: what it sees stays as it is.
    variables = jax.jit(experiment.init)(jax.random.key(0), batch)
    hidden = dict(batch)
    hidden["segmentation"] = batch["segmentation"].copy()
    hidden["segmentation"][:, :8] = IGNORE
    lied = dict(hidden)
    run = jax.jit(lambda b: experiment.loss(variables, b, jax.random.key(0), None)[0])
    plain = run(batch)
    assert not np.allclose(run(hidden), plain)
    outputs = jax.jit(experiment.predict)(variables, batch)
    kept = jax.jit(experiment.keep)(outputs, lied)
    assert int(np.sum(kept["confusion"])) == 4 * (SIDE - 8) * SIDE
    value, weight = jax.jit(experiment.measure)(outputs, hidden)["cross_entropy"]
    assert weight.tolist() == [(SIDE - 8) * SIDE] * 4 and np.isfinite(value).all()


def test_metrics_do_not_depend_on_the_batch_size(scenes):
    results = []
    for size in (1, 2):
        experiment = segmentation.build(config(scenes, eval_batch_size=size))
        data = experiment.data()
        variables = jax.jit(experiment.init)(jax.random.key(0), data.train.batch(0))
        evaluate = make_evaluate(experiment, parallel_lib.create("single", size))
        results.append(evaluate(variables, data.evals["test"]).metrics)
    assert results[0] == pytest.approx(results[1], rel=1e-5)


def test_a_learned_network_finds_the_squares(scenes):
    """One batch, learned by heart: the whole path from pixels to scores is right."""
    options = {"learning_rate": 0.02, "steps": 40, "warmup": 0.1, "batch_size": 8}
    experiment = segmentation.build(config(scenes, **options))
    from research.training.state import create
    from research.training.step import make_train_step

    batch = experiment.data().train.batch(0)
    state = create(experiment, jax.jit(experiment.init)(jax.random.key(0), batch), False)
    step = jax.jit(make_train_step(experiment, 0, None))
    for _ in range(40):
        (state, _), _ = step(state, batch)
    outputs = jax.jit(experiment.predict)(state.variables, batch)
    scores = experiment.score(jax.device_get(jax.jit(experiment.keep)(outputs, batch)), {})
    assert scores["mIoU"] > 0.9, scores


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "cross_entropy+dise"}, "Did you mean 'dice'"),
        ({"model": "unet_leen"}, "Did you mean 'unet_lean'"),
        ({"model": "resnet18"}, "unknown model 'resnet18'"),
        ({"model_options": ("backbone=resnet18",)}, "--model_options=backbone=resnet18"),
        ({"mixup": 0.2}, "--mixup: mixes classes of whole images"),
        ({"dataset": "masks:here"}, "write masks:IMAGES_DIR:MASKS_DIR"),
    ],
)
def test_bad_input_is_one_line(scenes, options, message, capsys):
    from research.errors import UserError

    with pytest.raises(UserError, match=message):
        segmentation.build(config(scenes, **options))


def test_a_checkpoint_of_other_classes_is_refused(scenes):
    from research.errors import UserError

    facts = dict(segmentation.build(config(scenes)).facts)
    facts["class_names"] = ["ground", "boat"]
    with pytest.raises(UserError, match=r"has 2 classes \(ground, square, ...\), the checkpoint"):
        segmentation.build(config(scenes), facts).data()


def test_presets_are_configurations():
    from pathlib import Path

    from research import config as config_lib

    names = {row.name for row in config_lib.options(segmentation.Config)} | {"experiment"}
    for file in Path(launch.EXPERIMENTS, "presets/segmentation").glob("*.flags"):
        lines = [line for line in file.read_text().splitlines() if line.startswith("--")]
        assert {line[2:].partition("=")[0] for line in lines} <= names
    assert dataclasses.is_dataclass(segmentation.Config)
