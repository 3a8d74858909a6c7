"""Which class is each pixel? U-Net, FCN and DeepLab, trained from scratch or on a classifier.

    python launch.py --experiment=segmentation

trains a lean U-Net on the built-in scenes of handwritten digits (16,000 to train, 1,000 to test)
and paints their masks, in some four minutes on two cores; docs/results.md has what it scores.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from research.config import option, redefault
from research.data.config import ImageDataConfig
from research.training.config import ScheduleName, TrainingConfig

if TYPE_CHECKING:
    from research.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Config(ImageDataConfig, TrainingConfig):
    """Segmentation"""

    model: str = option("unet_lean", "Architecture; --mode=list shows all with parameter counts.")
    model_options: tuple[str, ...] = option(
        (),
        "Attributes of the model, such as width=16,depth=3,upsampling=nearest,backbone=resnet18.",
    )
    activation: str = option("", "Nonlinearity, such as relu or tanh; empty: the model's own.")
    initializer: str = option(
        "", "Initialiser of kernels, such as he, xavier or zeros; empty: the model's own."
    )
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


def build(config: Config, facts: Mapping[str, Any] | None = None) -> "Experiment":
    """The experiment, from its data set, or from the facts that lie in a checkpoint.

    Raises:
      UserError: for names that are unknown, and data that do not fit the model or the facts.
    """
    # Imported here, so that --help answers without loading JAX.
    import jax
    import jax.numpy as jnp
    import numpy as np

    from research import models, tiling
    from research.data import augment as augment_lib
    from research.data import datasets, images, masks, pipeline
    from research.data.border import WithBorder
    from research.data.masks import IGNORE
    from research.data.preprocessing import Mapped, Preprocessing, at_scale, fit, scale_of
    from research.data.source import Examples
    from research.data.splits import Labelled
    from research.data.tasks import segmentation as task
    from research.errors import UserError, choose
    from research.experiment import Data, Experiment, Named
    from research.figures import segmentation as figures
    from research.forward import forward
    from research.losses import segmentation as losses
    from research.metrics import class_bias
    from research.metrics import segmentation as metrics
    from research.models.unet import UNet
    from research.nn.activations import ACTIVATIONS
    from research.nn.initialisers import INITIALISERS
    from research.progress import console
    from research.random import stream
    from research.record import unused_path
    from research.training.recipe import make_recipe
    from research.weights import trained as trained_weights

    # --- Data, and the facts that travel with the weights ---
    entry = choose(config.model, models.available("segmentation"), "model")
    pixel_loss = losses.parse(config.loss)
    if config.mixup:
        raise UserError("--mixup: mixes classes of whole images; here every pixel has one.")
    dataset = functools.cache(
        lambda: datasets.load(
            config.dataset,
            config.data_dir,
            task.task(config.ignore_label),
            skip_corrupt=config.skip_corrupt,
        )
    )

    @functools.cache
    def own() -> dict[str, Labelled]:
        """The splits at their images' own sizes."""
        return pipeline.divide(dataset().splits, config)

    @functools.cache
    def splits(preprocessing: Preprocessing) -> pipeline.Splits:
        return pipeline.open_splits(dataset().splits, preprocessing, config, masks.fit_pair)

    trains = facts is None  # a checkpoint holds all the weights: what it started from is past
    attributes = models.attributes(entry, config.model_options)
    backbone = vars(entry.make(**attributes)).get(
        "backbone", ""
    )  # a classifier, where there is one
    trained = trained_weights.of_config(config, backbone or config.model) if trains else None
    if facts is None:
        raw = pipeline.choose_preprocessing(config, dataset(), entry, config.init_from)
        facts = {
            "class_names": list(dataset().class_names),
            **pipeline.learn_facts(config, raw, splits(raw), trained),
            "scale": scale_of(masks.sizes_of(own()["train"]), raw),
        }
        if config.class_weights == "balanced":
            pixels = masks.count_split(splits(raw)["train"], len(dataset().class_names))
            facts["class_weights"] = losses.balanced_weights(pixels).tolist()
        task.warn_of_shrinking(facts["scale"], raw.image_size)
    preprocessing = Preprocessing.from_json(facts["preprocessing"])
    class_names = tuple(facts["class_names"])
    classes = len(class_names)
    components = np.array(facts.get("colour_components", np.eye(3)), np.float32)
    scale = facts.get("scale", (1.0, 1.0))
    if config.tile and "scale" not in facts:
        console().print(
            "the checkpoint is older and does not say how its training images were resized: "
            "tiles are predicted at the images' own size",
            markup=False,
        )
    weights = np.ones(IGNORE + 1, np.float32)
    weights[:classes] = facts.get("class_weights", 1.0)

    def data() -> Data:
        pipeline.check_classes(config, dataset(), class_names)
        plain = preprocessing.unnormalised()
        opened = splits(plain)
        if config.border_weight:
            border = WithBorder(opened["train"], config.border_weight, config.border_sigma)
            opened = opened.replaced({"train": border})
        if config.tile:
            whole = functools.partial(masks.fit_pair_at_scale, scale=scale)
            evaluated = {split: Mapped(own()[split], plain, whole) for split in opened}
            opened = opened.replaced({**evaluated, "train": opened["train"]})
        return pipeline.make_data(
            opened,
            config,
            config.seed,
            lambda: task.inspect(dataset()),
            originals={split: masks.OwnSize(own()[split]) for split in opened},
            alone=config.tile > 0,
        )

    # --- Model ---
    attributes["num_classes"] = classes
    if config.activation:
        attributes["activation"] = choose(config.activation, ACTIVATIONS, "activation")
    if config.initializer:
        attributes["kernel_init"] = choose(config.initializer, INITIALISERS, "initializer")
    model = entry.make(**attributes)

    def standardised(batch: Mapping[str, Any]) -> jax.Array:
        return preprocessing.standardise(jnp.asarray(batch["image"]))

    def init(key: jax.Array, batch: Mapping[str, Any]) -> Any:
        return model.init(key, standardised(batch))

    # --- Training ---
    def augment(key: jax.Array, batch: Mapping[str, Any], axis: str | None) -> dict[str, Any]:
        keys = augment_lib.example_keys(key, batch["index"], batch["occurrence"])
        names = ["image", "segmentation", *(["border"] if config.border_weight else [])]
        arrays = [batch[name] for name in names]
        if config.crop_size:  # first, so that only the crop is moved
            arrays = augment_lib.random_crops(keys, config.crop_size, *arrays)
        pictures = augment_lib.augment(config, keys, arrays[0] / 255.0, components)
        changed = {
            "image": pictures * 255.0,
            "segmentation": augment_lib.move_masks(config, keys, arrays[1], IGNORE),
        }
        if config.border_weight:
            border = arrays[2].astype(jnp.float32)
            changed["border"] = augment_lib.move_maps(config, keys, border)
        return {**batch, **changed}

    def loss(
        variables: Any, batch: Mapping[str, Any], key: jax.Array, axis: str | None
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        logits, state = forward(
            model,
            variables,
            standardised(batch),
            precision=config.precision,
            train=True,
            key=stream(key, "dropout"),
            axis=axis,
            frozen=recipe.frozen,
        )
        labels = batch["segmentation"]
        valid = labels != IGNORE
        weight = jnp.asarray(weights)[labels]
        if config.border_weight:
            weight = weight + batch["border"]
        right = losses.pixel_mean((logits.argmax(-1) == labels).astype(jnp.float32), valid)
        return pixel_loss(logits, labels, valid, weight), state, {"pixel_accuracy": right}

    recipe = make_recipe(
        config,
        init,
        preprocessing.blank(),
        facts["train_examples"],
        trains=trains,
        trained=trained,
        below="backbone" if backbone else "",
    )

    # --- Evaluation and prediction ---
    def predict(variables: Any, batch: Mapping[str, Any]) -> jax.Array:
        """Log-probabilities [B, H, W, classes]."""
        inputs = standardised(batch)
        apply = functools.partial(forward, model, variables, precision=config.precision)
        height, width = inputs.shape[1:3]
        if not config.tile or max(height, width) <= config.tile:
            return jax.nn.log_softmax(apply(inputs)[0])
        if isinstance(model, UNet) and model.padding == "valid":
            # The image is mirrored once; tiles are cut from it (figure 2 of the paper).
            sides = [model.mirrored(n) for n in (height, width)]
            inputs = jnp.pad(inputs, ((0, 0), *sides, (0, 0)), mode="reflect")
            logits = tiling.predict_tiled(
                lambda x: apply(x, method="trunk")[0],
                inputs,
                config.tile + sum(model.mirrored(config.tile)),
                model.margin,
                model.multiple,
                model.lost,
            )[:, :height, :width]
        else:
            # Others see farther than a tile, so theirs are not equal: a quarter is left out.
            margin = config.tile // 4
            if isinstance(model, UNet):
                margin = model.margin + model.multiple - 1  # cells of the lowest level are whole
            network = lambda x: apply(x)[0]
            logits = tiling.predict_tiled(network, inputs, config.tile, margin, model.multiple)
        return jax.nn.log_softmax(logits)

    def used(height: int, width: int) -> Preprocessing:
        """What is done to an image of this size; see --tile."""
        if not config.tile:
            return preprocessing
        return at_scale(height, width, scale, preprocessing)

    def restored(mask: np.ndarray, height: int, width: int) -> np.ndarray:
        """A predicted mask at its image's own size: what is scored, and what is saved."""
        return masks.restore(mask, height, width, used(height, width))

    def tally(
        kept: Mapping[str, np.ndarray], batch: Mapping[str, Any], originals: Examples | None
    ) -> dict[str, np.ndarray]:
        assert originals is not None, "data() gives them"
        rows = []
        for number, mask in zip(batch["index"].tolist(), kept["predicted"], strict=True):
            labels = originals[number]["segmentation"]
            predicted = restored(mask, *labels.shape)
            rows.append(metrics.compare(labels, predicted, classes, rand=config.rand_score))
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def score(kept: Mapping[str, np.ndarray], targets: Mapping[str, Any]) -> dict[str, float]:
        return metrics.score(kept, class_names)

    def read(files: list[str]) -> dict[str, np.ndarray]:
        pictures = [images.read(file, preprocessing.white) for file in files]
        sizes = np.array([picture.shape[:2] for picture in pictures], np.int32)
        fitted = [fit(picture, used(*picture.shape[:2])) for picture in pictures]
        return {"image": np.stack(fitted), "size": sizes}

    def labels_of(outputs: np.ndarray, batch: Mapping[str, Any]) -> list[np.ndarray]:
        """Each image's mask, at the image's own size."""
        predicted = metrics.decide(outputs)
        return [
            restored(mask, *size)
            for mask, size in zip(predicted, batch["size"].tolist(), strict=True)
        ]

    def describe(outputs: np.ndarray, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
        rows = []
        for mask in labels_of(outputs, batch):
            shares = masks.count_classes(mask, classes) / max(np.sum(mask != IGNORE), 1)
            order = [int(k) for k in np.argsort(-shares, kind="stable") if shares[k]]
            found = {class_names[k]: float(shares[k]) for k in order}
            summary = ", ".join(f"{name} {value:.3f}" for name, value in list(found.items())[:4])
            rows.append({"summary": summary, "shares": found})
        return rows

    def save(folder: Path, files: list[str], outputs: np.ndarray, batch: Mapping[str, Any]) -> None:
        (folder / "masks").mkdir(exist_ok=True)
        for file, mask in zip(files, labels_of(outputs, batch), strict=True):
            masks.save_mask(unused_path(folder / "masks", Path(file).stem, ".png"), mask)

    def draw(outputs: np.ndarray, batch: Mapping[str, Any]) -> dict[str, Any]:
        predicted = metrics.decide(outputs)
        truth = batch.get("segmentation")  # a person's own files have none
        return {"predictions": figures.predictions(batch["image"], predicted, truth, class_names)}

    def draw_split(kept: Mapping[str, np.ndarray], targets: Mapping[str, Any]) -> dict[str, Any]:
        scores = score(kept, targets)
        return {"classes": figures.class_scores(scores, class_names)} if scores else {}

    return Experiment(
        init=init,
        start=recipe.start,
        loss=loss,
        augment=augment,
        optimizer=recipe.optimizer,
        learning_rate=recipe.learning_rate,
        predict=predict,
        measure=lambda outputs, batch: {
            "cross_entropy": metrics.cross_entropy(outputs, batch["segmentation"])
        },
        keep=lambda outputs, batch: {"predicted": metrics.decide(outputs)},
        tally=tally,
        score=score,
        bias=lambda kept, targets: class_bias.of_areas(kept["areas"], class_names),
        draw=draw,
        draw_split=draw_split,
        read=read,
        alone=config.tile > 0,
        describe=describe,
        save=save,
        data=data,
        facts=facts,
        named=Named(class_names),
        protocol=metrics.PROTOCOL,
        best=(f"{facts['monitored']}/mIoU", "max"),
    )
