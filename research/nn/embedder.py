"""A backbone with an embedding of unit length on top, and the parameters of its losses."""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from research.errors import UserError
from research.losses.proxies import normalise
from research.nn.flatten import flatten
from research.nn.pooling import global_average_pool


class Embedder(nn.Module):
    """Embeddings of images; all of length 1.

    Attributes:
      make_backbone: takes (axis, name) and returns a model of research/models.
      size: of an embedding.
      pooling: "average" makes one vector of the backbone's last map; "flatten" keeps positions,
        and ties the parameters to the image size.
      proxies: learned vectors, one for each training class; 0 where the loss has none.
      siamese: whether there are weights and a bias of the classifier of "same".
    """

    make_backbone: Callable[..., nn.Module]
    size: int
    pooling: Literal["average", "flatten"] = "average"
    proxies: int = 0
    siamese: bool = False
    axis: str | None = None

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channel"], train: bool = False
    ) -> dict[str, Array]:
        """Returns "embedding" [B, size] of standardised images, and the losses' parameters:

        "proxies" [classes, size]; "weights" [size] (above 0) and "bias" of the Siamese classifier.

        Raises:
          UserError: for a backbone that has no feature maps.
        """
        maps = self.make_backbone(axis=self.axis, name="backbone")(images, train, features=True)
        if not maps:
            raise UserError("--model: has no feature maps to make an embedding of; take another.")
        x = list(maps.values())[-1]  # [B, h, w, c]
        x = global_average_pool(x) if self.pooling == "average" else flatten(x)
        outputs = {"embedding": normalise(nn.Dense(self.size, name="embedding")(x))}
        if self.proxies:
            init = nn.initializers.normal(1.0)
            outputs["proxies"] = self.param("proxies", init, (self.proxies, self.size))
        if self.siamese:
            # Embeddings of length 1 differ little in each number: weights begin near 2.
            raw = self.param("same_weights", nn.initializers.constant(2.0), (self.size,))
            outputs["weights"] = jax.nn.softplus(raw)
            outputs["bias"] = self.param("same_bias", nn.initializers.constant(5.0), ())
        return jax.tree.map(lambda value: value.astype(jnp.float32), outputs)
