"""Recognises trained pictures by their content, so that none is evaluated on as new.

A run keeps a digest of the decoded pixels of every picture that it trained on in trained_on.txt of
its folder, sorted, one a line; the sha256 of the file travels in its checkpoints. Evaluation
leaves the pictures on that list out of a person's own sets, whoever made the split, and says how
many: files may have been renamed, moved or added since. Where classes are evaluated on that were
not trained on, a class with a picture on the list is left out whole. In published sets they are
only counted, so that numbers stay comparable with others'.

Only equal pixels are recognised: a cropped picture, or one saved again with loss, is another one.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from research.data.sources.contents import Contents, Digests
from research.errors import UserError

if TYPE_CHECKING:
    from research.experiment import Data

FILE = "trained_on.txt"


def at_training(
    data: "Data", before: tuple[Digests | None, str] = (frozenset(), "")
) -> tuple["Data", Digests | None, dict[str, Any]]:
    """Returns a run's data without trained pictures, its training digests, and the report.

    Args:
      before: the pictures that the initial weights were trained on, as `recall` returns them.

    Raises:
      UserError: for a split of which no picture is left.
    """
    trained, (earlier, why) = data.contents.trained() if data.contents else None, before
    if trained is not None and earlier is not None:
        trained |= earlier
    new, report = new_only(data, trained, why)
    for split in data.evals.keys() - new.evals.keys():
        raise UserError(f"--dataset: {_nothing_left(split, report['splits'][split])}.")
    return new, trained, report


def together(recalled: Sequence[tuple[Digests | None, str]]) -> tuple[Digests | None, str]:
    """Joins the trained pictures of several runs, and says why some are unknown."""
    known = [trained for trained, _ in recalled if trained is not None]
    why = next((why for _, why in recalled if why), "")
    return (frozenset().union(*known) if known else None), why


def new_only(data: "Data", trained: Digests | None, why: str = "") -> tuple["Data", dict[str, Any]]:
    """Returns the data without trained pictures, and a report for result.json and `lines`.

    An empty split is removed; of classes, at least two must be left.

    Args:
      trained: the digests of the trained pictures; None where they are unknown.
      why: the reason why there may be more trained pictures; "" if there are none.

    Raises:
      UserError: where no split is left.
    """
    if data.contents is None:
        return data, {"splits": {}, "unknown": why}
    evals, rows = {}, {}
    for split, source in data.evals.items():
        rows[split], kept = _compare(data.contents, split, trained)
        if not len(kept):
            continue
        evals[split] = source if len(kept) == len(source.examples) else source.chosen(kept)
    if data.evals and not evals:
        said = "; ".join(_nothing_left(split, row) for split, row in rows.items())
        raise UserError(f"--dataset: {said}. Give data that was not trained on.")
    if any(row["trained_on"] is None for row in rows.values()):
        why = why or (
            "a published set that is larger than --cache_mb, or read by --decode=reduced, is not "
            "decoded for it"
        )
    return data._replace(evals=evals), {"splits": rows, "unknown": why}


def _compare(
    contents: Contents, split: str, trained: Digests | None
) -> tuple[dict[str, int | None], Int[np.ndarray, " kept"]]:
    """Returns a split's part of the report, and the positions of its new pictures."""
    known, gone = contents.known(split, trained), contents.left_out(split, trained)
    row = {
        "examples": len(gone),
        "trained_on": None if known is None else int(known.sum()),
        "left_out": int(gone.sum()),
    }
    if contents.by_class:
        labels = contents.splits[split].labels
        classes, fewer = len(np.unique(labels)), len(np.unique(labels[gone]))
        row |= {"classes": classes, "classes_left_out": fewer}
        if fewer and classes - fewer < 2:
            return row, np.arange(0)
    return row, np.flatnonzero(~gone)


def lines(report: Mapping[str, Any]) -> list[str]:
    """Returns a report's lines for a person: none if all pictures are known to be new."""
    said = []
    for split, row in report["splits"].items():
        known, count = row["trained_on"], f"{row['examples']:,}"
        if row.get("classes_left_out"):
            said.append(
                f"{split}: {row['classes_left_out']} of {row['classes']} classes left out, "
                f"{row['left_out']:,} of {count} examples: {known:,} of these were trained on"
            )
        elif row["left_out"]:
            said.append(f"{split}: {known:,} of {count} examples left out: they were trained on")
        elif known:
            said.append(
                f"{split}: {known:,} of {count} examples were trained on; in a published set they "
                "are counted, not left out"
            )
    if report["unknown"]:
        said.append(f"whether examples were trained on cannot be told: {report['unknown']}")
    return said


def as_text(trained: Digests) -> str:
    """Returns the content of FILE."""
    return "".join(f"{value.hex()}\n" for value in sorted(trained))


def checksum(trained: Digests) -> str:
    """Returns the sha256 of FILE, which the facts hold as "trained_on"."""
    return hashlib.sha256(as_text(trained).encode()).hexdigest()


def recall(checkpoint: Path, facts: Mapping[str, Any]) -> tuple[Digests | None, str]:
    """Returns the digests that a checkpoint's run trained on; or None, and why they are unknown.

    Args:
      checkpoint: RUN/checkpoints/latest/STEP, or best.

    Raises:
      UserError: the run's list is damaged.
    """
    named = facts.get("trained_on")
    if not named:
        return None, f"{checkpoint} does not say what it was trained on"
    folder = checkpoint.resolve()
    if folder.parent.parent.name != "checkpoints":
        return None, f"{checkpoint} lies outside its run's folder, which holds {FILE}"
    file = folder.parents[2] / FILE
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None, f"{file} is missing"
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}).") from None
    if hashlib.sha256(content).hexdigest() != named:
        raise UserError(
            f"{file}: is damaged, or another run's: its sha256 is not what {checkpoint} says. "
            "Bring the right one back, or move it away, to evaluate without it."
        )
    return frozenset(map(bytes.fromhex, content.decode().split())), ""


def _nothing_left(split: str, row: Mapping[str, Any]) -> str:
    left = "fewer than two classes are" if row.get("classes_left_out") else "nothing is"
    return f"{left} left of {split} beside what is trained on"
