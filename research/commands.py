"""What `--mode` asks for. launch.py reads the flags; this file does what they say."""

import datetime
import itertools
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from rich.table import Table

from research import config as config_lib
from research.comparison import runs as comparison
from research.ensemble import ensemble
from research.errors import UserError
from research.evaluation import Evaluation, flat_metrics, make_evaluate
from research.experiment import Batch, Experiment, PyTree
from research.progress import console
from research.record import (
    RunFolder,
    check_workdir,
    fingerprint,
    read_result,
    save_figures,
    write_json,
)
from research.report import Report, save_rows
from research.runtime import reuse_memory, use_compilation_cache
from research.training import parallel as parallel_lib
from research.training.checkpoint import Opened, open_checkpoint
from research.training.loop import train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What a checkpoint may be evaluated under another value of, beside what changes no result.
_MAY_DIFFER = ("dataset", "skip_corrupt")


def run(
    launch: Any,
    module: Any,
    config: Any,
    given: Collection[str],
    experiments: Path,
    variants: Mapping[str, Any],
) -> None:
    """Does what launch.mode says.

    Args:
      launch: experiment, mode, checkpoint, inputs, source, allow_download, repeats.
      module: the experiment's module; None in the modes that need none.
      config: its Config.
      given: the names of the flags that were typed, not defaulted.
      experiments: the folder of the experiments and their presets.
      variants: {flags of a run of a study: its Config}.

    Raises:
      UserError: for everything a person can mend.
    """
    reuse_memory()
    use_compilation_cache(config.compilation_cache)
    if launch.mode == "list":
        from research.listing import show_list

        show_list(experiments, config.data_dir)
    elif launch.mode == "prepare":
        from research.data.prepare import prepare

        if not config.dataset or "dataset" not in given:
            raise UserError("--mode=prepare needs --dataset=NAME; --mode=list shows names.")
        prepare(config.dataset, config.data_dir, launch.source or None, launch.allow_download)
    elif launch.mode == "check":
        from research.preflight import check

        check(module.build(config), config)
    elif launch.mode == "train":
        if not (hasattr(module, "answered") and module.answered(config)):
            run_training(launch.experiment, module, config)
    elif launch.mode == "gallery":
        run_gallery(launch.experiment, module, config)
    elif launch.mode == "evaluate":
        members = []
        for path in launch.checkpoint or (None,):
            trained, opened = open_weights(path, launch, module, config, given)
            members.append((trained, module.build(trained, opened.metadata["facts"]), opened))
        run_evaluation(launch.experiment, members)
    elif launch.mode == "study":
        run_study(launch.experiment, module, config, variants, launch.repeats)
    elif launch.mode == "predict":
        if len(launch.checkpoint) > 1:
            raise UserError("--mode=predict takes one --checkpoint.")
        path = launch.checkpoint[0] if launch.checkpoint else None
        config, opened = open_weights(path, launch, module, config, given)
        run_prediction(launch.experiment, module, config, opened, launch.inputs)
    else:  # what this experiment alone can be asked
        make = getattr(module, launch.mode, None)
        if make is None:
            raise UserError(f"--experiment={launch.experiment}: has no --mode={launch.mode}.")
        report = make(config)
        path = output_folder(config.workdir, launch.experiment, launch.mode, f"{launch.mode}.json")
        show_report(report, path, launch.mode)


def open_weights(
    checkpoint: str | None, launch: Any, module: Any, config: Any, given: Collection[str]
) -> tuple[Any, Opened]:
    """What --checkpoint or --init_from names, and the configuration it was trained with."""
    if checkpoint is not None:
        opened = open_checkpoint(checkpoint)
        return checkpoint_config(opened, launch.experiment, config, given), opened
    if config.init_from and hasattr(module, "pretrained"):
        config, facts, variables = module.pretrained(config)
        metadata = {"experiment": launch.experiment, "step": 0, "facts": facts}
        return config, Opened(Path(config.init_from), metadata, variables)
    raise UserError(
        f"--mode={launch.mode} needs --checkpoint=RUN, the folder of a run, or --init_from=NAME."
    )


def run_training(name: str, module: Any, config: Any) -> None:
    """Trains (or goes on, or finds that all is done), then shows the result and its pictures."""
    path = Path(config.workdir) if config.workdir else new_folder(name)
    result = trained(name, module, config, path)
    if result is not None:
        show_result(result, path)


def trained(name: str, module: Any, config: Any, path: Path) -> dict[str, Any] | None:
    """The result of the run in a folder, which is trained to its end if need be.

    None where it was asked to stop.
    """
    check_workdir(path, name, config)
    result = read_result(path)
    if result is None:
        # Everything a person may have got wrong comes up before a folder is made.
        experiment = module.build(config)
        parallel = parallel_lib.create(config.parallel, config.batch_size, config.accumulate)
        with RunFolder(path, name, config) as folder:
            finished = train(experiment, config, parallel, folder)
            if finished is None:
                return None
            save_figures(path / "figures", pictures(experiment, finished.evaluations))
            folder.finish(finished.result)
            result = finished.result
    return result


