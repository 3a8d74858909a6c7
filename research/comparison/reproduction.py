"""Two runs of one configuration: the same to the bit, or where they part."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from research.comparison.runs import Run, log_lines, parsed, read_run
from research.errors import UserError
from research.experiment import PyTree
from research.training.checkpoint import read_arrays, steps, verify

NOT_LEARNED = ("step", "seconds")  # of a line of the log: when it was written
# Facts about the machine and the code that may change bits, by their words for a person.
SURROUNDINGS = {
    "python": "Python",
    "platform": "system",
    "processor": "processor",
    "cores": "cores",
    "threads": "threads",
    "devices": "devices",
    "xla_flags": "XLA_FLAGS",
    "git_commit": "commit",
}


class Logged(NamedTuple):
    """A logged number that differs; None where one of the two runs did not log it."""

    step: int
    metric: str
    before: float | None
    again: float | None


class Tensor(NamedTuple):
    """An array that differs.

    Attributes:
      name: in the checkpoint, such as params/conv/kernel.
      differing: how many of its `size` elements differ.
      largest: the largest absolute difference; NaN where shapes or types differ, or a number is
        not finite on one side alone.
    """

    step: int
    name: str
    differing: int
    size: int
    largest: float


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's log."""
    lines = [parsed(line) for line in log_lines(folder)]
    return [line for line in lines if isinstance(line.get("step"), int)]


def first_logged(
    before: Sequence[Mapping[str, Any]], again: Sequence[Mapping[str, Any]]
) -> Logged | None:
    """Returns the first logged number that differs; None if there is none.

    A run that a signal stopped has one line more, where it stopped. Lines that one run alone has
    are passed over, and so are means over training steps of the line after: they are over others.
    """
    ours, theirs = ({line["step"]: line for line in log} for log in (before, again))
    one, other = (dict(zip(lines, [0, *lines], strict=False)) for lines in (ours, theirs))
    for step in sorted(ours.keys() & theirs.keys()):
        for metric in sorted((ours[step].keys() | theirs[step].keys()) - {*NOT_LEARNED}):
            if metric.startswith("train/") and one[step] != other[step]:
                continue
            values = ours[step].get(metric), theirs[step].get(metric)
            if not _same(*values):
                return Logged(step, metric, *values)
    return None


def different_metrics(before: Mapping[str, Any], again: Mapping[str, Any]) -> list[str]:
    """Returns the names of final metrics that differ, in order."""
    return sorted(k for k in {*before, *again} if not _same(before.get(k), again.get(k)))


def _same(a: Any, b: Any) -> bool:
    both_nan = isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)
    return both_nan or a == b


def first_tensor(before: Path, again: Path) -> Tensor | None:
    """Returns the first array that differs, of the first checkpoint that both runs keep.

    Parameters come first, then batch statistics and the like, then the optimizer's state, each in
    the order of their names.

    Args:
      before, again: folders of runs.

    Raises:
      UserError: where they keep no checkpoint of the same step, or one is damaged.
    """
    folders = [run.absolute() / "checkpoints" / "latest" for run in (before, again)]
    common = sorted({*steps(folders[0])} & {*steps(folders[1])})
    if not common:
        raise UserError(f"{before} and {again}: keep no checkpoint of the same step.")
    for step in common:
        paths = [folder / str(step) for folder in folders]
        for path in paths:
            verify(path)
        for item in ("weights", "optimizer"):
            if found := different_tensor(*(read_arrays(path, item) for path in paths)):
                return found._replace(step=step)
    return None


def different_tensor(before: PyTree, again: PyTree) -> Tensor | None:
    """Returns the first array that differs in a bit, parameters first; its step is -1."""
    ours, theirs = dict(_named(before)), dict(_named(again))
    names = sorted(ours.keys() | theirs.keys(), key=lambda name: (name[:7] != "params/", name))
    for name in names:
        a, b = ours.get(name), theirs.get(name)
        if a is None or b is None or (a.shape, a.dtype) != (b.shape, b.dtype):
            known = a if a is not None else b
            assert known is not None, "the name is of one of them"
            return Tensor(-1, name, known.size, known.size, math.nan)
        differing = _bits(a) != _bits(b)
        if differing.any():
            count = int(differing.reshape(a.size, -1).any(1).sum())
            distance = np.abs(a.astype(np.float64) - b.astype(np.float64)).ravel()
            return Tensor(-1, name, count, a.size, float(distance.max()))
    return None


def _named(tree: PyTree) -> Iterator[tuple[str, np.ndarray]]:
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        yield jax.tree_util.keystr(path, simple=True, separator="/"), np.asarray(leaf)


def _bits(array: np.ndarray) -> np.ndarray:
    """Returns an array's bytes, so that 0 and -0 differ, and two equal NaN do not."""
    return np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)


