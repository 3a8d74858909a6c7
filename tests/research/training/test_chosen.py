"""What results say of the weights that they are of."""

from pathlib import Path

import pytest

from research.training.checkpoint import Opened
from research.training.chosen import chosen_by, in_words, opened_weights, weights_of_run

TEST = ("test/cross_entropy", "min")


@pytest.mark.parametrize("split", ["test", "text", "validation", "val"])
def test_a_best_checkpoint_that_no_validation_split_chose_says_so(split):
    said = weights_of_run((f"{split}/accuracy", "max"), 12, 10, averaged=True)
    (last,), best = said["weights"], said["best_checkpoint"]
    assert in_words(last) == (
        "checkpoints/latest/12, step 12, moving average: not chosen by any metric"
    )
    words = in_words(best)
    assert words.startswith("checkpoints/best/10, step 10, moving average: chosen by the highest")
    assert f"{split}/accuracy, so too good on the {split} split" in words
    assert ("--validation=0.1 would" in words) == (split in ("test", "text"))
    assert best["chosen_by"]["for_validation"] == (split in ("validation", "val"))


def test_a_run_that_nothing_names_the_best_of_says_nothing():
    assert weights_of_run(("", "max"), 12, None, averaged=False) == {
        "weights": [], "validation_split": None
    }  # fmt: skip
    assert "best_checkpoint" not in weights_of_run(TEST, 12, None, averaged=False)


@pytest.mark.parametrize("described", [{"chosen_by": chosen_by(TEST)}, {}], ids=["new", "old"])
def test_only_what_lies_in_best_or_was_taken_out_of_it_is_chosen(described):
    metadata = {"best": True, "step": 8, **described}
    weights = lambda path: opened_weights(Opened(Path(path), metadata, {}), TEST)
    assert weights("runs/a/checkpoints/latest/8").chosen_by is None
    for path in ("runs/a/checkpoints/best/8", "mine/8"):
        assert weights(path).chosen_by == chosen_by(TEST)
        words = in_words(weights(path)._asdict())
        assert words.startswith(f"{path}, step 8: chosen by the lowest test/cross_entropy, so too")
    metadata["best"] = False
    assert weights("mine/8").chosen_by is None
