"""--mode=list: experiments, presets, studies, data sets, models with parameters and cost."""

import ast
import statistics
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Column, Table

from research import models
from research.data import datasets
from research.errors import choose
from research.flops import count_flops, shown
from research.models.counts import COUNTS
from research.record.progress import console


def summary(file: Path) -> str:
    """Reads what a file is for: the first line of a module's docstring, without an import, or of a
    preset's comment, or a study's question.
    """
    text = file.read_text()
    if file.suffix == ".toml":
        return tomllib.loads(text).get("question", "")
    if file.suffix == ".py":
        return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    return text.partition("\n")[0].lstrip("# ")


def show_list(experiments: Path, data_dir: str) -> None:
    """Prints what can be asked for, and with what."""
    out = console()
    table = Table(Column("experiment", overflow="fold"), "what is asked", box=None)
    for file in sorted(experiments.glob("[a-z]*.py")):
        table.add_row(f"--experiment={file.stem}", summary(file))
    table.add_row(
        "--experiment=path/to/mine.py", "One of your own, a file or a module my_lab.mine."
    )
    out.print(table, "")

    table = Table(Column("preset", overflow="fold"), "recipe", box=None)
    for file in sorted((experiments / "presets").rglob("*.flags")):
        table.add_row(f"--flagfile={file.relative_to(experiments.parent)}", summary(file))
    out.print(table, "")

    table = Table(Column("study", overflow="fold"), "question", box=None)
    for file in sorted((experiments / "presets" / "studies").glob("*.toml")):
        table.add_row(f"--mode=study --study={file.stem}", summary(file))
    out.print(table, "")

    table = Table("data set", Column("state", overflow="fold"), "content", box=None)
    for row in datasets.known(data_dir):
        table.add_row(*row)
    out.print(table, "")

    out.print(f"{'model':32}{'parameters':>13}  {'native image':15}  experiment", style="bold")
    for name, entry in sorted(models.available(task=None).items(), key=lambda x: (x[1].task, x[0])):
        size = f"{entry.image_size} x {entry.image_size} x {entry.channels}"
        count = COUNTS[name] if name in COUNTS else models.count_parameters(entry)
        out.print(f"{f'--model={name}':32}{count:13,}  {size:15}  {entry.task}")
    out.print(
        "\n--details=NAME,NAME compares models: operations, memory, and time on this machine."
    )


RUNS = 7  # of a network's forward pass; the median counts


def show_details(names: Sequence[str]) -> None:
    """Compares models by one image of each one's own size: cost, and time on this machine.

    Raises:
      UserError: for an unknown model.
    """
    import jax

    known = models.available(task=None)
    entries = {name: choose(name, known, "model") for name in names}
    device = jax.devices()[0].device_kind
    table = Table(
        Column("model", no_wrap=True), "image",
        *(Column(c, justify="right") for c in ("parameters", "operations", "memory", "time")),
        title=f"one image's forward pass; memory and time on this machine, {device}", box=None,
    )  # fmt: skip
    for name, entry in entries.items():
        found = cost_of(entry)
        table.add_row(
            f"--model={name}",
            f"{entry.image_size} x {entry.image_size} x {entry.channels}",
            f"{found.parameters:,}",
            shown(found.flops),
            f"{found.memory / 2**20:,.1f} MiB",
            f"{1000 * found.seconds:,.2f} ms",
        )
    console().print(table)


class ModelCost(NamedTuple):
    """The cost of one image's forward pass.

    Attributes:
      flops: floating-point operations; a multiplication and an addition are two.
      memory: bytes of weights, image and intermediate values at their most.
      seconds: median on the default device, after compilation.
    """

    parameters: int
    flops: float
    memory: int
    seconds: float


def cost_of(entry: models.Entry) -> ModelCost:
    """Measures a model with default attributes, in evaluation mode; its weights are zeros."""
    import jax
    import jax.numpy as jnp

    model = entry.make()
    image = jnp.zeros((1, entry.image_size, entry.image_size, entry.channels))
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    forward = jax.jit(model.apply).lower(variables, image).compile()
    space: Any = forward.memory_analysis()
    times = []
    for _ in range(RUNS + 1):
        began = time.perf_counter()
        jax.block_until_ready(forward(variables, image))
        times.append(time.perf_counter() - began)
    return ModelCost(
        sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
        count_flops(model.apply, variables, image).flops,
        space.argument_size_in_bytes + space.temp_size_in_bytes + space.output_size_in_bytes,
        statistics.median(times[1:]),  # the first run touches memory for the first time
    )
