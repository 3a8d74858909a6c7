"""The options of the command, and further modes of experiments; imports no JAX."""

import dataclasses
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Literal, NamedTuple

from research.config import option
from research.record.report import Report


@dataclasses.dataclass(frozen=True)
class LaunchConfig:
    """The command"""

    experiment: str = option(
        "",
        "Name of an experiment; --mode=list shows all. Or one of your own, as a file "
        "(path/to/mine.py) or as a module that can be imported (my_lab.mine).",
    )
    mode: Literal[
        "train",
        "evaluate",
        "predict",
        "prepare",
        "list",
        "check",
        "preview",
        "compile",
        "study",
        "tune",
        "compare",
        "reproduce",
        "diagnose",
        "gallery",
    ] = option(
        "train",
        "train; evaluate or predict with --checkpoint; prepare a data set; list what there is; "
        "check data, model and one step before a long run, or by --checkpoint whether a run's "
        "files are as they were written; preview: draw augmented training examples; compile: both "
        "steps for the devices of --topology, which need not be there; "
        "study: train every variant of --study "
        "or --variant with every seed, and compare; tune: search flags on validation data; "
        "compare: finished --runs, with intervals and a verdict; reproduce: train a --run again "
        "from its folder alone, bit for bit, or measure stated --results; diagnose: what "
        "initialisation does to a network's signals; gallery: all methods of looking into a "
        "network on one page.",
    )
    checkpoint: tuple[str, ...] = option(
        (),
        "Run folder, or one checkpoint in it, here or at gs://... or s3://...; evaluate takes "
        "several, as an ensemble.",
    )
    inputs: tuple[str, ...] = option((), "Files and folders to predict.")
    show: Literal["", "suspicious", "disagreements"] = option(
        "",
        "evaluate: suspicious, the examples whose labels look most wrong by the loss, listed and "
        "drawn; compare: disagreements, the pictures that one side gets right and the other wrong.",
        only=("evaluate", "compare"),
    )
    details: tuple[str, ...] = option(
        (),
        "list: models whose parameters, operations, memory and time on this machine are compared.",
        only=("list",),
    )
    source: str = option("", "prepare: folder that holds the data set's original archives.")
    allow_download: bool = option(False, "prepare: fetch archives that are not in --source.")
    study: str = option(
        "",
        "study: a file that declares it (TOML), or the name of one that --mode=list shows.",
        only=("study",),
    )
    variant: tuple[str, ...] = option(
        (),
        "study: the flags of a variant, '--optimizer=sgd --momentum=0'; once each.",
        repeated=True,
        only=("study",),
    )
    repeats: int = option(
        0,
        "study: runs of each variant, with seeds one apart from --seed on; 0: as the study's file "
        "says, or else 5.",
        minimum=0,
        only=("study",),
    )
    search: tuple[str, ...] = option(
        (),
        "tune: a flag and where it is searched, 'learning_rate=1e-4..1e-1' (by factors), "
        "'warmup=linear:0..0.2', 'optimizer=sgd,adamw'; once for each flag.",
        repeated=True,
        only=("tune",),
    )
    trials: int = option(
        0,
        "tune: how many are drawn; 0: 16.",
        minimum=0,
        only=("tune",),
    )
    strategy: Literal["random", "grid", "halving"] = option(
        "random",
        "tune: random draws; all combinations, of ranges such as 1e-4..1e-1/5; or random draws of "
        "which the best third goes on, three times as far, and so on.",
        only=("tune",),
    )
    jobs: int = option(
        1,
        "study, tune: processes at a time, each with its own device, or its share of the cores.",
        minimum=1,
        only=("study", "tune"),
    )
    share: str = option(
        "",
        "study: I/N, the I-th of N shares of all runs, for a queue's arrays; next: the next free "
        "runs, whatever else is at work; empty: all.",
        only=("study", "tune"),
    )
    distributed: str = option(
        "off",
        "Several processes that train as one, on one machine or many: auto, where a cluster starts "
        "them (Slurm's srun, Open MPI, Cloud TPU, Kubernetes), or HOST:PORT,N,I: where the first "
        "of N listens, and which this is.",
        only=("train", "evaluate", "predict"),
    )
    join_timeout: float = option(
        300.0,
        "Seconds to wait until all processes of --distributed have come.",
        minimum=1.0,
        only=("train", "evaluate", "predict"),
    )
    run: str = option(
        "",
        "reproduce: folder of the run that is trained again, from it alone; compile: of a run on "
        "such devices, to compare.",
        only=("reproduce", "compile"),
    )
    results: tuple[str, ...] = option(
        (),
        "reproduce: stated results, by the names that docs/results.md marks them with; without a "
        "value: all of these.",
        only=("reproduce",),
    )
    topology: str = option(
        "",
        "compile: devices to compile for, v5e:2x4, v5e:16x16, v5p:2x2x2, v6e:4x4, h100:8, "
        "h100:32x8 (hosts x GPUs), h200:8, a100:8 or cpu:8.",
        only=("compile",),
    )
    runs: tuple[str, ...] = option(
        (),
        "compare: folders of runs, 'runs/mlp*' or LABEL='runs/mlp*'; once for each side.",
        repeated=True,
        only=("compare",),
    )
    metric: str = option(
        "",
        "compare, study: what is compared, such as test/accuracy; empty: what names the best "
        "weights.",
        only=("compare", "study"),
    )
    difference: float = option(
        0.0,
        "compare, study: the smallest difference of interest, in the metric's units; 0: none is "
        "declared.",
        minimum=0.0,
        only=("compare", "study"),
    )
    baseline: str = option(
        "",
        "compare, study: the side that the others are compared with; empty: the first.",
        only=("compare", "study"),
    )


class Modes(NamedTuple):
    """The further modes of an experiment, which its module declares as MODES.

    Attributes:
      reports: {mode: configuration -> report}, such as "diagnose".
      pages: {mode: configuration -> a function that makes an HTML page, as text}. The first call
        refuses what cannot be shown; the function does the work.
      pretrained: (configuration, names of the flags that were typed) -> configuration, facts and
        variables of a trained network that --init_from names, as if it were a checkpoint; None
        where it takes a checkpoint.
    """

    reports: Mapping[str, Callable[[Any], Report]] = {}
    pages: Mapping[str, Callable[[Any], Callable[[], str]]] = {}
    pretrained: Callable[..., tuple[Any, dict[str, Any], Any]] | None = None


def modes_of(module: ModuleType) -> Modes:
    """Returns the modes that an experiment's module declares; none if it declares none."""
    found: Modes = vars(module).get("MODES", Modes())
    return found
