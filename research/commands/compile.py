"""--mode=compile: the steps of an experiment, compiled for devices that need not be there."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
from rich.table import Table

from research import config as config_lib
from research.assembly import taken
from research.commands.output import output_folder
from research.comparison.runs import read_run
from research.errors import UserError
from research.experiment import Experiment, Look
from research.flops import shown
from research.hardware.compiling import Compiled, compile_for
from research.hardware.memory import shown_size
from research.hardware.roofline import Roofline, peaks, roofline
from research.hardware.topologies import GIB, Topology, open_topology
from research.record.progress import console
from research.record.report import save_rows
from research.record.sealing import RESULT
from research.training import parallel as parallel_lib
from research.training.config import LoopConfig, PrecisionConfig
from research.training.fitting import said_memory, with_batch_size
from research.training.programs import (
    Program,
    batch_shapes,
    evaluation_program,
    training_program,
)


def run_compilation(
    name: str, module: ModuleType, config: LoopConfig, topology_name: str, run: str
) -> int:
    """Compiles the step of training and that of evaluation, and prints what they take.

    Args:
      name: of the experiment.
      topology_name: such as "v5e:2x4".
      run: folder of a run on such devices, whose memory and rate are shown beside; "" for none.

    Returns:
      The exit code: 1 where a step does not fit into a device's memory.

    Raises:
      UserError: for what a person can mend, an absent compiler among it.
    """
    jax.config.update("jax_platforms", "cpu")  # no accelerator of this machine is used
    measured: Mapping[str, Any] = read_measured(run) if run else {}
    path = None
    if config.workdir:
        path = output_folder(config.workdir, name, "compile", "compile.json")
    topology = open_topology(topology_name)
    topology = topology._replace(said=said_memory(config))
    config = with_batch_size(module, config, topology.usable, topology)
    experiment = module.build(config)
    if isinstance(experiment, Look):
        raise UserError("--mode=compile: nothing is trained here; there is no step to compile.")
    config = taken(config, experiment.facts)
    out = console()
    rows = []
    for program in programs(experiment, config, topology):
        compiled = compile_for(topology, program.lowered)
        rows.append(row_of(program, compiled, topology, config))
        out.print(table_of(rows[-1], topology, measured), "")
    out.print(f"peaks      {topology.name}, a device: {peaks(topology)}", markup=False)
    if path is not None:
        save_rows(path / "compile", rows)
        out.print(f"numbers    {path / 'compile'}.json and .csv", markup=False)
    if all(row["fits"] for row in rows):
        return 0
    for line in remedies(module, experiment, config, topology):
        out.print(line, markup=False)
    return 1


def programs(experiment: Experiment, config: LoopConfig, topology: Topology) -> Iterator[Program]:
    """Yields the step of training and that of evaluating the first split, for a topology.

    Raises:
      UserError: where batches do not divide by the devices.
    """
    if config.parallel == "pmap":
        raise UserError("--parallel=pmap: is for devices that are there; leave it out.")
    over, data = topology.devices, experiment.data()
    parallel = parallel_lib.for_training(config, over)
    batch = batch_shapes(data.train, config.batch_size)
    yield training_program(experiment, config, parallel, batch)
    if data.evals:
        split = next(iter(data.evals.values()))
        size = config.eval_batch_size or config.batch_size
        batch = batch_shapes(split, size)
        parallel = parallel_lib.for_evaluation(config, over)
        yield evaluation_program(experiment, config, parallel, batch)


def row_of(
    program: Program, compiled: Compiled, topology: Topology, config: LoopConfig
) -> dict[str, Any]:
    """Returns what is known of a compiled step, in plain JSON; bytes are of one device."""
    precision = config.precision if isinstance(config, PrecisionConfig) else "float32"
    memory = compiled.memory
    moved = memory.arguments + memory.outputs if memory else 0
    bound = None
    if not compiled.refused:
        flops = program.cost.flops
        bound = roofline(topology, flops, precision, moved, compiled.exchanges)
    return {
        "step": program.name,
        "topology": topology.name,
        "devices": len(topology.devices),
        "batch": program.examples,
        "precision": precision,
        "memory": memory.peak if memory else None,
        "memory_there": topology.usable,
        "fits": compiled.fits(topology.usable),
        "arguments": memory.arguments if memory else None,
        "outputs": memory.outputs if memory else None,
        "flops": program.cost.flops,
        "open_loops": program.cost.open_loops + compiled.open_loops,
        "collectives": {k: x._asdict() for k, x in compiled.exchanges.items()},
        "compile_seconds": round(compiled.seconds, 2),
        "roofline": None if bound is None else bound._asdict(),
    }


def table_of(row: Mapping[str, Any], topology: Topology, measured: Mapping[str, Any]) -> Table:
    """Makes the table of one step, from a row of `row_of`, with what a real run measured."""
    devices, batch = row["devices"], row["batch"]
    title = f"{row['step']}: {batch:,} examples a step on {topology.name}, {devices} devices"
    table = Table("", "", title=title, title_justify="left", box=None, show_header=False)

    def add(name: str, text: str) -> None:
        table.add_row(name, text)

    there = "" if row["memory_there"] is None else f" of {shown_size(row['memory_there'])}"
    if topology.chip.kind == "gpu" and topology.said is None and topology.chip.memory is not None:
        there += f" that JAX takes of {topology.chip.memory / GIB:.1f} GiB"
    if row["memory"] is None:
        add("memory", f"the compiler does not say{there}")
    else:
        fit = "" if row["fits"] else ": does NOT fit"
        add("memory", f"{shown_size(row['memory'])} a device{there}{fit}")
    if row["arguments"]:
        add("arguments", f"{shown_size(row['arguments'])} a device")
        add("outputs", f"{shown_size(row['outputs'])} a device, arguments' places among them")
    loops = f"; {row['open_loops']} loops that the data end count once" if row["open_loops"] else ""
    add("operations", f"{shown(row['flops'])}, {shown(row['flops'] / batch)} an example{loops}")
    for kind, found in row["collectives"].items():
        add(f"{kind}s", f"{found['number']:,}, of {shown_size(found['bytes'])} together")
    if not row["collectives"] and row["memory"] is not None and row["roofline"] is not None:
        add("exchange", "none")
    add("compiled", f"in {row['compile_seconds']:.1f} s")
    if row["roofline"] is not None:
        bound = Roofline(**row["roofline"])
        limits = ", ".join(
            f"{1e3 * seconds:.3g} ms by {name}" for name, seconds in bound._asdict().items()
        )
        add("at best", f"{limits}: {batch / bound.seconds:,.0f} examples a second")
    if rate := measured.get("examples_per_second", {}).get(row["step"]):
        share = ""
        if row["roofline"] is not None:
            share = f", {rate * Roofline(**row['roofline']).seconds / batch:.0%} of the best"
        add("measured", f"{rate:,.0f} examples a second{share}")
    if row["step"] == "training" and measured.get("peak_memory_of") == "device":
        add(
            "measured", f"{shown_size(measured.get('peak_memory', 0))} a device, over the whole run"
        )
    return table


def read_measured(run: str) -> Mapping[str, Any]:
    """Reads the result of a real run.

    Raises:
      UserError: where the folder holds none, or is damaged.
    """
    if not (result := read_run(Path(run)).result):
        raise UserError(f"--run={run}: holds no {RESULT}.")
    return result


def changes_of(config: LoopConfig, several: bool = False) -> Iterator[Mapping[str, Any]]:
    """Yields changes of flags that lower the memory of a training step, one at a time.

    Args:
      several: the devices are of several processes, which share nothing out so far.
    """
    if isinstance(config, PrecisionConfig):
        if config.precision == "float32":
            yield {"precision": "bfloat16"}
        if config.remat == "none":
            yield from ({"remat": "blocks"}, {"remat": "full"})
    if config.shard == "none" and not several:
        yield from ({"shard": "state"}, {"shard": "params"})
    yield {"accumulate": 2 * config.accumulate}
    yield {"accumulate": 4 * config.accumulate}


def remedies(
    module: ModuleType, experiment: Experiment, config: LoopConfig, topology: Topology
) -> list[str]:
    """Compiles training with other flags, and says which of them would make it fit."""
    said = []
    # No TPU's host has more than eight chips.
    pod = topology.chip.kind == "tpu" and len(topology.devices) > 8
    for changes in changes_of(config, several=pod or topology.hosts > 1):
        try:
            changed = config_lib.replace(config, changes)
            built = module.build(changed, experiment.facts)
            built = built._replace(data=experiment.data)
            compiled = compile_for(topology, next(programs(built, changed, topology)).lowered)
        except UserError:  # flags that this experiment or this batch does not allow
            continue
        flags = " ".join(f"--{name}={value}" for name, value in changes.items())
        takes = shown_size(compiled.memory.peak) if compiled.memory else "?"
        fit = "fits" if compiled.fits(topology.usable) else "does not fit either"
        said.append(f"{flags}: {takes} a device, {fit}")
    return said
