"""Networks of dense layers alone: the perceptron, and the smallest networks that learn XOR.

Rosenblatt, "The perceptron", 1958; Rumelhart et al., "Learning internal representations by error
propagation", 1986.
"""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
from jaxtyping import Array, Float

from research.models import Entry
from research.nn.activations import ACTIVATIONS, Activation
from research.nn.flatten import flatten
from research.nn.initialisers import INITIALISERS, Initialiser
from research.nn.normalisation import batch_norm
from research.nn.regularisation import Dropout


class MLP(nn.Module):
    """Dense layers of `hidden` units on the flattened image, then one of num_classes.

    Attributes:
      hidden: units of each hidden layer; none makes a linear classifier, which cannot learn XOR.
      normalise: whether batch normalisation follows each hidden layer, in place of its bias.
      dropout: rate after each hidden layer.
      axis: the pmap axis that the batch is split over.
    """

    num_classes: int = 10
    activation: Activation = ACTIVATIONS["relu"]
    kernel_init: Initialiser = INITIALISERS["he"]
    axis: str | None = None
    hidden: Sequence[int] = (256, 128)
    normalise: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channel"],
        train: bool = False,
        features: bool = False,
    ) -> Float[Array, "batch classes"] | dict[str, Array]:
        """Returns logits, or the hidden layers as maps of one cell."""
        norm = batch_norm(train, self.axis)
        dense = partial(nn.Dense, kernel_init=self.kernel_init)
        maps = {}
        x = flatten(images)
        for i, units in enumerate(self.hidden):
            x = dense(units, use_bias=not self.normalise, name=f"hidden{i}")(x)
            if self.normalise:
                x = norm(name=f"bn{i}")(x)
            x = self.activation(x)
            maps[f"hidden{i}"] = x[:, None, None]  # [B, 1, 1, units]
            x = Dropout(self.dropout, self.axis)(x, train)
        if features:
            return maps
        return dense(self.num_classes, name="fc")(x)


MODELS = {
    "mlp": Entry(MLP, image_size=28, channels=1),
    "linear": Entry(partial(MLP, hidden=()), image_size=28, channels=1),
    # Deep enough to show the effect of initialisation on signals: --mode=diagnose.
    "deep_mlp": Entry(partial(MLP, hidden=(100,) * 10), image_size=28, channels=1),
    # Two inputs are two channels of one pixel, or, as in the data set, two pixels. Two hidden units
    # would do, but often get stuck.
    "xor": Entry(
        partial(MLP, num_classes=2, hidden=(8,), activation=ACTIVATIONS["tanh"]),
        image_size=1,
        channels=2,
    ),
}
