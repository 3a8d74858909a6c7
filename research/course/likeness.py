"""Likeness: triplets, one against many, thresholds; content and style."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from research.course.config import WorkedExamplesConfig
from research.course.worked import Worked, largest_difference, step
from research.figures import course as figures
from research.losses.metric_pairs import likeness
from research.losses.pairwise import squared_distances
from research.losses.triplet import triplet_loss
from research.understanding.objectives import content_loss, gram_matrix, style_loss

LABELS = np.array([0, 0, 1])  # anchor, positive, negative


def _loss(embeddings: Any, margin: float = 0.2) -> Any:
    """Computes the loss of the first example's triplet, of squared distances."""
    values, _ = triplet_loss(
        embeddings,
        jnp.asarray(LABELS),
        jnp.ones(3, bool),
        jax.random.key(0),
        mining="batch_hard",
        margin=margin,
        squared=True,
    )
    return values[0]


def triplets(config: WorkedExamplesConfig) -> Worked:
    """Computes the lecture's triplets; the odds of one against many; a threshold's two errors."""

    def placed(positive: float, negative: float) -> Any:
        """Returns codes whose squared distances from the anchor are these."""
        return jnp.array([[0.0, 0.0], [np.sqrt(positive), 0.0], [0.0, np.sqrt(negative)]])

    hard, easy = float(_loss(placed(0.5, 0.51))), float(_loss(placed(0.5, 0.9)))
    zeros = jnp.zeros((3, 2))
    value, gradient = jax.value_and_grad(_loss)(zeros)
    sizes = np.array([1, 10, 100, 1000])
    wrong_of = lambda people: 1 - (1 - 0.01) ** people
    wrong, crowds = wrong_of(sizes), np.arange(1, 1001)
    rng = np.random.default_rng(0)
    people = rng.normal(size=(40, 8)).astype(np.float32)
    codes = (people[:, None] + 0.5 * rng.normal(size=(40, 3, 8))).reshape(-1, 8).astype(np.float32)
    names = np.repeat(np.arange(40), 3)
    distance = np.asarray(squared_distances(jnp.asarray(codes), jnp.asarray(codes)))
    pair = np.triu_indices(len(codes), 1)
    same, far = names[pair[0]] == names[pair[1]], distance[pair]
    taus = np.linspace(0, 30, 61)
    accepted = np.array([(far[~same] <= tau).mean() for tau in taus])
    rejected = np.array([(far[same] > tau).mean() for tau in taus])
    stated = taus[accepted <= 0.01].max()
    a, b, ones = jnp.asarray(codes[:40]), jnp.asarray(codes[40:80]), jnp.ones(8)
    said, swapped = (likeness(*both, ones, jnp.float32(1)) for both in ((a, b), (b, a)))
    return Worked(
        [
            step(
                "max(0, d(A,P) - d(A,N) + 0.2), squared distances",
                f"d(A,P) = 0.5, d(A,N) = 0.51: {hard:.4f}",
                f"d(A,P) = 0.5, d(A,N) = 0.9:  {easy:.4f}",
                f"all codes 0: {float(value):.4f}, and its gradient is 0 all the same",
            ),
            step(
                "a pair is wrong with 0.01: wrong at all among K people",
                *(f"K = {k:4}: {p:.3f}" for k, p in zip(sizes, wrong, strict=True)),
            ),
            step(
                "threshold tau: false accepts, false rejects",
                *(
                    f"tau = {t:4.1f}: {f:.3f}, {r:.3f}"
                    for t, f, r in list(zip(taus, accepted, rejected, strict=True))[::10]
                ),
                f"at most 1 % false accepts: tau = {stated:g}",
            ),
        ],
        {
            "hard_triplet": (hard, "must be 0.19"),
            "easy_triplet": (easy, "must be 0"),
            "zero_codes": (float(value), "must be 0.2"),
            "zero_codes_gradient": (float(jnp.abs(gradient).max()), "must be 0"),
            "error_of_1": (float(wrong[0]), "must be 0.01"),
            "error_of_100": (float(wrong[2]), "must be 0.634"),
            "difference_order": (
                largest_difference(said, swapped),
                "the Siamese verdict on f1, f2 and on f2, f1; must be 0",
            ),
            "accepts_fall": (float(-np.diff(accepted).min()), "as tau rises; must be at most 0"),
            "rejects_rise": (float(np.diff(rejected).max()), "as tau rises; must be at most 0"),
            "stated_accepts": (float((far[~same] <= stated).mean()), "must be at most 0.01"),
        },
        lambda: {
            "triplets": figures.curves(
                {
                    "two errors, by the threshold tau": {
                        "false accepts": (taus, accepted),
                        "false rejects": (taus, rejected),
                    },
                    "a pair errs with 0.01: wrong among K, by K": {
                        "wrong among K": (crowds, wrong_of(crowds))
                    },
                },
                (("threshold tau", "people K"), "share"),
            )
        },
    )


