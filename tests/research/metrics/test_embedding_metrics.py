import itertools

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from research.metrics import embedding, recognition
from research.metrics import verification as verify
from research.metrics.sampling import between
from research.record.outcomes import mean

RNG = np.random.default_rng(0)


def clusters(classes=12, each=6, spread=0.6, d=5, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes) * 7, each)
    x = rng.normal(size=(classes, d))[labels // 7] + spread * rng.normal(size=(len(labels), d))
    order = rng.permutation(len(labels))
    return x[order].astype("f"), labels[order]


def distance(a, b):
    return float(np.sqrt(((a.astype("d") - b) ** 2).sum()))


def test_pairs_are_all_pairs_or_a_fair_sample():
    _, labels = clusters()
    pairs = verify.draw_pairs(labels)
    found = {(i, j): s for i, j, s in zip(*pairs, strict=True)}
    assert found == {
        (i, j): labels[i] == labels[j] for i, j in itertools.combinations(range(72), 2)
    }
    some = verify.draw_pairs(labels, most=100)
    assert some.same.sum() == 100 and (~some.same).sum() == 100
    assert all(found[i, j] == s for i, j, s in zip(*some, strict=True))
    many = verify.draw_pairs(np.repeat(np.arange(50), 20), most=1000)  # too many to list
    assert 900 < (~many.same).sum() <= 1000
    large = verify.draw_pairs(np.repeat([0, 1], 3000), most=1000)  # 9 million pairs of a class
    assert large.same.sum() == 1000 and len(np.unique(large.first[large.same])) > 40
    again = verify.draw_pairs(np.repeat(np.arange(50), 20), most=1000)
    np.testing.assert_array_equal(many.first, again.first)


def test_verification_is_what_counting_gives():
    x, labels = clusters()
    pairs = verify.draw_pairs(labels)
    d = verify.pair_distances(x, pairs, "euclidean")
    loop = [distance(x[i], x[j]) for i, j in zip(pairs.first, pairs.second, strict=True)]
    np.testing.assert_allclose(d, loop, rtol=1e-4, atol=1e-5)
    scores = verify.verification(d, pairs.same)
    same, other = d[pairs.same], d[~pairs.same]
    wins = (same[:, None] < other[None]).mean()  # the area under the curve: Mann-Whitney
    assert scores["verification_auc"] == pytest.approx(wins, abs=1e-6)
    rates = [((other <= t).mean(), (same > t).mean()) for t in np.sort(d)]
    crossing = min(rates, key=lambda pair: abs(pair[0] - pair[1]))
    assert scores["equal_error_rate"] == pytest.approx(np.mean(crossing), abs=0.01)
    strict = [t for t in np.sort(d) if (other <= t).mean() <= 1e-3]
    assert scores["true_acceptance"] == pytest.approx((same <= strict[-1]).mean())


def test_the_threshold_is_the_best_of_all():
    x, labels = clusters()
    pairs = verify.draw_pairs(labels)
    d = verify.pair_distances(x, pairs, "euclidean")
    accuracy = lambda t: balanced_accuracy_score(pairs.same, d < t)
    best = max(accuracy(t) for t in np.r_[np.sort(d), d.max() + 1])
    assert accuracy(verify.best_threshold(d, pairs.same)) == pytest.approx(best)


def test_accuracy_is_of_pairs_that_did_not_choose_the_threshold():
    x, labels = clusters(classes=8)
    pairs = verify.draw_pairs(labels)
    d = verify.pair_distances(x, pairs, "euclidean")
    folds = verify.pair_folds(labels, pairs)
    for fold in np.unique(folds[folds >= 0]):
        here, others = folds == fold, (folds != fold) & (folds >= 0)
        ends = lambda which: set(labels[pairs.first[which]]) | set(labels[pairs.second[which]])
        assert not ends(here) & ends(others)
        assert len(set(pairs.same[here])) == 2
    used, guess = folds >= 0, np.zeros(len(d), bool)
    for fold in np.unique(folds[used]):
        others = used & (folds != fold)
        guess[folds == fold] = d[folds == fold] < verify.best_threshold(
            d[others], pairs.same[others]
        )
    want = balanced_accuracy_score(pairs.same[used], guess[used])
    assert verify.threshold_accuracy(d, pairs.same, folds) == pytest.approx(want)


def test_episodes_are_what_they_say():
    _, labels = clusters()
    domains = RNG.integers(0, 3, len(labels))
    members = recognition.class_members(labels)
    tables = {k: recognition.class_members(labels, domains == k) for k in range(3)}
    for number in range(30):
        draws = recognition.random(number)
        support, query = recognition._draw(members, 5, 2, draws)
        chosen = labels[query]
        assert len(set(chosen)) == 5 and (labels[support] == chosen[:, None]).all()
        assert len({*support.ravel(), *query}) == 15
        support, query = recognition._draw_across(tables, 3, 1, draws)
        assert (labels[support[:, 0]] == labels[query]).all() and len(set(labels[query])) == 3
        (one,), (other,) = set(domains[support].ravel()), set(domains[query])
        assert one != other


def test_episode_accuracy_is_that_of_a_loop_and_random_guessing_is_chance():
    x, labels = clusters(spread=1.0)
    members = recognition.class_members(labels)
    hits = []
    for number in range(50):
        support, query = recognition._draw(members, 6, 3, recognition.random(6, 3, number))
        means = x[support].mean(1)
        hits += [np.argmin([distance(x[q], m) for m in means]) == k for k, q in enumerate(query)]
    found = recognition.episode_accuracy(x, labels, 6, 3, episodes=50)
    assert 0.3 < found < 1 and found == pytest.approx(np.mean(hits))
    noise = RNG.normal(size=x.shape).astype("f")
    assert recognition.episode_accuracy(noise, labels, 10) == pytest.approx(0.1, abs=0.04)
    assert np.isnan(recognition.episode_accuracy(x, labels, 13))
    assert np.isnan(recognition.episode_accuracy(x, labels, 2, domains=np.zeros_like(labels)))


def test_published_runs_are_scored_within_each_run():
    # Two runs of two classes; in the second a query lies nearer to the other class.
    x = np.array([[0.0], [10.0], [1.0], [9.0], [0.0], [10.0], [6.0], [9.0]], "f")
    labels = np.array([0, 1, 0, 1, 2, 3, 2, 3])
    runs, is_query = np.repeat([5, 6], 4), np.array([0, 0, 1, 1] * 2)
    assert recognition.run_errors(x, labels, runs, is_query) == 0.25
    thumbnails = np.repeat(np.array([0, 255] * 4, np.uint8), 4).reshape(8, 2, 2)
    targets = {"label": labels, "run": runs, "is_query": is_query}
    assert embedding.score_split(x, thumbnails, targets) == {
        "one_shot_error": 0.25,
        "pixel_one_shot_error": 0.0,
    }
    some = {**targets, "run": np.where(is_query, 0, runs)}  # not all are of a published run
    assert "one_shot_error" not in embedding.score_split(x, thumbnails, some)


def test_retrieval_is_that_of_a_loop():
    x, labels = clusters(classes=6, each=4, spread=1.0)
    x, labels = np.r_[x, x[:1] + 5], np.r_[labels, 99]  # a class of one asks for nothing
    recalls, average = {1: [], 5: [], 10: []}, []
    for i in range(24):
        order = sorted((j for j in range(25) if j != i), key=lambda j: distance(x[i], x[j]))
        right = [labels[j] == labels[i] for j in order]
        for k, hits in recalls.items():
            hits.append(any(right[:k]))
        average.append(sum(np.mean(right[: r + 1]) for r in range(3) if right[r]) / 3)
    scores = embedding.retrieval(x, labels)
    for k, hits in recalls.items():
        values, weights = scores[f"recall_at_{k}"]
        assert values.tolist() == [*hits, 0] and weights.tolist() == [1] * 24 + [0]
    values, _ = scores["map_at_r"]
    assert 0 < values.mean() < 1 and values.tolist() == pytest.approx([*average, 0])


def test_scores_of_perfect_embeddings_and_their_protocol():
    labels = np.repeat(np.arange(25), 7)
    x = np.eye(25, dtype="f")[labels]
    pixels = RNG.normal(size=(175, 9)).astype("f")
    scores = embedding.score(x, pixels, labels, domains=np.tile(np.arange(7), 25))
    for name in ("accuracy_20way_1shot", "cross_accuracy_20way_1shot", "verification_auc", "nmi"):
        assert scores[name] == pytest.approx(1.0)
    for name in ("verification_accuracy", "true_acceptance"):
        assert scores[name] == pytest.approx(1.0)
    for name in ("recall_at_1", "map_at_r"):
        assert mean(*scores[name]) == pytest.approx(1.0)
    assert scores["pixel_accuracy_20way_1shot"] < 0.15
    assert 0 < scores["verification_threshold"] < 2**0.5
    assert scores.keys() <= embedding.protocol(20).keys()
    # Two classes of two: what cannot be asked is left out.
    few = embedding.score(x[5:9], pixels[5:9], labels[5:9])
    assert few["accuracy_2way_1shot"] == 1.0 and "accuracy_2way_5shot" not in few
    assert all(np.isfinite(value).all() for value in few.values())


@pytest.mark.parametrize(
    "labels", [[3, 3, 3, 3], [0, 1, 2, 3], [0]], ids=["one class", "alone", "one"]
)
def test_nothing_is_said_of_a_split_without_two_examples_of_two_classes(labels):
    x = RNG.normal(size=(len(labels), 3)).astype("f")
    assert embedding.score(x, x, np.array(labels)) == {}


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_embeddings_that_have_all_become_one_are_at_chance():
    labels = np.repeat(np.arange(5), 6)
    one = np.ones((30, 4), "f")
    scores = embedding.score(one, clusters(5, 6)[0], labels)
    for name in ("accuracy_5way_1shot", "accuracy_5way_5shot", "recognition_accuracy"):
        assert scores[name] == pytest.approx(1 / 5)
    assert mean(*scores["recall_at_1"]) <= 1 / 5 and scores["nmi"] == 0
    assert scores["verification_auc"] == scores["verification_accuracy"] == 0.5
    assert scores["equal_error_rate"] == 0.5 and scores["true_acceptance"] == 0


def test_distances_far_from_the_origin_keep_their_digits():
    a, b = RNG.normal(size=(2, 3, 4, 8))
    far = [(x + 1000).astype("f") for x in (a, b)]
    found = between(*far, "euclidean")
    exact = np.linalg.norm(far[0][:, :, None].astype("d") - far[1][:, None], axis=-1)
    np.testing.assert_allclose(found, exact, rtol=1e-4)


def test_lengths_of_embeddings_by_a_loop():
    x = np.random.default_rng(0).normal(0.3, 1, (40, 5)).astype("f")
    lengths = [sum(float(v) ** 2 for v in row) ** 0.5 for row in x]
    mean = sum(lengths) / 40
    spread = (sum((n - mean) ** 2 for n in lengths) / 39) ** 0.5
    middle = [sum(float(row[k]) for row in x) / 40 for k in range(5)]
    found = embedding.norms(x)
    assert found.mean == pytest.approx(mean) and found.error == pytest.approx(spread / 40**0.5)
    assert found.of_mean == pytest.approx(sum(m**2 for m in middle) ** 0.5)
    # Unit vectors: all the same, and in opposite pairs.
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert embedding.norms(unit[:1].repeat(9, 0)).of_mean == pytest.approx(1)
    assert embedding.norms(np.concatenate([unit, -unit])).of_mean == pytest.approx(0, abs=1e-7)
    assert embedding.norms(unit).mean == pytest.approx(1) and np.isnan(
        embedding.norms(unit[:1]).error
    )


def test_city_block_distances_are_those_of_a_loop():
    a, b = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(2, 5, 4))
    found = between(a.astype("f"), b.astype("f"), "cityblock")
    for e, i, j in itertools.product(range(2), range(3), range(5)):
        assert found[e, i, j] == pytest.approx(np.abs(a[e, i] - b[e, j]).sum(), rel=1e-5)


