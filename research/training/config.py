"""The options all experiments share, one dataclass a topic; an experiment's Config extends them.

A class docstring's first line is the heading of its flags in --help. Imports no JAX, so that
--help answers at once.
"""

import dataclasses
from typing import ClassVar, Literal, Protocol, runtime_checkable

from research.config import Configuration, not_a_flag, option
from research.data.config import Augmentation, DataConfig, ImageConfig

OptimizerName = Literal[
    "sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "lamb"
]
ParallelMode = Literal["auto", "single", "jit", "pmap"]
Shard = Literal["none", "state", "params"]
BatchStatistics = Literal["global", "device"]
ScheduleName = Literal["constant", "step", "exponential", "cosine", "one_cycle"]


# Where nobody chose them, they follow from the data set or the machine; a run holds the values.
FOLLOWING = ("batch_size", "eval_batch_size", "image_size", "parallel")


@runtime_checkable
class LoopConfig(Configuration, Protocol):
    """The options that commands and the loop read: flags of a configuration, or its constants."""

    @property
    def unchosen(self) -> tuple[str, ...]: ...
    @property
    def workdir(self) -> str: ...
    @property
    def resume(self) -> Literal["auto", "never"]: ...
    @property
    def tracker(self) -> str: ...
    @property
    def compilation_cache(self) -> str: ...
    @property
    def deterministic(self) -> bool: ...
    @property
    def profile(self) -> str: ...
    @property
    def debug_nans(self) -> bool: ...
    @property
    def data_dir(self) -> str: ...
    @property
    def parallel(self) -> ParallelMode: ...
    @property
    def shard(self) -> Shard: ...
    @property
    def batch_statistics(self) -> BatchStatistics: ...
    @property
    def eval_batch_size(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def epochs(self) -> float: ...
    @property
    def log_every(self) -> int: ...
    @property
    def eval_every(self) -> int: ...
    @property
    def checkpoint_every(self) -> int: ...
    @property
    def stop_after(self) -> float: ...
    @property
    def tuning_trials(self) -> int: ...
    @property
    def keep(self) -> int: ...
    @property
    def init_from(self) -> str: ...
    @property
    def accumulate(self) -> int: ...
    @property
    def statistics_batches(self) -> int: ...
    @property
    def ema_decay(self) -> float: ...


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The run"""

    workdir: str = option(
        "",
        "Folder of the run, here or at gs://BUCKET/... or s3://BUCKET/...; empty: a new folder "
        "runs/<experiment>/<date>-<time>.",
        changes_result=False,
        saved=False,
    )
    seed: int = option(
        0,
        "Seed of initialisation, data order and augmentation.",
        minimum=0,
        maximum=2**32 - 1,  # JAX takes the last 32 bits, so that larger ones would repeat these
    )
    resume: Literal["auto", "never"] = option(
        "auto",
        "auto: continue a run that lies in --workdir; never: refuse a folder that holds one.",
        changes_result=False,
        saved=False,
    )
    parallel: ParallelMode = option(
        "auto",
        "single: one device; jit: sharded over a mesh of all devices; pmap: jax.pmap; "
        "auto: jit on several devices, else single; a run keeps what was taken.",
        changes_result=False,
    )
    shard: Shard = option(
        "none",
        "What devices share out to save memory: state, the optimizer's state (ZeRO-1); params, the "
        "parameters as well (fully sharded). For one process so far; not with pmap.",
        changes_result=False,
    )
    log_every: int = option(
        50, "Steps between logged training metrics.", minimum=1, changes_result=False
    )
    eval_every: int = option(
        0, "Steps between evaluations; 0: five times in a run.", minimum=0, changes_result=False
    )
    checkpoint_every: int = option(
        0, "Steps between checkpoints; 0: whenever it evaluates.", minimum=0, changes_result=False
    )
    stop_after: float = option(
        1.0,
        "Share of all steps after which the run is evaluated, saved and left; a larger share then "
        "goes on, as if it had not stopped.",
        minimum=0.0,
        maximum=1.0,
        changes_result=False,
        saved=False,
    )
    keep: int = option(
        2, "Latest checkpoints to keep, beside the best.", minimum=1, changes_result=False
    )
    tracker: Literal["", "wandb", "mlflow", "trackio"] = option(
        "",
        "Send the log to Weights & Biases, MLflow or Trackio, too, where its package is installed.",
        changes_result=False,
    )
    tuning_trials: int = option(
        0,
        "Trials of the searches that led to these flags; --mode=tune writes it, reports state it.",
        minimum=0,
        changes_result=False,
    )
    compilation_cache: str = option(
        "~/.cache/fovea/jax",
        "Folder of JAX's persistent compilation cache, shared by all runs; empty: none.",
        changes_result=False,
    )
    deterministic: bool = option(
        False,
        "The same bits each time on GPUs, too: none of the operations whose sums are in no order, "
        "no kernels chosen by a race. Slower there; CPUs compute so anyway.",
        changes_result=False,
    )
    profile: str = option(
        "",
        "START,COUNT: write a trace of these steps to the run's folder, for XProf and Perfetto.",
        changes_result=False,
        saved=False,
        only=("train",),
    )
    debug_nans: bool = option(
        False,
        "Look at every step, and name the first layer and step that is not finite. Slower.",
        changes_result=False,
        saved=False,
        only=("train",),
    )
    # Names of the options that were not given; none of a Config that is made in Python.
    unchosen: tuple[str, ...] = not_a_flag(())


class Untrained:
    """Constants that commands and the loop read of a Config without flags of training."""

    epochs: ClassVar[float] = 0.0
    accumulate: ClassVar[int] = 1
    statistics_batches: ClassVar[int] = -1
    batch_statistics: ClassVar[Literal["global"]] = "global"
    ema_decay: ClassVar[float] = 0.0
    eval_batch_size: ClassVar[int] = 0


@dataclasses.dataclass(frozen=True)
class PrecisionConfig:
    """The run"""

    precision: Literal["float32", "bfloat16"] = option(
        "float32", "Type of activations and of the weights they meet; parameters stay float32."
    )
    remat: Literal["none", "blocks", "full"] = option(
        "none",
        "Activations that the backward pass computes again, to save memory: blocks, those that "
        "follow convolutions in the network's blocks; full, all within blocks. The numbers stay.",
        changes_result=False,
    )


@dataclasses.dataclass(frozen=True)
class OptimizationConfig:
    """Optimisation"""

    steps: int = option(0, "Training steps; 0: as --epochs says.", minimum=0)
    epochs: float = option(10.0, "Passes over the training split, where --steps is 0.", minimum=0.0)
    optimizer: OptimizerName = option("adamw", "Rule that makes updates of gradients.")
    learning_rate: float = option(1e-3, "Peak learning rate.", minimum=0.0)
    schedule: ScheduleName = option("cosine", "Course of the learning rate after warm-up.")
    warmup: float = option(
        0.05, "Linear warm-up, as a share of all steps.", minimum=0.0, maximum=1.0
    )
    momentum: float = option(0.9, "Momentum of momentum and nesterov.", minimum=0.0, maximum=1.0)
    weight_decay: float = option(
        1e-4,
        "Weight decay of kernels; decoupled for adamw and lamb, else an L2 term.",
        minimum=0.0,
    )
    clip_norm: float = option(
        0.0, "Largest global norm of the gradient; 0: not clipped.", minimum=0.0
    )
    accumulate: int = option(
        1, "Parts a batch is worked through in, one after another, to save memory.", minimum=1
    )
    batch_statistics: BatchStatistics = option(
        "global",
        "global: batch normalisation sees the batch of all devices, so their number changes no "
        "result; device: each device its own rows, which exchanges nothing forward and backward.",
    )
    statistics_batches: int = option(
        0,
        "Training batches over which batch statistics are averaged anew, for the weights as they "
        "are, before each evaluation and checkpoint; 0: 8, or as many as hold 256 examples; -1: "
        "none, but running averages, which lag behind.",
        minimum=-1,
    )
    ema_decay: float = option(
        0.0,
        "Decay of an exponential moving average of the weights, which is then evaluated; 0: none. "
        "It rises with the step t as (1 + t) / (10 + t), to 0.99 at t = 890 and 0.999 at 8,990: "
        "in a shorter run a larger decay changes nothing.",
        minimum=0.0,
        maximum=1.0,
    )


@dataclasses.dataclass(frozen=True)
class TransferConfig:
    """Transfer from trained weights"""

    init_from: str = option(
        "",
        "Weights to start from: efficientnet_lite0 (ships in a package), a .safetensors or .pth "
        "file with torchvision's or timm's names, or the folder of a run. A head for another "
        "number of classes starts fresh.",
    )
    init_as: str = option(
        "",
        "timm's name of the network whose weights the file of --init_from holds, where the file "
        "itself does not tell: efficientnet_b0 or tf_efficientnet_b0, which differ in padding.",
    )
    freeze: str = option(
        "",
        "Regular expression; parameters in whose path it is found stay as they are, and so do "
        "the batch statistics beside them; nothing is dropped inside modules that are frozen "
        "whole. --mode=check lists paths.",
    )
    transfer_rate: float = option(
        1.0,
        "Learning rate of parameters that --init_from filled, as a share of that of fresh ones.",
        minimum=0.0,
    )


@dataclasses.dataclass(frozen=True)
class TrainingConfig(TransferConfig, OptimizationConfig, DataConfig, PrecisionConfig, RunConfig):
    """The base class of every experiment's Config."""


@dataclasses.dataclass(frozen=True)
class ImageTrainingConfig(ImageConfig, TrainingConfig):
    """The base class of the Config of an experiment on images."""


@dataclasses.dataclass(frozen=True)
class AugmentedTrainingConfig(Augmentation, ImageTrainingConfig):
    """The base class of such a Config if training images are augmented."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Model"""

    model: str = option("convnet", "Architecture; --mode=list shows all with parameter counts.")
    model_options: tuple[str, ...] = option(
        (), "Attributes of the model, such as width=16,normalise=false,dropout=0.5,hidden=64+32."
    )
    activation: str = option("", "Nonlinearity, such as relu or tanh; empty: the model's own.")
    initializer: str = option(
        "", "Initialiser of kernels, such as he, xavier or zeros; empty: the model's own."
    )
