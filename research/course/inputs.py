"""Inputs: three ways to scale pixels, and principal components."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from research.course.config import WorkedExamplesConfig
from research.course.worked import Worked, largest_difference, step
from research.data.images.augment import colour_components, pca_colour
from research.data.images.normalisation import whitening_matrix
from research.data.images.preprocessing import Preprocessing
from research.figures import course as figures
from research.vectors.projection import principal_components


def scaling(config: WorkedExamplesConfig) -> Worked:
    """Scales pixels to 0..1 and -1..1, and standardises them; trains a layer on raw and scaled."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1)).astype(np.uint8)

    def scaled(mean: float, std: float) -> np.ndarray:
        return Preprocessing((8, 8), 1, mean=(mean,), std=(std,)).standardise(pixels)

    ways = {
        "x / 255": scaled(0.0, 255.0),
        "x / 127.5 - 1": scaled(127.5, 127.5),
        "standardised": scaled(float(pixels.mean()), float(pixels.std())),
    }
    ends = {
        name: [(x - mean) / std for x in (0, 255)]
        for name, (mean, std) in {"x / 255": (0.0, 255.0), "x / 127.5 - 1": (127.5, 127.5)}.items()
    }
    # A linear layer: x / 255 with weights w is x with w / 255 and a rate of rate / 255^2.
    flat = pixels.reshape(64, -1).astype(np.float64)
    wanted = np.random.default_rng(1).normal(size=64)

    def steps(x: np.ndarray, weights: np.ndarray, rate: float) -> np.ndarray:
        for _ in range(20):
            weights = weights - rate * x.T @ (x @ weights - wanted) / len(x)
        return x @ weights

    first = np.random.default_rng(2).normal(size=64)
    small, raw = steps(flat / 255, first, 0.05), steps(flat, first / 255, 0.05 / 255**2)
    return Worked(
        [
            step("0 and 255 become", *(f"{n}: {a:g} and {b:g}" for n, (a, b) in ends.items())),
            step("deviation of uniform pixels", *(f"{n}: {x.std():.3f}" for n, x in ways.items())),
            step(
                "a layer on x / 255 and one on raw pixels, weights / 255 and rate / 255^2: the same"
            ),
        ],
        {
            "unit_low": (float(ends["x / 255"][0]), "must be 0"),
            "unit_high": (float(ends["x / 255"][1]), "must be 1"),
            "signed_low": (float(ends["x / 127.5 - 1"][0]), "must be -1"),
            "signed_high": (float(ends["x / 127.5 - 1"][1]), "must be 1"),
            "unit_deviation": (float(ways["x / 255"].std()), "is not 1; must be 0.29 +- 0.01"),
            "signed_deviation": (float(ways["x / 127.5 - 1"].std()), "must be 0.58 +- 0.02"),
            "standard_deviation": (float(ways["standardised"].std()), "must be 1"),
            "rescaled_difference": (largest_difference(small, raw), "must be below 1e-9"),
        },
        lambda: {
            "scaling": figures.bars({"deviation": {n: float(x.std()) for n, x in ways.items()}})
        },
    )


