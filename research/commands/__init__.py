"""The modes that `--mode` names, one a file. launch.py reads the flags; `run` runs their mode.

A mode's file is imported when it is asked for: some take a second or two.
"""

import contextlib
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from research.code.running import code_of
from research.commands.output import output_folder, show_report
from research.config import options, replace, to_json
from research.data.config import AUTO, DataConfig
from research.distributed.group import refuse_different
from research.distributed.joining import joined
from research.errors import UserError
from research.modes import LaunchConfig, Modes, modes_of
from research.record.progress import console
from research.remote.outputs import sent_at_end
from research.remote.store import is_remote
from research.runtime import (
    hide_failed_writes,
    make_deterministic,
    reuse_memory,
    use_compilation_cache,
)
from research.training.config import LoopConfig

if TYPE_CHECKING:
    from research.commands.study import VariantOf

# Flags that are each process' own: folders are where its machine has them.
OF_EACH_PROCESS = ("distributed", "join_timeout", "data_dir", "compilation_cache")


@contextlib.contextmanager
def prepared(launch: LaunchConfig, config: LoopConfig) -> Iterator[None]:
    """Makes this process ready for a mode, as one of those of --distributed while that lasts.

    Raises:
      UserError: for flags that are of other modes, and for processes that do not fit.
    """
    refuse_elsewhere(launch, config)
    refuse_auto(launch, config)
    refuse_addresses(launch, config)
    if launch.show and launch.distributed != "off":
        raise UserError("--show: is for one process; leave --distributed out.")
    asked = "parallel" not in config.unchosen and config.parallel in ("single", "pmap")
    if asked and launch.distributed != "off":
        raise UserError(f"--parallel={config.parallel}: is for one process; leave it out.")
    if config.deterministic:
        make_deterministic()
    reuse_memory()
    hide_failed_writes()
    if launch.mode != "compile":  # whose seconds are asked for
        use_compilation_cache(config.compilation_cache)
    flags = {row.flag: getattr(launch, row.name) for row in options(type(launch))}
    flags |= to_json(config)
    alike = {name: value for name, value in flags.items() if name not in OF_EACH_PROCESS}
    with joined(launch.distributed, launch.join_timeout, alike):
        yield


def run(
    launch: LaunchConfig,
    module: ModuleType | None,
    config: LoopConfig,
    given: Collection[str],
    experiments: Path,
    variant: "VariantOf",
    arguments: Sequence[str],
    open_experiment: Callable[[str], ModuleType],
) -> int:
    """Runs the mode that launch.mode names.

    Args:
      launch: the options of the command itself.
      module: the experiment's module; None in the modes that need none.
      config: its Config.
      given: the names of the flags that were typed, not defaulted.
      experiments: the folder of the experiments and their presets.
      variant: (name of a study's variant, its flags) -> its Config.
      arguments: all that was typed; a study's processes get the same.
      open_experiment: name, or file -> an experiment's module.

    Returns:
      The exit code: 0, 1 where something is not reproduced or does not fit, 3 where runs of a study
      or a tuning failed.

    Raises:
      UserError: for everything a person can mend.
    """
    if is_remote(config.workdir) and launch.mode != "train":
        with sent_at_end(config.workdir) as folder:
            here = replace(config, {"workdir": str(folder)})
            return run(
                launch, module, here, given, experiments, variant, arguments, open_experiment
            )
    if launch.mode == "list":
        from research.commands.listing import show_details, show_list

        if launch.details:
            show_details(launch.details)
        else:
            show_list(experiments, config.data_dir)
        return 0
    if launch.mode == "prepare":
        from research.data.stored.preparation import prepare

        if not isinstance(config, DataConfig) or "dataset" not in given or not config.dataset:
            raise UserError("--mode=prepare needs --dataset=NAME; --mode=list shows names.")
        prepare(config.dataset, config.data_dir, launch.source or None, launch.allow_download)
        return 0
    if launch.mode == "compare":
        from research.commands.compare import compare

        compare(launch, config.workdir, arguments, open_experiment)
        return 0
    if launch.mode == "reproduce":
        from research.commands.reproduce import reproduce

        return reproduce(launch, config, given, experiments.parent / "launch.py")
    assert module is not None, "the other modes are of an experiment"
    code = code_of(module)
    own = {"code of the experiment": code.digest if code is not None else "none"}
    refuse_different("code", own, "bring the same files to all machines")
    if launch.mode == "check":
        if launch.checkpoint:
            from research.commands.intact import check_runs

            check_runs(launch.checkpoint)
        else:
            from research.commands.check import check

            check(module, config)
    elif launch.mode == "compile":
        from research.commands.compile import run_compilation

        if not launch.topology:
            raise UserError("--mode=compile needs --topology, such as v5e:2x4 or h100:8.")
        return run_compilation(launch.experiment, module, config, launch.topology, launch.run)
    elif launch.mode == "preview":
        from research.commands.preview import preview

        preview(launch.experiment, module, config)
    elif launch.mode == "train":
        from research.commands.train import run_training

        run_training(launch.experiment, module, config)
    elif launch.mode == "evaluate":
        from research.commands.evaluate import open_weights, run_evaluation

        members = []
        for path in launch.checkpoint or (None,):
            trained, opened = open_weights(path, launch, module, config, given)
            members.append((trained, module.build(trained, opened.metadata["facts"]), opened))
        run_evaluation(launch.experiment, members, code, launch.show)
    elif launch.mode == "study":
        from research.commands.study import run_study, study_of

        study, configs = study_of(launch, config, given, experiments / "presets", variant)
        launcher = [sys.executable, str(experiments.parent / "launch.py"), *arguments]
        return run_study(study, module, config, configs, launch.jobs, launch.share, launcher)
    elif launch.mode == "tune":
        from research.commands.tune import run_tuning

        launcher = [sys.executable, str(experiments.parent / "launch.py"), *arguments]
        return run_tuning(launch, module, config, given, variant, launcher)
    elif launch.mode == "predict":
        from research.commands.evaluate import open_weights
        from research.commands.predict import run_prediction

        if len(launch.checkpoint) > 1:
            raise UserError("--mode=predict takes one --checkpoint.")
        path = launch.checkpoint[0] if launch.checkpoint else None
        config, opened = open_weights(path, launch, module, config, given)
        # Asked for now: that a run was trained so says nothing of these files.
        skip = "skip_corrupt" in given and isinstance(config, DataConfig) and config.skip_corrupt
        run_prediction(launch.experiment, module, config, opened, launch.inputs, skip)
    else:  # what this experiment alone can be asked
        run_own_mode(launch.experiment, modes_of(module), launch.mode, config)
    return 0


