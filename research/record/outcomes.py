"""The outcomes of a split's single examples, in one compressed file: RUN/examples/<split>.npz.

`numpy.load` opens it anywhere. Its arrays lead with the example:

    index              int64 [n], which example of its split each is
    names              str [n], their files; not there where they have none
    values/<measure>   float32 [n]
    weights/<measure>  float32 [n]; a mean metric is sum(values x weights) / sum(weights)
    held/<evaluator>   what `Evaluator.score` takes; /<field> follows where that is a mapping
    targets/<field>    the same function's targets

In a name, "/" is written "%2F" and "%" "%25".
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from research.errors import UserError
from research.record import arrays, sealing
from research.record.whole_files import whole_file

MOST_BYTES = 2**24  # of what is held of a split, or of its targets, in one array; more is left out

PyTree = Any


class Outcomes(NamedTuple):
    """The outcomes of a split's examples.

    Attributes:
      index: which example of its split each is, whatever was left out of it.
      names: their files; () where they have none.
      values, weights: of each measure; 0 where an example does not count.
      held, targets: what `Evaluator.score` takes, by evaluator and by field.
    """

    index: Int64[np.ndarray, " n"]  # type: ignore[assignment]  # no tuple's method is called
    names: Sequence[str]
    values: Mapping[str, Float32[np.ndarray, " n"]]
    weights: Mapping[str, Float32[np.ndarray, " n"]]
    held: Mapping[str, PyTree] = {}
    targets: Mapping[str, np.ndarray] = {}

    def mean(self, measure: str) -> float:
        """Returns a measure's mean over the examples; NaN where none counts."""
        return mean(self.values[measure], self.weights[measure])


def mean(values: np.ndarray, weights: np.ndarray) -> float:
    """Returns the mean of the examples that have a weight; NaN where none has."""
    counts = weights > 0
    v, w = values[counts].astype(np.float64), weights[counts].astype(np.float64)
    return float((v * w).sum() / w.sum()) if len(w) else float("nan")


def path_of(folder: Path, split: str) -> Path:
    """Returns the file of a split in a run's folder."""
    return folder / sealing.EXAMPLES / f"{split}.npz"


def save(path: Path, outcomes: Outcomes) -> dict[str, str]:
    """Writes the file, which is either complete or missing.

    Returns:
      What was left out, and why: {"held/labels": "..."}.

    Raises:
      OSError: with the file's name, such as for a full disk.
    """
    arrays, left_out = {"index": np.asarray(outcomes.index, np.int64)}, {}
    if outcomes.names:
        arrays["names"] = np.array(outcomes.names, np.str_)
    for kind in ("values", "weights"):
        for name, value in getattr(outcomes, kind).items():
            arrays[f"{kind}/{_written(name)}"] = np.asarray(value, np.float32)
    for kind in ("held", "targets"):
        for name, value in _arrays(getattr(outcomes, kind), kind):
            if reason := _too_much(value):
                left_out[name] = reason
            else:
                arrays[name] = _portable(np.asarray(value))
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return left_out


def read(path: Path, whole: bool = True) -> Outcomes:
    """Reads a file that `save` wrote.

    Args:
      whole: whether to read `held` and `targets`, too, which are larger than the rest.

    Raises:
      UserError: where the file is missing or damaged.
    """
    sealing.verify_examples(path)
    found: dict[str, Any] = {"values": {}, "weights": {}, "held": {}, "targets": {}}
    try:
        for name, value in arrays.load(path, lambda name: whole or not _is_large(name)).items():
            kind, *inside = name.split("/")
            tree = found
            for part in [kind, *map(_read, inside)][:-1]:
                tree = tree.setdefault(part, {})
            tree[_read(inside[-1]) if inside else kind] = value
        index = found.pop("index")
    except FileNotFoundError:
        raise UserError(
            f"{path}: is missing; runs of earlier versions left none. "
            "--mode=evaluate --checkpoint=RUN writes it."
        ) from None
    except arrays.DAMAGE as error:
        raise UserError(
            f"{path}: is damaged ({error}); --mode=evaluate --checkpoint=RUN writes it again."
        ) from None
    names = tuple(found.pop("names", np.array([], np.str_)).tolist())
    return Outcomes(index, names, **found)


def _is_large(name: str) -> bool:
    return name.partition("/")[0] in ("held", "targets")


def _arrays(tree: PyTree, name: str) -> Iterator[tuple[str, PyTree]]:
    """Yields the leaves of nested mappings, by the names that they get in the file."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _arrays(value, f"{name}/{_written(str(key))}")
    else:
        yield name, tree


def _too_much(value: PyTree) -> str:
    """Says why a leaf is left out; "" if it is not."""
    if not hasattr(value, "dtype") or value.dtype.hasobject:
        return "is no array of numbers or of words"
    if value.nbytes > MOST_BYTES:
        return f"{value.nbytes:,} bytes; {MOST_BYTES:,} at most"
    return ""


def _portable(value: np.ndarray) -> np.ndarray:
    """Returns float32 for types that NumPy's files do not know, such as bfloat16."""
    return value.astype(np.float32) if value.dtype.kind == "V" else value


def _written(name: str) -> str:
    return name.replace("%", "%25").replace("/", "%2F")


def _read(name: str) -> str:
    return name.replace("%2F", "/").replace("%25", "%")
