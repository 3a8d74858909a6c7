"""--mode=check: what would go wrong in a long run, found in seconds."""

import dataclasses
import math
import time
from types import ModuleType
from typing import Any, NamedTuple

import jax
from rich.table import Table

from research import config as config_lib
from research.assembly import taken
from research.assembly.defaults import power_of_two
from research.commands.intact import check_set
from research.data.config import Augmentation, CheckConfig, DataConfig, ObjectAugmentation
from research.data.sources import near_duplicates, overlap
from research.data.sources.examples import name_of
from research.errors import UserError
from research.experiment import Batch, Data, Experiment, Look, PyTree
from research.flops import shown
from research.hardware.compiling import compile_or_refuse
from research.hardware.memory import Memory, memory_at_hand, shown_size
from research.record.progress import console
from research.training import parallel as parallel_lib
from research.training.config import LoopConfig, OptimizationConfig, PrecisionConfig
from research.training.fitting import memory_limit, rows_of, with_batch_size
from research.training.loop import new_state
from research.training.parallel import Parallel
from research.training.plan import make_plan
from research.training.programs import batch_shapes, step_cost, train_steps, training_program
from research.weights.trained import trained_on as trained_before

SAMPLE = 128  # examples of each split that are looked at


class Budget(NamedTuple):
    """The most that overfitting one batch may cost. It is counted, so that checks repeat.

    Attributes:
      flops: of all steps.
      fewest, most: steps; the batch is cut so that the fewest fit.
    """

    flops: float
    fewest: int
    most: int


QUICK = Budget(1.25e11, 10, 30)  # some 3 s on two CPU cores
THOROUGH = Budget(8e12, 100, 1000)
LEAST_STEPS = 4  # of batches that cannot be cut further
NEAR_ZERO = 0.02  # of the first loss
TOO_LARGE = "a step does not fit into a device's memory; what would is listed above."


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


def affordable(budget: Budget, flops: float, rows: int, unit: int, least: int) -> tuple[int, int]:
    """Returns how many rows of a batch, and how many steps, fit a budget.

    Args:
      flops: of one row in one step.
      rows: of the whole batch.
      unit: a number that the rows are a multiple of.
      least: rows that a loss needs at least; two are taken in any case.
    """
    fit = int(budget.flops / (budget.fewest * flops)) // unit * unit
    chosen = min(rows, max(fit, math.ceil(max(least, 2) / unit) * unit))
    steps = int(budget.flops / (chosen * flops))
    return chosen, min(max(steps, LEAST_STEPS), budget.most)


