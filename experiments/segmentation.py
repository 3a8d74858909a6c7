"""Segmentation: names the class of each pixel. U-Net, FCN and DeepLab, also on a classifier.

    python launch.py --experiment=segmentation

trains a lean U-Net on the built-in scenes of handwritten digits (16,000 to train, 1,000 to test)
and paints their masks, in some four minutes on two cores; docs/results.md has what it scores.
"""

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from research.config import option, redefault
from research.training.config import (
    AugmentedTrainingConfig,
    ModelConfig,
    ScheduleName,
    TrainingConfig,
)

if TYPE_CHECKING:
    from research.experiment import Batch, Data, Experiment, Facts, Pictures


@dataclasses.dataclass(frozen=True)
class Config(ModelConfig, AugmentedTrainingConfig):
    """Segmentation"""

    model: str = redefault(ModelConfig, "model", "unet_lean")
    loss: str = option(
        "cross_entropy+dice", "Sum of cross_entropy, dice and focal; 0.5*dice counts half."
    )
    class_weights: Literal["none", "balanced"] = option(
        "none", "balanced: pixels count in proportion to 1 / sqrt(pixels of their class)."
    )
    border_weight: float = option(
        0.0, "w0 of U-Net's border weights (10), which part cells that touch; 0: none.", minimum=0.0
    )
    border_sigma: float = option(5.0, "Pixels over which border weights fall off.", minimum=0.1)
    ignore_label: int = option(
        -1, "Value in masks that counts for nothing; -1: 255, unless that is a class.", minimum=-1
    )
    crop_size: int = option(
        0, "Side of random crops of training images, pixels; 0: whole images.", minimum=0
    )
    tile: int = option(
        0,
        "Images are evaluated and predicted whole, resized as the training images were at the "
        "median, and where a side is then above this many pixels in tiles that overlap (equal to "
        "the whole with U-Net; other networks see farther than a tile, and DeepLab all of it); "
        "0: they are brought to the model's size.",
        minimum=0,
        learned=False,
    )
    rand_score: bool = option(
        False, "Also score connected components of the foreground, as for cells."
    )
    # The recipe of the default run, for digit_scenes.
    dataset: str = redefault(TrainingConfig, "dataset", "digit_scenes")
    batch_size: int = redefault(TrainingConfig, "batch_size", 16)
    eval_batch_size: int = redefault(TrainingConfig, "eval_batch_size", 64)
    steps: int = redefault(TrainingConfig, "steps", 2800)
    learning_rate: float = redefault(TrainingConfig, "learning_rate", 0.003)
    schedule: ScheduleName = redefault(TrainingConfig, "schedule", "one_cycle")
    warmup: float = redefault(TrainingConfig, "warmup", 0.2)


