"""U-Net's border weights of masks, computed once on the host."""

import dataclasses
import math

import numpy as np
import scipy.ndimage
from jaxtyping import Float32, UInt8

from research.data.sources.examples import Example, Examples


def border_weights(
    mask: UInt8[np.ndarray, "height width"], strength: float = 10.0, sigma: float = 5.0
) -> Float32[np.ndarray, "height width"]:
    """Returns w0 exp(-(d1 + d2)^2 / (2 sigma^2)) on the background: Ronneberger 2015, equation 2.

    d1 and d2 are a pixel's distances to the nearest and the second nearest cell: narrow gaps
    between cells weigh most. A cell is a connected component (of edges, not corners) of a class but
    the first, which is the background. On the host; the class weights of the equation are apart.

    Args:
      mask: class numbers; 255 is ignored, and no cell.
      strength: w0.
      sigma: pixels.
    """
    nearest = np.full((2, *mask.shape), np.inf)
    # Farther away the weight is below a millionth: distances are worked out around each cell alone.
    reach = math.ceil(sigma * math.sqrt(2 * math.log(max(strength, 1e-6) * 1e6 + 1)))
    for number in np.unique(mask):
        if number in (0, 255):
            continue
        cells, _ = scipy.ndimage.label(mask == number)
        for cell, box in enumerate(scipy.ndimage.find_objects(cells), 1):
            around = tuple(slice(max(s.start - reach, 0), s.stop + reach) for s in box)
            distance = scipy.ndimage.distance_transform_edt(cells[around] != cell)
            here = nearest[:, *around]
            here[:] = np.sort(np.stack([*here, distance]), axis=0)[:2]
    border = strength * np.exp(-(nearest.sum(0) ** 2) / (2 * sigma**2))
    return np.where(mask == 0, border, 0.0).astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class WithBorder:
    """Examples with "border" float16 [h, w] added: `border_weights` of their "segmentation"."""

    examples: Examples
    strength: float
    sigma: float

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int, /) -> Example:
        example = self.examples[index]
        border = border_weights(example["segmentation"], self.strength, self.sigma)
        return {**example, "border": border.astype(np.float16)}
