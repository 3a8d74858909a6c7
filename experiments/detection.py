"""Where is what? From one object's box to YOLO and Faster R-CNN.

    python launch.py --experiment=detection

trains a YOLO without anchors on 16,000 made-up scenes of handwritten digits on textures (1,000
other scenes, of other digits, for the test), in some three minutes on two cores; docs/results.md
has what it and the other detectors score.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research.config import option, redefault, refuse_unused
from research.data.config import ImageDataConfig, ObjectAugmentation
from research.detection.config import USED_BY, DetectionConfig
from research.training.config import TrainingConfig

if TYPE_CHECKING:
    from research.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Config(DetectionConfig, ObjectAugmentation, ImageDataConfig, TrainingConfig):
    """Detection"""

    max_objects: int = option(
        0, "Room for objects in an image, at least 1; 0: as many as the data need.", minimum=0
    )
    drop_bad_boxes: bool = option(
        False, "Leave out boxes that are inverted, without area, outside or no numbers."
    )
    # The recipe of the default run, for scenes of digits.
    dataset: str = redefault(TrainingConfig, "dataset", "digit_scenes")
    batch_size: int = redefault(TrainingConfig, "batch_size", 32)
    learning_rate: float = redefault(TrainingConfig, "learning_rate", 2e-3)
    steps: int = redefault(TrainingConfig, "steps", 1500)
    scale: float = redefault(ObjectAugmentation, "scale", 0.2)
    shift: float = redefault(ObjectAugmentation, "shift", 0.1)


def build(config: Config, facts: Mapping[str, Any] | None = None) -> "Experiment":
    """The experiment, from its data set, or from the facts that lie in a checkpoint.

    Raises:
      UserError: for names that are unknown, and data that do not fit the detector or the facts.
    """
    # Imported here, so that --help answers without loading JAX.
    import jax
    import jax.numpy as jnp
    import numpy as np

    from research import detection
    from research.data import augment as augment_lib
    from research.data import pipeline
    from research.data.objects import to_original
    from research.data.preprocessing import Preprocessing
    from research.detection import inputs, running
    from research.experiment import Data, Experiment, Named
    from research.figures import detection as figures
    from research.metrics import box_bias
    from research.metrics import detection as metrics
    from research.metrics.bias import Bias
    from research.training.recipe import make_recipe
    from research.weights import trained as trained_weights

    refuse_unused(config, "model", USED_BY)

    # --- Data, and the facts that travel with the weights ---
    dataset = functools.cache(lambda: inputs.load(config))
    splits = functools.cache(
        lambda preprocessing: inputs.open_splits(dataset(), preprocessing, config)
    )

    trains = facts is None  # a checkpoint holds all the weights: what it started from is past
    trained = trained_weights.of_config(config, config.backbone) if trains else None
    if facts is None:
        raw = inputs.choose_preprocessing(config, dataset())
        facts = {
            "class_names": list(dataset().class_names),
            "sizes": inputs.typical_sizes(splits(raw)["train"], config),
            **pipeline.learn_facts(config, raw, splits(raw), trained),
        }
    preprocessing = Preprocessing.from_json(facts["preprocessing"])
    class_names = tuple(facts["class_names"])
    components = np.array(facts.get("colour_components", np.eye(3)), np.float32)

    def data() -> Data:
        pipeline.check_classes(config, dataset(), class_names)
        opened = splits(preprocessing.unnormalised())
        return pipeline.make_data(opened, config, config.seed, lambda: inputs.inspect(dataset()))

    # --- Detector ---
    setting = detection.Setting(
        preprocessing.image_size, len(class_names), tuple(map(tuple, facts["sizes"]))
    )
    detector = detection.make(config, setting)

    def standardised(batch: Mapping[str, Any]) -> jax.Array:
        return preprocessing.standardise(jnp.asarray(batch["image"]))

    def init(key: jax.Array, batch: Mapping[str, Any]) -> Any:
        side = detector.model_size or preprocessing.image_size
        shape = (1, *side, preprocessing.channels)
        return detector.model.init(key, jnp.zeros(shape, jnp.float32))

    # --- Training ---
    def augment(key: jax.Array, batch: Mapping[str, Any], axis: str | None) -> dict[str, Any]:
        keys = augment_lib.example_keys(key, batch["index"], batch["occurrence"])
        return inputs.augment(config, keys, dict(batch), components, axis)

    def loss(
        variables: Any, batch: Mapping[str, Any], key: jax.Array, axis: str | None
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        run = running.Training(
            detector.model,
            variables,
            standardised(batch),
            config.precision,
            key,
            axis,
            recipe.frozen,
        )
        per_example, parts = detector.loss(run, batch, key)
        return per_example, run.state, parts

    recipe = make_recipe(
        config,
        init,
        preprocessing.blank(),
        facts["train_examples"],
        trains=trains,
        trained=trained,
        below="backbone",
    )

    # --- Evaluation and prediction ---
    def predict(variables: Any, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
        run = running.Evaluation(detector.model, variables, standardised(batch), config.precision)
        return detector.predict(run, batch)

    def measure(outputs: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        return {**metrics.measure(outputs, batch), **detector.measure(outputs, batch)}

    def in_original(
        outputs: Mapping[str, np.ndarray], batch: Mapping[str, Any]
    ) -> dict[str, np.ndarray]:
        """Boxes, and points where there are some, in pixels of the original images."""
        moved = {"boxes": to_original(outputs["boxes"], batch["size"], preprocessing)}
        if "points" in outputs:
            flat = np.concatenate([outputs["points"]] * 2, axis=-1)  # boxes without area
            moved["points"] = to_original(flat, batch["size"], preprocessing)[..., :2]
        return {**outputs, **moved}

    def score(outputs: Mapping[str, np.ndarray], targets: Mapping[str, Any]) -> dict[str, float]:
        return metrics.score(
            in_original(outputs, targets), in_original(targets, targets), class_names
        )

    def bias(outputs: Mapping[str, np.ndarray], targets: Mapping[str, Any]) -> Bias:
        return box_bias.of_boxes(in_original(outputs, targets), in_original(targets, targets))

    def draw(outputs: Mapping[str, np.ndarray], batch: Mapping[str, Any]) -> dict[str, Any]:
        if "boxes" not in batch:  # a person's own files: `save` draws them
            return {}
        drawn = figures.predictions(batch["image"], outputs, batch, class_names)
        return {"predictions": drawn}

    def draw_split(outputs: Mapping[str, np.ndarray], targets: Mapping[str, Any]) -> dict[str, Any]:
        pictures = {
            "precision_recall": figures.curves(outputs, targets, class_names),
            "confusion": figures.confusions(outputs, targets, class_names),
        }
        return {name: picture for name, picture in pictures.items() if picture is not None}

    def describe(
        outputs: Mapping[str, np.ndarray], batch: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        return running.describe(in_original(outputs, batch), batch["size"], class_names)

    def save(folder: Path, files: list[str], outputs: Any, batch: Mapping[str, Any]) -> None:
        running.save_pictures(folder, files, in_original(outputs, batch), class_names)

    return Experiment(
        init=init,
        start=recipe.start,
        loss=loss,
        augment=augment,
        optimizer=recipe.optimizer,
        learning_rate=recipe.learning_rate,
        predict=predict,
        measure=measure,
        score=score,
        bias=bias,
        draw=draw,
        draw_split=draw_split,
        read=lambda files: inputs.read(files, preprocessing, config),
        describe=describe,
        save=save,
        collect=lambda folder, rows: running.write_coco_results(folder, rows, class_names),
        data=data,
        facts=facts,
        named=Named(class_names if detector.classifies else (), "evidence"),
        protocol={**metrics.PROTOCOL, **detector.protocol},
        best=(f"{facts['monitored']}/{detector.best[0]}", detector.best[1]),
    )
