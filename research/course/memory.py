"""Recurrent cells: a cell state kept and added to, gates over a word, how far gradients reach."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from research.course.config import WorkedExamplesConfig
from research.course.worked import Worked, largest_difference, step
from research.data.text.tokens import Characters
from research.figures import course as figures
from research.models.language import CharacterModel
from research.nn.recurrent import CELLS, Cell, lstm
from research.training.optimizers import make
from research.understanding.memory import state_gradients

WORD = "hello"


def logit(share: float) -> float:
    """Returns x with sigmoid(x) = share; 100 stands for infinity."""
    return (
        float(np.clip(np.log(share / (1 - share)), -100, 100))
        if 0 < share < 1
        else 200 * share - 100
    )


def cell_state(config: WorkedExamplesConfig) -> Worked:
    """Sets an LSTM's gates by hand."""

    def next_cell(forget: float, write: float, cell: float, candidate: float) -> float:
        gates = [logit(write), logit(forget), float(np.arctanh(candidate)), 0.0]
        state = (jnp.zeros((1, 1)), jnp.full((1, 1), cell))
        return float(
            lstm(state, jnp.array([gates]), lambda h: 0.0 * h @ jnp.zeros((1, 4)))[1][0, 0]
        )

    kept, added = next_cell(1.0, 0.0, 2.0, 0.5), next_cell(0.5, 1.0, 2.0, 0.5)
    forgotten = next_cell(0.0, 1.0, 2.0, 0.5)
    rows = [
        f"f=1,   i=0, c=2, g=0.5: c' = {kept:.4f}",
        f"f=0.5, i=1, c=2, g=0.5: c' = {added:.4f}",
        f"f=0,   i=1, c=2, g=0.5: c' = {forgotten:.4f}",
    ]
    course = {}
    for forget in (1.0, 0.9, 0.5):
        values = [2.0]
        for _ in range(20):
            values.append(next_cell(forget, 0.0, values[-1], 0.5))
        course[f"f = {forget:g}"] = (np.arange(21), np.array(values))
    return Worked(
        [
            step("c' = f c + i g", *rows),
            step("c is multiplied by f each step: lossless at 1 alone"),
        ],
        {
            "kept_cell": (kept, "f=1, i=0: unchanged; must be 2"),
            "added_cell": (added, "f=0.5, i=1, c=2, g=0.5; must be 1.5"),
            "replaced_cell": (forgotten, "f=0, i=1; must be 0.5"),
            "after_20": (float(course["f = 0.9"][1][-1]), "2 x 0.9^20; must be 0.2432"),
        },
        lambda: {"cell_state": figures.curves({"i = 0": course}, ("step", "c"))},
    )


