"""TensorBoard, and the tracker that --tracker names: services that follow a run's log.

Trackers are fed from metrics.jsonl, and a file beside it says how far: so a run that was killed
and goes on sends nothing twice, and sends later what could not be sent at once.
"""

import importlib
import importlib.util
import json
import re
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from tensorboardX import SummaryWriter

from research.errors import UserError
from research.record.progress import console

PROJECT = "fovea"  # the project, or experiment, that a tracker's service lists runs under


@runtime_checkable
class Tracker(Protocol):
    """Takes the lines of a run's log."""

    def send(self, step: int, metrics: Mapping[str, float], warning: str | None) -> None:
        """Takes the metrics after `step` steps, and what the experiment warned of."""
        ...

    def close(self) -> None:
        """Sends what is still waiting."""
        ...


class Tracked(NamedTuple):
    """A run, as a tracker is told of it.

    Attributes:
      identity: by which its service knows the run, when it goes on.
      name, group: of the run's folder, and of the folder around it.
      config: the run's configuration, plain JSON.
      folder: of the run, for what the tracker keeps on disk.
    """

    identity: str
    name: str
    group: str
    config: Mapping[str, Any]
    folder: Path


class TensorBoard:
    """TensorBoard's curves, in the run's folder; points after `start` are drawn anew."""

    def __init__(self, folder: Path, start: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=start + 1 if start else None)

    def send(self, step: int, metrics: Mapping[str, float], warning: str | None) -> None:
        """Adds one point to each curve."""
        if warning:
            self._writer.add_text("warning", warning, step)
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes what is still waiting."""
        self._writer.close()


class Logged:
    """A run of a client that takes values by `log` and ends by `finish`."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def send(self, step: int, metrics: Mapping[str, float], warning: str | None) -> None:
        """Logs the metrics of a step."""
        self._run.log({**metrics, **said(warning)}, step=step)

    def close(self) -> None:
        """Waits for what is still to be sent."""
        self._run.finish()


def told_alike(run: Tracked) -> dict[str, Any]:
    """Returns what W&B and Trackio are told by the same names."""
    return {
        "project": PROJECT,
        "group": run.group,
        "config": dict(run.config),
        "resume": "allow",
    }


def start_wandb(package: Any, run: Tracked) -> Tracker:
    """Starts Weights & Biases; WANDB_MODE=offline keeps runs on disk, for `wandb sync`."""
    return Logged(
        package.init(id=run.identity, name=run.name, dir=str(run.folder), **told_alike(run))
    )


def start_trackio(package: Any, run: Tracked) -> Tracker:
    """Starts Trackio; what it keeps lies in TRACKIO_DIR, and `trackio show` draws it."""
    name = f"{run.name}-{run.identity}"  # runs are known by their names
    return Logged(package.init(name=name, embed=False, **told_alike(run)))


class Mlflow:
    """MLflow, at MLFLOW_TRACKING_URI."""

    def __init__(self, package: Any, run: Tracked) -> None:
        self._metric = package.entities.Metric
        self._client = package.MlflowClient()
        found = self._client.get_experiment_by_name(PROJECT)
        number = found.experiment_id if found else self._client.create_experiment(PROJECT)
        tag = "fovea.identity"
        known = self._client.search_runs([number], f"tags.`{tag}` = '{run.identity}'")
        if known:
            self._run = known[0].info.run_id
            return
        tags = {tag: run.identity, "fovea.group": run.group}
        self._run = self._client.create_run(number, tags=tags, run_name=run.name).info.run_id
        for name, value in run.config.items():
            self._client.log_param(self._run, name, value)

    def send(self, step: int, metrics: Mapping[str, float], warning: str | None) -> None:
        """Logs the metrics of a step, all or none of them."""
        now = int(time.time() * 1000)
        values = [self._metric(mlflow_name(k), v, now, step) for k, v in metrics.items()]
        self._client.log_batch(self._run, values)
        for name, text in said(warning).items():
            self._client.set_tag(self._run, name, text)

    def close(self) -> None:
        """Marks the run as ended; MLflow lets it go on nevertheless."""
        self._client.set_terminated(self._run)


def mlflow_name(name: str) -> str:
    """Returns "test/accuracy.cat 1" for test/accuracy/cat 1, of the letters that MLflow takes.

    It keeps metrics as files, so that none may be named as a folder of others.
    """
    split, slash, rest = name.partition("/")
    return split + slash + re.sub(r"[^\w. :-]", ".", rest)


TRACKERS: dict[str, Callable[[Any, Tracked], Tracker]] = {
    "wandb": start_wandb,
    "mlflow": Mlflow,
    "trackio": start_trackio,
}


def said(warning: str | None) -> dict[str, str]:
    """Returns a warning as one more value, if there is one."""
    return {"warning": warning} if warning else {}


def check_tracker(name: str) -> None:
    """Raises UserError where a tracker's package is not installed."""
    if name and importlib.util.find_spec(name) is None:
        raise UserError(f"--tracker={name}: its package is not installed; pip install {name}")


class Follower:
    """Sends the lines of a run's metrics.jsonl to a tracker, each of them once."""

    def __init__(self, name: str, folder: Path, config: Mapping[str, Any]) -> None:
        """Starts the tracker, under the identity it knows the run by.

        Raises:
          UserError: where it cannot be started.
        """
        self.name, self._log, self._read = name, folder / "metrics.jsonl", 0
        self._file = folder / f".{name}.json"
        known = json.loads(self._file.read_text()) if self._file.exists() else {}
        self._sent: int = known.get("sent", 0)
        self._identity: str = known.get("identity") or uuid.uuid4().hex[:12]
        path = folder.absolute()
        about = Tracked(self._identity, path.name, path.parent.name, config, folder)
        try:
            self._tracker: Tracker | None = TRACKERS[name](importlib.import_module(name), about)
        except Exception as error:  # whatever a service's client raises
            raise UserError(f"--tracker={name}: cannot be started: {error}") from error
        self._mark()

    def catch_up(self) -> None:
        """Sends the lines that were not sent; if that fails, says so and leaves them for later."""
        if self._tracker is None:
            return
        with open(self._log) as file:
            file.seek(self._read)
            text = file.read()
        try:
            for line in map(json.loads, text.splitlines()):
                step, warning = line.pop("step"), line.pop("warning", None)
                if step > self._sent:
                    self._tracker.send(step, line, warning)
                    self._sent = step
        except Exception as error:  # training does not stop for a service that does
            self._tracker = None
            console().print(
                f"--tracker={self.name}: nothing is sent any more: {error}", style="bold"
            )
        self._read += len(text.encode())
        self._mark()

    def close(self) -> None:
        """Sends what is still waiting."""
        if self._tracker is not None:
            self._tracker.close()

    def _mark(self) -> None:
        self._file.write_text(json.dumps({"identity": self._identity, "sent": self._sent}))
