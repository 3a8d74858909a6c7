"""--mode=gallery: one HTML page of all methods for one network, which needs nothing else.

Pictures are in the page (base64), styles too; there is no script and nothing is fetched.
"""

import base64
import dataclasses
import html
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from matplotlib.figure import Figure

from research.config import without_unused
from research.errors import UserError
from research.experiment import Experiment
from research.figures import saving
from research.progress import console
from research.record import RunFolder
from research.training import parallel as parallel_lib
from research.training.evaluation import pictures_of
from research.training.loop import Finished, train
from research.understanding.config import USED_BY
from research.understanding.methods import METHODS

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 0; }
nav a { margin-right: .8rem; } .paper, .skipped { color: #707070; }
img { max-width: 100%; height: auto; margin: .5rem 0; }
table { border-collapse: collapse; font-size: .9rem; } td { padding: .1rem .8rem .1rem 0; }
code { background: #f3f3f3; padding: .1rem .3rem; }
"""
# Few steps and large strides: a page is to be looked at, not to be waited for.
QUICK: dict[str, dict[str, Any]] = {
    "visualise": {"steps": 64, "inputs": ()},
    "invert": {"steps": 64},
    "style": {"steps": 60, "size": 128},
    "dream": {"steps": 12, "octaves": 2},
    "smooth_grad": {"samples": 8},
    "smooth_saliency": {"samples": 8},
}
WIDEST = 900  # pixels of a picture


def make_gallery(config: Any, build: Callable[[Any], Experiment]) -> str:
    """The page, as text.

    Args:
      config: of the experiment; its network and images are shown.
      build: config -> experiment.
    """
    sections = []
    for number, (name, method) in enumerate(METHODS.items(), 1):
        console().print(f"{number}/{len(METHODS)} {name}", markup=False)
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
    links = " ".join(f'<a href="#{name}">{name.replace("_", " ")}</a>' for name in METHODS)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>What {html.escape(network)} sees</title><style>{STYLE}</style></head><body>"
        f"<h1>What {html.escape(network)} sees</h1><nav>{links}</nav>{''.join(sections)}"
        "</body></html>\n"
    )


def section(config: Any, build: Callable[[Any], Experiment]) -> str:
    """One method's pictures and numbers, or why it does not apply.

    Raises:
      UserError: where SIGTERM or SIGINT ended it.
    """
    try:
        experiment = build(config)
        finished = run(experiment, config)
    except UserError as error:
        return f'<p class="skipped">Not here: {html.escape(str(error))}</p>'
    if finished is None:  # a signal asked for an end, of all methods
        raise UserError("--mode=gallery: was stopped, and no page was written.")
    drawn = pictures_of(experiment.evaluation, finished.evaluations)
    # Images that are saved pixel for pixel are in the figures already.
    figures = {k: v for k, v in drawn.items() if not isinstance(v, np.ndarray)}
    parts = [picture(name.partition("/")[2], figure) for name, figure in figures.items()]
    protocol = finished.result["protocol"]
    rows = "".join(
        f"<tr><td>{html.escape(name.partition('/')[2])}</td><td>{value:.4g}</td>"
        f"<td>{html.escape(protocol.get(name.partition('/')[2], ''))}</td></tr>"
        for name, value in finished.result["metrics"].items()
    )
    notes = "".join(f"<p>{html.escape(line)}</p>" for line in finished.result["notes"])
    return f"{''.join(parts)}{notes}<table>{rows}</table>"


def run(experiment: Experiment, config: Any) -> Finished | None:
    """A run of the shared loop whose folder nobody keeps."""
    parallel = parallel_lib.create(config.parallel, config.batch_size)
    with (
        tempfile.TemporaryDirectory() as folder,
        RunFolder(Path(folder), "input_optimization", config) as record,
    ):
        return train(experiment, config, parallel, record)


def picture(name: str, figure: Figure) -> str:
    """An <img> that holds its picture."""
    buffer = io.BytesIO()
    saving.save(figure, buffer, dpi=100, bbox_inches="tight")
    image = PIL.Image.open(io.BytesIO(buffer.getvalue()))
    image.thumbnail((WIDEST, 10 * WIDEST))
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "WEBP", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(name)}" src="data:image/webp;base64,{data}">'
