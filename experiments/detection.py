"""Detection: finds objects and their classes. From one object's box to YOLO and Faster R-CNN.

    python launch.py --experiment=detection

trains a YOLO without anchors on 16,000 made-up scenes of handwritten digits on textures (1,000
other scenes, of other digits, for the test), in some three minutes on two cores; docs/results.md
has what it and the other detectors score.
"""

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research.config import redefault, refuse_unused
from research.data.config import ObjectAugmentation
from research.detection.config import USED_BY, DetectionTrainingConfig
from research.training.config import TrainingConfig

if TYPE_CHECKING:
    from research.experiment import Batch, Experiment, Facts, Pictures


@dataclasses.dataclass(frozen=True)
class Config(DetectionTrainingConfig):
    """Detection"""

    # The recipe of the default run, for scenes of digits.
    dataset: str = redefault(TrainingConfig, "dataset", "digit_scenes")
    batch_size: int = redefault(TrainingConfig, "batch_size", 32)
    learning_rate: float = redefault(TrainingConfig, "learning_rate", 2e-3)
    steps: int = redefault(TrainingConfig, "steps", 1500)
    scale: float = redefault(ObjectAugmentation, "scale", 0.2)
    shift: float = redefault(ObjectAugmentation, "shift", 0.1)


def build(config: Config, facts: "Facts | None" = None) -> "Experiment":
    """Builds the experiment from its data set, or from the facts of a checkpoint.

    Raises:
      UserError: for names that are unknown, and data that do not fit the detector or the facts.
    """
    # Imported here, so that --help answers without loading JAX.
    import jax
    import jax.numpy as jnp

    from research.assembly import MOST_PLACES, assemble, bind, make_training
    from research.data.tasks.detection import inspect
    from research.detection import inputs, running
    from research.detection.detector import Setting, make
    from research.experiment import Evaluation, Evaluator, Experiment, Names, Prediction
    from research.figures import detection as figures
    from research.metrics import box_bias
    from research.metrics import detection as metrics
    from research.metrics.bias import Bias

    refuse_unused(config, "model", USED_BY)

    # --- Data, and the facts that travel with the weights ---
    dataset = functools.cache(lambda: inputs.load(config))
    if facts is None:
        inputs.check_size(config, dataset())

    data = assemble(
        config,
        facts,
        dataset,
        inputs.entry_of(config),
        inspect=inspect,
        classifier=config.backbone,
        fit=lambda found: inputs.fit_of(config, found),
        largest=MOST_PLACES,
        learned=lambda raw, splits: {"sizes": inputs.typical_sizes(splits["train"], config)},
    )
    classes, preprocessing = data.class_names, data.preprocessing

    # --- Detector ---
    setting = Setting(
        preprocessing.image_size, len(classes), tuple(map(tuple, data.facts["sizes"]))
    )
    detector = make(config, setting)
    side = detector.model_size or preprocessing.image_size
    network = bind(
        config,
        detector.model,
        jnp.zeros((1, *side, preprocessing.channels), jnp.float32),
        see=lambda batch: preprocessing.standardise(jnp.asarray(batch["image"])),
        names=Names(classes if detector.classifies else (), "evidence"),
    )

    # --- Training ---
    def augment(key: jax.Array, batch: "Batch", axis: str | None) -> "Batch":
        return inputs.augment(config, key, batch, data.components, axis)

    def loss(
        variables: Any, batch: "Batch", key: jax.Array, axis: str | None
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        forward = running.TrainingPass(network, variables, batch, key, axis)
        per_example, parts = detector.loss(forward, batch, key)
        return per_example, forward.state, parts

    # --- Evaluation and prediction ---
    def predict(variables: Any, batch: "Batch") -> dict[str, jax.Array]:
        return detector.predict(running.EvaluationPass(network, variables, batch), batch)

    def doubt(variables: Any, batch: "Batch") -> jax.Array:
        forward = running.EvaluationPass(network, variables, batch)
        return detector.loss(forward, batch, jax.random.key(config.seed))[0]

    def measure(outputs: Any, batch: "Batch") -> dict[str, Any]:
        return {**metrics.measure(outputs, batch), **detector.measure(outputs, batch)}

    def original(values: "Batch", batch: "Batch") -> Any:
        return inputs.in_original(values, batch["size"], preprocessing)

    def score(outputs: "Batch", targets: "Batch") -> dict[str, float]:
        return metrics.score(original(outputs, targets), original(targets, targets), classes)

    def bias(outputs: "Batch", targets: "Batch") -> Bias:
        return box_bias.of_boxes(original(outputs, targets), original(targets, targets))

    def draw(outputs: "Batch", batch: "Batch") -> "Pictures":
        drawn = {"predictions": figures.predictions(batch["image"], outputs, batch, classes)}
        if "regions" in outputs:  # of --draw_proposals
            drawn["proposals"] = figures.proposals(batch["image"], outputs["regions"])
        return drawn

    def draw_split(outputs: "Batch", targets: "Batch") -> "Pictures":
        pictures = {
            "precision_recall": figures.curves(outputs, targets, classes),
            "confusion": figures.confusions(outputs, targets, classes),
        }
        return {name: picture for name, picture in pictures.items() if picture is not None}

    def describe(outputs: "Batch", batch: "Batch") -> list[dict[str, Any]]:
        return running.describe(original(outputs, batch), batch["size"], classes)

    def save(folder: Path, files: list[str], outputs: Any, batch: "Batch") -> None:
        found = original(outputs, batch)
        running.save_pictures(folder, files, found, classes, preprocessing.white)

    protocol = {**metrics.PROTOCOL, **detector.protocol}
    boxes = Evaluator(protocol, measure, score=score, bias=bias, draw=draw, draw_split=draw_split)
    return Experiment(
        network=network,
        training=make_training(config, network, data, loss, augment, below="backbone"),
        evaluation=Evaluation(predict, {"boxes": boxes}, data.best(*detector.best), loss=doubt),
        data=data.sources,
        facts=data.facts,
        prediction=Prediction(
            read=lambda files: inputs.read(files, preprocessing, config),
            describe=describe,
            save=save,
            collect=lambda folder, rows: running.write_coco_results(folder, rows, classes),
        ),
    )
