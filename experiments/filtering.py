"""Which filter was it? A 3x3 kernel learned from pairs of images, before and after filtering.

    python launch.py --experiment=filtering

finds Sobel's filter again from digits: no number of the learned kernel is off by more than 0.001.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from research.config import option, redefault
from research.training.config import OptimizerName, ScheduleName, TrainingConfig

if TYPE_CHECKING:
    from research.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Config(TrainingConfig):
    """Filtering"""

    kernel: Literal["prewitt", "sobel", "scharr"] = option("sobel", "The filter to be found.")
    noise: float = option(
        0.0, "Standard deviation of noise on the filtered images, of values in 0..1.", minimum=0.0
    )
    dataset: str = redefault(TrainingConfig, "dataset", "digits")
    steps: int = redefault(TrainingConfig, "steps", 300)
    batch_size: int = redefault(TrainingConfig, "batch_size", 32)
    optimizer: OptimizerName = redefault(TrainingConfig, "optimizer", "adam")
    learning_rate: float = redefault(TrainingConfig, "learning_rate", 1.0)
    schedule: ScheduleName = redefault(TrainingConfig, "schedule", "one_cycle")
    weight_decay: float = redefault(TrainingConfig, "weight_decay", 0.0)


def build(config: Config, facts: Mapping[str, Any] | None = None) -> "Experiment":
    """The experiment, from its data set, or from the facts that lie in a checkpoint.

    Raises:
      UserError: for an unknown data set, or one whose images differ in size.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from research.data import datasets, pipeline
    from research.data.augment import example_keys
    from research.data.preprocessing import Preprocessing
    from research.data.tasks import classification as task
    from research.errors import UserError
    from research.experiment import Data, Experiment
    from research.figures import filtering as figures
    from research.forward import forward
    from research.models.filter import EDGE_FILTERS, Filter
    from research.nn.convolution import convolution
    from research.training.recipe import make_recipe

    # --- Data ---
    dataset = functools.cache(
        lambda: datasets.load(
            config.dataset, config.data_dir, task.TASK, skip_corrupt=config.skip_corrupt
        )
    )
    splits = functools.cache(
        lambda preprocessing: pipeline.open_splits(dataset().splits, preprocessing, config)
    )
    trains = facts is None
    if facts is None:
        height, width, _ = dataset().image_shape
        if height is None or width is None:
            raise UserError(f"--dataset={config.dataset}: images of one size are needed.")
        raw = Preprocessing((height, width), 1)
        facts = {
            "preprocessing": raw.to_json(),
            "train_examples": len(splits(raw)["train"]),
            "monitored": pipeline.monitored(splits(raw)),
        }
    preprocessing = Preprocessing.from_json(facts["preprocessing"])

    def data() -> Data:
        return pipeline.make_data(
            splits(preprocessing), config, config.seed, lambda: task.inspect(dataset())
        )

    # --- The filter, and what is to learn it ---
    true = jnp.asarray(EDGE_FILTERS[config.kernel])[:, :, None, None]
    model = Filter()

    def before(batch: Mapping[str, Any]) -> jax.Array:
        return jnp.asarray(batch["image"], jnp.float32) / 255.0  # [B, H, W, 1]

    def init(key: jax.Array, batch: Mapping[str, Any]) -> Any:
        return model.init(key, before(batch))

    def augment(key: jax.Array, batch: Mapping[str, Any], axis: str | None) -> dict[str, Any]:
        after = convolution(before(batch), true)  # [B, H - 2, W - 2, 1]
        keys = example_keys(key, batch["index"], batch["occurrence"])
        noise = jax.vmap(lambda k: jax.random.normal(k, after.shape[1:]))(keys)
        return {**batch, "after": after + config.noise * noise}

    def loss(
        variables: Any, batch: Mapping[str, Any], key: jax.Array, axis: str | None
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        after, state = forward(model, variables, before(batch), precision=config.precision)
        return ((after - batch["after"]) ** 2).mean((1, 2, 3)), state, {}

    def predict(variables: Any, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
        images = before(batch)
        after, _ = forward(model, variables, images, precision=config.precision)
        learned = variables["params"]["filter"]["kernel"]
        kernels = jnp.broadcast_to(learned, (len(images), *true.shape))
        return {"after": after, "wanted": convolution(images, true), "kernel": kernels}

    def measure(outputs: Any, batch: Mapping[str, Any]) -> dict[str, tuple[jax.Array, jax.Array]]:
        values = {
            "squared_error": ((outputs["after"] - outputs["wanted"]) ** 2).mean((1, 2, 3)),
            "kernel_error": jnp.abs(outputs["kernel"] - true).max((1, 2, 3, 4)),
        }
        return {name: (value, jnp.ones_like(value)) for name, value in values.items()}

    def draw(outputs: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        kernels = {
            "learned": outputs["kernel"][0, :, :, 0, 0],
            config.kernel: np.asarray(true)[:, :, 0, 0],
        }
        pictures = {
            "before": batch["image"],
            "after": outputs["wanted"],
            "learned": outputs["after"],
        }
        return {"filters": figures.filters(kernels, pictures)}

    recipe = make_recipe(
        config, init, preprocessing.blank(), facts["train_examples"], trains=trains
    )
    return Experiment(
        init=init,
        start=recipe.start,
        loss=loss,
        augment=augment,
        optimizer=recipe.optimizer,
        learning_rate=recipe.learning_rate,
        predict=predict,
        measure=measure,
        draw=draw,
        data=data,
        facts=facts,
        protocol={
            "squared_error": "mean over pixels of (filtered - learned)², brightness in 0..1",
            "kernel_error": "largest difference between the nine numbers and the filter's",
        },
        best=(f"{facts['monitored']}/kernel_error", "min"),
    )
