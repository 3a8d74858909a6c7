import dataclasses
import hashlib
import math
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toys
from toy_runs import CONFIG, StopsAt, data, interrupted, lines, run, source

from research.data.sources.contents import Contents, Digested, digest
from research.data.sources.examples import Arrays
from research.errors import NotFiniteError, UserError
from research.experiment import Data
from research.metrics import class_bias
from research.training import loop, plan, programs
from research.training import parallel as parallel_lib
from research.training.checkpoint import open_checkpoint
from research.training.checkpointer import Checkpointer
from research.training.interrupts import Stopped
from research.training.statistics import make_estimate
from research.training.step import make_train_step


@pytest.mark.parametrize(
    ("debug_nans", "said"),
    [
        (False, r"loss is .* at step 7; .*--learning_rate"),
        (True, "^step 7: the loss is not finite, though the outputs of all layers are"),
    ],
)
def test_a_loss_that_is_not_finite_names_its_step_and_spares_the_last_checkpoint(
    tmp_path, debug_nans, said
):
    experiment = toys.experiment(data=data)

    def init(key):
        variables = experiment.network.init(key)
        return {**variables, "params": {**variables["params"], "count": jnp.float32(0.0)}}

    def loss(variables, batch, key, axis):
        """Infinite from step 7 on: a gradient of -10 makes "count" grow by one a step."""
        per_example, state, extra = experiment.training.loss(variables, batch, key, axis)
        count = variables["params"]["count"]
        per_example = per_example - 10.0 * (count - jax.lax.stop_gradient(count))
        return jnp.where(count > 5.5, jnp.inf, per_example), state, extra

    broken = toys.replaced(experiment, loss=loss, init=init, optimizer=optax.sgd(0.1))
    config = dataclasses.replace(CONFIG, debug_nans=debug_nans)
    with pytest.raises(NotFiniteError, match=said):
        run(tmp_path, config, experiment=broken)
    opened = open_checkpoint(tmp_path)
    assert opened.metadata["step"] == 5
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(dict(opened.variables)))


def test_what_the_watch_says_is_logged_and_what_it_raises_stops_the_run(tmp_path, capsys):
    seen = []

    def watch(metrics):
        seen.append(metrics["train/loss"])
        if len(seen) == 4:
            raise UserError("enough")
        return "look here" if len(seen) == 2 else None

    with pytest.raises(UserError, match="enough"):
        run(tmp_path, experiment=toys.experiment(data=data, watch=watch))
    rows = lines(tmp_path)
    # Log lines are of steps 3, 4, 5 and 6; the fourth is not written, nor a checkpoint after it.
    assert [row.get("warning") for row in rows] == [None, "look here", None]
    assert [row["train/loss"] for row in rows] == seen[:3]
    assert "step 4: look here" in capsys.readouterr().out
    assert open_checkpoint(tmp_path).metadata["step"] == 5


class Pictures(Arrays):
    labels = np.zeros(40, np.int32)


def test_a_run_lists_what_it_trains_on_and_goes_on_with_nothing_else(tmp_path):
    """Every picture is known, not only those that the fingerprint of the data's order looks at."""
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3), np.uint8)

    def experiment(action=lambda: None, images=images):
        def known():
            train = StopsAt(source(40).examples, 16, 0, stop=6, action=action)
            pictures = Digested(Pictures({"image": images}))
            contents = Contents(
                {"train": pictures, "test": Digested(Pictures({"image": ~images}))}, True
            )
            return Data(train, {"test": source(40)}, list, contents)

        return toys.experiment(data=known)

    stop = lambda: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Stopped):
        run(tmp_path, experiment=experiment(stop))
    listed = (tmp_path / "trained_on.txt").read_bytes()
    assert set(listed.decode().split()) == {digest(image).hex() for image in images}

    other = images.copy()
    other[7, 0, 0, 0] ^= 1
    with pytest.raises(UserError, match="the training data have changed"):
        run(tmp_path, experiment=experiment(images=other))
    result = run(tmp_path, experiment=experiment()).result
    assert (tmp_path / "trained_on.txt").read_bytes() == listed
    facts = open_checkpoint(tmp_path).metadata["facts"]
    assert facts["trained_on"] == hashlib.sha256(listed).hexdigest()
    row = {"examples": 40, "trained_on": 0, "left_out": 0}
    assert result["trained_on"] == {"splits": {"test": row}, "unknown": ""}


def test_the_best_checkpoint_is_that_of_the_best_evaluation(tmp_path):
    result = run(tmp_path).result
    scores = {r["step"]: r["test/accuracy"] for r in lines(tmp_path) if "test/accuracy" in r}
    assert sorted(scores) == [5, 10, 12]
    best = max(scores, key=lambda step: (scores[step], -step))
    opened = open_checkpoint(tmp_path / "checkpoints" / "best")
    assert opened.metadata["step"] == best
    # What it was chosen by is told, here the test split itself.
    assert opened.metadata["chosen_by"] == result["best_checkpoint"]["chosen_by"]
    assert opened.metadata["chosen_by"]["split"] == "test"
    assert result["best_checkpoint"]["step"] == best
    assert result["weights"][0] == {
        "checkpoint": "checkpoints/latest/12",
        "step": 12,
        "average": False,
        "chosen_by": None,
    }


