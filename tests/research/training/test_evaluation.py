"""Exact metrics from a fake model whose outputs are known."""

import jax.numpy as jnp
import numpy as np
import pytest
import toys

from research.data.sources.examples import Arrays
from research.data.sources.source import Source
from research.experiment import Evaluator
from research.metrics import classification as metrics
from research.training import parallel as parallel_lib
from research.training.evaluation import make_evaluate, pictures_of, scores_of

COUNT, CLASSES = 37, 6


def split():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(CLASSES), COUNT).astype("f")
    labels = rng.integers(0, CLASSES, COUNT).astype("i")
    return Arrays({"image": np.log(probabilities), "label": labels})


def fake(scored):
    """Predicts what lies in the batch; the last example has no weight in "half"."""

    def measure(outputs, batch):
        values = metrics.measure(outputs, batch["label"])
        right, ones = values["accuracy"]
        return {**values, "half": (right, ones * (batch["index"] % 2 == 0))}

    def score(outputs, targets):
        return {"n": float(len(outputs)), "first_label": float(targets["label"][0])}

    return toys.replaced(
        toys.experiment(score=score if scored else None),
        predict=lambda variables, batch: batch["image"],
        measure=measure,
    )


@pytest.mark.parametrize("batch_size", [8, 16, 40])
@pytest.mark.parametrize("mode", ["single", "jit", "pmap"])
def test_metrics_are_those_of_a_plain_loop_whatever_the_batches(mode, batch_size):
    """37 examples in batches of 8, 16 and 40: padding counts for nothing, nothing is dropped."""
    data = split()
    log_p, labels = data.fields["image"], data.fields["label"]
    probabilities = np.exp(log_p)
    right = [float(p.argmax() == y) for p, y in zip(probabilities, labels, strict=True)]
    top5 = [float(y in np.argsort(-p)[:5]) for p, y in zip(probabilities, labels, strict=True)]
    entropy = [-np.log(p[y]) for p, y in zip(probabilities, labels, strict=True)]
    expected = {
        "accuracy": sum(right) / COUNT,
        "top5_accuracy": sum(top5) / COUNT,
        "cross_entropy": sum(entropy) / COUNT,
        "half": sum(right[::2]) / len(right[::2]),
        "n": COUNT,
        "first_label": labels[0],
    }
    parallel = parallel_lib.create(mode, batch_size)
    result = make_evaluate(fake(True).evaluation, parallel)(
        {"params": {}}, Source(data, batch_size), True
    )
    assert result.metrics == pytest.approx(expected, rel=1e-6)
    np.testing.assert_array_equal(result.held["labels"], log_p)
    np.testing.assert_array_equal(result.targets["label"], labels)
    assert "image" not in result.targets
    # For pictures: evenly spaced over the split, which may be ordered.
    shown = [(2 * k + 1) * COUNT // (2 * batch_size) for k in range(batch_size)]
    shown = shown if batch_size < COUNT else list(range(COUNT))
    outputs, batch = result.sample
    np.testing.assert_array_equal(outputs, log_p[shown])
    np.testing.assert_array_equal(batch["image"], log_p[shown])
    assert batch["index"].tolist() == shown
    # Of every example: what a plain loop says, and no weight where it does not count.
    found = result.outcomes
    assert found.index.tolist() == list(range(COUNT)) and found.names == ()
    assert found.values["accuracy"].tolist() == right
    assert found.values["cross_entropy"].tolist() == pytest.approx(entropy, rel=1e-5)
    assert found.weights["half"].tolist() == [1, 0] * (COUNT // 2) + [1]
    assert found.held is result.held and found.targets.keys() == {"label"}


@pytest.mark.parametrize("mode", ["single", "pmap"])
def test_examples_keep_their_numbers_and_names_where_others_are_left_out(mode):
    class Files:
        def __len__(self):
            return COUNT

        def name(self, index):
            return f"{index}.png"

        def __getitem__(self, index):
            return {}

    kept = np.flatnonzero(np.arange(COUNT) % 3 > 0)
    source = Source(split(), 8, files=Files()).chosen(kept)
    evaluate = make_evaluate(fake(True).evaluation, parallel_lib.create(mode, 8))
    found = evaluate({"params": {}}, source, True).outcomes
    assert found.index.tolist() == kept.tolist()
    assert list(found.names) == [f"{k}.png" for k in kept]
    labels = split().fields["label"][kept]
    np.testing.assert_array_equal(found.targets["label"], labels)
    right = split().fields["image"].argmax(-1)[kept] == labels
    assert found.values["accuracy"].tolist() == right.tolist()


def test_a_score_of_each_example_is_a_metric_by_its_mean_and_an_outcome():
    values, weights = np.arange(COUNT, dtype=float), np.arange(COUNT) % 2.0
    experiment = fake(True)
    experiment = toys.replaced(experiment, score=lambda *_: {"rank": (values, weights), "one": 1.0})
    evaluate = make_evaluate(experiment.evaluation, parallel_lib.create("single", 8))
    result = evaluate({"params": {}}, Source(split(), 8), True)
    expected = sum(range(1, COUNT, 2)) / (COUNT // 2)
    assert result.metrics["rank"] == expected == result.outcomes.mean("rank")
    assert result.metrics["one"] == 1 and "one" not in result.outcomes.values
    again = scores_of(experiment.evaluation, result.outcomes.held, result.outcomes.targets)
    assert again == {"rank": expected, "one": 1.0}


def test_what_padding_and_uncounted_rows_hold_never_reaches_the_outcomes():
    def measure(outputs, batch):
        odd = batch["index"] % 2 == 1
        return {"x": (jnp.where(odd, jnp.nan, 1.0), (~odd).astype(jnp.float32))}

    experiment = toys.replaced(fake(False), measure=measure)
    evaluate = make_evaluate(experiment.evaluation, parallel_lib.create("single", 16))
    found = evaluate({"params": {}}, Source(split(), 16), True).outcomes
    assert len(found.index) == COUNT and found.values["x"].tolist() == [1, 0] * 18 + [1]
    assert found.mean("x") == 1


def test_outputs_are_not_held_where_nobody_scores_them():
    result = make_evaluate(fake(False).evaluation, parallel_lib.create("single", 8))(
        {"params": {}}, Source(split(), 8)
    )
    assert not result.held and "n" not in result.metrics
    assert not result.targets and result.sample is None and result.outcomes is None


@pytest.mark.parametrize("mode", ["single", "pmap"])
def test_only_what_is_kept_is_held_and_scored(mode):
    experiment = toys.replaced(
        fake(True),
        keep=lambda outputs, batch: {"best": outputs.argmax(-1), "index": batch["index"]},
        score=lambda kept, targets: {"n": float(len(kept["best"]))},
    )
    data = split()
    result = make_evaluate(experiment.evaluation, parallel_lib.create(mode, 16))(
        {"params": {}}, Source(data, 16)
    )
    assert result.metrics["n"] == COUNT
    np.testing.assert_array_equal(result.held["labels"]["best"], data.fields["image"].argmax(-1))
    np.testing.assert_array_equal(result.held["labels"]["index"], np.arange(COUNT))


@pytest.mark.parametrize("mode", ["single", "jit"])
def test_what_is_kept_is_tallied_against_what_no_batch_can_hold(mode):
    """Originals of many shapes, by their examples' index; padding never gets there."""

    class Ragged:
        def __len__(self):
            return COUNT

        def __getitem__(self, index):
            return {"label": np.arange(index + 1)}

    def tally(kept, batch, originals):
        lengths = [len(originals[i]["label"]) for i in batch["index"].tolist()]
        return {"best": kept, "length": np.array(lengths)}

    experiment = toys.replaced(
        fake(True),
        keep=lambda outputs, batch: outputs.argmax(-1),
        tally=tally,
        score=lambda kept, targets: {"sum": float(kept["length"].sum())},
    )
    data = split()
    for alone, size in ((False, 16), (True, 8)):
        source = Source(data, size, originals=Ragged(), alone=alone)
        result = make_evaluate(experiment.evaluation, parallel_lib.create(mode, size))(
            {"params": {}}, source
        )
        assert result.metrics["sum"] == COUNT * (COUNT + 1) / 2
        np.testing.assert_array_equal(
            result.held["labels"]["best"], data.fields["image"].argmax(-1)
        )
        expected = (data.fields["image"].argmax(-1) == data.fields["label"]).mean()
        assert result.metrics["accuracy"] == pytest.approx(expected)


MEASURED = Evaluator(measure=lambda outputs, _: {"accuracy": (outputs[:, 0], outputs[:, 0] ** 0)})
SCORED = Evaluator(score=lambda *_: {"accuracy": 1.0})


@pytest.mark.parametrize("one", [MEASURED, SCORED], ids=["measured", "scored"])
def test_a_metric_that_is_given_twice_is_refused(one):
    """Else one evaluator's value would stand in the place of another's."""
    evaluation = fake(False).evaluation._replace(evaluators={"one": one, "other": SCORED})
    evaluate = make_evaluate(evaluation, parallel_lib.create("single", 8))
    with pytest.raises(ValueError, match="'other': 'accuracy' is a metric already"):
        evaluate({"params": {}}, Source(split(), 8))


def test_pictures_of_one_name_are_all_kept():
    draw = lambda value: lambda *_: {"map": np.full((1, 1, 3), value, np.uint8)}
    evaluators = {
        "one": Evaluator(draw=draw(1)),
        "other": Evaluator(draw=draw(2), draw_split=draw(3)),
    }
    evaluation = fake(False).evaluation._replace(evaluators=evaluators)
    result = make_evaluate(evaluation, parallel_lib.create("single", 8))(
        {"params": {}}, Source(split(), 8), True
    )
    found = pictures_of(evaluation, {"test": result})
    assert {name: int(x[0, 0, 0]) for name, x in found.items()} == {
        "test/map": 1,
        "test/map-2": 2,
        "test/map-3": 3,
    }