def components(config: WorkedExamplesConfig) -> Worked:
    """Compresses ten features that are mixtures of three; shifts colours along their own axes."""
    rng = np.random.default_rng(0)
    sources = rng.normal(size=(400, 3)) * [3.0, 2.0, 1.0]
    features = sources @ rng.normal(size=(3, 10)) + 0.05 * rng.normal(size=(400, 10))
    found = principal_components(features.astype(np.float32), 10)
    places = found.places(features)
    correlation = np.corrcoef(places[:, :3].T) - np.eye(3)
    kept = found.restored(places[:, :3])
    lost = float(((kept - features) ** 2).sum() / ((features - features.mean(0)) ** 2).sum())

    # Purple pictures: red and blue rise together, green does not.
    light = rng.uniform(60, 220, (8, 6, 6))
    purple = np.stack([light, np.full_like(light, 40), 0.9 * light], -1).astype(np.uint8)
    colours = colour_components(purple / 255)
    image = jnp.asarray(purple[0], jnp.float32) / 255
    draw = jnp.array([0.3, -0.5, 0.8])  # uniform in -1..1
    shift = np.asarray(pca_colour(draw, image, 2.0, jnp.asarray(colours)) - image)
    mixed = purple.copy()
    mixed[..., 1] = np.clip(light * 0.4, 0, 255)  # green that varies with the rest
    axes = jnp.asarray(colour_components(mixed / 255))
    moved = np.asarray(pca_colour(draw, image, 2.0, axes) - image)
    return Worked(
        [
            step("share of the variance of each component", found.shares[:5]),
            step("10 features kept as 3 numbers", f"share of the squares lost: {lost:.5f}"),
            step("colour components of purple pictures, times their variances", colours),
            step("a shift of all pixels by these: red, green, blue", shift[0, 0]),
            step("where green varies in the set, it is not spared", moved[0, 0]),
        ],
        {
            "axes_product": (
                largest_difference(found.axes @ found.axes.T, np.eye(len(found.axes))),
                "from orthogonal unit axes; must be below 1e-5",
            ),
            "falling": (float(np.diff(found.shares).max()), "largest rise of shares; at most 0"),
            "correlation": (float(np.abs(correlation).max()), "of places; must be below 1e-3"),
            "three_of_ten": (
                float(found.shares[:3].sum()),
                "share of variance; must be above 0.99",
            ),
            "lost_share": (lost, "1 - that share; must be below 0.01"),
            "green_shift": (float(np.abs(shift[..., 1]).max()), "must be below 0.001"),
            "red_shift": (float(np.abs(shift[..., 0]).max()), "must be above 0.01"),
            "green_shift_mixed": (float(np.abs(moved[..., 1]).max()), "must be above 0.001"),
        },
        lambda: {
            "components": figures.bars(
                {
                    "share of the variance": {
                        f"component {i + 1}": float(s) for i, s in enumerate(found.shares[:5])
                    }
                }
            )
        },
    )


def compression(config: WorkedExamplesConfig) -> Worked:
    """Compresses pictures of digits to a few numbers each, and whitens them in two ways."""
    pictures = (16.0 * load_digits().images).clip(0, 255) / 255  # 1,797 of 8x8, scikit-learn's
    vectors = pictures.reshape(len(pictures), 64)
    found = principal_components(vectors, 64)
    places = found.places(vectors)
    restored = {k: found.restored(places[:, :k]) for k in (2, 8, 16, 32)}
    spread = ((vectors - vectors.mean(0)) ** 2).sum()
    lost = {k: float(((x - vectors) ** 2).sum() / spread) for k, x in restored.items()}
    shares = {k: float(found.shares[:k].sum()) for k in restored}
    centred = vectors - vectors.mean(0)
    white = {
        name: centred @ whitening_matrix(vectors, turned_back=back)
        for name, back in (("ZCA", True), ("PCA", False))
    }
    middle = [8 * row + column for row in range(2, 6) for column in range(2, 6)]  # all vary

    def correlation(x: np.ndarray) -> float:
        """Returns the mean size of the correlation of two pixels of the middle."""
        of_pairs = np.abs(np.corrcoef(x[:, middle].T))
        return float((of_pairs.sum() - 16) / (16 * 15))

    off = {name: correlation(x) for name, x in white.items()}
    likeness = {
        n: float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(x[:50], centred, strict=False)]))
        for n, x in white.items()
    }

    def draw() -> dict[str, Any]:
        drawn = {"8x8 pixels": 255 * pictures[3]}
        drawn |= {f"{k} numbers": 255 * x[3].reshape(8, 8).clip(0, 1) for k, x in restored.items()}
        grey = {name: x.astype(np.uint8) for name, x in drawn.items()}
        both = {f"{name} whitened": x[3].reshape(8, 8) for name, x in white.items()}
        return {"compression": figures.images({**grey, **both})}

    return Worked(
        [
            step(
                "64 pixels kept as k numbers: share of the variance, share of squares lost",
                *(f"k = {k:2}: {shares[k]:.3f}, {lost[k]:.3f}" for k in restored),
            ),
            step(
                f"correlation of two pixels {correlation(vectors):.3f}; whitened, and likeness",
                *(f"{name}: {off[name]:.3f}, {likeness[name]:.2f}" for name in white),
            ),
        ],
        {
            "share_of_16": (shares[16], "variance along 16 of 64 axes; must be above 0.8"),
            "lost_of_2": (lost[2], "squares lost with 2 numbers; must be above that of 32"),
            "lost_of_32": (lost[32], "must be below 0.05"),
            "share_and_loss": (shares[16] + lost[16], "add up; must be 1"),
            "pixel_correlation": (correlation(vectors), "of two pixels, its mean size"),
            "zca_correlation": (off["ZCA"], "of two whitened pixels; must be below half of it"),
            "zca_likeness": (likeness["ZCA"], "still a picture; above that of PCA whitening"),
            "pca_likeness": (likeness["PCA"], "no picture any more"),
        },
        draw,
    )
