"""Normalisation of pixel values, with numbers learned from the training split alone."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from research.data.config import Normalisation
from research.data.images.preprocessing import Preprocessing
from research.data.sources.examples import Arrays, Examples, read_many
from research.errors import UserError
from research.spacing import spaced

PATCH = 5  # side of the neighbourhood that whitening decorrelates, pixels
PATCHES = 200_000  # looked at, about
# Added to every variance, as a share of their mean: directions without variance are noise.
REGULARISATION = 0.01
# Mean and deviation that need no images.
FIXED = {"raw": (0.0, 1.0), "unit": (0.0, 255.0), "signed": (127.5, 127.5)}


def learn(
    preprocessing: Preprocessing,
    examples: Examples,
    how: Normalisation,
    trained: Preprocessing | None = None,
) -> Preprocessing:
    """Returns the preprocessing with the numbers that `how` needs.

    raw leaves 0..255 as it is, unit and signed bring it to 0..1 and -1..1; centred subtracts each
    channel's mean; standardised also divides by its deviation; whitened then removes each pixel's
    correlation with its neighbours and channels. auto is the normalisation of the `trained` weights
    to start from, or else standardised.
    """
    if how == "auto" and trained is not None and trained.channels == preprocessing.channels:
        return dataclasses.replace(preprocessing, mean=trained.mean, std=trained.std)
    if how in FIXED:
        return fixed(preprocessing, how)
    mean, std = statistics(examples)
    if how == "centred":
        std = (1.0,)
    learned = dataclasses.replace(preprocessing, mean=mean, std=std, whitening=())
    if how != "whitened":
        return learned
    kernel = whitening_filter(patches(examples, learned))
    return dataclasses.replace(learned, whitening=tuple(kernel.ravel().tolist()))


def fixed(preprocessing: Preprocessing, how: str) -> Preprocessing:
    """Returns the preprocessing with the numbers of FIXED."""
    mean, std = FIXED[how]
    return dataclasses.replace(preprocessing, mean=(mean,), std=(std,), whitening=())


def unlearned(trained: Preprocessing, how: Normalisation) -> Preprocessing:
    """Returns the preprocessing of trained weights under `how`, without learning from images.

    Raises:
      UserError: where `how` needs training images.
    """
    if how == "auto":
        return trained
    if how in FIXED:
        return fixed(trained, how)
    raise UserError(
        f"--input_normalisation={how}: is learned from training images, of which there are none "
        "here; auto is as the weights were trained, raw leaves 0..255, unit 0..1, signed -1..1."
    )


def patches(
    examples: Examples, preprocessing: Preprocessing
) -> Float[np.ndarray, "n rows columns channel"]:
    """Cuts evenly spaced patches out of evenly spaced standardised images.

    Their side is PATCH pixels, or the image's if that is smaller; always odd, so that there is a
    centre.
    """
    height, width = preprocessing.image_size
    side = min(PATCH, height - (height + 1) % 2, width - (width + 1) % 2)
    count = min(len(examples), 1000)
    stride = max(1, int((height * width * count / PATCHES) ** 0.5))
    found = []
    for example in read_many(examples, spaced(len(examples), count).tolist()):
        image = preprocessing.standardise(example["image"])
        windows = np.lib.stride_tricks.sliding_window_view(image, (side, side), axis=(0, 1))
        found.append(windows[::stride, ::stride].transpose(0, 1, 3, 4, 2))
    return np.concatenate([w.reshape(-1, *w.shape[2:]) for w in found])


def whitening_matrix(
    vectors: Float[np.ndarray, "n d"],
    regularisation: float = REGULARISATION,
    turned_back: bool = True,
) -> Float[np.ndarray, "d d"]:
    """Returns C^(-1/2): PCA whitening, turned back into the space of the vectors (ZCA).

    With C = V diag(λ) V', the symmetric matrix V diag(1 / sqrt(λ + ε)) V' gives vectors of unit
    covariance that lie as near as can be to the old ones (Bell and Sejnowski 1997; Krizhevsky 2009,
    appendix A). ε is `regularisation` times the mean variance.

    Args:
      turned_back: False leaves them along the principal axes, V diag(1 / sqrt(λ + ε)) (PCA
        whitening): of unit covariance too, but no pictures any more.
    """
    centred = vectors - vectors.mean(0)
    variances, directions = np.linalg.eigh(centred.T @ centred / len(vectors))
    scale = 1 / np.sqrt(np.maximum(variances, 0) + regularisation * variances.mean())
    return (directions * scale) @ directions.T if turned_back else directions * scale


def whitening_filter(
    vectors: Float[np.ndarray, "n rows columns channel"],
) -> Float[np.ndarray, "rows columns channel channel"]:
    """Returns the whitening of a patch's centre, as a filter for images of any size.

    Whole images as vectors would need their size squared in numbers, and a network of convolutions
    sees patches.
    """
    _, rows, columns, channels = vectors.shape
    matrix = whitening_matrix(vectors.reshape(len(vectors), -1).astype(np.float64))
    centre = matrix.reshape(rows, columns, channels, rows, columns, channels)
    return centre[:, :, :, rows // 2, columns // 2].astype(np.float32)


def statistics(
    examples: Examples, most: int = 10_000
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of each channel of "image", scale 0..255.

    Exact (integer sums) over all examples, or over `most` evenly spaced ones of a larger split
    that is not in memory. A channel that never changes gets standard deviation 1.
    """
    if isinstance(examples, Arrays):
        images = examples.fields["image"]
        chunks = (images[i : i + 1024] for i in range(0, len(images), 1024))
    else:
        chosen = spaced(len(examples), most).tolist()
        parts = (chosen[i : i + 256] for i in range(0, len(chosen), 256))
        chunks = (e["image"][None] for part in parts for e in read_many(examples, part))
    total: Any = 0
    squares: Any = 0
    number = 0
    for chunk in chunks:
        pixels = chunk.reshape(-1, chunk.shape[-1])
        # Counting values is exact and quicker than squaring wide integers.
        counts = np.stack([np.bincount(channel, minlength=256) for channel in pixels.T])
        total = total + counts @ np.arange(256)
        squares = squares + counts @ np.arange(256) ** 2
        number += len(pixels)
    mean = total / number
    variance = squares / number - mean**2
    std = np.where(variance > 1e-9, np.sqrt(np.maximum(variance, 0)), 1.0)
    return tuple(map(float, mean)), tuple(map(float, std))
