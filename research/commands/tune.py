"""--mode=tune: trains the trials of a search, and ranks them by what they do on validation data.

A tuning is a study whose variants are the trials: the same folders, locks and processes.
"""

import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax

from research import config as config_lib
from research.commands.study import (
    SOME_FAILED,
    VariantOf,
    check,
    common_flags,
    configs_of,
    study_folder,
    train_cells,
)
from research.comparison import cells as cells_lib
from research.comparison import study as study_lib
from research.comparison import tuning_tables as tables
from research.comparison.search import Space, draw, grid, read_space
from research.comparison.study import Study
from research.comparison.tuning import Finer, Trial, finer, ranked, read_trial, rungs
from research.data.files import read_json
from research.data.sources.splits import VALIDATION
from research.errors import UserError
from research.experiment import Look
from research.figures.tuning import searched
from research.modes import LaunchConfig
from research.record.locks import lock
from research.record.progress import console
from research.record.report import save_csv
from research.record.run_folder import save_figures
from research.record.whole_files import write_json, write_text
from research.training.config import LoopConfig

FILE, BEST = "tune.json", "best.flags"
TRIALS = 16
SHOWN = 30  # trials in the table on the terminal; tune.csv holds all


def run_tuning(
    launch: LaunchConfig,
    module: ModuleType,
    config: LoopConfig,
    given: Collection[str],
    variant: VariantOf,
    launcher: Sequence[str] = (),
) -> int:
    """Trains every trial as far as its rung says, and shows which are best on validation data.

    Args:
      config: what all trials have in common.
      given: the names of the flags that were typed.
      variant: (name of a trial, its flags) -> its Config.
      launcher: the command that runs this tuning again.

    Returns:
      The exit code: 0, or 3 where trials failed.

    Raises:
      UserError: for what cannot be searched, or not ranked, before anything is written.
      Stopped: after a signal; what was under way is saved.
    """
    space = read_space(launch.search, config)
    trials = trials_of(launch, space, config.seed)
    path = study_folder(launch.experiment, config, "tune")
    options = config_lib.options(type(config))
    flags = {
        name: tuple(f"--{flag}={config_lib.show(value)}" for flag, value in trial.items())
        for name, trial in trials.items()
    }
    configs = {name: variant(name, said) for name, said in flags.items()}
    if config.stop_after < 1 or launch.share not in ("", "next"):
        raise UserError("--stop_after and --share=I/N: --mode=tune says itself how far trials go.")
    before = read(path)
    if before:
        metric, mode = str(before["metric"]), str(before["mode"])
    else:
        metric, mode = ranked_by(module, next(iter(configs.values())))
    declared = {
        "experiment": launch.experiment,
        "metric": metric,
        "mode": mode,
        "strategy": launch.strategy,
        "search": {flag: dimension.text() for flag, dimension in space.items()},
        "seed": config.seed,
        "asked": len(trials),
    }
    check_same(before, declared, path)
    common = common_flags(config, given)
    study = study_lib.checked(
        Study(
            launch.experiment,
            flags,
            (config.seed,),
            common,
            metric,
            question=tables.question(declared),
        )
    )
    if launch.jobs > 1:
        jax.config.update("jax_platforms", "cpu")  # the devices are for the processes it starts
    cells = study.cells(path)
    check(study, module, configs_of(cells, configs), path)
    study_lib.declare(study, path)
    settled = list(before.get("rungs", []))
    write(path, {**before, **declared, "rungs": settled})

    names = list(trials)
    stages = rungs(len(trials), launch.strategy == "halving")
    for number, stage in enumerate(stages):
        if number < len(settled):
            names = settled[number]["went_on"]
            continue
        mine = [cell._replace(until=stage.share) for cell in cells if cell.variant in names]
        if len(stages) > 1:
            console().print(
                f"\n{stage.share:.2g} of all steps, trials: {len(mine)}",
                style="bold",
                markup=False,
            )
        if not launch.share:
            cells_lib.forget_failures(mine)
        train_cells(
            launch.experiment, module, configs_of(mine, configs), mine, path, launch.jobs, launcher
        )
        if launch.share:  # one of the processes of --jobs, which begins the next rung
            return 0
        if waiting := sum(cell.is_free for cell in mine):
            raise UserError(
                f"--workdir={path}: {waiting} trials are under way in other processes; the same "
                "command ranks them once they are finished."
            )
        if number + 1 < len(stages):
            found = [
                read_trial(cell.variant, trials[cell.variant], cell.folder, metric) for cell in mine
            ]
            good = [trial for trial in ranked(found, mode) if not trial.failure]
            names = [trial.name for trial in good[: stages[number + 1].trials]]
            values = {trial.name: trial.value for trial in good}
            settled.append({"share": stage.share, "values": values, "went_on": names})
            write(path, {**declared, "rungs": settled})

    found = [read_trial(c.variant, trials[c.variant], c.folder, metric) for c in cells]
    found = ranked(found, mode)
    declared |= {"rungs": settled, "earlier": config.tuning_trials}
    show(found, finer(space, found, options), space, declared, path)
    best = found[0]
    if not best.failure and best.share == 1.0:
        own = module.__name__.startswith("experiments.")
        lines = [f"--experiment={launch.experiment}"] if own else []
        text = tables.best_flags(
            [*lines, *common, *flags[best.name]], found, declared, config.tuning_trials
        )
        write_text(path / BEST, text)
        console().print(f"best     --flagfile={path / BEST}", markup=False)
    failed = sum(bool(trial.failure) for trial in found)
    console().print(
        f"tune     {path}: {len(found) - failed} of {len(found)} trials, {failed} failed; "
        f"{tables.budget(found)}",
        markup=False,
    )
    return SOME_FAILED if failed else 0


