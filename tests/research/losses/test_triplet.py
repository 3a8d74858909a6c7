import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toys

from research.errors import UserError
from research.losses.pairwise import draw, pairs, root, spread, squared_distances
from research.losses.triplet import MINING, triplet_loss

KEY = jax.random.key(5)
MARGIN = 0.7


def random_batch(seed, size=16, classes=5):
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(size, 4)).astype("f")
    return embeddings, rng.integers(0, classes, size).astype("i"), rng.random(size) < 0.8


def distance(a, b, squared):
    value = ((a.astype("d") - b) ** 2).sum()
    return value if squared else np.sqrt(value)


def triplets(embeddings, labels, mask, squared):
    """{anchor: [(positive, negative, d(a, p), d(a, n)), ...]}: the definition read aloud."""
    real = np.flatnonzero(mask)
    found = {a: [] for a in range(len(labels))}
    for a, p, n in itertools.product(real, repeat=3):
        if a != p and labels[a] == labels[p] and labels[a] != labels[n]:
            d = (distance(embeddings[a], embeddings[x], squared) for x in (p, n))
            found[a].append((p, n, *d))
    return found


def semi_hard_of(rows):
    """The nearest negative that is farther than the positive, by less than the margin."""
    chosen = []
    for p in {row[0] for row in rows}:
        inside = [row for row in rows if row[0] == p and row[2] < row[3] < row[2] + MARGIN]
        chosen += [min(inside, key=lambda row: row[3])] if inside else []
    return chosen


def loop(mining, embeddings, labels, mask, squared):
    """The loss that a batch has on the whole, by plain loops."""
    found = triplets(embeddings, labels, mask, squared)
    hinge = lambda rows: [max(0.0, dp - dn + MARGIN) for _, _, dp, dn in rows]
    if mining == "batch_hard":
        hardest = [max(hinge(rows)) if rows else 0.0 for rows in found.values()]
        return sum(hardest) / mask.sum()
    if mining == "random":
        data = (jnp.array(embeddings), jnp.array(labels), jnp.array(mask))
        positive, negative = (np.asarray(x) for x in draw(KEY, pairs(*data)))
        drawn = [
            [row for row in rows if row[:2] == (positive[a], negative[a])]
            for a, rows in found.items()
        ]
        assert all(len(one) == bool(found[a]) for a, one in enumerate(drawn))
        return sum(sum(hinge(rows)) for rows in drawn) / mask.sum()
    choose = semi_hard_of if mining == "semi_hard" else lambda rows: rows
    values = [value for rows in found.values() for value in hinge(choose(rows)) if value > 0]
    return sum(values) / max(len(values), 1)


def mean_loss(embeddings, labels, mask, axis=None, **options):
    loss, _ = triplet_loss(
        embeddings, jnp.array(labels), jnp.array(mask), KEY, margin=MARGIN, axis=axis, **options
    )
    return jnp.where(mask, loss, 0.0).sum() / mask.sum()


@pytest.mark.parametrize("squared", [False, True], ids=["plain", "squared"])
@pytest.mark.parametrize("mining", MINING)
@pytest.mark.parametrize("seed", range(2))
def test_loss_and_gradient_equal_loops_over_all_triplets(seed, mining, squared):
    embeddings, labels, mask = random_batch(seed)
    f = jax.jit(lambda e: mean_loss(e, labels, mask, mining=mining, squared=squared))
    value, gradient = jax.value_and_grad(f)(embeddings)
    want = lambda e: loop(mining, e, labels, mask, squared)
    np.testing.assert_allclose(value, want(embeddings), rtol=1e-5, atol=1e-6)
    assert value > 0
    rng, step = np.random.default_rng(seed), 1e-6
    for _ in range(3):  # slopes in random directions, by double-precision differences
        direction = rng.normal(size=embeddings.shape)
        e = embeddings.astype("d")
        slope = (want(e + step * direction) - want(e - step * direction)) / (2 * step)
        np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-3, atol=1e-4)
    assert not np.any(gradient[~mask])


@pytest.mark.parametrize("mining", MINING)
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3]], ids=["no negative", "no positive"])
def test_no_triplet_gives_zero_loss_and_zero_gradient(labels, mining, squared):
    mask = np.ones(4, bool)
    for embeddings in (jnp.ones((4, 3)), jax.random.normal(KEY, (4, 3))):
        f = lambda e: mean_loss(e, labels, mask, mining=mining, squared=squared)
        value, gradient = jax.value_and_grad(f)(embeddings)
        assert value == 0 and not np.any(gradient)


@pytest.mark.parametrize("mining", MINING)
def test_collapsed_embeddings_sit_at_the_margin_with_a_finite_gradient(mining):
    labels, mask = np.array([0, 0, 1, 1]), np.ones(4, bool)
    f = lambda e: mean_loss(e, labels, mask, mining=mining)
    value, gradient = jax.value_and_grad(f)(jnp.full((4, 3), 0.5))
    # All distances are 0: a negative that is farther, as semi-hard mining wants, there is none.
    assert value == pytest.approx(0.0 if mining == "semi_hard" else MARGIN)
    assert np.isfinite(gradient).all()


