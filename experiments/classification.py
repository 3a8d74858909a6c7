"""Classification: names the class of a picture. From LeNet-5 to EfficientNet, from scratch.

    python launch.py --experiment=classification

trains a small convolutional network on 5,000 handwritten MNIST digits that ship inside a package
(4,000 for training, 1,000 for the test).
"""

import dataclasses
import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Literal

from research.config import option, redefault
from research.data.config import Augmentation
from research.modes import Modes
from research.training.config import (
    AugmentedTrainingConfig,
    ModelConfig,
    ScheduleName,
    TrainingConfig,
)

if TYPE_CHECKING:
    from research.experiment import Batch, Experiment, Facts, Pictures
    from research.record.report import Report

AUXILIARY_WEIGHT = 0.3  # of auxiliary classifiers' losses: Szegedy et al. 2015, section 5


@dataclasses.dataclass(frozen=True)
class Config(ModelConfig, AugmentedTrainingConfig):
    """Classification"""

    label_smoothing: float = option(
        0.0, "Share of each label that is spread over all classes.", minimum=0.0, maximum=0.99
    )
    test_crops: Literal["1", "5", "10"] = option(
        "1",
        "Crops of an image whose probabilities are averaged in evaluation and prediction: itself; "
        "corners and middle, 7/8 of its sides; these and their mirrors.",
        learned=False,
    )
    # The recipe of the default run, for digits.
    dataset: str = redefault(TrainingConfig, "dataset", "digits")
    batch_size: int = redefault(TrainingConfig, "batch_size", 64)
    learning_rate: float = redefault(TrainingConfig, "learning_rate", 0.01)
    schedule: ScheduleName = redefault(TrainingConfig, "schedule", "one_cycle")
    warmup: float = redefault(TrainingConfig, "warmup", 0.25)
    rotation: float = redefault(Augmentation, "rotation", 10.0)
    scale: float = redefault(Augmentation, "scale", 0.1)
    shift: float = redefault(Augmentation, "shift", 0.07)


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
    from research.assembly import assemble, bind_images, make_training
    from research.data.datasets import opener
    from research.data.images.augment import augment_batch, mixup
    from research.data.images.crops import crops
    from research.data.tasks import classification as task
    from research.errors import choose
    from research.experiment import Evaluation, Evaluator, Experiment, Prediction
    from research.figures import classification as figures
    from research.losses.classification import softmax_cross_entropy
    from research.metrics import class_bias
    from research.metrics import classification as metrics

    entry = choose(config.model, models.available(), "model")
    attributes = models.attributes(entry, config.model_options)
    dataset = opener(config, task.TASK)
    data = assemble(
        config,
        facts,
        dataset,
        entry,
        inspect=task.inspect,
        classifier=config.model,
        attributes=attributes,
        mixes=True,
    )
    classes = data.class_names
    model = models.configured(entry, config, num_classes=len(classes))
    network = bind_images(config, model, data.preprocessing, classes)

    # --- Training ---
    def augment(key: jax.Array, batch: "Batch", axis: str | None) -> "Batch":
        keys, pictures = augment_batch(config, key, batch, data.components)
        targets = jax.nn.one_hot(batch["label"], len(classes))
        pictures, targets = mixup(config.mixup, keys, pictures, targets, batch["mask"], axis)
        return {**batch, "image": pictures, "target": targets}

    def loss(
        variables: Any, batch: "Batch", key: jax.Array, axis: str | None
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        logits, state = network.train(variables, network.see(batch), key=key, axis=axis)
        auxiliary = jax.tree.leaves(state.pop("auxiliary", {}))
        per_example, *others = (
            softmax_cross_entropy(x, batch["target"], config.label_smoothing)
            for x in (logits, *auxiliary)
        )
        right = (logits.argmax(-1) == batch["label"]).astype(jnp.float32)
        return per_example + AUXILIARY_WEIGHT * sum(others), state, {"accuracy": right}

    # --- Evaluation and prediction ---
    def predict(variables: Any, batch: "Batch") -> jax.Array:
        """Returns log-probabilities [B, classes]."""
        log_probabilities = lambda images: jax.nn.log_softmax(
            network.evaluate(variables, network.see({**batch, "image": images}))
        )
        count = int(config.test_crops)
        if count == 1:
            return log_probabilities(batch["image"])
        each = jax.lax.map(log_probabilities, crops(jnp.asarray(batch["image"]), count))
        return jax.nn.logsumexp(each, 0) - math.log(count)

    def describe(outputs: np.ndarray, batch: "Batch") -> list[dict[str, Any]]:
        return [metrics.top_classes(row, classes) for row in np.exp(outputs)]

    def draw(outputs: np.ndarray, batch: "Batch") -> "Pictures":
        labels = batch.get("label")  # a person's own files have none
        found = figures.predictions(batch["image"], np.exp(outputs), labels, classes)
        return {"predictions": found}

    def draw_split(outputs: np.ndarray, targets: "Batch") -> "Pictures":
        probabilities, labels = np.exp(outputs), targets["label"]
        return {
            "confusion": figures.confusions(probabilities, labels, classes),
            "calibration": figures.reliability(probabilities, labels),
        }

    labels = Evaluator(
        protocol=metrics.PROTOCOL,
        measure=lambda outputs, batch: metrics.measure(outputs, batch["label"]),
        score=lambda outputs, targets: metrics.score(outputs, targets["label"], classes),
        bias=lambda outputs, targets: class_bias.of_shares(
            targets["label"], outputs.argmax(1), classes
        ),
        draw=draw,
        draw_split=draw_split,
    )
    return Experiment(
        network=network,
        training=make_training(config, network, data, loss, augment, answers=len(classes)),
        evaluation=Evaluation(
            predict, {"labels": labels}, data.best("accuracy"), loss="cross_entropy"
        ),
        data=data.sources,
        facts=data.facts,
        prediction=Prediction(data.read, describe, draw=draw),
    )


def pretrained(
    config: Config, given: Collection[str] = ()
) -> tuple[Config, dict[str, Any], dict[str, Any]]:
    """Opens a trained network of --init_from like a checkpoint: its config, facts, variables.

    Args:
      given: the names of the flags that were typed.

    Raises:
      UserError: for names that are unknown, weights that do not fit --model, and flags that have no
        effect.
    """
    from research.weights.classifier import open_pretrained

    return open_pretrained(config, given, build)


def diagnose(config: Config) -> "Report":
    """Measures the effect of initialisation and nonlinearity on signals, layer by layer.

    Takes five initialisers with tanh and ReLU, or those that --initializer and --activation name,
    before any training.
    """
    from research.understanding import activations

    return activations.of_classifier(config, build(config), config.seed)


MODES = Modes(reports={"diagnose": diagnose}, pretrained=pretrained)