def trained(kind: str, codes: Array, symbols: int) -> tuple[CharacterModel, Any]:
    """Trains a small network to say each next letter of a word."""
    model = CharacterModel(symbols, kind, 8)
    variables = jax.jit(model.init)(jax.random.key(0), codes[:, :-1])
    optimizer = make("adam", optax.constant_schedule(0.03))

    def loss(variables: Any) -> Array:
        logits, _ = model.apply(variables, codes[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, codes[:, 1:]).mean()

    def advance(carry: Any, _: None) -> Any:
        updates, state = optimizer.update(jax.grad(loss)(carry[0]), carry[1], carry[0])
        return (optax.apply_updates(carry[0], updates), state), None

    run = jax.jit(lambda v: jax.lax.scan(advance, (v, optimizer.init(v)), length=200)[0][0])
    return model, run(variables)


def hello(config: WorkedExamplesConfig) -> Worked:
    """Learns "hello" with an RNN and an LSTM; shows its gates and its cell state."""
    characters = Characters.of(WORD)
    codes = jnp.asarray(characters.encode(WORD))[None]
    said: dict[str, Any] = {}
    hidden: dict[str, Any] = {}
    variables: Any = None
    for kind in ("rnn", "lstm"):
        model, variables = trained(kind, codes, characters.size)
        out: Any = model.apply(variables, codes[:, :-1])
        logits, states = out
        said[kind] = np.asarray(logits[0].argmax(-1))
        hidden[kind] = np.asarray(states[0])
    weights: Any = variables["params"]["recurrent"]["cells_0"]
    inputs: Any = jax.nn.one_hot(codes[0, :-1], characters.size)
    h = c = jnp.zeros((1, 8))
    gates: dict[str, list[Any]] = {
        n: []
        for n in (
            "input gate",
            "forget gate",
            "candidate",
            "output gate",
            "cell state",
            "hidden state",
        )
    }
    for x in inputs:
        sums = x[None] @ weights["kernel"] + weights["bias"] + h @ weights["recurrent"]
        i, f, g, o = jnp.split(sums, 4, axis=-1)
        i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
        c = f * c + i * g  # written out: what is drawn is held against the layer below
        h = o * jnp.tanh(c)
        for name, value in zip(gates, (i, f, g, o, c, h), strict=True):
            gates[name].append(np.asarray(value[0]))
    maps = {name: np.stack(values) for name, values in gates.items()}
    wanted = np.asarray(codes[0, 1:])
    # Without memory one answer serves both l: at best one of the two is right.
    letters = np.asarray(codes[0, :-1])
    best = sum(max((wanted[letters == x] == y).sum() for y in set(wanted)) for x in set(letters))
    least = float(
        sum((letters == x).sum() * _entropy(wanted[letters == x]) for x in set(letters)) / 4
    )
    texts = {k: "".join(characters.symbols[i] for i in v) for k, v in said.items()}
    return Worked(
        [
            step(
                "read h, e, l, l; wanted e, l, l, o", *(f"{k} says {t}" for k, t in texts.items())
            ),
            step("hidden state after the first l and after the second (LSTM)", hidden["lstm"][2:4]),
            *(step(f"{name}, letters down, units across", values) for name, values in maps.items()),
        ],
        {
            "rnn_right": (float((said["rnn"] == wanted).mean()), "must be 1"),
            "lstm_right": (float((said["lstm"] == wanted).mean()), "must be 1"),
            "right_without_memory": (best / 4, "at best; must be 0.75"),
            "loss_without_memory": (least, "at least, (ln 2) / 2; must be 0.3466"),
            "states_apart": (
                largest_difference(hidden["lstm"][2], hidden["lstm"][3]),
                "hidden states at the two l; must be above 0.1",
            ),
            "states_difference": (
                largest_difference(maps["hidden state"], hidden["lstm"]),
                "between the gates step by step and the layer; must be below 1e-5",
            ),
        },
        lambda: {"hello": figures.heat(maps, list(WORD[:-1]))},
    )


def _entropy(answers: Any) -> float:
    """Returns the entropy of answers, nats."""
    _, counts = np.unique(answers, return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def gradient_reach(config: WorkedExamplesConfig) -> Worked:
    """Sends a gradient back through 60 steps of fresh cells of 64 units."""
    units, length = 64, 60
    kinds = {
        "tanh RNN": ("rnn", 0.0, 1.0),
        "LSTM, bias 0": ("lstm", 0.0, 1.0),
        "LSTM, bias 1": ("lstm", 1.0, 1.0),
        "LSTM, bias 3": ("lstm", 3.0, 1.0),
        "tanh RNN, weights x4": ("rnn", 0.0, 4.0),
    }
    rng = np.random.default_rng(0)
    xs = jnp.asarray(rng.normal(size=(length, 4, units)), jnp.float32)
    target = jnp.asarray(rng.normal(size=units), jnp.float32)
    norms = {}
    for name, (kind, bias, factor) in kinds.items():
        cell = Cell(kind, units, units, forget_bias=bias)
        state = tuple(jnp.zeros((4, units)) for _ in range(CELLS[kind].states))
        params = jax.jit(cell.init)(jax.random.key(0), state, xs[0])["params"]
        variables = {"params": {**params, "recurrent": factor * params["recurrent"]}}
        inputs = cell.apply(variables, xs, method="project")
        advance = lambda s, x, v=variables, one=cell: one.apply(v, s, x, method="advance")
        reach = jax.jit(
            lambda s, x, a=advance: state_gradients(a, s, x, lambda last: (last[0] @ target).sum())
        )
        norms[name] = np.asarray(reach(state, inputs)).mean(1)
    ratio = {name: float(v[-1] / v[0]) for name, v in norms.items()}
    x = np.arange(length)
    return Worked(
        [
            step(
                "gradient of the state 59 steps before the last, over that of the last",
                *(f"{n:22} {r:.1e}" for n, r in ratio.items()),
            )
        ],
        {
            "rnn_reach": (ratio["tanh RNN"], "must be below 1e-6"),
            "bias_0_reach": (ratio["LSTM, bias 0"], "must be below 1e-6"),
            "bias_1_reach": (
                ratio["LSTM, bias 1"],
                "above bias 0, and still vanishing; below 1e-2",
            ),
            "bias_3_reach": (ratio["LSTM, bias 3"], "must be above 0.01"),
            "explosion": (ratio["tanh RNN, weights x4"], "growth, not vanishing; above 1e6"),
        },
        lambda: {
            "gradient_reach": figures.curves(
                {"fresh cells of 64 units": {n: (x, v) for n, v in norms.items()}},
                ("steps before the end", "gradient norm"),
                logarithmic=True,
            )
        },
    )
