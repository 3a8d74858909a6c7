"""Filtering: learns a 3x3 kernel from pairs of images, before and after filtering.

    python launch.py --experiment=filtering

finds Sobel's filter again from digits: no number of the learned kernel is off by more than 0.001.
`--mode=predict --checkpoint=RUN --inputs=photo.jpg` then filters a picture of your own.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from research.config import option, redefault
from research.data.config import ImageConfig
from research.training.config import (
    ImageTrainingConfig,
    OptimizerName,
    ScheduleName,
    TrainingConfig,
)

if TYPE_CHECKING:
    from research.experiment import Batch, Experiment, Facts, Pictures


@dataclasses.dataclass(frozen=True)
class Config(ImageTrainingConfig):
    """Filtering"""

    kernel: str = option(
        "sobel",
        "The filter to be found: a name, such as scharr or sobel_horizontal, or nine numbers, row "
        "by row: '1 0 -1 1 0 -1 1 0 -1'.",
    )
    noise: float = option(
        0.0, "Standard deviation of noise on the filtered images, of values in 0..1.", minimum=0.0
    )
    # The kernel meets brightness itself.
    input_normalisation: Literal["raw"] = redefault(ImageConfig, "input_normalisation", "raw")
    dataset: str = redefault(TrainingConfig, "dataset", "digits")
    steps: int = redefault(TrainingConfig, "steps", 300)
    batch_size: int = redefault(TrainingConfig, "batch_size", 32)
    optimizer: OptimizerName = redefault(TrainingConfig, "optimizer", "adam")
    learning_rate: float = redefault(TrainingConfig, "learning_rate", 1.0)
    schedule: ScheduleName = redefault(TrainingConfig, "schedule", "one_cycle")
    weight_decay: float = redefault(TrainingConfig, "weight_decay", 0.0)


def build(config: Config, facts: "Facts | None" = None) -> "Experiment":
    """Builds the experiment from its data set, or from the facts of a checkpoint.

    Raises:
      UserError: for an unknown data set.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from research.assembly import assemble, bind, make_training
    from research.data.datasets import opener
    from research.data.images.augment import example_keys
    from research.data.tasks import classification as task
    from research.errors import UserError
    from research.experiment import Evaluation, Evaluator, Experiment, Prediction
    from research.figures import filtering as figures
    from research.models import Entry
    from research.models.filter import Filter, kernel_of
    from research.nn.convolution import convolution
    from research.record.run_folder import save_images

    wanted = kernel_of(config.kernel)
    if wanted.shape != (3, 3):
        raise UserError(f"--kernel={config.kernel}: nine numbers are needed.")
    dataset = opener(config, task.TASK)
    data = assemble(
        config,
        facts,
        dataset,
        Entry(Filter, 28, channels=1, min_size=3),
        inspect=task.inspect,
        classes=False,
        fixed_channels=True,
    )
    true = jnp.asarray(wanted)[:, :, None, None]

    def before(batch: "Batch") -> jax.Array:
        return jnp.asarray(batch["image"], jnp.float32) / 255.0  # [B, H, W, 1]

    network = bind(config, Filter(), before(data.preprocessing.blank()), see=before)

    def augment(key: jax.Array, batch: "Batch", axis: str | None) -> "Batch":
        after = convolution(before(batch), true)  # [B, H - 2, W - 2, 1]
        keys = example_keys(key, batch["index"], batch["occurrence"])
        noise = jax.vmap(lambda k: jax.random.normal(k, after.shape[1:]))(keys)
        return {**batch, "after": after + config.noise * noise}

    def loss(
        variables: Any, batch: "Batch", key: jax.Array, axis: str | None
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        after, state = network.train(variables, before(batch), key=key, axis=axis)
        return ((after - batch["after"]) ** 2).mean((1, 2, 3)), state, {}

    def predict(variables: Any, batch: "Batch") -> dict[str, jax.Array]:
        images = before(batch)
        learned = variables["params"]["filter"]["kernel"]
        return {
            "after": network.evaluate(variables, images),
            "wanted": convolution(images, true),
            "kernel": jnp.broadcast_to(learned, (len(images), *true.shape)),
        }

    def measure(outputs: Any, batch: "Batch") -> dict[str, tuple[jax.Array, jax.Array]]:
        values = {
            "squared_error": ((outputs["after"] - outputs["wanted"]) ** 2).mean((1, 2, 3)),
            "kernel_error": jnp.abs(outputs["kernel"] - true).max((1, 2, 3, 4)),
        }
        return {name: (value, jnp.ones_like(value)) for name, value in values.items()}

    def draw(outputs: Any, batch: "Batch") -> "Pictures":
        kernels = {
            "learned": outputs["kernel"][0, :, :, 0, 0],
            "wanted" if " " in config.kernel else config.kernel: np.asarray(true)[:, :, 0, 0],
        }
        pictures = {
            "before": batch["image"],
            "after": outputs["wanted"],
            "learned": outputs["after"],
        }
        return {"filters": figures.filters(kernels, pictures)}

    def describe(outputs: Any, batch: "Batch") -> list[dict[str, Any]]:
        most = np.abs(outputs["after"]).max((1, 2, 3))
        return [{"summary": f"strongest answer {x:.3f}", "strongest": float(x)} for x in most]

    def save(folder: Path, files: list[str], outputs: Any, batch: "Batch") -> None:
        after = np.asarray(outputs["after"])  # signed: grey is 0
        reach = np.maximum(np.abs(after).max((1, 2, 3), keepdims=True), 1e-6)
        pictures = np.rint(127.5 + 127.5 * after / reach).astype(np.uint8)
        save_images(folder / "filtered", files, pictures)

    protocol = {
        "squared_error": "mean over pixels of (filtered - learned)², brightness in 0..1",
        "kernel_error": "largest difference between the nine numbers and the filter's",
    }
    kernel = Evaluator(protocol, measure, draw=draw)
    return Experiment(
        network=network,
        training=make_training(config, network, data, loss, augment),
        evaluation=Evaluation(
            predict, {"kernel": kernel}, data.best("kernel_error", "min"), loss="squared_error"
        ),
        data=data.sources,
        facts=data.facts,
        prediction=Prediction(
            lambda files: {"image": data.read_whole(files)},
            describe,
            alone=True,
            draw=draw,
            save=save,
        ),
    )
