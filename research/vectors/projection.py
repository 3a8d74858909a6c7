"""Projections of features to two dimensions: a place on a plane for each example."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

_COMPONENTS = 50  # that t-SNE starts from


class Projection(NamedTuple):
    """The places of examples on a plane, and the meaning of its axes in a few words."""

    points: Float[np.ndarray, "n 2"]
    title: str


class PrincipalComponents(NamedTuple):
    """The directions of largest variance: Pearson 1901.

    Attributes:
      mean: of the vectors.
      axes: orthogonal, of length 1, by falling variance.
      shares: of the whole variance that lies along each.
    """

    mean: Float[np.ndarray, " d"]
    axes: Float[np.ndarray, "component d"]
    shares: Float[np.ndarray, " component"]

    def places(self, vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n component"]:
        """Returns the vectors compressed to a number for each axis."""
        return (vectors - self.mean) @ self.axes.T

    def restored(self, places: Float[np.ndarray, "n component"]) -> Float[np.ndarray, "n d"]:
        """Returns vectors from their places along the first axes."""
        return places @ self.axes[: places.shape[1]] + self.mean


def principal_components(vectors: Float[np.ndarray, "n d"], count: int) -> PrincipalComponents:
    """Finds the `count` directions of largest variance, or as many as there can be."""
    pca = PCA(min(count, *vectors.shape), svd_solver="full").fit(vectors)
    return PrincipalComponents(pca.mean_, pca.components_, pca.explained_variance_ratio_)


def two_coordinates(
    features: Float[np.ndarray, "n d"], kind: Literal["pca", "tsne"], seed: int = 0
) -> Projection:
    """Projects features to a place on a plane for each example.

    "pca" keeps the two directions of largest variance (Pearson 1901); "tsne" keeps neighbours
    together (van der Maaten and Hinton 2008), and distances between groups mean little. A single
    example or feature lies on an axis.
    """
    missing = [(0, max(2 - n, 0)) for n in features.shape]
    if any(more for _, more in missing):
        places = np.pad(features - features.mean(0), missing)[: len(features), :2]
        return Projection(places.astype(np.float32), "as it is")
    pca = PCA(min(_COMPONENTS, *features.shape) if kind == "tsne" else 2, random_state=seed)
    reduced = pca.fit_transform(features)
    if kind == "pca":
        share = 100 * pca.explained_variance_ratio_.sum()
        return Projection(reduced.astype(np.float32), f"PCA, {share:.0f} % of the variance")
    perplexity = min(30.0, (len(features) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
    with threadpool_limits(1):  # else busy waiting takes the cores from others
        points = tsne.fit_transform(reduced)
    return Projection(points.astype(np.float32), f"t-SNE, perplexity {perplexity:.0f}")
