"""What a method is asked, and how its answer fills the contract of research/experiment.py."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, UInt8

from research.data.source import Source
from research.errors import UserError
from research.experiment import Batch, Measures, PyTree, Variables
from research.understanding.network import Images, Network, layer_shapes, layers_of
from research.understanding.target import Target, choose_target, score_layer


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked of a network.

    Attributes:
      config: of the experiment; it has the options of research/understanding/config.py.
      images: inputs of the network's own size, uint8 [N, H, W, C]; none where none were given.
      originals: the same as they were read, of any size.
      names: of the inputs.
      sampled: how many of how many they are, where they were taken from a data set; or "".
      mean: the image that says nothing: the network's zero, a value for each channel.
      survey: opens the data set that is surveyed.
    """

    config: Any
    network: Network
    images: UInt8[np.ndarray, "n height width channel"]
    originals: list[np.ndarray]
    names: tuple[str, ...]
    mean: Float[np.ndarray, " channel"]
    survey: Callable[[], Source]
    sampled: str = ""

    @property
    def asks_class(self) -> bool:
        """Whether the target is a class, so that an image is called something."""
        return not self.config.layer and bool(self.network.class_names) and self.network.exclusive

    def target(self, default_class: str = "") -> Target:
        """The unit that is asked about; of a classifier without --class, all classes."""
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

    def needs_inputs(self) -> None:
        """Raises UserError where no images were given."""
        if not len(self.images):
            raise UserError(f"--method={self.config.method}: needs --inputs=photo.jpg.")

    def class_name(self, unit: int) -> str:
        """What a class is called."""
        return self.network.class_names[unit]

    def class_scores(self, images: Images) -> Float[Array, "batch classes"]:
        """Of each class, before softmax; at --place where there is a map."""
        layer = score_layer(self.network, layer_shapes(self.network))
        every = Target(layer, None, centre=self.config.place == "centre")
        return every.units(layers_of(self.network, images))


def per_unit(values: Float[Array, "batch *places channel"]) -> Float[Array, "batch channel"]:
    """The mean over places."""
    return values.reshape(values.shape[0], -1, values.shape[-1]).mean(1)


class Answer(NamedTuple):
    """A method's part of an Experiment; the fields are explained there."""

    predict: Callable[[Variables, Batch], PyTree]
    measure: Callable[[PyTree, Batch], Measures]
    protocol: Mapping[str, str]
    draw: Callable[[PyTree, Batch], Mapping[str, Any]] | None = None
    draw_split: Callable[[PyTree, Batch], Mapping[str, Any]] | None = None
    score: Callable[[PyTree, Batch], dict[str, float]] | None = None
    notes: Callable[[PyTree, Batch], list[str]] | None = None
    params: Array | np.ndarray | None = None  # what is optimised; None: nothing
    loss: Callable[..., Any] | None = None
    optimizer: optax.GradientTransformation = optax.identity()
    learning_rate: optax.Schedule = optax.constant_schedule(0.0)
    steps: int = 0
    images: np.ndarray | None = None  # the evaluated batch; None: the question's images
    survey: Source | None = None  # the evaluated source, in place of images


def averaged(values: Mapping[str, Array]) -> Measures:
    """{name: value of each example} with equal weights."""
    return {name: (value, jnp.ones_like(value)) for name, value in values.items()}


def as_pixels(images: Array | np.ndarray) -> np.ndarray:
    """Rounded to what a file holds: uint8."""
    return np.clip(np.round(np.asarray(images)), 0, 255).astype(np.uint8)


def probability_of(
    scores: Float[Array, "batch classes"], unit: int | Array
) -> Float[Array, " batch"]:
    """Softmax of one class; `unit` may differ from image to image."""
    units = jnp.broadcast_to(jnp.asarray(unit), (len(scores),))
    return jnp.take_along_axis(jax.nn.softmax(scores), units[:, None], axis=1)[:, 0]
