"""Sizes of images that are changed as a whole: any that the network takes."""

import cv2
import numpy as np

from research.errors import UserError
from research.understanding.network import layer_shapes
from research.understanding.question import Question


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes an image of values 0..255: by areas where it shrinks, else bicubic."""
    if image.shape[:2] == (height, width):
        return image
    smaller = height * width < image.shape[0] * image.shape[1]
    method = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    result = cv2.resize(image.astype(np.float32), (width, height), interpolation=method)
    return np.clip(result.reshape(height, width, -1), 0, 255)


def at_work_size(question: Question, longest: int) -> np.ndarray:
    """Resizes the inputs to one shape [N, H, W, C], their longer side about `longest` pixels.

    Raises:
      UserError: inputs of several shapes, or that the network does not take.
    """
    channels = question.network.image_shape[2]
    results = []
    for original in question.originals:
        scale = longest / max(original.shape[:2])
        sides = [max(round(n * scale), 1) for n in original.shape[:2]]
        height, width = fitting(question, *sides)
        results.append(with_channels(resized(original, height, width), channels))
    if len({x.shape for x in results}) > 1:
        raise UserError(
            f"--method={question.config.method}: takes --inputs of one shape at a time; "
            f"{question.names[0]} and others differ."
        )
    return np.stack(results).astype(np.float32)


def with_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Turns grey into RGB, or RGB into grey."""
    if image.shape[-1] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=-1)
    return cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2GRAY)[..., None]


def fitting(question: Question, height: int, width: int) -> tuple[int, int]:
    """Returns that size, or the nearest in steps of 8, 16 or 32 pixels, that the network takes.

    Without --size its own as a last resort, of another aspect: it takes images of that size alone.

    Raises:
      UserError: if the network takes no such size.
    """
    problems: list[Exception] = []
    for step in (1, 8, 16, 32):
        size = max(round(height / step), 1) * step, max(round(width / step), 1) * step
        try:
            layer_shapes(question.network, size)
        except Exception as error:  # Flax and JAX have many ways to say so
            problems.append(error)
        else:
            return size
    if not question.config.size:
        return question.network.image_shape[:2]
    if all(isinstance(problem, UserError) for problem in problems):
        raise UserError(f"--size={question.config.size}: {problems[0]}") from problems[0]
    own = " x ".join(map(str, question.network.image_shape[:2]))
    raise UserError(
        f"--size={question.config.size}: the model takes images of {own} alone (not {height} x "
        f"{width}); what it predicts depends on the size. Leave the flag out."
    ) from problems[-1]
