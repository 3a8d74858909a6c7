"""A network of one filter, and classical edge filters that it can learn from examples."""

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float

from research.nn.convolution import Conv
from research.nn.initialisers import INITIALISERS

# Cross-correlated, each gives the brightness lost from left to right.
EDGE_FILTERS: dict[str, np.ndarray] = {
    name: np.array(rows, np.float32)
    for name, rows in {
        "prewitt": [[1, 0, -1], [1, 0, -1], [1, 0, -1]],
        "sobel": [[1, 0, -1], [2, 0, -2], [1, 0, -1]],  # Sobel and Feldman 1968
        "scharr": [[3, 0, -3], [10, 0, -10], [3, 0, -3]],  # Scharr 2000: turns with the edge
    }.items()
}


class Filter(nn.Module):
    """A single kernel without bias or padding."""

    side: int = 3

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 1"], train: bool = False
    ) -> Float[Array, "batch out_height out_width 1"]:
        start = INITIALISERS["normal"]
        return Conv(
            1, self.side, padding="VALID", use_bias=False, kernel_init=start, name="filter"
        )(images)
