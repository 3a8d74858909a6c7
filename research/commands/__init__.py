"""The modes that `--mode` names, one a file. launch.py reads the flags; `run` runs their mode."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from research.code.running import code_of
from research.commands.compare import compare, refuse_elsewhere
from research.commands.evaluate import open_weights, run_evaluation
from research.commands.output import output_folder, show_report
from research.commands.predict import run_prediction
from research.commands.train import run_study, run_training
from research.config import options
from research.data.config import DataConfig
from research.errors import UserError
from research.modes import Launch, Modes, modes_of
from research.record.progress import console
from research.runtime import (
    hide_failed_writes,
    make_deterministic,
    reuse_memory,
    use_compilation_cache,
)
from research.training.config import LoopConfig


def run(
    launch: Launch,
    module: ModuleType | None,
    config: LoopConfig,
    given: Collection[str],
    experiments: Path,
    variants: Mapping[str, Any],
    arguments: Sequence[str],
    open_experiment: Callable[[str], ModuleType],
) -> None:
    """Runs the mode that launch.mode names.

    Args:
      launch: the options of the command itself.
      module: the experiment's module; None in the modes that need none.
      config: its Config.
      given: the names of the flags that were typed, not defaulted.
      experiments: the folder of the experiments and their presets.
      variants: {flags of a run of a study: its Config}.
      arguments: all that was typed.
      open_experiment: name, or file -> an experiment's module.

    Raises:
      UserError: for everything a person can mend.
    """
    for row in options(type(config)):
        elsewhere = row.only not in ("", launch.mode)
        if elsewhere and getattr(config, row.name) != row.default:
            raise UserError(f"--{row.flag}: is for --mode={row.only}; leave it out.")
    refuse_elsewhere(launch)
    if config.deterministic:
        make_deterministic()
    reuse_memory()
    hide_failed_writes()
    use_compilation_cache(config.compilation_cache)
    if launch.mode == "list":
        from research.commands.listing import show_list

        show_list(experiments, config.data_dir)
        return
    if launch.mode == "prepare":
        from research.data.stored.preparation import prepare

        if not isinstance(config, DataConfig) or "dataset" not in given or not config.dataset:
            raise UserError("--mode=prepare needs --dataset=NAME; --mode=list shows names.")
        prepare(config.dataset, config.data_dir, launch.source or None, launch.allow_download)
        return
    if launch.mode == "compare":
        compare(launch, config.workdir, arguments, open_experiment)
        return
    assert module is not None, "the other modes are of an experiment"
    if launch.mode == "check":
        from research.commands.check import check

        check(module, config)
    elif launch.mode == "train":
        run_training(launch.experiment, module, config)
    elif launch.mode == "evaluate":
        members = []
        for path in launch.checkpoint or (None,):
            trained, opened = open_weights(path, launch, module, config, given)
            members.append((trained, module.build(trained, opened.metadata["facts"]), opened))
        run_evaluation(launch.experiment, members, code_of(module))
    elif launch.mode == "study":
        run_study(launch.experiment, module, config, variants, launch.repeats)
    elif launch.mode == "predict":
        if len(launch.checkpoint) > 1:
            raise UserError("--mode=predict takes one --checkpoint.")
        path = launch.checkpoint[0] if launch.checkpoint else None
        config, opened = open_weights(path, launch, module, config, given)
        # Asked for now: that a run was trained so says nothing of these files.
        skip = "skip_corrupt" in given and isinstance(config, DataConfig) and config.skip_corrupt
        run_prediction(launch.experiment, module, config, opened, launch.inputs, skip)
    else:  # what this experiment alone can be asked
        run_own_mode(launch.experiment, modes_of(module), launch.mode, config)


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
