"""--mode=evaluate: checkpoints, opened under their own configuration, on every split."""

from collections.abc import Collection, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from research import config as config_lib
from research.code import files as code_lib
from research.code.files import Code
from research.code.running import code_of
from research.commands.output import output_folder, show_result
from research.commands.suspicious import refuse_without_loss, show_suspicious
from research.data.sources import overlap
from research.distributed import group as distributed
from research.errors import UserError
from research.experiment import Data, Experiment
from research.modes import LaunchConfig, modes_of
from research.nn.ensemble import ensemble
from research.record.progress import console
from research.record.run_folder import fingerprint, save_figures
from research.record.sealing import write_result
from research.training import parallel as parallel_lib
from research.training.checkpoint import Opened, open_checkpoint
from research.training.chosen import opened_weights
from research.training.config import LoopConfig
from research.training.evaluation import (
    SplitResult,
    flat_metrics,
    make_evaluate,
    pictures_of,
    report_of,
    save_outcomes,
)
from research.weights.trained import is_run

# What a checkpoint may be evaluated under another value of, beside what changes no result.
_MAY_DIFFER = ("dataset", "skip_corrupt")


def open_weights(
    checkpoint: str | None,
    launch: LaunchConfig,
    module: ModuleType,
    config: LoopConfig,
    given: Collection[str],
) -> tuple[Any, Opened]:
    """Opens --checkpoint or --init_from, and returns the configuration it was trained with too."""
    if checkpoint is not None:
        opened = open_checkpoint(checkpoint)
        config = checkpoint_config(opened, launch.experiment, config, given)
        if changed := changed_code(opened, module):
            console().print(
                f"{opened.path}: was trained with other code ({changed}); it is used as it is now.",
                markup=False,
            )
        return config, opened
    if is_run(config.init_from):
        raise UserError(
            f"--init_from={config.init_from}: is a run; --mode={launch.mode} takes it by "
            f"--checkpoint={config.init_from}."
        )
    pretrained = modes_of(module).pretrained
    if config.init_from and pretrained is not None:
        config, facts, variables = pretrained(config, given)
        metadata = {"experiment": launch.experiment, "step": 0, "facts": facts}
        return config, Opened(Path(config.init_from), metadata, variables)
    raise UserError(
        f"--mode={launch.mode} needs --checkpoint=RUN, the folder of a run, or --init_from=NAME."
    )


def checkpoint_config(
    opened: Opened, experiment: str, config: LoopConfig, given: Collection[str]
) -> Any:
    """Returns the checkpoint's own configuration, with the given flags that may differ from it.

    Raises:
      UserError: for a checkpoint of another experiment, or a flag it was trained with otherwise.
    """
    found = opened.metadata["experiment"]
    if found != experiment:
        raise UserError(
            f"--checkpoint={opened.path}: is of --experiment={found}, not of {experiment}."
        )
    saved = config_lib.from_json(type(config), opened.metadata["config"], str(opened.path))
    changes = {"workdir": config.workdir}
    for row in config_lib.options(type(config)):
        value, trained = getattr(config, row.name), getattr(saved, row.name)
        # What --checkpoint names is the checkpoint itself, not an option it was trained with.
        if row.name not in given or value == trained or row.name == "checkpoint":
            continue
        if row.changes_result and row.learned and row.name not in _MAY_DIFFER:
            raise UserError(
                f"--{row.flag}={config_lib.show(value)}: the checkpoint was trained with "
                f"--{row.flag}={config_lib.show(trained)}; leave the flag out."
            )
        changes[row.name] = value
    return config_lib.replace(saved, changes)


def changed_code(opened: Opened, module: ModuleType) -> str:
    """Compares a person's own experiment with the code that trained; "" if they are the same."""
    code, trained = code_of(module), opened.metadata.get("code")
    if code is None or trained is None:
        return ""
    return code_lib.difference(code_lib.from_json(trained, str(opened.path)), code)


def run_evaluation(
    name: str,
    members: Sequence[tuple[Any, Experiment, Opened]],
    code: Code | None = None,
    show: str = "",
) -> None:
    """Evaluates checkpoints on every split of their data set, with their own preprocessing.

    Several are members of an ensemble, whose outputs are averaged; each is evaluated alone too.

    Args:
      code: of a person's own experiment, which evaluates them all.
      show: "suspicious" draws and lists the examples whose labels look most wrong, too.
    """
    config, experiment, opened = members[0]
    whole = experiment if len(members) == 1 else ensemble([member[1] for member in members])
    if show:
        refuse_without_loss(name, whole)
    variables: Any = [opened.variables for _, _, opened in members]
    recalled = overlap.together(
        [overlap.recall(opened.path, opened.metadata["facts"]) for _, _, opened in members]
    )
    data, report = overlap.new_only(experiment.data(), *recalled)
    path = output_folder(config.workdir, name, "evaluate", "result.json")
    weights = variables if len(members) > 1 else variables[0]
    evaluations = evaluate_weights(whole, config, weights, data, details=True)
    alone = {}
    if len(members) > 1:
        for member_config, member, opened in members:
            its_data, _ = overlap.new_only(member.data(), *recalled)
            own = evaluate_weights(member, member_config, opened.variables, its_data)
            alone[str(opened.path)] = flat_metrics(own)
    if not distributed.is_first():
        return
    save_figures(path / "figures", pictures_of(whole.evaluation, evaluations))
    result = {
        "experiment": name,
        "code": code.digest if code is not None else None,
        "checkpoint": [str(opened.path) for _, _, opened in members],
        "step": opened.metadata["step"],
        "weights": [
            opened_weights(one, made.evaluation.best)._asdict() for _, made, one in members
        ],
        "members": alone,
        "trained_on": report,
        **report_of(whole.evaluation, evaluations),
        "examples": save_outcomes(path, evaluations),
    }
    write_result(path, result)
    if show:
        show_suspicious(whole, config, weights, data, evaluations, path)
    show_result(result, path)


def compare_with_others(variables: Any, data: Data) -> None:
    """Raises UserError, in all processes, where they are to evaluate different things."""
    identity = {f"data of {split}": source.content() for split, source in data.evals.items()}
    identity["weights"] = fingerprint(variables)
    distributed.refuse_different("evaluation", identity, "bring the same files to all machines")


def evaluate_weights(
    experiment: Experiment, config: LoopConfig, variables: Any, data: Data, details: bool = False
) -> dict[str, SplitResult]:
    """Evaluates each split on the available devices; `details` for pictures and files."""
    parallel = parallel_lib.for_evaluation(config)
    if distributed.count() > 1:
        compare_with_others(variables, data)
    evaluate = make_evaluate(experiment.evaluation, parallel)
    placed = parallel.put(variables)
    return {split: evaluate(placed, source, details) for split, source in data.evals.items()}
