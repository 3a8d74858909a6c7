import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from research.metrics.classification import (
    PROTOCOL,
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
    measures = measure(jnp.array(probabilities), jnp.array(labels))
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
    assert "top5_accuracy" not in measure(jnp.array(probabilities), jnp.array(labels))


def test_a_tie_is_given_to_the_lower_class_as_argmax_does():
    probabilities = jnp.full((3, 6), 1 / 6)
    measures = measure(probabilities, jnp.array([0, 4, 5]))
    np.testing.assert_array_equal(measures["accuracy"][0], [1, 0, 0])
    np.testing.assert_array_equal(measures["top5_accuracy"][0], [1, 1, 0])


def test_a_probability_of_zero_costs_much_but_not_infinity():
    value, _ = measure(jnp.array([[1.0, 0.0]]), jnp.array([1]))["cross_entropy"]
    assert 80 < float(value[0]) < 100


def test_scores_are_scikit_learns_and_absent_classes_are_left_out():
    probabilities, labels = example(classes=7)
    probabilities, labels = probabilities[labels != 3], labels[labels != 3]
    names = tuple("abcdefg")
    scores = score(probabilities, labels, names)
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
    reported = {*measure(jnp.array(probabilities), jnp.array(labels))}
    reported |= {name.split("/")[0] for name in score(probabilities, labels, names)}
    assert reported == PROTOCOL.keys()
