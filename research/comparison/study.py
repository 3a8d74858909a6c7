"""A study: named variants x seeds, with what decides between them declared before any is trained.

Its folder holds the declaration, study.json, and a run's folder for each cell:
<study>/<variant>/seed=<n>/.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from research.comparison.cells import Cell
from research.data.files import read_json
from research.errors import UserError, nearest
from research.record.locks import lock
from research.record.whole_files import write_json

FILE = "study.json"
REPEATS = 5  # the fewest seeds that a verdict may rest on
# What else lies in a study's folder, and so names no variant.
TAKEN = ("logs", "figures", "compare")
LONGEST = 120
DECLARED = ("metric", "difference", "baseline")


class Study(NamedTuple):
    """The declaration of a study: what is compared, and by what.

    Attributes:
      experiment: its name, or the file of a person's own.
      variants: {name: its flags, as a shell takes them: "--optimizer=sgd"}, in order.
      seeds: of each variant, the same for all, so that they can be paired.
      flags: those of all variants.
      metric: the primary one, with its split: "test/accuracy"; "": the experiment's own.
      difference: the smallest one of interest, in the metric's units; None: none was declared.
      baseline: the variant that the others are compared with; "": none was declared.
      question: what is asked, in a line.
      claim: what the lecture, or the paper, says.
      budget: what the study may cost, in words or seconds.
      added, added_seeds: the variants and seeds that were added after a cell had been finished, so
        after looking.
    """

    experiment: str
    variants: Mapping[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    flags: tuple[str, ...] = ()
    metric: str = ""
    difference: float | None = None
    baseline: str = ""
    question: str = ""
    claim: str = ""
    budget: str = ""
    added: tuple[str, ...] = ()
    added_seeds: tuple[int, ...] = ()

    @property
    def flags_under_study(self) -> set[str]:
        """Returns the names of the flags that variants set, each as its flag, without "--"."""
        names = [f.lstrip("-").partition("=")[0] for own in self.variants.values() for f in own]
        return {*names, *(name.removeprefix("no") for name in names)}

    def cells(self, folder: Path) -> list[Cell]:
        """Lists all cells, each seed's side by side: what is stopped early can be compared."""
        return [
            Cell(name, seed, folder / folder_of(name) / f"seed={seed}")
            for seed in self.seeds
            for name in self.variants
        ]

    def groups(self, folder: Path) -> dict[str, list[Path]]:
        """Returns {variant: the folders of its runs, by seed}, finished or not."""
        cells = self.cells(folder)
        return {
            name: [cell.folder for cell in cells if cell.variant == name] for name in self.variants
        }


def folder_of(variant: str) -> str:
    """Returns the name of a variant's folder: word characters, dots, = and + stay."""
    return re.sub(r"[^\w.=+]+", "-", variant).strip("-.")


def checked(study: Study) -> Study:
    """Returns the study.

    Raises:
      UserError: where there are no variants or seeds, or one twice; for variants that would share
        a folder, a baseline that is no variant, a metric without its split, a difference that is
        not above 0.
    """
    if not study.variants:
        raise UserError(
            "--mode=study needs variants: --study=FILE, or --variant='--FLAG=VALUE ...', once for "
            "each."
        )
    folders: dict[str, str] = {}
    for name in study.variants:
        folder = folder_of(name)
        if not folder or folder.lower() in TAKEN or len(folder) > LONGEST:
            raise UserError(
                f"variant {name!r}: has no name that a folder can have (at most {LONGEST} "
                f"characters, none of {', '.join(TAKEN)}); name it in a study file."
            )
        other = folders.setdefault(folder.lower(), name)  # as on disks that do not tell them apart
        if other != name:
            raise UserError(
                f"variants {other!r} and {name!r}: would share the folder {folder}; rename one."
            )
    if twice := {seed for seed in study.seeds if study.seeds.count(seed) > 1}:
        raise UserError(f"seeds: {min(twice)} is given twice.")
    if not study.seeds:
        raise UserError("seeds: at least one is needed.")
    if study.baseline and study.baseline not in study.variants:
        raise UserError(
            f"baseline: {study.baseline!r} is no variant.{nearest(study.baseline, study.variants)} "
            f"There are {', '.join(study.variants)}."
        )
    split, _, metric = study.metric.partition("/")
    if study.metric and not (split and metric):
        raise UserError(
            f"metric: {study.metric!r} does not say of which split; test/{metric or split} does."
        )
    if study.difference is not None and not study.difference > 0:
        raise UserError(f"difference: {study.difference:g} is not above 0.")
    return study


