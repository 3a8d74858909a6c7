"""Examples as TFDS builders yield them: keyed, with their images encoded."""

import io
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

Keyed = Iterator[tuple[int | str, dict[str, Any]]]


def png(image: UInt8[np.ndarray, "height width channel"]) -> io.BytesIO:
    """Encodes grey or RGB values as a PNG."""
    stored = image if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return io.BytesIO(cv2.imencode(".png", stored)[1].tobytes())
