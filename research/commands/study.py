"""--mode=study: trains every variant with every seed, a run each, and shows them side by side."""

import gc
import re
import shlex
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax

from research import config as config_lib
from research.assembly import taken
from research.code.running import code_of
from research.commands import jobs as jobs_lib
from research.commands.compare import findings_of_study, show
from research.commands.output import new_folder
from research.commands.train import train_to_end
from research.comparison import cells as cells_lib
from research.comparison import study as study_lib
from research.comparison import study_file
from research.comparison.cells import Cell, claimed, failure_of
from research.comparison.study import Study
from research.errors import UserError, is_full
from research.experiment import Look
from research.modes import LaunchConfig
from research.record.progress import console
from research.record.run_folder import as_begun, check_workdir
from research.training import parallel as parallel_lib
from research.training.config import FOLLOWING, LoopConfig
from research.training.interrupts import Interrupts, Stopped

VariantOf = Callable[[str, Sequence[str]], Any]  # (name, flags) -> its Config
STATED = ("metric", "difference", "baseline", "question", "claim", "budget")
SOME_FAILED = 3


def study_of(
    launch: LaunchConfig,
    config: LoopConfig,
    given: Collection[str],
    presets: Path,
    variant: VariantOf,
) -> tuple[Study, dict[str, Any]]:
    """Returns the study that --study and --variant declare, and the Config of each variant.

    Args:
      config: what all variants have in common; its seed is the first of those that are counted.
      given: the names of the flags that were typed, or stand in the study file.

    Raises:
      UserError: for what is no study (`research.comparison.study.checked`), and for two variants
        that are the same.
    """
    options = config_lib.options(type(config))
    declared = None
    if launch.study:
        declared = study_file.read(study_file.find(launch.study, presets))
    variants: dict[str, tuple[str, ...]] = {}
    if declared is not None:
        variants = {k: study_file.arguments(v, options) for k, v in declared.variants.items()}
    for text in launch.variant:
        name = text.replace("--", "").strip() or "default"
        if name in variants:
            raise UserError(f"--variant={text}: is given twice.")
        variants[name] = tuple(shlex.split(text))
    count = launch.repeats or (declared.repeats if declared else 0) or study_lib.REPEATS
    seeds = tuple(range(config.seed, config.seed + count))
    if declared is not None and declared.seeds and not launch.repeats:
        if "seed" in given:
            raise UserError(f"--seed={config.seed}: {declared.path} lists the seeds; leave it out.")
        seeds = declared.seeds
    study = Study(launch.experiment, variants, seeds, common_flags(config, given))
    if declared is not None:
        study = study._replace(**{name: getattr(declared, name) for name in STATED})
    said = {name: getattr(launch, name) for name in study_lib.DECLARED}
    study = study._replace(**{name: value for name, value in said.items() if value})
    study_lib.checked(study)

    configs: dict[str, Any] = {}
    for name, flags in variants.items():
        found = variant(name, flags)
        for field, where in (("seed", "--seed and --repeats"), ("workdir", "--workdir")):
            if getattr(found, field) != getattr(config, field):
                raise UserError(f"variant {name}: {field} is the study's own; {where} say it.")
        if found.stop_after < 1:
            raise UserError("--stop_after: leaves a single run; a study's go on to their end.")
        for other, known in configs.items():
            if found == known and _open(found) == _open(known):
                raise UserError(f"variants {other!r} and {name!r}: are the same; leave one out.")
        configs[name] = found
    return study, configs


def common_flags(config: LoopConfig, given: Collection[str]) -> tuple[str, ...]:
    """Returns the flags that all variants have, as a shell takes them, but for the seed.

    Args:
      given: the names of the flags that were typed.
    """
    return tuple(
        f"--{row.flag}={config_lib.show(getattr(config, row.name))}"
        for row in config_lib.options(type(config))
        if row.name in given and row.saved and row.name != "seed"
    )


def _open(config: LoopConfig) -> set[str]:
    """Returns what the data set or the machine will decide."""
    return set(FOLLOWING).intersection(config.unchosen)


def run_study(
    study: Study,
    module: ModuleType,
    config: LoopConfig,
    variants: Mapping[str, Any],
    jobs: int = 1,
    share: str = "",
    launcher: Sequence[str] = (),
) -> int:
    """Trains every cell that is neither complete nor failed for good, then shows all side by side.

    A cell that fails (its loss is not finite, memory runs out, an error) is part of what the study
    finds: its reason is recorded, and the others go on.

    Args:
      config: what the variants have in common.
      variants: the Config of each, by name.
      jobs: processes that train cells at the same time.
      share: "I/N" or "next": the cells of this process; "": all.
      launcher: the command that runs this study again.

    Returns:
      The exit code: 0, or 3 where cells failed.

    Raises:
      UserError: for what cannot be run, before anything is written.
      Stopped: after a signal; what was under way is saved.
    """
    if share and not config.workdir:
        raise UserError("--share needs --workdir, the study's folder, which all processes share.")
    if share and jobs > 1:
        raise UserError("--share is for one process of many that a queue starts; leave --jobs out.")
    path = study_folder(study.experiment, config)
    mine = shared(study.cells(path), share)
    if jobs > 1:
        jax.config.update("jax_platforms", "cpu")  # the devices are for the processes it starts
    configs = configs_of(study.cells(path), variants)
    check(study, module, configs, path)
    study = study_lib.declare(study, path)
    if share != "next":
        cells_lib.forget_failures(mine)
    out = console()
    if study.question:
        out.print(study.question, style="bold", markup=False)
    train_cells(study.experiment, module, configs, mine, path, jobs, launcher)
    failed = [(cell, found) for cell in mine if (found := failure_of(cell.folder)) is not None]
    if not share:
        compared = findings_of_study(study, path, {}, lambda _: module)
        show(compared, path, shlex.join(["python", "launch.py", *launcher[2:]]))
    done, waiting = sum(cell.is_done for cell in mine), sum(cell.is_free for cell in mine)
    elsewhere = f", {waiting} not finished, perhaps by other processes" if waiting else ""
    kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(x.kind for _, x in failed).items())
    kinds = f" ({kinds})" if kinds else ""
    out.print(
        f"study    {path}: {done} of {len(mine)} runs complete, {len(failed)} failed{kinds}"
        f"{elsewhere}",
        markup=False,
    )
    if share:
        for cell, failure in failed:
            out.print(f"failed   {cell.label}: {failure.reason}", markup=False)
        out.print("The same command without --share shows all runs side by side.", markup=False)
    return SOME_FAILED if failed else 0


