import numpy as np
import pytest

from research.data.sources.splits import Subset, hold_out, refuse_second_validation, stratified
from research.errors import UserError


class Letters:
    labels = np.array([0, 1, 1, 0, 2, 1, 0, 1, 0, 1, 0], np.int32)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"image": np.full((1, 1, 1), index, np.uint8), "label": self.labels[index]}


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


def test_subsets_show_their_own_examples():
    kept, held = hold_out(Letters(), 0.4)
    assert len(kept) + len(held) == len(Letters())
    for part in (kept, held):
        assert isinstance(part, Subset)
        shown = [int(part[i]["image"][0, 0, 0]) for i in range(len(part))]
        assert shown == part.positions.tolist()
        assert [int(part[i]["label"]) for i in range(len(part))] == part.labels.tolist()


def test_nothing_held_out_for_a_share_of_nothing():
    kept, held = stratified(np.zeros(9, np.int32), 0.0)
    assert len(kept) == 9 and not len(held)


def test_a_set_with_a_validation_split_needs_no_other():
    refuse_second_validation(["train", "test"])
    with pytest.raises(UserError, match="has a validation split of its own"):
        refuse_second_validation(["train", "validation", "test"])


@pytest.mark.parametrize(("labels", "share"), [([0, 1, 4], 0.5), ([0], 0.9), ([], 0.5)])
def test_a_part_without_examples_is_refused(labels, share):
    with pytest.raises(UserError, match=rf"--validation={share}: of {len(labels)} .* none is left"):
        hold_out(Subset(Letters(), np.flatnonzero(np.isin(range(11), labels))), share)
