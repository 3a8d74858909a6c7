"""Which class is in the picture? From LeNet-5 to EfficientNet, trained from scratch.

    python launch.py --experiment=classification

trains a small convolutional network on 5,000 handwritten MNIST digits that ship inside a package
(4,000 for training, 1,000 for the test).
"""

import dataclasses
import functools
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from research.config import option, options, redefault
from research.data.config import Augmentation, ImageDataConfig
from research.training.config import ScheduleName, TrainingConfig

if TYPE_CHECKING:
    from research.experiment import Experiment
    from research.report import Report

AUXILIARY_WEIGHT = 0.3  # of auxiliary classifiers' losses: Szegedy et al. 2015, section 5


@dataclasses.dataclass(frozen=True)
class Config(ImageDataConfig, TrainingConfig):
    """Classification"""

    model: str = option("convnet", "Architecture; --mode=list shows all with parameter counts.")
    activation: str = option("", "Nonlinearity, such as relu or tanh; empty: the model's own.")
    initializer: str = option(
        "", "Initialiser of kernels, such as he, xavier or zeros; empty: the model's own."
    )
    model_options: tuple[str, ...] = option(
        (), "Attributes of the model, such as width=16,normalise=false,dropout=0.5,hidden=64+32."
    )
    label_smoothing: float = option(
        0.0, "Share of each label that is spread over all classes.", minimum=0.0, maximum=0.99
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


def build(config: Config, facts: Mapping[str, Any] | None = None) -> "Experiment":
    """The experiment, from its data set, or from the facts that lie in a checkpoint.

    Raises:
      UserError: for names that are unknown, and data that do not fit the model or the facts.
    """
    # Imported here, so that --help answers without loading JAX.
    import jax
    import jax.numpy as jnp
    import numpy as np

    from research import models
    from research.data import augment as augment_lib
    from research.data import datasets, pipeline
    from research.data.preprocessing import Preprocessing, read_batch
    from research.data.tasks import classification as task
    from research.errors import choose
    from research.experiment import Data, Experiment, Named
    from research.figures import classification as figures
    from research.forward import forward
    from research.losses.classification import softmax_cross_entropy
    from research.metrics import class_bias
    from research.metrics import classification as metrics
    from research.nn.activations import ACTIVATIONS
    from research.nn.initialisers import INITIALISERS
    from research.random import stream
    from research.training.recipe import make_recipe
    from research.weights import trained as trained_weights

    # --- Data, and the facts that travel with the weights ---
    entry = choose(config.model, models.available(), "model")
    dataset = functools.cache(
        lambda: datasets.load(
            config.dataset, config.data_dir, task.TASK, skip_corrupt=config.skip_corrupt
        )
    )

    @functools.cache
    def splits(preprocessing: Preprocessing) -> pipeline.Splits:
        return pipeline.open_splits(dataset().splits, preprocessing, config)

    trains = facts is None  # a checkpoint holds all the weights: what it started from is past
    attributes = models.attributes(entry, config.model_options)
    trained = trained_weights.of_config(config, config.model, attributes) if trains else None
    if facts is None:
        raw = pipeline.choose_preprocessing(config, dataset(), entry, config.init_from)
        facts = {
            "class_names": list(dataset().class_names),
            **pipeline.learn_facts(config, raw, splits(raw), trained),
        }
    preprocessing = Preprocessing.from_json(facts["preprocessing"])
    class_names = tuple(facts["class_names"])
    components = np.array(facts.get("colour_components", np.eye(3)), np.float32)

    def data() -> Data:
        pipeline.check_classes(config, dataset(), class_names)
        opened = splits(preprocessing.unnormalised())
        return pipeline.make_data(opened, config, config.seed, lambda: task.inspect(dataset()))

    # --- Model ---
    attributes["num_classes"] = len(class_names)
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
        pictures = augment_lib.augment(config, keys, batch["image"] / 255.0, components)
        targets = jax.nn.one_hot(batch["label"], len(class_names))
        pictures, targets = augment_lib.mixup(
            config.mixup, keys, pictures, targets, batch["mask"], axis
        )
        return {**batch, "image": pictures * 255.0, "target": targets}

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
        auxiliary = jax.tree.leaves(state.pop("auxiliary", {}))
        per_example, *others = (
            softmax_cross_entropy(x, batch["target"], config.label_smoothing)
            for x in (logits, *auxiliary)
        )
        right = (logits.argmax(-1) == batch["label"]).astype(jnp.float32)
        return per_example + AUXILIARY_WEIGHT * sum(others), state, {"accuracy": right}

    recipe = make_recipe(
        config,
        init,
        preprocessing.blank(),
        facts["train_examples"],
        trains=trains,
        trained=trained,
    )

    # --- Evaluation and prediction ---
    def predict(variables: Any, batch: Mapping[str, Any]) -> jax.Array:
        """Log-probabilities [B, classes]."""
        logits, _ = forward(model, variables, standardised(batch), precision=config.precision)
        return jax.nn.log_softmax(logits)

    def describe(outputs: np.ndarray, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
        rows = []
        for probabilities in np.exp(outputs):
            order = np.argsort(-probabilities)[:5]
            top = {class_names[i]: float(probabilities[i]) for i in order}
            summary = ", ".join(f"{name} {value:.2f}" for name, value in list(top.items())[:3])
            rows.append({"summary": summary, "class": class_names[order[0]], "probabilities": top})
        return rows

    def draw(outputs: np.ndarray, batch: Mapping[str, Any]) -> dict[str, Any]:
        labels = batch.get("label")  # a person's own files have none
        found = figures.predictions(batch["image"], np.exp(outputs), labels, class_names)
        return {"predictions": found}

    def draw_split(outputs: np.ndarray, targets: Mapping[str, Any]) -> dict[str, Any]:
        probabilities, labels = np.exp(outputs), targets["label"]
        return {
            "confusion": figures.confusions(probabilities, labels, class_names),
            "calibration": figures.reliability(probabilities, labels),
        }

    return Experiment(
        init=init,
        start=recipe.start,
        loss=loss,
        augment=augment,
        optimizer=recipe.optimizer,
        learning_rate=recipe.learning_rate,
        predict=predict,
        measure=lambda outputs, batch: metrics.measure(outputs, batch["label"]),
        score=lambda outputs, targets: metrics.score(outputs, targets["label"], class_names),
        bias=lambda outputs, targets: class_bias.of_shares(
            targets["label"], outputs.argmax(1), class_names
        ),
        draw=draw,
        draw_split=draw_split,
        read=lambda files: read_batch(files, preprocessing),
        describe=describe,
        data=data,
        facts=facts,
        named=Named(class_names),
        protocol=metrics.PROTOCOL,
        best=(f"{facts['monitored']}/accuracy", "max"),
    )


def pretrained(config: Config, given: Collection[str] = ()) -> tuple[Config, dict[str, Any], Any]:
    """A trained network of --init_from as if it were a checkpoint: its config, facts, variables.

    Args:
      given: the names of the flags that were typed: of images, those say otherwise than the
        weights' own preprocessing.

    Raises:
      UserError: for names that are unknown, weights that do not fit --model, and flags that have no
        effect.
    """
    import jax

    from research import models, weights
    from research.data.normalisation import unlearned
    from research.errors import UserError, choose
    from research.weights import trained as trained_weights
    from research.weights.pretrained import PRETRAINED

    refuse_training(config, given)
    source = f"--model={config.model} --init_from={config.init_from}"
    if config.init_from in PRETRAINED:
        known = PRETRAINED[config.init_from]
        if "model" in given and config.model != known.model:
            raise UserError(f"{source}: is {known.model}; leave --model out.")
        config = dataclasses.replace(config, model=known.model)
    entry = choose(config.model, models.available(), "model")
    attributes = models.attributes(entry, config.model_options)
    trained = trained_weights.of_config(config, config.model, attributes)
    assert trained is not None
    preprocessing = trained.preprocessing
    if config.image_size:
        preprocessing = dataclasses.replace(preprocessing, image_size=(config.image_size,) * 2)
    if "resize" in given:
        preprocessing = dataclasses.replace(preprocessing, resize=config.resize)
    preprocessing = unlearned(preprocessing, config.input_normalisation)
    if config.init_from in PRETRAINED:
        names = list(known.class_names())
        if not names:
            raise UserError(
                f"--init_from={config.init_from}: is a trunk without a classifier; look into it "
                "with --experiment=input_optimization."
            )
    else:
        model = entry.make(**attributes)
        image = preprocessing.standardise(preprocessing.blank()["image"])
        shapes = jax.eval_shape(model.init, jax.random.key(0), image)
        head = weights.into(shapes, trained.tensors, new_head=True, source=source)
        names = [f"class {k}" for k in range(head.outputs or model.num_classes)]
    facts = {
        "class_names": names,
        "preprocessing": preprocessing.to_json(),
        "train_examples": 1,
        "monitored": "",
    }
    experiment = build(config, facts)
    shapes = jax.eval_shape(experiment.init, jax.random.key(0), preprocessing.blank())
    return config, facts, weights.into(shapes, trained.tensors, source=source).variables


# What has an effect on a network that --init_from names and nothing trains.
NOT_TRAINED = {
    *("init_from", "init_as", "model", "model_options", "activation", "precision", "batch_size"),
    *("image_size", "resize", "input_normalisation", "dataset", "validation", "skip_corrupt"),
}


def refuse_training(config: Config, given: Collection[str]) -> None:
    """Raises UserError for the flags of training, where nothing is trained."""
    from research.errors import UserError

    for row in options(type(config)):
        decides = row.changes_result and row.learned
        if row.name in given and decides and row.name not in NOT_TRAINED:
            raise UserError(
                f"--{row.flag}: is about training, and has no effect on the weights of "
                "--init_from; leave it out."
            )


def diagnose(config: Config) -> "Report":
    """What initialisation and nonlinearity do to a batch's signals, layer by layer.

    Of each of four initialisers with tanh and ReLU, or of those that --initializer and --activation
    name, before any training.
    """
    import jax
    import jax.numpy as jnp

    from research import models
    from research.data.preprocessing import Preprocessing
    from research.losses.classification import softmax_cross_entropy
    from research.understanding import activations

    experiment = build(config)
    batch = experiment.data().train.batch(0)
    facts = experiment.facts
    targets = jax.nn.one_hot(batch["label"], len(facts["class_names"]))
    entry = models.available()[config.model]
    attributes = models.attributes(entry, config.model_options)
    attributes["num_classes"] = len(facts["class_names"])
    return activations.compare(
        lambda **chosen: entry.make(**attributes, **chosen),
        Preprocessing.from_json(facts["preprocessing"]).standardise(jnp.asarray(batch["image"])),
        lambda logits: softmax_cross_entropy(logits, targets),
        (config.initializer,) if config.initializer else activations.COMPARED_INITIALISERS,
        (config.activation,) if config.activation else activations.COMPARED_ACTIVATIONS,
        config.seed,
    )
