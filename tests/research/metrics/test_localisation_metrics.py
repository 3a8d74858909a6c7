"""Measures of one object: images without one have no part in where it is."""

import jax.numpy as jnp
import numpy as np

from research.metrics import localisation as metrics

BOX = [2.0, 2.0, 6.0, 6.0]


def means(measures):
    totals = {n: (float((v * w).sum()), float(w.sum())) for n, (v, w) in measures.items()}
    return {name: total / weight for name, (total, weight) in totals.items() if weight}


def batch(valid):
    n = len(valid)
    return {
        "valid": jnp.array(valid)[:, None],
        "crowd": jnp.zeros((n, 1), bool),
        "boxes": jnp.tile(jnp.array(BOX), (n, 1, 1)),
        "classes": jnp.zeros((n, 1), int),
        "points": jnp.array([[[0.0, 0.0]]] * n),
    }


def test_images_without_an_object_count_for_presence_alone():
    outputs = {
        "presence": jnp.array([0.9, 0.2, 0.9, 0.5]),
        "box": jnp.array([BOX, BOX, [np.nan] * 4, [0.0, 0.0, 0.0, 0.0]]),
        "label": jnp.array([0, 1, 1, 1]),
        "points": jnp.array([[[3.0, 4.0]], [[0.0, 0.0]], [[np.nan, 0.0]], [[1.0, 1.0]]]),
    }
    valid = [True, True, False, False]
    found = means(metrics.measure_box(outputs, batch(valid)))
    assert found == {"iou": 1.0, "class_accuracy": 0.5, "presence_accuracy": 0.5}
    found = means(metrics.measure_points(outputs, batch(valid)))
    assert found == {"point_distance": 2.5, "presence_accuracy": 0.5}
    # Where no image has one, nothing is said of where it is.
    assert means(metrics.measure_box(outputs, batch([False] * 4))) == {"presence_accuracy": 0.5}