@pytest.mark.parametrize(("mode", "best"), [("max", 10), ("min", 12)])
def test_a_metric_that_is_no_number_chooses_no_checkpoint(tmp_path, mode, best):
    scores = iter([math.nan, 2.0, 1.0])  # of the evaluations after steps 5, 10 and 12
    experiment = toys.replaced(
        toys.experiment(data=data),
        score=lambda *_: {"odd": next(scores)},
        best=("test/odd", mode),
    )
    result = run(tmp_path, CONFIG, experiment).result
    assert result["best_checkpoint"]["step"] == best
    # Nor does a best so far that an older run chose.
    assert loop.better(1.0, math.nan, mode) and not loop.better(math.nan, 1.0, mode)


@pytest.mark.parametrize(
    ("best", "said"),
    [("test/acuracy", "Did you mean 'test/accuracy'"), ("tset/accuracy", "'test/accuracy'")],
)
def test_a_best_checkpoint_by_a_metric_that_nobody_gives_is_refused(tmp_path, best, said):
    experiment = toys.replaced(toys.experiment(data=data), best=(best, "max"))
    with pytest.raises(UserError, match=f"{best}: .*{said}"):
        run(tmp_path, CONFIG, experiment)


def test_a_best_metric_may_be_missing_for_want_of_examples_that_count(tmp_path):
    def measure(outputs, batch):
        return {"accuracy": (outputs[:, 0], 0.0 * outputs[:, 0])}

    experiment = toys.replaced(toys.experiment(data=data), measure=measure)
    result = run(tmp_path, CONFIG, experiment).result
    assert result["metrics"] == {} and "best_checkpoint" not in result


def test_every_parallel_mode_gives_the_same_run(tmp_path):
    results = {}
    for mode in ("single", "jit", "pmap"):
        results[mode] = run(tmp_path / mode, dataclasses.replace(CONFIG, parallel=mode)).result
    for mode in ("jit", "pmap"):
        assert results[mode]["metrics"] == pytest.approx(results["single"]["metrics"], abs=1e-6)
        a, b = lines(tmp_path / "single"), lines(tmp_path / mode)
        for x, y in zip(a, b, strict=True):
            assert x == pytest.approx(y, rel=2e-3, abs=1e-5)


def test_a_run_begun_on_eight_devices_goes_on_on_one(tmp_path):
    stop = lambda: os.kill(os.getpid(), signal.SIGTERM)
    eight = dataclasses.replace(CONFIG, parallel="jit")
    with pytest.raises(Stopped):
        run(tmp_path / "a", eight, interrupted(6, stop))
    resumed = run(tmp_path / "a", CONFIG).result
    whole = run(tmp_path / "b", CONFIG).result
    assert resumed["metrics"] == pytest.approx(whole["metrics"], abs=1e-6)


def test_a_disk_that_is_full_leaves_the_last_checkpoint_intact(tmp_path, monkeypatch):
    with Checkpointer(tmp_path, keep=2) as checkpointer:
        state = toys.new_state(toys.experiment())
        checkpointer.save(state._replace(step=jnp.int32(1)), {"metrics": {}}, best=False)
        checkpointer.wait()

        def full(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(checkpointer._writer, "save", full)
        with pytest.raises(UserError, match=r"No space left.*step 1 is intact"):
            checkpointer.save(state._replace(step=jnp.int32(2)), {"metrics": {}}, best=False)
    assert open_checkpoint(tmp_path).metadata["step"] == 1


@pytest.mark.parametrize("ema_decay", [pytest.param(0.0, marks=pytest.mark.families), 0.9])
def test_statistics_belong_to_the_weights_whenever_it_evaluates_and_change_no_step(
    tmp_path, ema_decay
):
    config = dataclasses.replace(CONFIG, ema_decay=ema_decay)
    found = {}
    for name, changes in {
        "a": {},
        "evaluated more often": {"eval_every": 2, "checkpoint_every": 3},
        "running averages": {"statistics_batches": -1},
    }.items():
        run(tmp_path / name, dataclasses.replace(config, **changes))
        found[name] = open_checkpoint(tmp_path / name).variables
    a, often, running = found.values()
    jax.tree.map(np.testing.assert_array_equal, a, often)
    jax.tree.map(np.testing.assert_array_equal, a["params"], running["params"])
    estimate = make_estimate(
        toys.experiment().training, config.seed, parallel_lib.create("single", 16), data().train, 16
    )
    expected = jax.device_get(estimate(running, config.steps))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), a, expected)
    mean = lambda variables: variables["batch_stats"]["bn"]["mean"]
    assert np.abs(mean(a) - mean(running)).max() > 1e-3


