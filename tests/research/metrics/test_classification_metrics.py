import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from research.metrics.classification import (
    PROTOCOL,
    calibration_bins,
    calibration_error,
    confusion_matrix,
    measure,
    score,
)


def example(n=200, classes=10, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes)) + 2 * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probabilities.astype("f"), labels


@pytest.mark.parametrize("classes", [6, 10])
def test_measures_average_to_scikit_learns(classes):
    probabilities, labels = example(classes=classes)
    measures = measure(jnp.log(probabilities), jnp.array(labels))
    means = {name: np.average(value, weights=weight) for name, (value, weight) in measures.items()}
    one = sklearn.metrics.accuracy_score(labels, probabilities.argmax(1))
    five = sklearn.metrics.top_k_accuracy_score(labels, probabilities, k=5)
    exact = probabilities / probabilities.sum(1, keepdims=True, dtype="d")
    nats = sklearn.metrics.log_loss(labels, exact)
    assert means.keys() == {"accuracy", "top5_accuracy", "cross_entropy"}
    np.testing.assert_allclose(
        [means["accuracy"], means["top5_accuracy"], means["cross_entropy"]],
        [one, five, nats],
        rtol=1e-5,
    )


def test_five_classes_have_no_top_five():
    probabilities, labels = example(classes=5)
    assert "top5_accuracy" not in measure(jnp.log(probabilities), jnp.array(labels))


def test_a_tie_is_given_to_the_lower_class_as_argmax_does():
    measures = measure(jnp.full((3, 6), -jnp.log(6.0)), jnp.array([0, 4, 5]))
    np.testing.assert_array_equal(measures["accuracy"][0], [1, 0, 0])
    np.testing.assert_array_equal(measures["top5_accuracy"][0], [1, 1, 0])


def test_cross_entropy_has_no_ceiling():
    """A network that is sure of the wrong class: 500 nats, of which a probability holds 87."""
    log_p = jax.nn.log_softmax(jnp.array([[500.0, 0.0]]))
    value, _ = measure(log_p, jnp.array([1]))["cross_entropy"]
    assert float(value[0]) == 500


def test_what_is_no_number_is_never_right():
    nothing = np.full((3, 6), np.nan, "f")
    labels = np.array([0, 3, 5])
    measures = measure(jnp.array(nothing), jnp.array(labels))
    assert not measures["accuracy"][0].any()
    names = tuple("abcdef")
    assert score(nothing, labels, names) == {
        "macro_accuracy": 0, "accuracy/a": 0, "accuracy/d": 0, "accuracy/f": 0
    }  # fmt: skip


def test_one_class_and_one_example_are_scored_and_ties_go_to_the_lower_class():
    assert score(np.zeros((1, 1), "f"), np.array([0]), ("a",)) == {
        "macro_accuracy": 1, "calibration_error": 0, "accuracy/a": 1
    }  # fmt: skip
    ties = np.full((4, 2), np.log(0.5), "f")
    assert score(ties, np.array([0, 0, 0, 1]), ("a", "b")) == pytest.approx(
        {"macro_accuracy": 0.5, "calibration_error": 0.25, "accuracy/a": 1, "accuracy/b": 0}
    )


def test_scores_are_scikit_learns_and_absent_classes_are_left_out():
    probabilities, labels = example(classes=7)
    probabilities, labels = probabilities[labels != 3], labels[labels != 3]
    names = tuple("abcdefg")
    scores = score(np.log(probabilities), labels, names)
    predicted = probabilities.argmax(1)
    recall = sklearn.metrics.recall_score(
        labels, predicted, labels=range(7), average=None, zero_division=0
    )
    for k, name in enumerate(names):
        if k != 3:
            np.testing.assert_allclose(scores[f"accuracy/{name}"], recall[k], rtol=1e-6)
    assert "accuracy/d" not in scores
    np.testing.assert_allclose(scores["macro_accuracy"], np.delete(recall, 3).mean(), rtol=1e-6)


def test_calibration_error_by_a_loop():
    probabilities, labels = example(500)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    error = 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    np.testing.assert_allclose(calibration_error(probabilities, labels), error, rtol=1e-5)


def test_a_calibrated_forecaster_has_nearly_no_error_and_a_boaster_much():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, 50_000)
    labels = (rng.random(50_000) > p).astype(int)  # class 0 with probability p
    calibrated = np.stack([p, 1 - p], 1).astype("f")
    assert calibration_error(calibrated, labels) < 0.01
    boaster = np.tile(np.array([[1.0, 0.0]], "f"), (50_000, 1))
    np.testing.assert_allclose(calibration_error(boaster, labels), (labels == 1).mean(), rtol=1e-5)


def test_confusion_matrix_is_scikit_learns():
    probabilities, labels = example(classes=12)
    predicted = probabilities.argmax(1)
    np.testing.assert_array_equal(
        confusion_matrix(labels, predicted, 12),
        sklearn.metrics.confusion_matrix(labels, predicted, labels=range(12)),
    )


def test_every_number_has_its_protocol():
    probabilities, labels = example()
    names = tuple(f"class {k}" for k in range(10))
    reported = {*measure(jnp.log(probabilities), jnp.array(labels))}
    reported |= {name.split("/")[0] for name in score(np.log(probabilities), labels, names)}
    assert reported == PROTOCOL.keys()


def test_a_class_that_nobody_is_of_or_said_to_be_has_its_row_and_column():
    found = confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 4)
    assert found.shape == (4, 4) and found[2:].sum() == found[:, 2:].sum() == 0
    np.testing.assert_array_equal(found[:2, :2], [[1, 1], [0, 1]])


def test_bins_of_confidence_by_hand():
    rows = np.array([[0.375, 0.3], [0.40625, 0.3], [0.41, 0.3], [0.75, 0.25], [1, 0]], "f")
    count, mean, accuracy = calibration_bins(rows, np.array([0, 1, 0, 0, 1]))
    np.testing.assert_array_equal(count, np.bincount([5, 6, 6, 11, 14], minlength=15))
    assert mean[6] == pytest.approx((0.40625 + 0.41) / 2, rel=1e-5) and accuracy[6] == 0.5
    assert (accuracy[5], accuracy[11], accuracy[14]) == (1, 1, 0) and mean[14] == 1
