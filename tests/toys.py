"""A small experiment with batch normalisation and dropout, on random images."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import PIL.Image
import pytest

import experiments
from research import config as config_lib
from research.data.images.augment import example_keys
from research.experiment import (
    Data,
    Evaluation,
    Evaluator,
    Experiment,
    Network,
    Training,
    gather,
)
from research.nn.forward import forward
from research.nn.normalisation import batch_norm
from research.nn.regularisation import Dropout
from research.random import stream
from research.record import outcomes
from research.training import parallel as parallel_lib
from research.training import state as state_lib
from research.training.checkpoint import open_checkpoint
from research.training.evaluation import scores_of
from research.training.step import make_train_step

CLASSES = 5


class Net(nn.Module):
    axis: str | None = None
    dropout: float = 0.25

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(8, (3, 3), use_bias=False)(x)
        x = nn.relu(batch_norm(train, self.axis)(name="bn")(x))
        x = Dropout(self.dropout, self.axis)(x.mean((1, 2)), train)
        return nn.Dense(CLASSES)(x)


def batches(count, size=16, ragged=13, seed=0):
    """`count` random batches; the first has only `ragged` real examples."""
    rng = np.random.default_rng(seed)
    return [
        {
            "image": rng.normal(size=(size, 8, 8, 3)).astype("f"),
            "label": rng.integers(0, CLASSES, size).astype("i"),
            "index": np.arange(i * size, (i + 1) * size, dtype="i"),
            "occurrence": np.zeros(size, "i"),
            "mask": np.arange(size) < (ragged if i == 0 else size),
        }
        for i in range(count)
    ]


def spread_from_the_mean(embeddings, mask, axis):
    """A loss that mixes the whole batch, as triplet mining does."""
    everything, real = gather(embeddings, axis), gather(mask, axis)[:, None]
    mean = (everything * real).sum(0) / real.sum()
    return ((embeddings - mean) ** 2).sum(1)


def experiment(optimizer=None, batch_wide=False, data=None, **options) -> Experiment:
    """Cross-entropy, or a loss over the whole batch; SGD, as Adam turns round-off into ±lr."""
    model = Net()

    def init(key):
        return model.init(key, jnp.zeros((1, 8, 8, 3)))

    def loss(variables, batch, key, axis):
        logits, state = forward(
            model, variables, batch["image"], train=True, key=stream(key, "dropout"), axis=axis
        )
        if batch_wide:
            return spread_from_the_mean(logits, batch["mask"], axis), state, {}
        right = (logits.argmax(-1) == batch["label"]).astype(jnp.float32)
        ce = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        return ce, state, {"accuracy": right}

    def augment(key, batch, axis):
        keys = example_keys(key, batch["index"], batch["occurrence"])
        noise = jax.vmap(lambda k: jax.random.normal(k, batch["image"].shape[1:]))(keys)
        return {**batch, "image": batch["image"] + 0.1 * noise}

    def predict(variables, batch):
        return nn.softmax(forward(model, variables, batch["image"])[0])

    def measure(outputs, batch):
        right = (outputs.argmax(-1) == batch["label"]).astype(jnp.float32)
        return {"accuracy": (right, jnp.ones_like(right))}

    learning_rate = optax.constant_schedule(0.1)
    labels = Evaluator({"accuracy": "share of examples"}, measure)
    made = Experiment(
        network=Network(init),
        training=Training(
            loss=loss,
            optimizer=optimizer or optax.sgd(learning_rate, momentum=0.9),
            learning_rate=learning_rate,
            augment=augment,
        ),
        evaluation=Evaluation(predict, {"labels": labels}, ("test/accuracy", "max")),
        data=data or (lambda: Data(None, {})),
        facts={},
    )
    return replaced(made, **options)


def replaced(experiment, **fields):
    """The experiment with other fields, each in the part that has one of that name.

    Those of evaluators are of the only one.
    """
    for name, value in fields.items():
        ((key, evaluator),) = experiment.evaluation.evaluators.items()
        if name in Evaluator._fields:
            changed = {key: evaluator._replace(**{name: value})}
            evaluation = experiment.evaluation._replace(evaluators=changed)
            experiment = experiment._replace(evaluation=evaluation)
            continue
        parts = ("network", "training", "evaluation", "prediction")
        part = next(
            (p for p in parts if name in getattr(getattr(experiment, p), "_fields", ())), None
        )
        if name in experiment._fields or part is None:
            experiment = experiment._replace(**{name: value})
        else:
            own = getattr(experiment, part)._replace(**{name: value})
            experiment = experiment._replace(**{part: own})
    return experiment


def new_state(experiment, averaged=False):
    """The state before the first step."""
    variables = state_lib.init(experiment.network, 0)
    return state_lib.create(experiment.training, variables, averaged)


def train(experiment, mode, batches, accumulate=1, ema_decay=0.0):
    """The state after a step on each batch, and each step's totals."""
    parallel = parallel_lib.create(mode, len(batches[0]["mask"]), accumulate)
    variables = state_lib.init(experiment.network, 0)
    state = parallel.put(state_lib.create(experiment.training, variables, averaged=ema_decay > 0))
    step, rows = None, []
    for batch in batches:
        placed = parallel.put_batch(batch)
        if step is None:
            step = parallel.compile(
                lambda axis: make_train_step(experiment.training, axis, accumulate, ema_decay),
                state,
                placed,
                donate=True,
            )
        (state, totals), _ = step(state, placed)
        rows.append(jax.device_get(totals))
    return jax.device_get(state), rows


