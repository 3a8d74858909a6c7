"""A network that predicts the presence and place of one object at most, by regression."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.models import Entry
from research.models.backbone import backbone, by_resolution
from research.nn.activations import ACTIVATIONS, Activation
from research.nn.convolution import Conv
from research.nn.initialisers import INITIALISERS, Initialiser


class Localiser(nn.Module):
    """A classifier's coarsest map, flattened, as pooling would lose where things are; two layers.

    Attributes:
      num_classes: of localisation, whose outputs are p_c, 4 of a box, and the classes'.
      points: of landmarks, whose outputs are p_c and 2 of each point; 0 for localisation.
      squeezed: channels that the map is reduced to before it is flattened.
      width: units of the hidden layer.
    """

    num_classes: int = 10
    activation: Activation | None = None
    kernel_init: Initialiser = INITIALISERS["he"]
    axis: str | None = None
    backbone: str = "compact"
    points: int = 0
    squeezed: int = 32
    width: int = 256

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channel"], train: bool = False
    ) -> dict[str, Array]:
        """Returns "presence" [B], a logit, and the object's box and class, or its points.

        "points" [B, K, 2], (x, y) as shares of the image's sides; or "box" [B, 4], centre, width
        and height as such shares, and "logits" [B, classes].
        """
        activation = self.activation or ACTIVATIONS["relu"]
        network = backbone(self.backbone, self.activation, self.kernel_init, self.axis)
        x = by_resolution(network(images, train, features=True))[-1]
        x = activation(Conv(self.squeezed, 1, kernel_init=self.kernel_init, name="squeeze")(x))
        x = x.reshape(len(x), -1)
        x = activation(nn.Dense(self.width, kernel_init=self.kernel_init, name="hidden")(x))
        outputs = 1 + (2 * self.points if self.points else 4 + self.num_classes)
        # In float32 whatever the precision: bfloat16 has steps of half a hundredth of the image.
        last = nn.Dense(outputs, kernel_init=INITIALISERS["lecun"], name="head")
        x = last(x.astype(jnp.float32))
        if self.points:
            points = jax.nn.sigmoid(x[:, 1:]).reshape(len(x), self.points, 2)
            return {"presence": x[:, 0], "points": points}
        return {"presence": x[:, 0], "box": jax.nn.sigmoid(x[:, 1:5]), "logits": x[:, 5:]}


MODELS = {
    "localisation": Entry(Localiser, image_size=64, fixed_size=True, min_size=8, task="detection"),
    "landmarks": Entry(
        partial(Localiser, points=64), image_size=64, fixed_size=True, min_size=8, task="detection"
    ),
}