def style(config: WorkedExamplesConfig) -> Worked:
    """Computes content and style costs of two units, and of shuffled places."""
    wanted, made = jnp.array([[[[1.0, 0.0]]]]), jnp.array([[[[0.0, 1.0]]]])
    gram = gram_matrix(wanted)
    units = float(wanted.size)
    style_cost = float(style_loss(made, gram)[0])
    content_cost = float(content_loss(made, wanted)[0]) * units  # ours is a mean over units
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(1, 4, 4, 3)).astype(np.float32)
    order = rng.permutation(16)
    shuffled = maps.reshape(1, 16, 3)[:, order].reshape(maps.shape)
    own = np.asarray(gram_matrix(jnp.asarray(maps)))
    moved = float(style_loss(jnp.asarray(shuffled), jnp.asarray(own))[0])
    centred = np.corrcoef(maps.reshape(16, 3).T + 5.0)
    raw = np.asarray(gram_matrix(jnp.asarray(maps + 5.0)))[0]
    # Minimisers of alpha (x - 1)^2 + beta (x + 1)^2: content and style pull apart.
    ratios = np.array([0.1, 1.0, 10.0, 100.0])

    def costs(ratios: Float[np.ndarray, " n"]) -> tuple[Any, Any]:
        places = (1 - ratios) / (1 + ratios)
        return (places - 1) ** 2, (places + 1) ** 2

    content, styled = costs(ratios)
    finely = np.geomspace(0.1, 100, 61)
    share = ratios * styled / (content + ratios * styled)
    return Worked(
        [
            step("n_H = n_W = 1: a(S) = a(C) = (1, 0), a(G) = (0, 1)", "Gram matrix of S", gram[0]),
            step(f"style {style_cost:g} = 2 / 16, content {content_cost:g} = 1/2 (1 + 1)"),
            step(
                "a map's Gram matrix; positions shuffled, alike for all channels, it stays", own[0]
            ),
            step(
                "it is no correlation: of maps + 5 the Gram matrix, and the correlations",
                raw,
                centred,
            ),
            step(
                "minimisers of alpha (x - 1)^2 + beta (x + 1)^2, by beta / alpha",
                *(
                    f"{r:5g}: content {c:.3f}, style {s:.5f}, share of style {w:.4f}"
                    for r, c, s, w in zip(ratios, content, styled, share, strict=True)
                ),
            ),
        ],
        {
            "style_cost": (style_cost, "must be 0.125"),
            "content_cost": (content_cost, "must be 1"),
            "style_of_itself": (float(style_loss(wanted, gram)[0]), "must be 0"),
            "content_of_itself": (float(content_loss(wanted, wanted)[0]), "must be 0"),
            "style_of_shuffled": (moved, "must be below 1e-9"),
            "style_rise": (float(np.diff(styled).max()), "with beta / alpha; must be below 0"),
            "content_fall": (float(np.diff(content).min()), "with beta / alpha; must be above 0"),
            "share_rise": (float(np.diff(share).max()), "weight is not share; must be below 0"),
        },
        lambda: {
            "style": figures.curves(
                {
                    "minimisers": {
                        name: (finely, cost)
                        for name, cost in zip(("content", "style"), costs(finely), strict=True)
                    }
                },
                ("beta / alpha", "cost"),
                logarithmic=True,
                ratios=True,
            )
        },
    )