def refuse_elsewhere(launch: LaunchConfig, config: LoopConfig) -> None:
    """Raises UserError for flags that are of other modes than this one."""
    for said in (launch, config):
        for row in options(type(said)):
            elsewhere = row.only and launch.mode not in row.only
            if elsewhere and getattr(said, row.name) != row.default:
                named = " or ".join(f"--mode={mode}" for mode in row.only)
                raise UserError(f"--{row.flag}: is for {named}; leave it out.")
    if launch.inputs and launch.mode != "predict" and not hasattr(config, "inputs"):
        raise UserError("--inputs: is for --mode=predict; leave it out.")
    mode = {"suspicious": "evaluate", "disagreements": "compare"}.get(launch.show, launch.mode)
    if mode != launch.mode:
        raise UserError(f"--show={launch.show}: is for --mode={mode}; leave it out.")


def refuse_auto(launch: LaunchConfig, config: LoopConfig) -> None:
    """Raises UserError for --batch_size=auto where no training step is compiled by one process."""
    if config.batch_size != AUTO:
        return
    if launch.mode not in ("train", "check", "compile", "study", "tune"):
        raise UserError(f"--batch_size=auto: is for training; --mode={launch.mode} takes a number.")
    if launch.distributed != "off":
        raise UserError("--batch_size=auto: is for one process; --mode=compile tells the number.")


def refuse_addresses(launch: LaunchConfig, config: LoopConfig) -> None:
    """Raises UserError for an address of a store where a folder of this machine is needed."""
    here = "a folder of this machine is needed."
    if launch.mode in ("study", "tune", "reproduce") and is_remote(config.workdir):
        raise UserError(f"--workdir={config.workdir}: for --mode={launch.mode} {here}")
    if launch.mode in ("prepare", "list") and is_remote(config.data_dir):
        raise UserError(f"--data_dir={config.data_dir}: for --mode={launch.mode} {here}")
    if is_remote(launch.run):
        raise UserError(f"--run={launch.run}: {here}")
    if launch.distributed != "off" and is_remote(config.workdir):
        raise UserError(
            f"--workdir={config.workdir}: is written by one process; several of --distributed need "
            "a folder on a disk that all share."
        )


def run_own_mode(name: str, modes: Modes, mode: str, config: LoopConfig) -> None:
    """Writes the report or the page that this experiment alone can be asked for."""
    if mode in modes.reports:
        path = output_folder(config.workdir, name, mode, f"{mode}.json")
        show_report(modes.reports[mode](config), path, mode)
    elif mode in modes.pages:
        make = modes.pages[mode](config)
        path = output_folder(config.workdir, name, mode, f"{mode}.html")
        (path / f"{mode}.html").write_text(make(), encoding="utf-8")
        console().print(f"\n{path / f'{mode}.html'}", markup=False)
    else:
        raise UserError(f"--experiment={name}: has no --mode={mode}.")
