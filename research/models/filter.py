"""A network of one filter, and classical edge filters that it can learn from examples."""

import math

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float

from research.errors import UserError, nearest
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
# Turned by 90 degrees clockwise: the brightness lost from top to bottom.
EDGE_FILTERS |= {f"{name}_horizontal": np.rot90(k, -1).copy() for name, k in EDGE_FILTERS.items()}


def kernel_of(text: str) -> Float[np.ndarray, "side side"]:
    """Reads a filter: a name of EDGE_FILTERS, or a square's numbers row by row, "1 0 -1 ...".

    Raises:
      UserError: for anything else, and for numbers that are all 0.
    """
    if text in EDGE_FILTERS:
        return EDGE_FILTERS[text]
    try:
        numbers = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        raise UserError(
            f"--kernel={text}: a name of {', '.join(EDGE_FILTERS)} is needed, or numbers row by "
            f"row.{nearest(text, EDGE_FILTERS)}"
        ) from None
    side = math.isqrt(len(numbers))
    if side**2 != len(numbers) or not side or not all(map(math.isfinite, numbers)):
        raise UserError(
            f"--kernel={text}: has {len(numbers)} numbers; a square's are needed, as 9."
        )
    if not any(numbers):
        raise UserError(f"--kernel={text}: lets nothing through; one number must not be 0.")
    return np.array(numbers, np.float32).reshape(side, side)


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