def run_study(
    name: str, module: Any, config: Any, variants: Mapping[str, Any], repeats: int
) -> None:
    """Trains every variant in a folder of its own, then shows them side by side.

    A variant whose training stops (its loss is not finite) is part of what the study finds.
    """
    if not variants:
        raise UserError("--mode=study needs --variant='--FLAG=VALUE ...', once for each run.")
    for variant in variants.values():
        module.build(variant)  # refuses what cannot be run, before the first is trained
    path = Path(config.workdir) if config.workdir else new_folder(name, "study")
    runs: dict[str, list[comparison.Run]] = {}
    for flags, variant in variants.items():
        label = flags.replace("--", "")
        for number in range(repeats):
            seed = variant.seed + number
            folder = path / re.sub(
                r"[^\w.=]+", "-", f"{label} seed={seed}" if repeats > 1 else label
            )
            console().print(f"\n{label}, seed {seed}", style="bold", markup=False)
            one = config_lib.replace(variant, {"workdir": str(folder), "seed": seed})
            failure = ""
            try:
                if trained(name, module, one, folder) is None:
                    return
            except UserError as error:
                failure = str(error)
                console().print(failure, markup=False)
            runs.setdefault(label, []).append(comparison.read_run(folder, failure))
    show_report(comparison.report(runs), path, "study")


def run_gallery(name: str, module: Any, config: Any) -> None:
    """Writes the experiment's page of pictures, one HTML file that needs nothing else."""
    if not hasattr(module, "gallery"):
        raise UserError(f"--experiment={name}: has no --mode=gallery.")
    module.check_gallery(config)
    path = output_folder(config.workdir, name, "gallery", "gallery.html")
    (path / "gallery.html").write_text(module.gallery(config), encoding="utf-8")
    console().print(f"\n{path / 'gallery.html'}", markup=False)


def run_evaluation(name: str, members: Sequence[tuple[Any, Experiment, Opened]]) -> None:
    """Evaluates checkpoints on every split of their data set, with their own preprocessing.

    Several are members of an ensemble, whose outputs are averaged; each is evaluated alone too.
    """
    config, experiment, opened = members[0]
    whole = experiment if len(members) == 1 else ensemble([member[1] for member in members])
    variables: Any = [opened.variables for _, _, opened in members]
    alone = {}
    if len(members) > 1:
        for member_config, member, opened in members:
            evaluations = evaluate_weights(member, member_config, opened.variables)
            alone[str(opened.path)] = flat_metrics(evaluations)
    evaluations = evaluate_weights(whole, config, variables if alone else variables[0])
    path = output_folder(config.workdir, name, "evaluate", "result.json")
    save_figures(path / "figures", pictures(whole, evaluations))
    result = {
        "experiment": name,
        "checkpoint": [str(opened.path) for _, _, opened in members],
        "step": opened.metadata["step"],
        "metrics": flat_metrics(evaluations),
        "members": alone,
        "protocol": dict(experiment.protocol),
    }
    write_json(path / "result.json", result)
    show_result(result, path)


def evaluate_weights(experiment: Experiment, config: Any, variables: Any) -> dict[str, Evaluation]:
    """Each split's evaluation, on the devices there are."""
    parallel = parallel_lib.create(config.parallel, config.eval_batch_size or config.batch_size)
    evaluate = make_evaluate(experiment, parallel)
    placed = parallel.put(variables)
    return {split: evaluate(placed, source) for split, source in experiment.data().evals.items()}


