import numpy as np
import pytest

from research.data.sources.division import deal, parse_fold, stratified
from research.errors import UserError


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.9])
def test_every_class_is_split_alike(share):
    labels = np.random.default_rng(0).integers(0, 7, 1000).astype(np.int32)
    kept, held = stratified(labels, share)
    assert sorted([*kept, *held]) == list(range(1000))
    for label in range(7):
        count = (labels == label).sum()
        assert (labels[held] == label).sum() == round(share * count)


def test_the_rule_takes_the_middle_of_each_five():
    assert stratified(np.zeros(20, np.int32), 0.2)[1].tolist() == [2, 7, 12, 17]
    # Independent of the order in which classes are mixed.
    labels = np.array([0, 1] * 10, np.int32)
    assert stratified(labels, 0.2)[1].tolist() == [4, 5, 14, 15]


def test_small_classes_stay_on_both_sides():
    labels = np.array([0, 0, 1, 2, 2, 2], np.int32)
    for share in (0.01, 0.99):
        kept, held = stratified(labels, share)
        for label in (0, 2):
            assert (labels[kept] == label).any() and (labels[held] == label).any()
    assert 2 in stratified(labels, 0.01)[0]  # the only example of class 1 is trained on


def test_nothing_held_out_for_a_share_of_nothing():
    kept, held = stratified(np.zeros(9, np.int32), 0.0)
    assert len(kept) == 9 and not len(held)


LABELS = np.sort(np.random.default_rng(0).integers(0, 7, 1003)).astype(np.int32)
HANDS = np.random.default_rng(1).integers(0, 60, 1003)  # who wrote an example


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_seed_draws_as_many_of_each_class_from_anywhere_in_it(share):
    held = {seed: stratified(LABELS, share, seed)[1] for seed in (0, 1, 2)}
    for seed in (1, 2):
        assert np.array_equal(held[seed], stratified(LABELS, share, seed)[1])
        assert np.array_equal(np.bincount(LABELS[held[seed]]), np.bincount(LABELS[held[0]]))
    chance = share * len(LABELS) * share  # two draws agree as often as chance has it
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert abs(len(np.intersect1d(held[a], held[b])) - chance) < 5 * chance**0.5
    places = np.concatenate([stratified(np.zeros(100, int), 0.1, s)[1] for s in range(1, 101)])
    counts = np.histogram(places, bins=4, range=(0, 100))[0]  # 1,000 draws, 250 a quarter
    assert np.abs(counts - 250).max() < 75


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("folds", [2, 5, 10])
def test_folds_are_disjoint_cover_all_and_are_even_in_every_class(folds, seed):
    dealt = deal(LABELS, folds, seed)
    assert np.array_equal(np.unique(dealt), np.arange(folds))  # each example is in one fold
    assert np.array_equal(dealt, deal(LABELS, folds, seed))
    table = np.array([np.bincount(LABELS[dealt == k], minlength=7) for k in range(folds)])
    assert np.ptp(table, 0).max() <= 1 and np.ptp(table.sum(1)) <= 1
    others = [deal(LABELS, folds, other) for other in range(4) if other != seed]
    assert not any(np.array_equal(dealt, other) for other in others)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_folds_keep_groups_whole_and_classes_nearly_even(seed):
    dealt = deal(LABELS, 5, seed, HANDS)
    for hand in np.unique(HANDS):
        assert len(set(dealt[hand == HANDS].tolist())) == 1
    assert np.array_equal(np.unique(dealt), np.arange(5))
    table = np.array([np.bincount(LABELS[dealt == k], minlength=7) for k in range(5)])
    # 60 groups of 17 examples, give or take: within a third of an even share.
    assert np.abs(table / table.mean(0) - 1).max() < 1 / 3
    assert np.abs(table.sum(1) / table.sum(1).mean() - 1).max() < 0.1


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_a_drawn_share_keeps_groups_whole(share):
    for seed in (1, 2, 3):
        kept, held = stratified(LABELS, share, seed, HANDS)
        assert sorted([*kept, *held]) == list(range(1003))
        assert not set(HANDS[kept].tolist()) & set(HANDS[held].tolist())
        largest = np.bincount(HANDS).max()
        assert len(held) > 0 and abs(len(held) - share * 1003) <= largest
    assert not np.array_equal(*(stratified(LABELS, share, s, HANDS)[0] for s in (1, 2)))
    # Without a seed, the set is divided as ever.
    plain, grouped = stratified(LABELS, share), stratified(LABELS, share, 0, HANDS)
    assert np.array_equal(plain[1], grouped[1])


def test_more_folds_than_examples_or_groups_are_refused():
    with pytest.raises(UserError, match="--fold: 4 parts of 3 examples"):
        deal(np.zeros(3, int), 4)
    with pytest.raises(UserError, match="--fold: 3 parts of 2 groups"):
        deal(np.zeros(6, int), 3, 0, np.array([0, 0, 0, 5, 5, 5]))


@pytest.mark.parametrize("text", ["", "0/5", "6/5", "1/1", "1", "1/5/5", "a/b", "-1/5", "1.0/5"])
def test_a_fold_that_is_none_is_refused(text):
    assert parse_fold("5/5") == (5, 5)
    with pytest.raises(UserError, match="I/K is needed"):
        parse_fold(text)