def check_metric(metric: str, protocol: Iterable[str], splits: Sequence[str]) -> None:
    """Raises UserError for a metric that no run will have.

    Args:
      protocol: the names of an experiment's metrics; empty where it does not say.
      splits: the splits that are evaluated. What is measured in training is not known beforehand.
    """
    split, _, name = metric.partition("/")
    if not metric or split == "train":
        return
    if split not in splits:
        raise UserError(
            f"metric: {metric}: there is no split {split!r}.{nearest(split, splits)} Evaluated are "
            f"{', '.join(splits)}."
        )
    known = list(protocol)
    if known and name.partition("/")[0] not in known and name not in known:
        raise UserError(
            f"metric: {metric}: there is no metric {name!r}.{nearest(name, known)} Known: "
            f"{', '.join(sorted(known))}."
        )


def read_study(folder: Path) -> Study:
    """Reads the declaration in a study's folder.

    Raises:
      UserError: where there is none, or none of this form.
    """
    file = folder / FILE
    if not file.is_file():
        raise UserError(f"{folder}: is no study's folder, it holds no {FILE}.")
    try:
        found: dict[str, Any] = read_json(file)
        variants = {name: tuple(row["flags"]) for name, row in found.pop("variants").items()}
        tuples = {k: tuple(v) for k, v in found.items() if isinstance(v, list)}
        return Study(**{**found, **tuples, "variants": variants})
    except (UserError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: is no declaration of a study; choose another folder.") from error


def declare(study: Study, folder: Path) -> Study:
    """Writes a study's declaration into its folder, and returns it with what was added marked.

    What nobody has seen a result of may be declared anew. Safe when several processes start.

    Raises:
      UserError: where a variant or a seed is left out that was declared before, or what decides
        between variants is changed after the first cell was finished.
    """
    with lock(folder, wait=True):
        if (folder / FILE).exists():
            study = merged(read_study(folder), study, folder)
        write_json(
            folder / FILE,
            {
                **study._asdict(),
                "variants": {
                    name: {
                        "flags": flags,
                        "folder": folder_of(name),
                        **({"added": "after looking"} if name in study.added else {}),
                    }
                    for name, flags in study.variants.items()
                },
            },
        )
    return study


def merged(before: Study, now: Study, folder: Path) -> Study:
    """Returns what is declared now, with what was added or changed after looking marked."""
    for what, left in (
        ("variant", [name for name in before.variants if name not in now.variants]),
        ("seed", [seed for seed in before.seeds if seed not in now.seeds]),
    ):
        if left:
            raise UserError(
                f"--workdir={folder}: holds a study with the {what} {left[0]!r} too; name it "
                "again, or choose another folder. A comparison that leaves runs out is none."
            )
    if not any(cell.is_done for cell in before.cells(folder)):
        return now._replace(added=(), added_seeds=())
    for name in DECLARED:
        old, new = getattr(before, name), getattr(now, name)
        if old != new:
            raise UserError(
                f"--workdir={folder}: holds a study with {name} {old!r} there, {new!r} here, and "
                "results of it; what decides is declared before. Choose another folder."
            )
    late = [name for name, flags in now.variants.items() if before.variants.get(name) != flags]
    seeds = [seed for seed in now.seeds if seed not in before.seeds]
    return now._replace(
        added=tuple(name for name in now.variants if name in {*before.added, *late}),
        added_seeds=tuple(seed for seed in now.seeds if seed in {*before.added_seeds, *seeds}),
    )
