"""Embedding: distances between pictures that also hold for classes never seen in training.

    python launch.py --experiment=embedding

trains on glyphs, characters of 13 scripts in 16 typefaces, with a triplet loss, and is tested on
356 characters it never saw.
"""

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, Literal

from research.config import option, redefault, refuse_unused
from research.data.config import Augmentation
from research.losses.config import USED_BY, LossConfig
from research.recognition.config import RecognitionConfig
from research.training.config import AugmentedTrainingConfig, TrainingConfig

if TYPE_CHECKING:
    from research.experiment import Batch, Data, Experiment, Facts, Pictures


@dataclasses.dataclass(frozen=True)
class Config(LossConfig, RecognitionConfig, AugmentedTrainingConfig):
    """Embedding"""

    model: str = option("conv4", "Backbone; --mode=list shows all with parameter counts.")
    embedding_size: int = option(64, "Numbers in an embedding, which has length 1.", minimum=1)
    model_options: tuple[str, ...] = option(
        (), "Attributes of the backbone, such as widths=64+64+64+64,layers=1."
    )
    pooling: Literal["average", "flatten"] = option(
        "average", "Way from the backbone's last map to a vector; flatten keeps places."
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
    # The recipe of the default run, for glyphs.
    dataset: str = redefault(TrainingConfig, "dataset", "glyphs")
    eval_batch_size: int = redefault(TrainingConfig, "eval_batch_size", 256)
    epochs: float = redefault(TrainingConfig, "epochs", 20.0)
    scale: float = redefault(Augmentation, "scale", 0.1)
    shift: float = redefault(Augmentation, "shift", 0.07)
    rotation: float = redefault(Augmentation, "rotation", 10.0)
    shear: float = redefault(Augmentation, "shear", 10.0)


def build(config: Config, facts: "Facts | None" = None) -> "Experiment":
    """Builds the experiment from its data set, or from the facts of a checkpoint.

    Raises:
      UserError: for names that are unknown, and batches or data that cannot be mined.
    """
    # Imported here, so that --help answers without loading JAX.
    import jax
    import jax.numpy as jnp
    import numpy as np

    from research import models
    from research.assembly import assemble, bind_images, make_training, taken
    from research.data.datasets import opener
    from research.data.images.augment import augment_batch, copies_of, turned_copies
    from research.data.images.preprocessing import Preprocessing
    from research.data.pipeline import Splits, refuse_both, refuse_unused_seed
    from research.data.sources.sampling import order_of
    from research.data.tasks import embedding as task
    from research.errors import UserError, choose
    from research.experiment import Evaluation, Evaluator, Experiment, Score
    from research.figures import embedding as figures
    from research.losses.embedding import PROXY_LOSSES, embedding_loss, watch_for_collapse
    from research.metrics import embedding as metrics
    from research.metrics.recognition import ways_of
    from research.nn.embedder import Embedder
    from research.random import stream
    from research.recognition import identification
    from research.vectors.neighbours import Metric

    # --- Data, and the facts that travel with the weights ---
    entry = choose(config.model, models.available(), "model")
    attributes = models.attributes(entry, config.model_options)
    dataset = opener(config, task.TASK)

    @functools.cache
    def divided() -> dict[str, Any]:
        refuse_both(config)
        splits = task.by_class(
            dataset(), config.validation, fold=config.fold, seed=config.split_seed
        )
        return splits | {"train": task.minable(dataset(), splits["train"], config.drop_small)}

    if facts is None:
        refuse_unused(config, "loss", USED_BY)
        if config.split_seed:
            refuse_unused_seed(config, not task.unseen(dataset()))

    def learned(raw: Preprocessing, splits: Splits) -> "Facts":
        labels = {split: splits.contents.new_labels(split) for split in divided()}
        ways = {split: ways_of(those) for split, those in labels.items() if split != "train"}
        return {"train_classes": np.unique(divided()["train"].labels).tolist(), "ways": ways}

    data = assemble(
        config,
        facts,
        dataset,
        entry,
        inspect=lambda found: task.inspect(found, divided()),
        classifier=config.model,
        attributes=attributes,
        divided=divided,
        by_class=True,
        classes=False,
        learned=learned,
    )
    if config.quarter_turns and len(set(data.preprocessing.image_size)) > 1:
        raise UserError("--quarter_turns: turns square images only; set --image_size.")
    train_classes = np.array(data.facts["train_classes"])
    turns, sides = 4 if config.quarter_turns else 1, 2 if config.mirrored_classes else 1

    def sources() -> "Data":
        if not data.trains:
            return data.sources()
        return data.sources(order=order_of(taken(config, data.facts), divided()["train"]))

    # --- Model ---
    model = Embedder(
        make_backbone=functools.partial(entry.make, **attributes),
        size=config.embedding_size,
        pooling=config.pooling,
        proxies=turns * sides * len(train_classes) if config.loss in PROXY_LOSSES else 0,
        siamese=config.loss == "siamese",
    )
    metric: Metric = "cityblock" if config.loss == "siamese" else "euclidean"
    network = bind_images(config, model, data.preprocessing)
    if data.trains:
        jax.eval_shape(network.init, jax.random.key(0))  # refuses other backbones

    # --- Training ---
    def augment(key: jax.Array, batch: "Batch", axis: str | None) -> "Batch":
        _, pictures = augment_batch(config, key, batch, data.components)
        classes = jnp.searchsorted(train_classes, batch["label"])
        if turns * sides > 1:  # an image and its copies are of as many classes
            copies = copies_of(stream(key, "turn"), classes, turns * sides)
            pictures = turned_copies(copies, pictures, turns)
            classes = turns * sides * classes + copies
        return {**batch, "image": pictures, "class": classes}

    def loss(
        variables: Any, batch: "Batch", key: jax.Array, axis: str | None
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        outputs, state = network.train(variables, network.see(batch), key=key, axis=axis)
        mining = stream(key, "mining")
        per_example, measures = embedding_loss(
            config, outputs, batch["class"], batch["mask"], mining, axis
        )
        return per_example, state, measures

    # --- Evaluation ---
    def embed(variables: Any, pictures: Any) -> jax.Array:
        outputs = network.evaluate(variables, network.see({"image": pictures}))
        # What the Siamese classifier compares: weighted city-block distances.
        embedding: jax.Array = outputs["embedding"] * outputs.get("weights", 1.0)
        return embedding

    def predict(variables: Any, batch: "Batch") -> dict[str, jax.Array]:
        outputs = {"embedding": embed(variables, batch["image"])}
        if "other" in batch:  # a pair
            outputs["other"] = embed(variables, batch["other"])
        return outputs

    def keep(outputs: "Batch", batch: "Batch") -> dict[str, jax.Array]:
        return {**outputs, "thumbnail": identification.thumbnails(jnp.asarray(batch["image"]))}

    def score(kept: "Batch", targets: "Batch") -> dict[str, Score]:
        return metrics.score_split(kept["embedding"], kept["thumbnail"], targets, metric)

    def draw_split(kept: "Batch", targets: "Batch") -> "Pictures":
        return figures.of_split(kept["embedding"], kept["thumbnail"], targets["label"], metric)

    distances = Evaluator(
        protocol=metrics.protocols(),
        keep=keep,
        score=score,
        bias=lambda kept, _: metrics.bias(kept["embedding"], normalised=metric == "euclidean"),
        draw_split=draw_split,
    )
    ways = data.facts["ways"][data.facts["monitored"]]
    watch = functools.partial(watch_for_collapse, config)
    training = make_training(config, network, data, loss, augment, watch=watch, below="backbone")
    return Experiment(
        network=network,
        training=training,
        evaluation=Evaluation(
            predict, {"distances": distances}, data.best(f"accuracy_{ways}way_1shot")
        ),
        data=sources,
        facts=data.facts,
        prediction=identification.answers(config, data.facts, data.preprocessing, metric),
    )
