"""The question that a method answers: a network, images, and the unit that is asked about."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from research.data.images import reading as image_files
from research.data.images.preprocessing import read_batch
from research.data.sources.examples import Arrays
from research.data.sources.source import Source
from research.errors import UserError
from research.experiment import Measures
from research.record.progress import console
from research.spacing import some_of, spaced
from research.understanding.config import InputOptimizationConfig
from research.understanding.methods import METHODS
from research.understanding.network import ImageNetwork, Images, layer_shapes, layers_of
from research.understanding.opening import TrainedNetwork
from research.understanding.target import Target, choose_target, score_layer


@dataclasses.dataclass(frozen=True)
class Question:
    """A question that is put to a network.

    Attributes:
      config: of the experiment; it has the options of research/understanding/config.py.
      images: inputs of the network's own size, uint8 [N, H, W, C]; none where none were given.
      originals: the same as they were read, of any size.
      names: of the inputs.
      sampled: how many of how many they are, where they were taken from a data set; or "".
      mean: the image that says nothing: the network's zero, a value for each channel.
      survey: opens the data set that is surveyed.
    """

    config: InputOptimizationConfig
    network: ImageNetwork
    images: UInt8[np.ndarray, "n height width channel"]
    originals: list[np.ndarray]
    names: tuple[str, ...]
    mean: Float[np.ndarray, " channel"]
    survey: Callable[[], Source]
    sampled: str = ""

    @property
    def asks_class(self) -> bool:
        """Returns whether the target is a class, so that an image is called something."""
        return not self.config.layer and bool(self.network.class_names) and self.network.exclusive

    def target(self, default_class: str = "") -> Target:
        """Finds the unit that is asked about; for a classifier without --class, all classes."""
        config = self.config
        unit = None if config.unit < 0 else config.unit
        name = config.class_ or ("" if config.layer or unit is not None else default_class)
        if not self.network.exclusive and not config.layer and not config.class_ and unit is None:
            raise UserError(
                f"--method={config.method}: --class=WORD says which of the network's "
                f"{len(self.network.class_names)} words is asked about; or name --layer."
            )
        return choose_target(
            self.network, config.layer, unit, name, centre=config.place == "centre"
        )

    def told(self, protocol: Mapping[str, str]) -> dict[str, str]:
        """Adds to how each metric is computed how many images of a data set were taken."""
        said = f"; {self.sampled}" if self.sampled else ""
        return {name: f"{line}{said}" for name, line in protocol.items()}

    def needs_inputs(self) -> None:
        """Raises UserError where no images were given."""
        if not len(self.images):
            raise UserError(f"--method={self.config.method}: needs --inputs=photo.jpg.")

    def class_name(self, unit: int) -> str:
        """Returns the name of a class."""
        return self.network.class_names[unit]

    def class_scores(self, images: Images) -> Float[Array, "batch classes"]:
        """Returns the score of each class, before softmax; of a map, at --place."""
        layer = score_layer(self.network, layer_shapes(self.network))
        every = Target(layer, None, centre=self.config.place == "centre")
        return every.units(layers_of(self.network, images))


def ask(config: InputOptimizationConfig, found: TrainedNetwork) -> Question:
    """Puts a configuration's question to an opened network: reads its images.

    Raises:
      UserError: files that are no images.
    """
    network, preprocessing, source = found
    files = [str(file) for file in image_files.list_images(config.inputs)] if config.inputs else []
    read = [image_files.read(file, preprocessing.white) for file in files]
    for file, image in zip(files, read, strict=True):
        if said := converted(file, image.shape[-1], preprocessing.channels):
            console().print(f"{file}: {said}", markup=False)

    @functools.cache
    def splits() -> Mapping[str, Source]:
        if source is None:
            raise UserError(
                f"--method={config.method}: needs images: --inputs=FOLDER, or a --checkpoint, "
                "whose data set it then takes."
            )
        return source.data().evals

    def survey() -> Source:
        if files:
            fitted = read_batch(files, preprocessing)["image"]
            devices = 1 if config.parallel == "single" else jax.device_count()
            fewest = -(-len(files) // devices) * devices  # that hold all files
            return Source(Arrays({"image": fitted}), min(config.batch_size, fewest))
        return splits().get("test") or next(iter(splits().values()))

    fitted = [*read_batch(files, preprocessing)["image"]] if files else []
    from_nothing = config.method == "visualise" and config.start != "input"
    sampled = ""
    count = METHODS[config.method].examples
    if count and not files and source is not None and not from_nothing:
        examples = survey().examples
        chosen = spaced(len(examples), count).tolist()
        fitted = [np.asarray(examples[i]["image"]) for i in chosen]
        files, read = [f"test {i}" for i in chosen], fitted
        sampled = some_of(len(examples), count)
    blank = np.zeros((0, *network.image_shape), np.uint8)
    mean = np.broadcast_to(np.asarray(preprocessing.mean, np.float32), network.image_shape[2])
    return Question(
        config=config,
        network=network,
        images=np.stack(fitted) if fitted else blank,
        originals=read,
        names=tuple(file.rpartition("/")[2] for file in files),
        mean=mean.copy(),
        survey=survey,
        sampled=sampled,
    )


def converted(file: str, channels: int, wanted: int) -> str:
    """Says what is done to an image before the network gets it; "" if nothing is."""
    said = []
    if image_files.has_alpha(Path(file).read_bytes()):
        said.append("transparency is laid over white")
    if channels < wanted:
        said.append("grey, given to the network as RGB")
    elif channels > wanted:
        said.append("in colour, given to the network as grey")
    return "; ".join(said)


def per_unit(values: Float[Array, "batch *places channel"]) -> Float[Array, "batch channel"]:
    """Takes the mean over places."""
    return values.reshape(values.shape[0], -1, values.shape[-1]).mean(1)


def averaged(values: Mapping[str, Array]) -> Measures:
    """Gives equal weights to {name: value of each example}."""
    return {name: (value, jnp.ones_like(value)) for name, value in values.items()}


def as_pixels(images: Array | np.ndarray) -> np.ndarray:
    """Rounds images to what a file holds: uint8."""
    return np.clip(np.round(np.asarray(images)), 0, 255).astype(np.uint8)


def probability_of(
    scores: Float[Array, "batch classes"], unit: int | Array
) -> Float[Array, " batch"]:
    """Computes the softmax of one class; `unit` may differ from image to image."""
    units = jnp.broadcast_to(jnp.asarray(unit), (len(scores),))
    return jnp.take_along_axis(jax.nn.softmax(scores), units[:, None], axis=1)[:, 0]