def different_surroundings(before: Mapping[str, Any], again: Mapping[str, Any]) -> list[str]:
    """Returns the differences of two records of `runtime.environment`, one line each.

    What older runs did not record is passed over.
    """
    versions = before.get("versions", {}), again.get("versions", {})
    pairs = [(k, versions[0].get(k), versions[1].get(k)) for k in versions[0] if k in versions[1]]
    known = before.keys() & again.keys()
    pairs += [(said, before[k], again[k]) for k, said in SURROUNDINGS.items() if k in known]
    return [f"{name}: {_said(a)} then, {_said(b)} now" for name, a, b in pairs if a != b]


def _said(value: Any) -> str:
    return (", ".join(map(str, value)) if isinstance(value, list) else str(value or "")) or "none"


def promise(run: Run, cores: int) -> str:
    """Returns why a run's bits are not promised on this machine; "" where they are.

    They are, in the same surroundings, on CPU with as many cores, and on GPU if --deterministic.

    Args:
      cores: how many this process may use.
    """
    environment = run.begun.get("environment", {})
    devices = environment.get("devices", [])
    kinds = {device.partition(":")[0] for device in devices}
    ways = {
        (part.get("cores"), part.get("threads"), *part.get("devices", []))
        for part in run.result.get("parts", [])
    }
    if len(ways) > 1:
        return "the run went on with other cores or devices than it began with"
    if not kinds or "cores" not in environment:
        return "the run does not say on how many cores it was trained"
    if kinds == {"cpu"}:
        if environment["cores"] > cores:
            return f"the run used {environment['cores']} cores, and {cores} are here"
        return ""
    if kinds == {"gpu"}:
        deterministic = run.flags.get("deterministic", False)
        return "" if deterministic else "a GPU promises bits only with --deterministic"
    return f"a {' and '.join(sorted(kinds))} promises no bits here"


class Verdict(NamedTuple):
    """The differences of a run that was trained again.

    Attributes:
      inputs: what was other before the first step: parameters, data, code, flags.
      metrics: names of the final metrics that differ.
      missing: what could not be compared.
    """

    inputs: Sequence[str]
    logged: Logged | None
    metrics: Sequence[str]
    tensor: Tensor | None
    fingerprints: bool  # whether those of the final parameters agree, or are not there
    missing: str = ""

    @property
    def identical(self) -> bool:
        """Returns whether nothing differs."""
        return self.fingerprints and not (self.logged or self.metrics or self.tensor)


def compare_runs(before: Path, again: Path) -> Verdict:
    """Compares two finished runs by all that they keep.

    Raises:
      UserError: where a file of one of them is damaged; a checkpoint is told as missing.
    """
    runs = [read_run(folder) for folder in (before, again)]
    marks, results = [run.begun.get("fingerprint", {}) for run in runs], [r.result for r in runs]
    said = {"initial_parameters": "initial parameters", "data_order": "training data or order"}
    said |= {"trained_on": "training pictures", "code": "the experiment's own code"}
    inputs = [said[k] for k in said if k in marks[0] and marks[0][k] != marks[1].get(k)]
    ours, theirs = (run.flags for run in runs)
    inputs += [f"--{name}" for name in ours if not _same(ours[name], theirs.get(name))]
    tensor, missing = None, ""
    if any("fingerprint" in result for result in results):
        try:
            tensor = first_tensor(before, again)
        except UserError as error:  # a damaged one, too
            missing = str(error)
    return Verdict(
        [name for name in inputs if name not in ("--workdir", "--resume")],
        first_logged(*(read_log(run) for run in (before, again))),
        different_metrics(*(result.get("metrics", {}) for result in results)),
        tensor,
        results[0].get("fingerprint") == results[1].get("fingerprint"),
        missing,
    )


def in_words(verdict: Verdict) -> list[str]:
    """Writes a verdict for a person, the first line first."""
    lines = ["identical to the bit" if verdict.identical else "NOT identical"]
    if verdict.inputs:
        lines.append(f"other from the start: {', '.join(verdict.inputs)}")
    if (log := verdict.logged) is not None:
        then, now = ("none" if value is None else value for value in (log.before, log.again))
        lines.append(f"logged   first at step {log.step}: {log.metric} {then} then, {now} now")
    if (found := verdict.tensor) is not None:
        lines.append(
            f"tensor   first at step {found.step}: {found.name}, {found.differing:,} of "
            f"{found.size:,} elements, by {found.largest:.3g} at most"
        )
    elif not verdict.fingerprints:
        lines.append("tensor   the fingerprints of the final parameters differ")
    if verdict.metrics:
        lines.append(f"metrics  {', '.join(verdict.metrics)} differ")
    if verdict.missing:
        lines.append(f"{verdict.missing} Parameters were compared by their fingerprint.")
    return lines