def test_lengths_are_compared_with_one_where_they_are_meant_to_be_one():
    x = np.array([[3.0, 4.0], [0.0, 1.0]], "f")  # lengths 5 and 1
    said = embedding.bias(x, normalised=True)
    assert said.ratios["norm"].value == pytest.approx(3.0) and "norm" not in said.also
    free = embedding.bias(x, normalised=False)
    assert not free.ratios and free.also["norm"] == pytest.approx(3.0)
    for one in (said, free):
        assert one.also["length of the mean embedding"] == pytest.approx(np.hypot(1.5, 2.5))


def test_fewer_episodes_of_many_classes_and_as_many_queries(monkeypatch):
    x, labels = clusters(classes=40, each=3)
    asked = []

    def episode_accuracy(x, labels, size, shots, metric, *, episodes):
        asked.append((size, episodes))
        return 0.0

    monkeypatch.setattr(recognition, "episode_accuracy", episode_accuracy)
    recognition.recognition(x, labels, [2, 20, 40])
    most = recognition.EPISODES
    assert asked == [(2, most), (20, most), (40, most // 2)]


def test_numbers_of_identities_grow_to_all_that_have_two_examples():
    labels = np.r_[np.repeat(np.arange(25), 2), 99]  # the last has one
    assert recognition.growing(labels) == [2, 5, 10, 20, 25]
    assert recognition.growing(np.repeat(np.arange(6000), 2))[-3:] == [2000, 5000, 6000]
    assert recognition.growing(np.array([0, 0, 1])) == []
    assert recognition.ways_of(labels) == 20 and recognition.ways_of(labels[:8]) == 4