def check(module: ModuleType, config: LoopConfig) -> None:
    """Looks at the data, compiles one step, overfits one batch, and says what it found.

    Of what only looks, that its flags and its network are in order: they were when it was built.

    Raises:
      UserError: where the data has problems or the loss of a single batch does not fall.
    """
    out = console()
    asked = config if isinstance(config, CheckConfig) else CheckConfig()
    config = with_sample(config)
    if isinstance(config, DataConfig):
        check_set(config.dataset, config.data_dir)
    limit = memory_limit(config)
    config = with_batch_size(module, config, limit)
    experiment = module.build(config)
    if isinstance(experiment, Look):
        out.print("step       none: nothing is trained here; the flags and the network fit")
        return
    config = taken(config, experiment.facts)
    data = experiment.data()
    problems = data.inspect()
    for problem in problems:
        out.print(f"data: {problem}", markup=False)
    show_splits(data, config)
    if asked.thorough:
        show_near_duplicates(data, asked.show_duplicates)

    whole = data.train.batch(0)
    parallel = parallel_lib.for_training(config)
    for name, value in whole.items():
        out.print(f"{name:10} {value.dtype} {value.shape}", markup=False)
    state = new_state(experiment, config, parallel)
    out.print(parameter_table(state.params))

    examples = len(whole["index"])  # of input_optimization, the images there are
    program = train_steps(experiment.training, config, parallel)
    cost = step_cost(program, parallel, state, whole)
    said = f"{shown(cost.flops / examples)} an example, forward and backward"
    if cost.open_loops:
        said += f"; {cost.open_loops} loops that the data end are counted once"
    out.print(f"step       {said}")
    each = max(cost.flops / examples, 1.0)
    rows, steps = affordable(QUICK, each, examples, *rows_of(config, parallel.devices))
    if rows < examples:
        out.print(
            f"step       tried with {rows} of the batch's {examples} examples, {steps} times: as "
            f"many as {shown(QUICK.flops)} pay for"
        )
    placed = parallel.put_batch({name: value[:rows] for name, value in whole.items()})
    began = time.perf_counter()
    step, memory = compile_or_refuse(parallel.lower(program, state, placed, donate=True))
    out.print(f"step       compiled in {time.perf_counter() - began:.1f} s")
    runs = step is not None and fits_into(memory_at_hand(), memory)
    largest = step
    if rows < examples or data.train.collate is not None:  # others of its batches are larger
        shapes = batch_shapes(data.train, examples)
        lowered = training_program(experiment, config, parallel, shapes).lowered
        largest, memory = compile_or_refuse(lowered)
    fits = largest is not None and fits_into(limit, memory)
    if memory is not None:
        for line in memory_lines(memory, fits, config, examples, limit):
            out.print(line, markup=False)
    if not runs:
        raise UserError(TOO_LARGE)

    # A network that cannot learn a single batch learns nothing.
    added = penalty(config, state.params)
    losses, seconds = overfit(step, state, placed, steps)
    out.print(f"loss       {losses[0]:.4f} before the first step{chance(experiment)}")
    if added:
        penalised = f"{losses[0] + added:.4f} with the penalty λ/2 |w|² of --weight_decay"
        out.print(f"loss       {penalised}, which a step lowers too")
    rate = rows / sorted(seconds)[len(seconds) // 2]
    plan = make_plan(config, len(data.train.examples), experiment.training.steps)
    hours = plan.steps * examples / rate / 3600
    out.print(f"rate       {rate:,.0f} examples/s; {plan.steps:,} steps take about {hours:.2f} h")
    fell = sum(losses[-3:]) / 3 < losses[0]
    out.print(
        f"one batch  loss {losses[0]:.4f} -> {losses[-1]:.4f} in {steps} steps: "
        f"{'it falls' if fell else 'it does NOT fall'}"
    )
    if not fits:
        raise UserError(TOO_LARGE)
    if asked.thorough:
        show_overfitted(module, experiment, config, parallel, whole, each)
    if problems:
        raise UserError(f"the data has {len(problems)} problems, listed above.")
    if not fell:
        raise UserError(
            "the loss of a single batch did not fall; try another --learning_rate or --warmup."
        )


def chance(experiment: Experiment) -> str:
    """Says what the first loss would be if every answer had the same probability."""
    answers = experiment.training.answers
    return (
        f"; every answer alike would be ln {answers} = {math.log(answers):.4f}" if answers else ""
    )


def penalty(config: LoopConfig, params: PyTree) -> float:
    """Computes λ/2 |w|² of kernels, which weight decay λ stands for."""
    decay = config.weight_decay if isinstance(config, OptimizationConfig) else 0.0
    return decay / 2 * sum(float((x**2).sum()) for x in jax.tree.leaves(params) if x.ndim > 1)


def with_sample(config: LoopConfig) -> Any:
    """Returns the configuration with the number of examples that are looked at.

    Raises:
      UserError: for flags that contradict each other.
    """
    if not isinstance(config, DataConfig):
        return config
    if config.thorough and config.sample:
        raise UserError(
            f"--sample={config.sample}: --thorough looks at all; leave one of them out."
        )
    if config.show_duplicates and not config.thorough:
        raise UserError("--show_duplicates: is of --thorough, which finds them; add it.")
    sample = 0 if config.thorough else config.sample or SAMPLE
    return config_lib.replace(config, {"sample": sample})


def show_splits(data: Data, config: LoopConfig) -> None:
    """Prints the number of examples of each split, and how many of them are looked at."""
    out = console()
    splits = {"train": data.train, **data.evals}
    sample = config.sample if isinstance(config, DataConfig) else 0
    sampled = 0 < sample < max(len(source.examples) for source in splits.values())
    if not sampled:
        data, _, unseen = overlap.at_training(data, trained_before(config.init_from))
    for split, source in {"train": data.train, **data.evals}.items():
        count = len(source.examples)
        seen = f", {sample:,} of them looked at, evenly spaced" if 0 < sample < count else ""
        out.print(f"{split:10} {count:,} examples{seen}")
    if sampled:
        out.print("data: --thorough looks at all, and for pictures that are in two splits")
    else:
        for line in overlap.lines(unseen):
            out.print(line, markup=False)


def show_near_duplicates(data: Data, names: bool) -> None:
    """Prints how many examples of each split have a near duplicate in train, and perhaps which."""
    if data.contents is None:
        return
    splits = {name: split.examples for name, split in data.contents.splits.items()}
    train = near_duplicates.hashes(splits["train"])
    for split in data.evals:
        found = list(near_duplicates.pairs(train, near_duplicates.hashes(splits[split])))
        count = f"{len(found):,} of {len(splits[split]):,} examples"
        more = "; --show_duplicates names them" if found and not names else ""
        console().print(f"{split:10} {count} nearly as in train{more}", markup=False)
        for number, trained in found if names else ():
            pair = name_of(splits[split], number), name_of(splits["train"], trained)
            console().print(f"{pair[0]} is nearly {pair[1]} of train", markup=False)


def fits_into(limit: int | None, memory: Memory | None) -> bool:
    """Returns whether a program fits into these bytes; True where either is not known."""
    return limit is None or memory is None or memory.peak <= limit


def memory_lines(
    memory: Memory, fits: bool, config: LoopConfig, examples: int, limit: int | None
) -> list[str]:
    """Says how much memory a compiled step takes on each device, and what would make it fit.

    Args:
      examples: of the step's batch.
      limit: bytes of a device; None if unknown.
    """
    mib = memory.peak / 2**20
    there = "" if limit is None else f" of {shown_size(limit)}"
    said = f"memory     {mib:,.1f} MiB{there} on each device for a step of {examples} examples"
    if fits:
        return [said]
    # Nearly all that grows lies between arguments and outputs, which batches are a part of.
    kept = min(memory.arguments, memory.outputs)
    share = max((limit or 0) - kept, 0) / max(memory.peak - kept, 1)
    flags = []
    if share > 0:
        parts = 1 << (math.ceil(1 / share) - 1).bit_length()
        flags.append(f"--accumulate={config.accumulate * parts}")
    if share * examples >= 1:
        fewer = power_of_two(int(share * examples))
        flags.append(f"--batch_size={fewer}, as reckoned from this step (auto compiles)")
    if isinstance(config, PrecisionConfig):
        flags += ["--remat=full"] if config.remat != "full" else []
        flags += ["--precision=bfloat16"] if config.precision == "float32" else []
    return [f"{said}: does NOT fit", f"memory     less with {', or '.join(flags) or 'more memory'}"]


def overfit(
    step: Any, state: PyTree, batch: Batch, steps: int, enough: float = 0.0
) -> tuple[list[float], list[float]]:
    """Repeats a step on one batch; returns the losses and the seconds of each.

    Args:
      enough: share of the first loss at which to stop.
    """
    losses: list[float] = []
    seconds: list[float] = []
    for _ in range(steps):
        began = time.perf_counter()
        (state, totals), _ = step(state, batch)
        value, weight = jax.device_get(totals["loss"])
        losses.append(float(value / weight))
        seconds.append(time.perf_counter() - began)
        if losses[-1] < enough * losses[0]:
            break
    return losses, seconds


def unhindered(config: LoopConfig) -> Any:
    """Returns the configuration without augmentation, decay and schedule."""
    changes: dict[str, Any] = {"schedule": "constant", "warmup": 0.0, "weight_decay": 0.0}
    for kind in (Augmentation, ObjectAugmentation):
        if isinstance(config, kind):
            changes |= dataclasses.asdict(kind())
    return config_lib.replace(config, changes)


def show_overfitted(
    module: ModuleType,
    experiment: Experiment,
    config: LoopConfig,
    parallel: Parallel,
    whole: Batch,
    flops: float,
) -> None:
    """Overfits one batch, without augmentation, until its loss is near zero; prints how near."""
    config = unhindered(config)
    built = module.build(config, experiment.facts)
    training = built.training._replace(start=experiment.training.start)
    rows, steps = affordable(
        THOROUGH, flops, len(whole["index"]), *rows_of(config, parallel.devices)
    )
    batch = parallel.put_batch({name: value[:rows] for name, value in whole.items()})
    state = new_state(built._replace(training=training), config, parallel)
    step = parallel.compile(train_steps(training, config, parallel), state, batch, donate=True)
    losses, _ = overfit(step, state, batch, steps, NEAR_ZERO)
    near = losses[-1] < NEAR_ZERO * losses[0]
    console().print(
        f"to zero    loss {losses[0]:.4f} -> {losses[-1]:.4f} in {len(losses)} steps with {rows} "
        f"examples, without augmentation: {'near zero' if near else 'NOT near zero'}"
    )
