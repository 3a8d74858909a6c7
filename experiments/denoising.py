"""Denoising: a small U-Net predicts a picture's noise, in units of --noise, and subtracts it.

    python launch.py --experiment=denoising

learns from scenes of digits; --mode=predict takes the noise off a person's own photographs.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research.config import option, redefault
from research.data.config import ImageConfig, Resize
from research.training.config import AugmentedTrainingConfig, ModelConfig, TrainingConfig

if TYPE_CHECKING:
    from research.experiment import Batch, Experiment, Facts, Pictures


@dataclasses.dataclass(frozen=True)
class Config(ModelConfig, AugmentedTrainingConfig):
    """Denoising"""

    noise: float = option(0.1, "Standard deviation of the noise, of values in 0..1.", minimum=0.0)
    model: str = redefault(ModelConfig, "model", "unet_lean")
    model_options: tuple[str, ...] = redefault(ModelConfig, "model_options", ("stem=1", "depth=2"))
    dataset: str = redefault(TrainingConfig, "dataset", "digit_scenes")
    batch_size: int = redefault(TrainingConfig, "batch_size", 16)
    steps: int = redefault(TrainingConfig, "steps", 600)
    learning_rate: float = redefault(TrainingConfig, "learning_rate", 3e-3)
    resize: Resize = redefault(ImageConfig, "resize", "crop")  # no black borders in the scores


def build(config: Config, facts: "Facts | None" = None) -> "Experiment":
    """Builds the experiment from its data set, or from the facts of a checkpoint."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from research import models
    from research.assembly import assemble, bind_images, make_training
    from research.data.datasets import opener
    from research.data.images.augment import augment_batch, example_keys, noise_like
    from research.data.tasks import images as task
    from research.errors import choose
    from research.experiment import Evaluation, Evaluator, Experiment, Prediction
    from research.figures import denoising as figures
    from research.metrics import restoration
    from research.random import stream
    from research.record.run_folder import save_images

    entry = choose(config.model, models.available("segmentation"), "model")
    dataset = opener(config, task.TASK)
    data = assemble(config, facts, dataset, entry, task.inspect, config.model)
    model = models.configured(entry, config, num_classes=data.preprocessing.channels)
    network = bind_images(config, model, data.preprocessing)

    def augment(key: jax.Array, batch: "Batch", axis: str | None) -> "Batch":
        _, clean = augment_batch(config, key, batch, data.components)
        keys = example_keys(stream(key, "noise"), batch["index"], batch["occurrence"])
        noise = noise_like(keys, clean)
        return {**batch, "image": clean + 255.0 * config.noise * noise, "noise": noise}

    def loss(variables: Any, batch: "Batch", key: jax.Array, axis: str | None) -> Any:
        noise, state = network.train(variables, network.see(batch), key=key, axis=axis)
        return jnp.square(noise - batch["noise"]).mean((1, 2, 3)), state, {}

    def predict(variables: Any, batch: "Batch") -> dict[str, jax.Array]:
        noisy = batch.get("noisy")  # a person's own images; else noise is added, always the same
        if noisy is None:
            keys = example_keys(stream(jax.random.key(config.seed), "noise"), batch["index"])
            noisy = batch["image"] + 255.0 * config.noise * noise_like(keys, batch["image"])
        noise = config.noise * network.evaluate(variables, network.see({"image": noisy}))
        return {"noisy": noisy / 255.0, "denoised": jnp.clip(noisy / 255.0 - noise, 0.0, 1.0)}

    def measure(outputs: Any, batch: "Batch") -> Any:
        return restoration.measure(outputs["denoised"], outputs["noisy"], batch["image"] / 255.0)

    def draw(outputs: Any, batch: "Batch") -> "Pictures":
        clean = {"clean": batch["image"] / 255.0} if "image" in batch else {}
        ours = {name: outputs[name] for name in ("noisy", "denoised")}
        return {"denoised": figures.rows(ours | clean)}

    def describe(outputs: Any, batch: "Batch") -> list[dict[str, Any]]:
        noise = np.sqrt(np.square(outputs["noisy"] - outputs["denoised"]).mean((1, 2, 3)))
        return [{"summary": f"noise of {x:.3f} taken off", "noise": float(x)} for x in noise]

    def save(folder: Path, files: list[str], outputs: Any, batch: "Batch") -> None:
        save_images(folder / "denoised", files, np.rint(255 * outputs["denoised"]).astype(np.uint8))

    read = lambda files: {"noisy": data.read_whole(files)}
    restored = Evaluator(restoration.PROTOCOL, measure, draw=draw)
    return Experiment(
        network=network,
        training=make_training(config, network, data, loss, augment),
        evaluation=Evaluation(predict, {"restored": restored}, data.best("psnr")),
        data=data.sources,
        facts=data.facts,
        prediction=Prediction(read, describe, alone=True, save=save),
    )
