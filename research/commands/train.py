"""--mode=train: one run, from its beginning or from where it was stopped, to its end."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

from research import config as config_lib
from research.assembly import taken
from research.code.files import Code
from research.code.running import code_of
from research.commands.output import new_folder, show_result
from research.distributed import group as distributed
from research.distributed.folder import open_run, shared
from research.distributed.joining import show as show_processes
from research.errors import UserError
from research.experiment import Look
from research.record.progress import console
from research.record.run_folder import RunFolder, as_begun, check_workdir, read_result, save_figures
from research.remote.mirror import Mirror
from research.remote.store import is_remote
from research.runtime import environment
from research.training import parallel as parallel_lib
from research.training.config import LoopConfig
from research.training.evaluation import pictures_of, save_outcomes
from research.training.fitting import memory_limit, with_batch_size
from research.training.interrupts import Stopped
from research.training.loop import train


def run_training(name: str, module: ModuleType, config: LoopConfig) -> None:
    """Trains (or goes on, or finds that all is done), then shows the result and its pictures."""
    if is_remote(config.workdir):
        with Mirror(config.workdir) as mirror, _stopping(config.workdir):
            path = mirror.path
            result = train_to_end(name, module, config, path, mirror.lock, mirror.push)
    else:
        path = shared(Path(config.workdir) if config.workdir else new_folder(name))
        with _stopping(path):
            result = train_to_end(name, module, config, path)
    if result is not None:
        show_result(result, path)


@contextlib.contextmanager
def _stopping(workdir: str | Path) -> Iterator[None]:
    try:
        yield
    except Stopped:
        console().print(f"the same command with --workdir={workdir} goes on", markup=False)
        raise


def train_to_end(
    name: str,
    module: ModuleType,
    config: LoopConfig,
    path: Path,
    held: TextIO | None = None,
    saved: Callable[[], object] = lambda: None,
) -> dict[str, Any] | None:
    """Trains the run in a folder to its end if need be, and returns its result.

    Where --stop_after leaves it earlier, the result is of that step. None if none is to be kept,
    and in the processes that do not keep it.

    Args:
      held: the folder's lock, where this process has it already.
      saved: what is to be done when a checkpoint was saved.

    Raises:
      Stopped: after a signal; the run is saved.
    """
    code = code_of(module)
    config = as_begun(path, config)
    check_workdir(path, name, config, code)
    result = read_result(path)
    if result is None:
        # Everything a person may have got wrong comes up before a folder is made.
        config = with_batch_size(module, config, memory_limit(config))
        experiment = module.build(config)
        if isinstance(experiment, Look):
            if distributed.count() > 1:
                raise UserError("--distributed: nothing is trained here; leave it out.")
            return keep_report(experiment, name, config, path, code, held)
        config = taken(config, experiment.facts)
        parallel = parallel_lib.for_training(config)
        config = config_lib.replace(config, {"parallel": parallel.mode})
        show_processes(config.batch_size)
        with open_run(path, name, config, code, held, saved) as folder:
            finished = train(experiment, config, parallel, folder)
            if not distributed.is_first():
                return None
            if not finished.complete:
                folder.leave(finished.result)
                return finished.result
            save_figures(path / "figures", pictures_of(experiment.evaluation, finished.evaluations))
            examples = save_outcomes(path, finished.evaluations)
            result = {**finished.result, "examples": examples}
            folder.finish(result)
    return result


def keep_report(
    look: Look,
    name: str,
    config: LoopConfig,
    path: Path,
    code: Code | None,
    held: TextIO | None = None,
) -> dict[str, Any] | None:
    """Runs what only looks, and returns its result, kept in a folder as a run's is, or None."""
    if not look.kept:
        console().print(look.report().table)
        return None
    began = time.perf_counter()
    with RunFolder(path, name, config, code, held) as folder:
        report = look.report()  # the last that may refuse something: nothing is written before
        identity = {"code": code.digest} if code is not None else {}
        folder.begin(0, {"environment": environment(), "fingerprint": identity})
        save_figures(path / "figures", report.figures)
        result = {
            "experiment": name,
            "step": 0,
            "seconds": round(time.perf_counter() - began, 3),
            "best": ["", "max"],
            "metrics": {row["metric"]: row["value"] for row in report.rows},
            "protocol": {
                row["metric"].partition("/")[2]: row["protocol"]
                for row in report.rows
                if row["protocol"]
            },
            "notes": list(report.notes),
        }
        folder.finish(result)
    return result
