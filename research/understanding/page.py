"""--mode=gallery: one HTML page of all methods for one network."""

import dataclasses
import html
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from research.config import without_unused
from research.errors import UserError
from research.experiment import Experiment, Look
from research.record.page import document, picture
from research.record.progress import console
from research.record.report import Report, metrics_report
from research.record.run_folder import RunFolder
from research.training import parallel as parallel_lib
from research.training.evaluation import pictures_of
from research.training.interrupts import Stopped
from research.training.loop import train
from research.understanding.config import InputOptimizationConfig
from research.understanding.methods import METHODS, USED_BY

# Few steps and large strides: a page is to be looked at, not to be waited for.
QUICK: dict[str, dict[str, Any]] = {
    "visualise": {"steps": 64, "inputs": ()},
    "invert": {"steps": 64},
    "style": {"steps": 60, "size": 128},
    "dream": {"steps": 12, "octaves": 2},
    "smooth_grad": {"samples": 8},
    "smooth_saliency": {"samples": 8},
}
Build = Callable[[Any], Experiment | Look]


def make_page(config: InputOptimizationConfig, build: Build) -> str:
    """Makes the page, as text.

    Args:
      config: of the experiment; its network and images are shown.
      build: config -> experiment, or look.
    """
    sections = []
    shown = {name: method for name, method in METHODS.items() if method.kind != "list"}
    for number, (name, method) in enumerate(shown.items(), 1):
        console().print(f"{number}/{len(shown)} {name}", markup=False)
        changes: dict[str, Any] = {"method": name, **QUICK.get(name, {})}
        if config.steps:
            changes["steps"] = config.steps
        if name == "style" and not config.style:
            changes["style"] = config.inputs[-1] if len(config.inputs) > 1 else ""
        own = without_unused(dataclasses.replace(config, **changes), "method", USED_BY)
        body = section(own, build)
        sections.append(
            f'<section id="{name}"><h2>{name.replace("_", " ")}</h2>'
            f'<p>{html.escape(method.summary)} <span class="paper">({html.escape(method.paper)})'
            f"</span></p>{body}</section>"
        )
    network = ",".join(config.checkpoint) or config.init_from or "efficientnet_lite0"
    links = " ".join(f'<a href="#{name}">{name.replace("_", " ")}</a>' for name in shown)
    return document(f"What {network} sees", f"<nav>{links}</nav>{''.join(sections)}")


def section(config: InputOptimizationConfig, build: Build) -> str:
    """Shows one method's pictures and numbers, or says why it does not apply.

    Raises:
      Stopped: where a signal ended it, and so ends all methods.
    """
    try:
        built = build(config)
        report = built.report() if isinstance(built, Look) else run(built, config)
    except UserError as error:
        return f'<p class="skipped">Not here: {html.escape(str(error))}</p>'
    except Stopped:
        console().print("--mode=gallery: was stopped, and no page was written.", markup=False)
        raise
    parts = [
        picture(name.partition("/")[2], figure)
        for name, figure in report.figures.items()
        if not isinstance(figure, np.ndarray)  # saved pixel for pixel, they are in the figures
    ]
    rows = "".join(
        f"<tr><td>{html.escape(row['metric'].partition('/')[2])}</td><td>{row['value']:.4g}</td>"
        f"<td>{html.escape(row['protocol'])}</td></tr>"
        for row in report.rows
    )
    notes = "".join(f"<p>{html.escape(line)}</p>" for line in report.notes)
    return f"{''.join(parts)}{notes}<table>{rows}</table>"


def run(experiment: Experiment, config: InputOptimizationConfig) -> Report:
    """Returns the report of a run whose folder nobody keeps."""
    parallel = parallel_lib.create(config.parallel, config.batch_size)
    with (
        tempfile.TemporaryDirectory() as folder,
        RunFolder(Path(folder), "input_optimization", config) as record,
    ):
        finished = train(experiment, config, parallel, record)
    found = finished.result
    drawn = pictures_of(experiment.evaluation, finished.evaluations)
    return metrics_report(found["metrics"], found["protocol"], drawn, found["notes"])