def run_prediction(
    name: str, module: Any, config: Any, opened: Opened, inputs: tuple[str, ...]
) -> None:
    """Predicts a person's own files: one line each in predictions.jsonl, and a picture."""
    from research.data.images import list_images

    facts = {
        **opened.metadata["facts"],
        "measured": opened.metadata.get("metrics", {}),
        "weights": fingerprint(opened.variables),
    }
    experiment = module.build(config, facts)
    if experiment.read is None or experiment.describe is None:
        raise UserError(f"--experiment={name}: has no --mode=predict.")
    if experiment.inputs is not None:
        if inputs:
            raise UserError(f"--inputs={','.join(inputs)}: another flag says what to predict.")
        files = experiment.inputs()
    elif inputs:
        files = [str(file) for file in list_images(inputs)]
    else:
        raise UserError("--mode=predict needs --inputs=FILE,FOLDER,...")
    size = config.eval_batch_size or config.batch_size
    predictions = Predictions(experiment, opened.variables, size)
    if experiment.consult is not None:
        experiment = experiment.consult(predictions.outputs)
    path = output_folder(config.workdir, name, "predict", "predictions.jsonl")
    rows: list[dict[str, Any]] = []
    for part, outputs, batch in predictions(files):
        for file, row in zip(part, experiment.describe(outputs, batch), strict=True):
            console().print(f"{file}: {row.pop('summary')}", markup=False)
            rows.append({"file": file, **row})
        if experiment.save is not None:
            experiment.save(path, part, outputs, batch)
        if part[0] is files[0] and experiment.draw is not None:
            save_figures(path, experiment.draw(outputs, batch))
    (path / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if experiment.collect is not None:
        experiment.collect(path, rows)
    console().print(f"\n{path / 'predictions.jsonl'} and the pictures beside it", markup=False)


class Predictions:
    """A network over a person's own files, in batches of one shape."""

    def __init__(self, experiment: Experiment, variables: Any, size: int) -> None:
        self._read, self._size = experiment.read, size
        self._predict, self._variables = jax.jit(experiment.predict), jax.device_put(variables)

    def __call__(self, files: list[str]) -> Iterator[tuple[list[str], PyTree, Batch]]:
        """Yields the files of each batch, their outputs on the host, and what was read of them."""
        assert self._read is not None
        size = min(len(files), self._size)
        for start in range(0, len(files), size):
            part = files[start : start + size]
            batch = self._read(part)
            outputs = jax.device_get(self._predict(self._variables, padded(batch, size)))
            yield part, jax.tree.map(lambda x: x[: len(part)], outputs), batch  # noqa: B023

    def outputs(self, files: list[str]) -> PyTree:
        """The outputs of all files together."""
        parts = [outputs for _, outputs, _ in self(files)]
        return jax.tree.map(lambda *values: np.concatenate(values), *parts)


def padded(batch: Batch, size: int) -> Batch:
    """Repeats the last row until the batch has `size` rows: one compiled shape for all batches."""
    return {
        key: np.concatenate([value, np.repeat(value[-1:], size - len(value), axis=0)])
        for key, value in batch.items()
    }


def checkpoint_config(opened: Opened, experiment: str, config: Any, given: Collection[str]) -> Any:
    """The checkpoint's own configuration, with the given flags that may differ from it.

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
        if row.changes_result and row.name not in _MAY_DIFFER:
            raise UserError(
                f"--{row.flag}={config_lib.show(value)}: the checkpoint was trained with "
                f"--{row.flag}={config_lib.show(trained)}; leave the flag out."
            )
        changes[row.name] = value
    return config_lib.replace(saved, changes)


def pictures(
    experiment: Experiment, evaluations: Mapping[str, Evaluation]
) -> "dict[str, Figure | np.ndarray]":
    """{"test/predictions": figure, ...} of every split."""
    figures: dict[str, Figure | np.ndarray] = {}
    for split, evaluation in evaluations.items():
        drawn: dict[str, Figure | np.ndarray] = {}
        if experiment.draw is not None:
            drawn |= experiment.draw(*evaluation.first)
        if experiment.draw_split is not None:
            drawn |= experiment.draw_split(evaluation.outputs, evaluation.targets)
        figures |= {f"{split}/{name}": figure for name, figure in drawn.items()}
    return figures


def show_result(result: Mapping[str, Any], path: Path) -> None:
    """A short table: metrics that are not of single classes, each with its protocol."""
    table = Table("metric", "value", "protocol", title=f"step {result['step']}", box=None)
    for name, value in result["metrics"].items():
        short = name.partition("/")[2]
        if "/" not in short:  # accuracy/cat stays in result.json
            table.add_row(name, f"{value:.4f}", result["protocol"].get(short, ""))
    for member, metrics in result.get("members", {}).items():
        for name, value in metrics.items():
            if "/" not in name.partition("/")[2]:
                table.add_row(name, f"{value:.4f}", f"of {member} alone")
    out = console()
    out.print(table)
    for line in result.get("notes", []):
        out.print(line, markup=False)
    for picture in sorted((path / "figures").rglob("*.png")):
        out.print(f"picture  {picture}", markup=False)
    out.print(f"run      {path}", markup=False)


def show_report(report: Report, path: Path, mode: str) -> None:
    """Prints a report's table and writes MODE.json, MODE.csv and its pictures into a folder."""
    save_rows(path / mode, report.rows)
    save_figures(path, report.figures)
    out = console()
    if not out.is_terminal:
        out.width = max(out.width, 140)  # a file has room; a terminal has what it has
    out.print("", report.table)
    for name in report.figures:
        out.print(f"picture  {path / name}.png", markup=False)
    out.print(f"numbers  {path / mode}.json and .csv", markup=False)


def new_folder(*parts: str) -> Path:
    """A folder that is not there yet: runs/<experiment>/<date>-<time>[-<number>]."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    base = Path("runs", parts[0], "-".join([now, *parts[1:]]))
    names = (base if n == 1 else base.with_name(f"{base.name}-{n}") for n in itertools.count(1))
    return next(path for path in names if not path.exists())


def output_folder(workdir: str, experiment: str, mode: str, file: str) -> Path:
    """Makes the folder for what evaluate and predict write; refuses to overwrite `file` in it."""
    path = Path(workdir) if workdir else new_folder(experiment, mode)
    if (path / file).exists():
        raise UserError(f"--workdir={path}: holds a {file} already; choose another folder.")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir={path}: cannot be written ({error.strerror}).") from error
    return path