def study_folder(experiment: str, config: LoopConfig, mode: str = "study") -> Path:
    """Returns the folder that --workdir names, or a new one; refuses one that --resume=never has
    to leave alone.
    """
    path = Path(config.workdir) if config.workdir else new_folder(experiment, mode)
    if config.resume == "never" and (path / study_lib.FILE).exists():
        raise UserError(f"--workdir={path}: holds a study already; choose another folder.")
    return path


def configs_of(cells: Sequence[Cell], variants: Mapping[str, Any]) -> dict[Cell, Any]:
    """Returns the Config of each cell: its variant's, with its folder, seed and share of steps."""
    return {
        cell: as_begun(
            cell.folder,
            config_lib.replace(
                variants[cell.variant],
                {
                    "workdir": str(cell.folder),
                    "seed": cell.seed,
                    "resume": "auto",
                    "stop_after": cell.until,
                },
            ),
        )
        for cell in cells
    }


def train_cells(
    experiment: str,
    module: ModuleType,
    configs: Mapping[Cell, LoopConfig],
    mine: Sequence[Cell],
    path: Path,
    jobs: int,
    launcher: Sequence[str],
) -> None:
    """Trains the free ones among some cells, in this process or in `jobs` of their own.

    Raises:
      Stopped: after a signal; what was under way is saved.
    """
    try:
        if jobs > 1 and any(cell.is_free for cell in mine):
            jobs_lib.supervise([*launcher, f"--workdir={path}", "--resume=auto"], path, mine, jobs)
        else:
            jobs_lib.end_with_supervisor()
            run_cells(experiment, module, configs, mine)
    except Stopped as stopped:
        done = sum(cell.is_done for cell in mine)
        console().print(
            f"{stopped}: {done} of {len(mine)} runs complete; the same command with "
            f"--workdir={path} goes on",
            markup=False,
        )
        raise


def shared(cells: Sequence[Cell], share: str) -> list[Cell]:
    """Returns the cells of one process: all, or the I-th of N shares; "next" looks at all."""
    if share in ("", "next"):
        return list(cells)
    found = re.fullmatch(r"(\d+)/(\d+)", share)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"--share={share}: I/N is needed, I from 1 to N, such as 1/4; or next.")
    return list(cells[int(found[1]) - 1 :: int(found[2])])


def check(study: Study, module: ModuleType, configs: Mapping[Cell, LoopConfig], path: Path) -> None:
    """Raises UserError for what cannot be run, or lies in the folder and is another's."""
    if (path / "config.json").exists():
        raise UserError(f"--workdir={path}: holds a run; choose another folder for the study.")
    before = study_lib.read_study(path) if (path / study_lib.FILE).exists() else None
    if before is not None:
        study_lib.merged(before, study, path)
    code = code_of(module)
    for cell, config in configs.items():
        check_workdir(cell.folder, study.experiment, config, code)
    if before is not None and before._replace(added=(), added_seeds=()) == study:
        return  # was checked by the process that declared it
    for name, config in zip(study.variants, configs.values(), strict=False):  # of the first seed
        try:
            built = module.build(config)
            parallel_lib.for_training(taken(config, {} if isinstance(built, Look) else built.facts))
            if isinstance(built, Look) and not built.kept:
                raise UserError("keeps no result that could be compared.")
        except UserError as error:
            raise UserError(f"variant {name}: {error}") from error
    if study.metric and not isinstance(built, Look):
        every = built.evaluation.evaluators.values()
        protocol = built.evaluation.protocol if all(one.protocol for one in every) else ()
        study_lib.check_metric(study.metric, protocol, list(built.data().evals))


def run_cells(
    name: str, module: ModuleType, configs: Mapping[Cell, LoopConfig], mine: Sequence[Cell]
) -> None:
    """Trains the free ones among some cells, one after another.

    Raises:
      Stopped: after a signal; what was under way is saved.
    """
    out = console()
    began, finished = time.perf_counter(), 0
    with Interrupts() as interrupts:
        for number, cell in enumerate(mine, 1):
            if interrupts.received:
                raise Stopped(interrupts.received)
            if not cell.is_free:
                continue
            with claimed(cell) as claim:
                if claim is None or not cell.is_free:  # another process was quicker
                    continue
                left = sum(other.is_free for other in mine)
                each = (time.perf_counter() - began) / finished if finished else 0.0
                said = f", about {each * left:.0f} s left" if finished else ""
                out.print(
                    f"\n{cell.label} ({number} of {len(mine)}{said})", style="bold", markup=False
                )
                try:
                    train_to_end(name, module, configs[cell], cell.folder, claim)
                except Exception as error:
                    if is_full(error):  # the next would not be kept either
                        raise
                    failure = cells_lib.failure_from(error)
                    cells_lib.record(cell.folder, failure)
                    out.print(f"{failure.kind}: {failure.reason}", markup=False)
                    gc.collect()  # arrays in cycles with what was raised
                finished += 1
