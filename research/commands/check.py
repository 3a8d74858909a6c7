"""--mode=check: what would go wrong in a long run, found in seconds."""

import time

import jax
from rich.table import Table

from research.assembly import taken
from research.data.sources import overlap
from research.errors import UserError
from research.experiment import Batch, Experiment, Look, PyTree
from research.flops import Cost, count_flops, shown
from research.record.progress import console
from research.training import parallel as parallel_lib
from research.training.config import LoopConfig
from research.training.loop import compile_train_step, new_state
from research.training.plan import make_plan
from research.training.step import make_train_step
from research.weights.trained import trained_on as trained_before

OVERFIT_STEPS = 30


def parameter_table(params: PyTree) -> Table:
    """Lists name, shape and size of every parameter, and their sum."""
    table = Table("parameter", "shape", "size", box=None)
    total = 0
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        table.add_row(name, " x ".join(map(str, leaf.shape)), f"{leaf.size:,}")
        total += leaf.size
    table.add_section()
    table.add_row("all", "", f"{total:,}")
    return table


def step_cost(experiment: Experiment, config: LoopConfig, state: PyTree, batch: Batch) -> Cost:
    """Counts the operations of one step on this process' part of a batch, however it is split."""
    step = make_train_step(
        experiment.training, config.seed, None, config.accumulate, config.ema_decay
    )
    return count_flops(step, state, dict(batch))


def check(experiment: Experiment | Look, config: LoopConfig) -> None:
    """Looks at the data, compiles one step, overfits one batch, and says what it found.

    Of what only looks, that its flags and its network are in order: they were when it was built.

    Raises:
      UserError: where the data has problems or the loss of a single batch does not fall.
    """
    out = console()
    if isinstance(experiment, Look):
        out.print("step       none: nothing is trained here; the flags and the network fit")
        return
    config = taken(config, experiment.facts)
    data, _, unseen = overlap.at_training(experiment.data(), trained_before(config.init_from))
    problems = data.inspect()
    for problem in problems:
        out.print(f"data: {problem}", markup=False)
    sizes = {"train": len(data.train.examples)}
    sizes |= {name: len(source.examples) for name, source in data.evals.items()}
    for split, size in sizes.items():
        out.print(f"{split:10} {size:,} examples")
    for line in overlap.lines(unseen):
        out.print(line, markup=False)

    parallel = parallel_lib.for_training(config)
    batch = data.train.batch(0)
    for name, value in batch.items():
        out.print(f"{name:10} {value.dtype} {value.shape}", markup=False)
    placed = parallel.put_batch(batch)
    state = new_state(experiment, config, parallel)
    out.print(parameter_table(state.params))

    examples = len(batch["index"])  # of input_optimization, the images there are
    began = time.perf_counter()
    step = compile_train_step(experiment.training, config, parallel, state, placed)
    out.print(f"step       compiled in {time.perf_counter() - began:.1f} s")
    cost = step_cost(experiment, config, state, batch)
    said = f"{shown(cost.flops / examples)} an example, forward and backward"
    if cost.open_loops:
        said += f"; {cost.open_loops} loops that the data end are counted once"
    out.print(f"step       {said}")

    # A network that cannot learn a single batch learns nothing.
    losses, seconds = [], []
    for _ in range(OVERFIT_STEPS):
        began = time.perf_counter()
        (state, totals), _ = step(state, placed)
        value, weight = jax.device_get(totals["loss"])
        losses.append(float(value / weight))
        seconds.append(time.perf_counter() - began)
    rate = examples / sorted(seconds)[len(seconds) // 2]
    plan = make_plan(config, len(data.train.examples), experiment.training.steps)
    hours = plan.steps * examples / rate / 3600
    out.print(f"rate       {rate:,.0f} examples/s; {plan.steps:,} steps take about {hours:.2f} h")
    fell = sum(losses[-3:]) / 3 < losses[0]
    out.print(
        f"one batch  loss {losses[0]:.4f} -> {losses[-1]:.4f} in {OVERFIT_STEPS} steps: "
        f"{'it falls' if fell else 'it does NOT fall'}"
    )
    if problems:
        raise UserError(f"the data has {len(problems)} problems, listed above.")
    if not fell:
        raise UserError(
            "the loss of a single batch did not fall; try another --learning_rate or --warmup."
        )
