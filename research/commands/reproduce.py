"""--mode=reproduce: a run from its folder alone, or stated results from their commands, anew."""

import os
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from research.commands.output import new_folder, output_folder, show_report
from research.commands.processes import run_alone
from research.comparison import reproduction, stated
from research.comparison.runs import Run, read_run
from research.errors import UserError
from research.modes import LaunchConfig
from research.record.progress import console
from research.record.report import Report
from research.record.run_folder import read_result
from research.record.sealing import CONFIG
from research.record.whole_files import write_json
from research.runtime import DETERMINISTIC, machine, processors
from research.training.config import LoopConfig

MODE = "reproduce"
TAKEN = ("workdir", "data_dir", "compilation_cache")  # the flags that change no bit


def reproduce(
    launch: LaunchConfig, config: LoopConfig, given: Collection[str], launcher: Path
) -> int:
    """Trains a run again, or measures stated results again.

    Args:
      config: of which --workdir, --data_dir and --compilation_cache are taken.
      given: the names of the flags that were typed.
      launcher: the file launch.py.

    Returns:
      The exit code: 0, or 1 where a bit differs, or a result is not as stated.

    Raises:
      UserError: for what cannot be run again.
    """
    if bool(launch.run) == bool(launch.results):
        raise UserError(
            f"--mode={MODE} needs --run=RUN, the folder of a run, or --results, the stated ones."
        )
    for name in sorted(given):
        if name not in TAKEN:
            raise UserError(
                f"--{name}: what is repeated has flags of its own; beside --run or --results, "
                f"{', '.join(f'--{flag}' for flag in TAKEN)} alone are taken."
            )
    command = [sys.executable, str(launcher)]
    shared = [f"--{name}={getattr(config, name)}" for name in TAKEN[1:] if name in given]
    if launch.results:
        page = launcher.parent / "docs" / "results.md"
        return measure_again(stated.read_stated(page), launch.results, command, shared, config)
    return train_again(Path(launch.run), command, shared, config.workdir)


def train_again(run: Path, command: Sequence[str], shared: Sequence[str], workdir: str) -> int:
    """Trains a run again in a new folder, by its own flags and code, and says what differs."""
    found = finished_run(run)
    path = Path(workdir) if workdir else new_folder(found.experiment, "reproduced")
    if path.resolve() == run.resolve():
        raise UserError(f"--workdir={workdir}: is the run itself; choose another folder.")
    file = path / f"{MODE}.json"
    if file.exists():
        raise UserError(f"--workdir={path}: holds a {file.name} already; choose another folder.")
    out = console()
    then, now = found.begun.get("environment", {}), machine()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    broken = reproduction.promise(found, processors()[0])
    if 0 < then.get("cores", 0) < len(cores):  # as many, or sums are split otherwise
        cores = cores[: then["cores"]]
    now |= {"cores": min(now["cores"], len(cores) or now["cores"])}
    now["threads"] = then.get("threads", now["threads"])
    now["xla_flags"] = then.get("xla_flags", now["xla_flags"])
    for line in reproduction.different_surroundings(then, now):
        out.print(f"other    {line}", markup=False)
    out.print(f"training {run} again in {path}", markup=False)
    arguments = [f"--flagfile={run / 'flags.txt'}", f"--workdir={path}", *shared]
    if read_result(path) is None:
        code = run_alone([*command, *arguments], variables_of(then), cores)
        if code:
            raise UserError(f"--run={run}: cannot be trained again; the lines above say why.")
    verdict = reproduction.compare_runs(run, path)
    again = read_run(path).begun["environment"]
    others = reproduction.different_surroundings(then, again)
    lines = reproduction.in_words(verdict)
    if others and not broken:
        broken = f"the surroundings differ ({'; '.join(others)})"
    lines.append(f"bits     {f'were not promised: {broken}' if broken else 'were promised'}")
    write_json(
        file,
        {
            "run": str(run.absolute()),
            "identical": verdict.identical,
            "promised": not broken,
            "not_promised_because": broken,
            "other_surroundings": others,
            "other_inputs": list(verdict.inputs),
            "first_logged": verdict.logged and verdict.logged._asdict(),
            "first_tensor": verdict.tensor and verdict.tensor._asdict(),
            "metrics": list(verdict.metrics),
            "not_compared": verdict.missing,
        },
    )
    for line in [*lines, f"report   {file}"]:
        out.print(line, markup=False, soft_wrap=True)
    return 0 if verdict.identical else 1