def test_a_bias_is_told_of_the_last_evaluation_over_the_whole_split(tmp_path):
    def bias(outputs, targets):
        assert len(outputs) == len(targets["label"]) == 21
        return class_bias.of_shares(targets["label"], outputs.argmax(1), tuple("abcde"))

    told = run(tmp_path, experiment=toys.experiment(data=data, bias=bias)).result["bias"]["test"][
        "labels"
    ]
    assert set(told["ratios"]) == set("abcde") and told["what"] == "predicted / true share"
    assert told["line"].startswith("predicted / true share: ")


class Watched:
    """One of a step's outputs: says so whenever anything but waiting is asked of it."""

    def __init__(self, value, asked):
        self.value, self._asked = value, asked

    def block_until_ready(self):
        self.value.block_until_ready()
        return self

    def __getattr__(self, name):
        if not name.startswith("__"):
            self._asked.append(name)
        return getattr(self.value, name)


def _asking(name):
    def method(self, *arguments, **options):
        self._asked.append(name)
        return getattr(self.value, name)(*arguments, **options)

    return method


for _name in ("__array__", "__float__", "__int__", "__bool__", "__index__", "__getitem__"):
    setattr(Watched, _name, _asking(_name))


@pytest.mark.parametrize("mode", ["single", "jit"])
def test_a_step_copies_nothing_to_the_host_and_its_batches_alone_to_the_device(
    tmp_path, monkeypatch, mode
):
    """What a step returns is read where a line is logged; nothing is copied in unasked.

    On CPU, JAX's guard lets everything out, so the outputs themselves are watched.
    """
    asked = {}

    class Watching(loop.CompiledByShape):
        def __call__(self, values, batch):
            bare = lambda tree: jax.tree.map(
                lambda x: x.value if isinstance(x, Watched) else x,
                tree,
                is_leaf=lambda x: isinstance(x, Watched),
            )
            values = bare(values)
            step = int(values.step) + 1
            with jax.transfer_guard_host_to_device("disallow"):
                (state, totals), _ = super().__call__(values, batch)
            asked[step] = []
            watched = lambda tree: jax.tree.map(lambda x: Watched(x, asked[step]), tree)
            # Evaluation and checkpoints are given the state: only of other steps is it watched.
            return (state if step % 4 == 0 else watched(state), watched(totals)), None

    monkeypatch.setattr(loop, "CompiledByShape", Watching)
    every = {"log_every": 4, "eval_every": 4, "checkpoint_every": 4}
    config = dataclasses.replace(CONFIG, steps=8, parallel=mode, **every)
    read = {}
    close = loop.Window.close

    def closing(window, step):
        read[step] = {number: list(names) for number, names in asked.items()}
        return close(window, step)

    monkeypatch.setattr(loop.Window, "close", closing)
    run(tmp_path, config)
    assert sorted(asked) == list(range(1, 9)) and sorted(read) == [4, 8]
    # Before the first line nothing was read; before the second, what the first one read.
    assert read[4] == {step: [] for step in range(1, 5)}
    assert {step: read[8][step] for step in range(5, 9)} == {step: [] for step in range(5, 9)}
    assert all(asked[step] for step in range(1, 9))  # the watch sees what the line reads


def test_what_a_long_run_will_take_is_said_and_changes_nothing(tmp_path, capsys, monkeypatch):
    plain = run(tmp_path / "plain")
    assert "the steps to come" not in capsys.readouterr().out
    monkeypatch.setattr(plan, "LONG", 0)
    own = dataclasses.replace(CONFIG, dataset="folder:photos")
    told = run(tmp_path / "told", own)
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("a smaller --steps (now 12) shortens it") == 1
    assert told.result["fingerprint"] == plain.result["fingerprint"]


def test_a_run_with_another_seed_compiles_nothing_anew(tmp_path):
    """Initialisation, step, statistics and evaluation alike: a seed is an argument of programs."""
    events = []
    listen = lambda event, **_: events.append(event)
    cached = "jax_persistent_cache_min_compile_time_secs"
    before = jax.config.values[cached]
    jax.config.update(cached, 0.0)
    jax.monitoring.register_event_listener(listen)
    try:
        found = []
        for seed in (0, 1):
            jax.clear_caches()
            events.clear()
            config = dataclasses.replace(CONFIG, seed=seed, ema_decay=0.9)
            found.append(run(tmp_path / str(seed), config).result)
            misses = events.count("/jax/compilation_cache/cache_misses")
            hits = events.count("/jax/compilation_cache/cache_hits")
        assert misses == 0 and hits >= 5
    finally:
        jax.monitoring.unregister_event_listener(listen)
        jax.config.update(cached, before)
    assert found[0]["initial_parameters"] != found[1]["initial_parameters"]


def test_the_step_is_traced_once_though_its_operations_are_counted(tmp_path, monkeypatch):
    traced = []

    def counted(*arguments, **options):
        step = make_train_step(*arguments, **options)
        return lambda state, batch: (traced.append(1), step(state, batch))[1]

    monkeypatch.setattr(programs, "make_train_step", counted)
    assert run(tmp_path).result["flops"] > 0
    assert len(traced) == 1