def trials_of(launch: LaunchConfig, space: Space, seed: int) -> dict[str, dict[str, Any]]:
    """Returns {name of a trial: {flag: value}}.

    Raises:
      UserError: for more or fewer than the strategy can have.
    """
    if launch.strategy == "grid":
        if launch.trials:
            raise UserError(
                f"--trials={launch.trials}: a grid has as many as there are combinations; leave "
                "it out."
            )
        drawn = grid(space)
    else:
        drawn = draw(space, seed, launch.trials or TRIALS)
        if launch.strategy == "halving" and len(rungs(len(drawn), True)) < 2:
            raise UserError(f"--trials={launch.trials}: halving needs at least 3.")
    return {f"trial-{number:03d}": trial for number, trial in enumerate(drawn, 1)}


def ranked_by(module: ModuleType, config: LoopConfig) -> tuple[str, str]:
    """Returns the metric of the validation split that names the best, and "max" or "min".

    Raises:
      UserError: where nothing is trained, or no examples are held out for validation.
    """
    built = module.build(config)
    metric, mode = ("", "max") if isinstance(built, Look) else built.evaluation.best
    if not metric:
        raise UserError("--mode=tune: this experiment has no metric that trials are ranked by.")
    split = metric.partition("/")[0]
    if split not in VALIDATION:
        raise UserError(
            f"--mode=tune: no validation split is held out, and ranking trials by {metric} would "
            f"make {split!r} part of training; add --validation=0.1, or --fold=1/10."
        )
    return metric, mode


def read(path: Path) -> dict[str, Any]:
    """Reads the tune.json in a folder; {} where there is none."""
    file = path / FILE
    try:
        found: dict[str, Any] = read_json(file) if file.exists() else {}
        return {
            name: value for name, value in found.items() if name not in ("budget", "next", "trials")
        }
    except (UserError, AttributeError) as error:
        raise UserError(f"{file}: cannot be read; choose another --workdir.") from error


def write(path: Path, values: Mapping[str, Any]) -> None:
    """Writes tune.json, safe when several processes start."""
    with lock(path, wait=True):
        write_json(path / FILE, values)


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Raises UserError where a folder holds another tuning; more random trials may be added."""
    grows = now["strategy"] == "random" and before.get("asked", 0) <= now["asked"]
    for name, value in now.items():
        if before and before.get(name) != value and not (name == "asked" and grows):
            said = {"asked": "trials"}.get(name, name)
            raise UserError(
                f"--workdir={path}: holds a tuning with {said} {_plain(before.get(name))} there, "
                f"{_plain(value)} here; choose another folder."
            )


def show(
    trials: Sequence[Trial],
    closer: Sequence[Finer],
    space: Space,
    declared: Mapping[str, Any],
    path: Path,
) -> None:
    """Prints the ranks and where to look next, and writes tune.json, tune.csv and the picture."""
    metric = declared["metric"]
    rows = tables.rows(trials, metric)
    failed = sum(bool(trial.failure) for trial in trials)
    budget = {"trials": len(trials), "failed": failed, **tables.spent(trials)}
    write(
        path,
        {**declared, "budget": budget, "next": [row._asdict() for row in closer], "trials": rows},
    )
    save_csv(path / "tune.csv", rows)
    save_figures(path, {"tune": searched(space, trials, metric)})

    out = console()
    out.print("", tables.ranks(rows[:SHOWN], list(space), metric))
    if len(rows) > SHOWN:
        out.print(f"{len(rows) - SHOWN} more in {path / 'tune.csv'}", markup=False)
    if closer:
        out.print("", tables.closer(closer))
        for one in closer:
            if one.note:
                out.print(f"{one.flag}: {one.note}", markup=False)
        flags = [shlex.quote(f"--search={one.flag}={one.next}") for one in closer]
        flags.append(f"--tuning_trials={declared['earlier'] + len(trials)}")
        out.print(f"next     {' '.join(flags)}", markup=False, soft_wrap=True)
    out.print(f"picture  {path / 'tune.png'}", markup=False)
    out.print(f"numbers  {path / FILE} and tune.csv", markup=False)


def _plain(value: Any) -> str:
    """Returns a value of tune.json in words."""
    if isinstance(value, dict):
        return "; ".join(f"{flag}={text}" for flag, text in value.items())
    return str(value)