def finished_run(folder: Path) -> Run:
    """Reads a run that is to be trained again.

    Raises:
      UserError: for a folder without a run, a damaged or unfinished run, and one of several
        processes.
    """
    if not folder.is_dir():
        raise UserError(f"--run={folder}: there is no such folder.")
    if not ((folder / CONFIG).is_file() and (folder / "flags.txt").is_file()):
        raise UserError(f"--run={folder}: holds no run (flags.txt and config.json are needed).")
    run = read_run(folder)
    if not (run.experiment and run.flags):
        raise UserError(f"--run={folder}: its files cannot be read; they were changed.")
    if not run.result:
        raise UserError(
            f"--run={folder}: is not finished; python launch.py "
            f"--flagfile={folder / 'flags.txt'} --workdir={folder} goes on."
        )
    if (processes := run.begun.get("environment", {}).get("processes", 1)) > 1:
        raise UserError(
            f"--run={folder}: was trained by {processes} processes; one cannot repeat it."
        )
    return run


def variables_of(then: Mapping[str, Any]) -> dict[str, str]:
    """Returns the variables of a process that computes as a run did: its devices and XLA_FLAGS."""
    variables = dict(os.environ)
    kinds = {device.partition(":")[0] for device in then.get("devices", [])}
    if kinds == {"cpu"}:  # where there is a GPU now, too
        variables["JAX_PLATFORMS"] = "cpu"
    if "xla_flags" in then:  # --deterministic adds its own
        flags = [flag for flag in then["xla_flags"] if flag not in DETERMINISTIC]
        variables["XLA_FLAGS"] = " ".join(flags)
    if then.get("threads", then.get("cores")) != then.get("cores"):
        variables["NPROC"] = str(then["threads"])
    return variables


def measure_again(
    rows: list[stated.Stated],
    names: tuple[str, ...],
    command: Sequence[str],
    shared: Sequence[str],
    config: LoopConfig,
) -> int:
    """Runs the commands of stated results, and compares what they measure with the page."""
    chosen = stated.choose(rows, names)
    path = output_folder(config.workdir, "results", MODE, f"{MODE}.json")
    out = console()
    table = Table("result", "metric", "stated", "within", "measured", "seconds", "", box=None)
    found = []
    for row in chosen:
        folder, began = path / row.name, time.perf_counter()
        said = " ".join(row.arguments)
        out.print(f"{row.name}: python launch.py {said}", markup=False, soft_wrap=True)
        arguments = [*row.arguments, f"--workdir={folder}", *shared]
        code = run_alone([*command, *arguments], os.environ, log=path / f"{row.name}.txt")
        result = read_run(folder).result if code == 0 else {}
        measured = result.get("metrics", {}).get(row.metric)
        seconds = time.perf_counter() - began
        told = "holds" if row.holds(measured) else "MISSES"
        if code:
            told = f"exit code {code}; {path / f'{row.name}.txt'} says why"
        elif measured is None:
            told = f"has no {row.metric}"
        values = (
            f"{row.value:g}",
            f"{row.tolerance:g}",
            "-" if measured is None else f"{measured:.4f}",
        )
        table.add_row(row.name, row.metric, *values, f"{seconds:.0f}", told)
        found.append(
            {
                "result": row.name,
                "command": f"python launch.py {said}",
                "metric": row.metric,
                "stated": row.value,
                "tolerance": row.tolerance,
                "measured": measured,
                "seconds": round(seconds, 1),
                "holds": row.holds(measured),
            }
        )
    show_report(Report(found, table), path, MODE)
    return 0 if all(row["holds"] for row in found) else 1