def drawn(shapes):
    """Variables of these shapes, without the time it takes to compile initialisers."""
    rng = np.random.default_rng(0)

    def draw(path, x):
        deviation = {"kernel": np.sqrt(2 / np.prod(x.shape[:-1])), "bias": 0.1}.get(path[-1].key, 0)
        start = path[-1].key in ("scale", "var")
        return np.asarray(start + deviation * rng.normal(size=x.shape), x.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def check_gradients(loss, params, *batches):
    """Asserts that the loss has a finite gradient, not zero, of every parameter.

    Compiled once for all batches, which are the loss's second argument; returns their gradients.
    """
    given = [(params, batch) for batch in batches] or [(params,)]
    program = jax.jit(jax.grad(loss))
    found = [jax.device_get(program(*arguments)) for arguments in given]
    for gradients in found:
        for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
            assert np.isfinite(gradient).all(), jax.tree_util.keystr(path)
            assert gradient.any(), f"no gradient reaches {jax.tree_util.keystr(path)}"
    return found


def save_turned(path, picture):
    """Saves a picture as a JPEG that lies on its side in its file; EXIF says how it is to stand."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned = PIL.Image.fromarray(picture).transpose(PIL.Image.Transpose.ROTATE_90)
    turned.save(path, quality=97, exif=exif)


def check_outcomes(folder, run=None):
    """Asserts that every metric of a result.json comes out of the folder's examples/<split>.npz.

    Args:
      run: the run that was evaluated in the folder, if it is another.

    Returns:
      The outcomes by split.
    """
    result = json.loads((folder / "result.json").read_text())
    opened = open_checkpoint(run or folder)
    module = experiments.open_trained(opened.metadata, opened.path)
    config = config_lib.from_json(module.Config, opened.metadata["config"], str(opened.path))
    evaluation = module.build(config, opened.metadata["facts"]).evaluation
    found, again = {}, {}
    for split, told in result["examples"].items():
        one = found[split] = outcomes.read(folder / told["file"])
        assert told["left_out"] == {} and told["examples"] == len(one.index)
        means = {}
        for name, values in one.values.items():
            weights = one.weights[name].tolist()
            total = sum(v * w for v, w in zip(values.tolist(), weights, strict=True))
            if sum(weights):
                means[f"{split}/{name}"] = total / sum(weights)
        for name, value in means.items():
            assert result["metrics"][name] == pytest.approx(value, rel=1e-5, abs=1e-7), name
        scores = scores_of(evaluation, one.held, one.targets)
        # The very number: the file holds what was scored.
        assert {n: result["metrics"][f"{split}/{n}"] for n in scores} == scores
        again |= means | {f"{split}/{name}": value for name, value in scores.items()}
    assert again.keys() == result["metrics"].keys()
    return found
