import numpy as np
import pytest

from research.data.sources.division import stratified
from research.data.sources.splits import (
    Subset,
    has_made_test,
    hold_fold,
    hold_out,
    refuse_second_validation,
    with_test,
)
from research.errors import UserError


class Letters:
    labels = np.array([0, 1, 1, 0, 2, 1, 0, 1, 0, 1, 0], np.int32)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"image": np.full((1, 1, 1), index, np.uint8), "label": self.labels[index]}


def test_subsets_show_their_own_examples():
    kept, held = hold_out(Letters(), 0.4)
    assert len(kept) + len(held) == len(Letters())
    for part in (kept, held):
        assert isinstance(part, Subset)
        shown = [int(part[i]["image"][0, 0, 0]) for i in range(len(part))]
        assert shown == part.positions.tolist()
        assert [int(part[i]["label"]) for i in range(len(part))] == part.labels.tolist()


def test_a_set_with_a_validation_split_needs_no_other():
    refuse_second_validation(["train", "test"])
    with pytest.raises(UserError, match="has a validation split of its own"):
        refuse_second_validation(["train", "validation", "test"])


@pytest.mark.parametrize(("labels", "share"), [([0, 1, 4], 0.5), ([0], 0.9), ([], 0.5)])
def test_a_part_without_examples_is_refused(labels, share):
    with pytest.raises(UserError, match=rf"--validation={share}: of {len(labels)} .* none is left"):
        hold_out(Subset(Letters(), np.flatnonzero(np.isin(range(11), labels))), share)


class Written(Letters):
    """Letters in pairs, of one hand each."""

    groups = np.array([7, 7, 3, 3, 9, 9, 1, 1, 4, 4, 0])


def test_groups_stay_on_one_side_through_subsets_of_subsets():
    part = Subset(Written(), np.arange(1, 11))
    for kept, held in (hold_out(part, 0.3, seed=2), hold_fold(part, "2/3")):
        assert len(held) and sorted([*kept.positions, *held.positions]) == list(range(10))
        assert not set(kept.groups.tolist()) & set(held.groups.tolist())
        assert kept.groups.tolist() == Written.groups[1:][kept.positions].tolist()
    assert hold_out(Letters(), 0.3, seed=2)[0].groups is None


def test_a_test_split_is_drawn_where_there_is_none():
    made = [with_test({"train": Letters()}, "here", seed) for seed in (0, 1, 1, 2)]
    assert all(map(has_made_test, made))
    held = [splits["test"].positions.tolist() for splits in made]
    assert held[0] == stratified(Letters.labels, 0.2)[1].tolist()  # as without a seed
    assert held[1] == held[2] and len({*map(tuple, held)}) == 3
    own = {"train": Letters(), "test": Letters()}
    assert with_test(own, "here", 1) == own and not has_made_test(own)
