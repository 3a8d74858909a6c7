"""Examples with U-Net's border weights beside their masks, computed once on the host."""

import dataclasses

import numpy as np

from research.data.source import Example, Examples
from research.losses.segmentation import border_weights


@dataclasses.dataclass(frozen=True, eq=False)
class WithBorder:
    """Adds "border" float16 [h, w]: `border_weights` of each "segmentation"."""

    examples: Examples
    strength: float
    sigma: float

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int, /) -> Example:
        example = self.examples[index]
        border = border_weights(example["segmentation"], self.strength, self.sigma)
        return {**example, "border": border.astype(np.float16)}