def test_the_share_of_active_triplets_is_counted():
    line = jnp.array([[0.0], [1.0], [1.5], [9.0]])  # a, its positive, two negatives
    labels, mask = jnp.array([0, 0, 1, 1]), jnp.ones(4, bool)
    _, active = triplet_loss(line, labels, mask, KEY, mining="batch_all", margin=1.0)
    # Distances to the positive against those to the negatives:
    # 0: 1 against 1.5 and 9; 1: 1 against 0.5 and 8; 1.5: 7.5 against 1.5 and 0.5; 9: 7.5, 9 and 8.
    np.testing.assert_allclose(active, [0.5, 0.5, 1.0, 0.5])


def test_random_mining_draws_every_positive_and_negative_as_often():
    labels, mask = jnp.array([0, 0, 0, 1, 1, 2, 2]), jnp.array([True] * 6 + [False])
    found = pairs(jnp.zeros((7, 2)), labels, mask)
    drawn = jax.vmap(lambda key: jnp.stack(draw(key, found)))(jax.random.split(KEY, 3000))
    positives, negatives = np.asarray(drawn[:, :, 0]).T  # of the first example
    assert set(positives) == {1, 2} and set(negatives) == {3, 4, 5}
    assert abs((positives == 1).mean() - 1 / 2) < 0.05
    assert abs((negatives == 4).mean() - 1 / 3) < 0.05


def test_distances_are_those_of_a_loop_and_have_finite_gradients_at_zero():
    rng = np.random.default_rng(0)
    a, b = (jnp.array(rng.normal(size=(n, 3)), jnp.float32) for n in (5, 4))
    loop = [[((x - y) ** 2).sum() for y in b] for x in a]
    np.testing.assert_allclose(squared_distances(a, b), loop, rtol=1e-5, atol=1e-6)
    point = jnp.array([[1.0, 2.0, 3.0]])
    gradient = jax.grad(lambda x: root(squared_distances(x, point)).sum())(point)
    assert np.isfinite(gradient).all()


def test_spread_is_half_the_mean_squared_distance_of_unit_vectors():
    x = np.random.default_rng(0).normal(size=(20, 3))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype("f")
    mask = np.arange(20) < 17
    value = spread(jnp.array(x), jnp.array(mask))[:17].mean()
    pairwise = [((a - b) ** 2).sum() for a in x[:17] for b in x[:17]]
    assert value == pytest.approx(np.mean(pairwise) / 2, rel=1e-5)
    assert spread(jnp.ones((20, 3)), jnp.array(mask))[:17].max() == 0


def test_no_array_of_all_triplets_is_made():
    """1,024³ float32 would be 4 GiB; what is needed is a few times 1,024²."""
    shapes = (
        jax.ShapeDtypeStruct((1024, 64), jnp.float32),
        jax.ShapeDtypeStruct((1024,), jnp.int32),
    )
    for mining in MINING:
        f = lambda e, y: mean_loss(e, y, jnp.ones(1024, bool), mining=mining)  # noqa: B023
        memory = jax.jit(jax.grad(f)).lower(*shapes).compile().memory_analysis()
        assert memory.temp_size_in_bytes < 100 * 2**20


def test_an_unknown_mining_is_named():
    with pytest.raises(UserError, match="Did you mean 'batch_hard'"):
        mean_loss(jnp.ones((4, 3)), [0, 0, 1, 1], np.ones(4, bool), mining="batchhard")


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_eight_devices_mine_the_global_batch(mode):
    """Loss, gradient and spread do not depend on how a ragged batch is split (promise 2)."""
    from research.training import parallel as parallel_lib
    from research.training import state as state_lib
    from research.training.step import make_train_step

    base = toys.experiment(optimizer=optax.sgd(0.5))

    def loss(variables, batch, key, axis):
        e = jnp.asarray(batch["x"]) @ variables["params"]["w"]
        extra = {"spread": spread(e, batch["mask"], axis)}
        value = jnp.zeros(len(e))
        for mining in MINING:
            one, active = triplet_loss(
                e, batch["label"], batch["mask"], key, mining=mining, margin=MARGIN, axis=axis
            )
            value, extra = value + one, extra | {mining: one, f"active_{mining}": active}
        return value, {}, extra

    experiment = toys.replaced(
        base,
        init=lambda key: {"params": {"w": jax.random.normal(key, (4, 3))}},
        loss=loss,
        augment=lambda key, batch, axis: batch,
    )
    x, labels, mask = random_batch(1, size=32)
    batch = {"x": x, "label": labels, "mask": mask, "index": np.arange(32, dtype="i")}

    def one_step(mode):
        parallel = parallel_lib.create(mode, 32)
        state = parallel.put(
            state_lib.create(experiment.training, state_lib.init(experiment.network, 0), False)
        )
        placed = parallel.put_batch(batch)
        step = parallel.compile(
            lambda axis: make_train_step(experiment.training, axis), state, placed
        )
        (state, totals), _ = step(state, placed)
        return jax.device_get((state.params, totals))

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        one_step("single"),
        one_step(mode),
    )
