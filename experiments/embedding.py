"""Is this the same? Distances that also hold for classes never seen in training.

    python launch.py --experiment=embedding

trains on glyphs, characters of 13 scripts in 16 typefaces, with a triplet loss, and is tested on
356 characters it never saw.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from research.config import option, redefault, refuse_unused
from research.data.config import Augmentation, ImageDataConfig
from research.training.config import TrainingConfig

if TYPE_CHECKING:
    from research.experiment import Experiment

COLLAPSED = 1e-3  # spread of unit vectors, below which all are as good as one
LossName = Literal["triplet", "contrastive", "supcon", "siamese", "softmax", "arcface", "proxy_nca"]


@dataclasses.dataclass(frozen=True)
class PredictionConfig:
    """Prediction"""

    gallery: str = option(
        "",
        "Whom inputs may be: a folder with one subfolder or file an identity, or the "
        "embeddings.npz that an earlier prediction left.",
        changes_result=False,
        saved=False,
        only="predict",
    )
    pairs: str = option(
        "",
        "CSV file of pairs to verify, two image files a line.",
        changes_result=False,
        saved=False,
        only="predict",
    )
    threshold: float = option(
        0.0,
        "Distance beyond which nobody is the same; 0: as was found when it was evaluated.",
        minimum=0.0,
        changes_result=False,
        saved=False,
        only="predict",
    )


@dataclasses.dataclass(frozen=True)
class Config(PredictionConfig, ImageDataConfig, TrainingConfig):
    """Embedding"""

    model: str = option("conv4", "Backbone; --mode=list shows all with parameter counts.")
    embedding_size: int = option(64, "Numbers in an embedding, which has length 1.", minimum=1)
    model_options: tuple[str, ...] = option(
        (), "Attributes of the backbone, such as widths=64+64+64+64,layers=1."
    )
    pooling: Literal["average", "flatten"] = option(
        "average", "How the backbone's last map becomes a vector; flatten keeps where things are."
    )
    loss: LossName = option("triplet", "What is minimised.")
    mining: Literal["batch_hard", "batch_all", "semi_hard", "random"] = option(
        "batch_hard", "triplet: which triplets of the global batch."
    )
    distance: Literal["plain", "squared"] = option("plain", "triplet: Euclidean, or its square.")
    margin: float = option(
        0.3,
        "triplet, contrastive: a distance; arcface: an angle, radians (0.5 as published).",
        minimum=0.0,
    )
    logit_scale: float = option(
        16.0,
        "supcon, softmax, arcface, proxy_nca: factor of the cosines or distances.",
        minimum=0.0,
    )
    images_per_class: int = option(
        4, "K images of each of P classes make a batch; --batch_size is P K.", minimum=1
    )
    drop_small: bool = option(False, "Leave classes of one image out instead of stopping.")
    quarter_turns: bool = option(
        False, "Turn all images of a class by 0, 90, 180 or 270 degrees: four classes for one."
    )
    mirrored_classes: bool = option(
        False, "Mirror all images of a class, or none: two classes for one."
    )
    stop_on_collapse: bool = option(
        False, "Stop when all embeddings have become one.", changes_result=False
    )
    # The recipe of the default run, for glyphs.
    dataset: str = redefault(TrainingConfig, "dataset", "glyphs")
    eval_batch_size: int = redefault(TrainingConfig, "eval_batch_size", 256)
    epochs: float = redefault(TrainingConfig, "epochs", 20.0)
    rotation: float = redefault(Augmentation, "rotation", 10.0)
    shear: float = redefault(Augmentation, "shear", 10.0)
    scale: float = redefault(Augmentation, "scale", 0.1)
    shift: float = redefault(Augmentation, "shift", 0.07)


# The losses that a flag has an effect on, where it is not all of them.
USED_BY: dict[str, tuple[LossName, ...]] = {
    "mining": ("triplet",),
    "distance": ("triplet",),
    "margin": ("triplet", "contrastive", "arcface"),
    "logit_scale": ("supcon", "softmax", "arcface", "proxy_nca"),
}


def build(config: Config, facts: Mapping[str, Any] | None = None) -> "Experiment":
    """The experiment, from its data set, or from the facts that lie in a checkpoint.

    Raises:
      UserError: for names that are unknown, and batches or data that cannot be mined.
    """
    # Imported here, so that --help answers without loading JAX.
    import jax
    import jax.numpy as jnp
    import numpy as np
    from research.training.recipe import make_recipe

    from research import identification, models
    from research.data import augment as augment_lib
    from research.data import datasets, pipeline
    from research.data.overlap import Contents
    from research.data.preprocessing import Preprocessing
    from research.data.sampling import ClassesByImages
    from research.data.tasks import embedding as task
    from research.errors import UserError, choose
    from research.experiment import Data, Experiment
    from research.figures import embedding as figures
    from research.forward import forward
    from research.losses.embedding import PROXY_LOSSES, embedding_loss
    from research.metrics import embedding as metrics
    from research.metrics.recognition import MOST_WAYS, ways_of
    from research.neighbours import Metric
    from research.nn.embedder import Embedder
    from research.random import stream
    from research.weights import trained as trained_weights

    # --- Data, and the facts that travel with the weights ---
    if config.mixup:
        raise UserError("--mixup: mixes classes, which this experiment tells apart; leave it out.")
    entry = choose(config.model, models.available(), "model")
    dataset = functools.cache(
        lambda: datasets.load(
            config.dataset, config.data_dir, task.TASK, skip_corrupt=config.skip_corrupt
        )
    )

    @functools.cache
    def labelled() -> dict[str, Any]:
        splits = task.by_class(dataset(), config.validation)
        return splits | {"train": task.minable(dataset(), splits["train"], config.drop_small)}

    @functools.cache
    def opened(preprocessing: Preprocessing) -> pipeline.Splits:
        # It is split by class already.
        return pipeline.fitted(labelled(), preprocessing, config, by_class=True)

    def ways(contents: Contents) -> dict[str, int]:
        """Classes of an episode, of each split that is evaluated."""
        seen = contents.trained()
        return {
            split: ways_of(examples.labels[~contents.left_out(split, seen)])
            for split, examples in labelled().items()
            if split != "train"
        }

    def order() -> ClassesByImages:
        if config.batch_size % config.images_per_class:
            raise UserError(
                f"--batch_size={config.batch_size} is no multiple of "
                f"--images_per_class={config.images_per_class}."
            )
        if config.accumulate > 1 and config.images_per_class < 2 * config.accumulate:
            raise UserError(
                f"--accumulate={config.accumulate}: its parts hold fewer than two of the "
                f"--images_per_class={config.images_per_class}, so no example has a positive; set "
                f"--images_per_class={2 * config.accumulate} or more."
            )
        classes = config.batch_size // config.images_per_class
        labels = labelled()["train"].labels
        return ClassesByImages(labels, classes, config.images_per_class, config.seed)

    trains = facts is None
    backbone_options = models.attributes(entry, config.model_options)
    trained = trained_weights.of_config(config, config.model, backbone_options) if trains else None
    if facts is None:
        refuse_unused(config, "loss", USED_BY)
        order()  # batches that cannot be made are refused before anything is written
        raw = pipeline.choose_preprocessing(config, dataset(), entry, config.init_from)
        facts = {
            "train_classes": np.unique(labelled()["train"].labels).tolist(),
            "ways": ways(opened(raw).contents),
            **pipeline.learn_facts(config, raw, opened(raw), trained),
        }
    preprocessing = Preprocessing.from_json(facts["preprocessing"])
    if config.quarter_turns and len(set(preprocessing.image_size)) > 1:
        raise UserError("--quarter_turns: turns square images only; set --image_size.")
    components = np.array(facts.get("colour_components", np.eye(3)), np.float32)
    train_classes = np.array(facts["train_classes"])
    turns, sides = 4 if config.quarter_turns else 1, 2 if config.mirrored_classes else 1

    def data() -> Data:
        made = pipeline.make_data(
            opened(preprocessing.unnormalised()),
            config,
            config.seed,
            lambda: task.inspect(dataset(), labelled()),
        )
        if not trains:
            return made
        return made._replace(train=dataclasses.replace(made.train, order=order()))

    # --- Model ---
    model = Embedder(
        make_backbone=functools.partial(entry.make, **backbone_options),
        size=config.embedding_size,
        pooling=config.pooling,
        proxies=turns * sides * len(train_classes) if config.loss in PROXY_LOSSES else 0,
        siamese=config.loss == "siamese",
    )
    metric: Metric = "cityblock" if config.loss == "siamese" else "euclidean"

    def standardised(pictures: Any) -> jax.Array:
        return preprocessing.standardise(jnp.asarray(pictures))

    def init(key: jax.Array, batch: Mapping[str, Any]) -> Any:
        return model.init(key, standardised(batch["image"]))

    if trains:
        jax.eval_shape(init, jax.random.key(0), preprocessing.blank())  # refuses other backbones

    # --- Training ---
    def augment(key: jax.Array, batch: Mapping[str, Any], axis: str | None) -> dict[str, Any]:
        keys = augment_lib.example_keys(key, batch["index"], batch["occurrence"])
        pictures = augment_lib.augment(config, keys, batch["image"] / 255.0, components)
        classes = jnp.searchsorted(train_classes, batch["label"])
        if turns * sides > 1:  # an image and its copies are of as many classes
            class_keys = augment_lib.example_keys(stream(key, "turn"), classes)
            copy = jax.vmap(lambda k: jax.random.randint(k, (), 0, turns * sides))(class_keys)
            mirrored = (copy >= turns)[:, None, None, None]
            pictures = jnp.where(mirrored, pictures[:, :, ::-1], pictures)
            if turns > 1:
                pictures = augment_lib.quarter_turn(copy % turns, pictures)
            classes = turns * sides * classes + copy
        return {**batch, "image": pictures * 255.0, "class": classes}

    def loss(
        variables: Any, batch: Mapping[str, Any], key: jax.Array, axis: str | None
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        outputs, state = forward(
            model,
            variables,
            standardised(batch["image"]),
            precision=config.precision,
            train=True,
            key=stream(key, "dropout"),
            axis=axis,
            frozen=recipe.frozen,
        )
        mining = stream(key, "mining")
        per_example, measures = embedding_loss(
            config, outputs, batch["class"], batch["mask"], mining, axis
        )
        return per_example, state, measures

    def watch(means: Mapping[str, float]) -> str | None:
        if means["train/spread"] >= COLLAPSED:
            return None
        spread, value = means["train/spread"], means["train/loss"]
        message = (
            f"the embeddings have collapsed into one point: their spread is {spread:.1e}, the loss "
            f"{value:.3f} (--margin={config.margin:g}). Lower --learning_rate, raise "
            "--warmup, or mine easier triplets (--mining=semi_hard, batch_all)."
        )
        if config.stop_on_collapse:
            raise UserError(message)
        return message

    recipe = make_recipe(
        config,
        init,
        preprocessing.blank(),
        facts["train_examples"],
        trains=trains,
        trained=trained,
        below="backbone",
    )

    # --- Evaluation ---
    def embed(variables: Any, pictures: Any) -> jax.Array:
        pictures = standardised(pictures)
        outputs, _ = forward(model, variables, pictures, precision=config.precision)
        # What the Siamese classifier compares: weighted city-block distances.
        return outputs["embedding"] * outputs.get("weights", 1.0)

    def predict(variables: Any, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
        outputs = {"embedding": embed(variables, batch["image"])}
        if "other" in batch:  # a pair
            outputs["other"] = embed(variables, batch["other"])
        return outputs

    def keep(outputs: dict[str, jax.Array], batch: Mapping[str, Any]) -> dict[str, jax.Array]:
        return outputs | {"thumbnail": identification.thumbnails(jnp.asarray(batch["image"]))}

    def score(kept: dict[str, np.ndarray], targets: Mapping[str, Any]) -> dict[str, float]:
        return metrics.score_split(kept["embedding"], kept["thumbnail"], targets, metric)

    def draw_split(kept: dict[str, np.ndarray], targets: Mapping[str, Any]) -> dict[str, Any]:
        return figures.of_split(kept["embedding"], kept["thumbnail"], targets["label"], metric)

    experiment = Experiment(
        init=init,
        start=recipe.start,
        loss=loss,
        augment=augment,
        optimizer=recipe.optimizer,
        learning_rate=recipe.learning_rate,
        predict=predict,
        measure=lambda outputs, batch: {},
        keep=keep,
        score=score,
        bias=lambda kept, _: metrics.bias(kept["embedding"], normalised=metric == "euclidean"),
        draw_split=draw_split,
        watch=watch,
        data=data,
        facts=facts,
        protocol={
            name: line
            for number in range(2, MOST_WAYS + 1)  # of other data, and of what is left of them
            for name, line in metrics.protocol(number).items()
        },
        best=(f"{facts['monitored']}/accuracy_{facts['ways'][facts['monitored']]}way_1shot", "max"),
    )
    return identification.with_prediction(experiment, config, preprocessing, metric)