def build(config: Config, facts: "Facts | None" = None) -> "Experiment":
    """Builds the experiment from its data set, or from the facts of a checkpoint.

    Raises:
      UserError: for names that are unknown, and data that do not fit the model or the facts.
    """
    # Imported here, so that --help answers without loading JAX.
    import jax
    import jax.numpy as jnp
    import numpy as np

    from research import models
    from research.assembly import MOST_PLACES, assemble, bind_images, make_training
    from research.data.datasets import opener
    from research.data.images import augment as augment_lib
    from research.data.images import masks
    from research.data.images.border import WithBorder
    from research.data.images.masks import IGNORE
    from research.data.images.preprocessing import Mapped, Preprocessing, scale_of
    from research.data.images.restoring import Restoring, save_masks, shares_of
    from research.data.pipeline import Splits, divide
    from research.data.sources.examples import Examples
    from research.data.tasks import segmentation as task
    from research.errors import choose
    from research.experiment import Evaluation, Evaluator, Experiment, Prediction
    from research.figures import segmentation as figures
    from research.losses import segmentation as losses
    from research.metrics import class_bias
    from research.metrics import segmentation as metrics
    from research.models.tiling import in_tiles

    # --- Data, and the facts that travel with the weights ---
    entry = choose(config.model, models.available("segmentation"), "model")
    pixel_loss = losses.parse(config.loss)
    # The classifier inside the network, if it has one.
    backbone = vars(models.configured(entry, config)).get("backbone", "")

    dataset = opener(config, task.task(config.ignore_label))
    divided = functools.cache(lambda: divide(dataset().splits, config))

    def learned(raw: Preprocessing, splits: Splits) -> "Facts":
        scale = scale_of(masks.sizes_of(divided()["train"]), raw)
        task.warn_of_shrinking(scale, raw.image_size)
        if config.class_weights != "balanced":
            return {"scale": scale}
        pixels = masks.count_split(splits["train"], len(dataset().class_names))
        return {"scale": scale, "class_weights": losses.balanced_weights(pixels).tolist()}

    data = assemble(
        config,
        facts,
        dataset,
        entry,
        inspect=task.inspect,
        classifier=backbone or config.model,
        divided=divided,
        fit=lambda _: masks.fit_pair,
        largest=0 if config.crop_size else MOST_PLACES,
        learned=learned,
    )
    names, classes = data.class_names, len(data.class_names)
    restoring = Restoring.of(data.preprocessing, data.facts, whole=config.tile > 0)
    weights = np.ones(IGNORE + 1, np.float32)
    weights[:classes] = data.facts.get("class_weights", 1.0)

    def sources() -> "Data":
        opened = data.splits()
        if config.border_weight:
            border = WithBorder(opened["train"], config.border_weight, config.border_sigma)
            opened = opened.replaced({"train": border})
        if config.tile:
            plain = data.preprocessing.unnormalised()
            whole = functools.partial(masks.fit_pair_at_scale, scale=restoring.scale or (1.0, 1.0))
            evaluated = {split: Mapped(divided()[split], plain, whole) for split in opened}
            opened = opened.replaced({**evaluated, "train": opened["train"]})
        return data.sources(
            opened,
            originals={split: masks.OwnSize(divided()[split]) for split in opened},
            alone=config.tile > 0,
            large=("image", "segmentation"),
        )

    model: Any = models.configured(entry, config, num_classes=classes)
    network = bind_images(config, model, data.preprocessing, names)

    # --- Training ---
    def augment(key: jax.Array, batch: "Batch", axis: str | None) -> "Batch":
        keys = augment_lib.example_keys(key, batch["index"], batch["occurrence"])
        fields = ["image", "segmentation", *(["border"] if config.border_weight else [])]
        arrays = [batch[name] for name in fields]
        if config.crop_size:  # first, so that only the crop is moved
            arrays = augment_lib.random_crops(keys, config.crop_size, *arrays)
        pictures = augment_lib.augment(config, keys, arrays[0] / 255.0, data.components)
        changed = {
            "image": pictures * 255.0,
            "segmentation": augment_lib.move_masks(config, keys, arrays[1], IGNORE),
        }
        if config.border_weight:
            border = arrays[2].astype(jnp.float32)
            changed["border"] = augment_lib.move_maps(config, keys, border)
        return {**batch, **changed}

    def loss(
        variables: Any, batch: "Batch", key: jax.Array, axis: str | None
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        logits, state = network.train(variables, network.see(batch), key=key, axis=axis)
        labels = batch["segmentation"]
        valid = labels != IGNORE
        weight = jnp.asarray(weights)[labels]
        if config.border_weight:
            weight = weight + batch["border"]
        right = losses.pixel_mean((logits.argmax(-1) == labels).astype(jnp.float32), valid)
        return pixel_loss(logits, labels, valid, weight), state, {"pixel_accuracy": right}

    # --- Evaluation and prediction ---
    def predict(variables: Any, batch: "Batch") -> jax.Array:
        """Returns log-probabilities [B, H, W, classes]."""
        evaluate = functools.partial(network.evaluate, variables)
        return jax.nn.log_softmax(in_tiles(evaluate, model, network.see(batch), config.tile))

    def tally(kept: "Batch", batch: "Batch", originals: Examples | None) -> dict[str, np.ndarray]:
        assert originals is not None, "sources() gives them"
        compare = functools.partial(metrics.compare, classes=classes, rand=config.rand_score)
        numbers = batch["index"].tolist()
        return restoring.compare(kept["predicted"], originals, numbers, compare)

    def masks_of(outputs: np.ndarray, batch: "Batch") -> list[np.ndarray]:
        """Returns each image's mask, at the image's own size."""
        return restoring.restore_all(metrics.decide(outputs), batch["size"].tolist())

    def describe(outputs: np.ndarray, batch: "Batch") -> list[dict[str, Any]]:
        return [shares_of(mask, names) for mask in masks_of(outputs, batch)]

    def save(folder: Path, files: list[str], outputs: np.ndarray, batch: "Batch") -> None:
        save_masks(folder, files, masks_of(outputs, batch))

    def draw(outputs: np.ndarray, batch: "Batch") -> "Pictures":
        predicted = metrics.decide(outputs)
        truth = batch.get("segmentation")  # a person's own files have none
        return {"predictions": figures.predictions(batch["image"], predicted, truth, names)}

    def draw_split(kept: "Batch", targets: "Batch") -> "Pictures":
        scores = metrics.score(kept, names)
        return {"classes": figures.class_scores(scores, names)} if scores else {}

    pixels = Evaluator(
        protocol=metrics.PROTOCOL,
        measure=lambda outputs, batch: {
            "cross_entropy": metrics.cross_entropy(outputs, batch["segmentation"])
        },
        keep=lambda outputs, batch: {"predicted": metrics.decide(outputs)},
        tally=tally,
        score=lambda kept, targets: metrics.score(kept, names),
        bias=lambda kept, targets: class_bias.of_areas(kept["areas"], names),
        draw=draw,
        draw_split=draw_split,
    )
    below = "backbone" if backbone else ""
    return Experiment(
        network=network,
        training=make_training(
            config,
            network,
            data,
            loss,
            augment,
            below=below,
            answers=len(names) if config.loss == "cross_entropy" else 0,
        ),
        evaluation=Evaluation(predict, {"pixels": pixels}, data.best("mIoU"), loss="cross_entropy"),
        data=sources,
        facts=data.facts,
        prediction=Prediction(
            restoring.read, describe, alone=config.tile > 0, draw=draw, save=save
        ),
    )
