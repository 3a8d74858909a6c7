"""Chosen examples are drawn alone, in the order asked for, with their own numbers."""

import numpy as np
import pytest
import toys

from research.data.sources.examples import Arrays
from research.data.sources.source import Source
from research.training import parallel as parallel_lib
from research.training.drawing import draw_examples, examples_of

COUNT = 37


def source(**options):
    images = np.arange(COUNT, dtype="f")[:, None]
    return Source(Arrays({"image": images}), 8, **options)


def drawing():
    """Predicts the picture and its number, which are one; draws both, and how many there are."""

    def draw(outputs, batch):
        shown = np.concatenate([outputs, batch["image"]], 1)
        return {"drawn": np.array([[[len(shown), *shown[0]]]])}

    return toys.replaced(
        toys.experiment(draw=draw),
        predict=lambda variables, batch: batch["index"].astype("float32")[:, None],
        measure=lambda outputs, batch: {},
    ).evaluation


@pytest.mark.parametrize("mode", ["single", "pmap"])
@pytest.mark.parametrize("alone", [False, True])
def test_chosen_examples_are_drawn_one_by_one_in_the_order_asked_for(mode, alone):
    index = np.array([36, 0, 5, 5, 20, 19, 18, 3, 2, 11])
    parallel = parallel_lib.create(mode, 8)
    found = draw_examples(drawing(), parallel, {"params": {}}, source(alone=alone), index)
    assert [one["drawn"][0, 0].tolist() for one in found] == [[1, k, k] for k in index.tolist()]


def test_numbers_are_those_of_the_split_where_examples_were_left_out():
    """The network is given the row in the source, as in evaluation."""
    kept = np.flatnonzero(np.arange(COUNT) % 3 > 0)
    parallel = parallel_lib.create("single", 8)
    few = source().chosen(kept)
    wanted = np.array([35, 1, 2])
    found = list(examples_of(drawing(), parallel, {"params": {}}, few, wanted))
    assert [float(batch["image"][0, 0]) for _, batch in found] == [35, 1, 2]
    assert [int(outputs[0, 0]) for outputs, _ in found] == [
        kept.tolist().index(k) for k in wanted.tolist()
    ]
    with pytest.raises(ValueError, match="are not in the source"):
        list(examples_of(drawing(), parallel, {"params": {}}, few, np.array([3])))
