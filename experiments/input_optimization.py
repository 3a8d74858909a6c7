"""What does a trained network see? Images optimised by gradients, and a look inside.

    python launch.py --experiment=input_optimization

makes, from a grey image, the goose that EfficientNet-Lite0 is sure of; its weights ship inside a
package.
    --method=list explains every method, --method=layers lists the network's layers.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments import open_trained
from research.config import option, redefault, refuse_unused
from research.modes import Modes
from research.training.config import ParallelMode, TrainingConfig
from research.understanding.config import USED_BY, LookConfig, PictureConfig, QuestionConfig

if TYPE_CHECKING:
    from research.data.preprocessing import Preprocessing
    from research.experiment import Experiment
    from research.understanding.answers import Question
    from research.understanding.network import Network

NETWORK = "efficientnet_lite0"  # where neither --checkpoint nor --init_from is given
# Of the flags that experiments share, those that are about training a network.
NOT_HERE = (
    *("dataset", "validation", "skip_corrupt", "epochs", "optimizer", "schedule", "warmup"),
    *("momentum", "weight_decay", "clip_norm", "accumulate", "ema_decay", "precision"),
    *("freeze", "transfer_rate"),
)


@dataclasses.dataclass(frozen=True)
class Config(LookConfig, PictureConfig, QuestionConfig, TrainingConfig):
    """Input optimisation"""

    model: str = option("", "Architecture, where --init_from is a file.")
    steps: int = option(0, "Steps of optimisation; 0: the method's own number.", minimum=0)
    learning_rate: float = option(0.0, "Step size; 0: the method's own.", minimum=0.0)
    batch_size: int = redefault(TrainingConfig, "batch_size", 32)
    # One image has nothing to share out over devices.
    parallel: ParallelMode = redefault(TrainingConfig, "parallel", "single")


class Opened(NamedTuple):
    """A trained network, and the experiment that trained it where there is one."""

    network: "Network"
    preprocessing: "Preprocessing"
    source: "Experiment | None"


@functools.lru_cache(maxsize=2)
def open_network(
    checkpoint: tuple[str, ...],
    init_from: str,
    init_as: str,
    model: str,
    data_dir: str,
    state: object,
) -> Opened:
    """The network of --checkpoint, or of --init_from; kept for methods that are asked in turn.

    Args:
      state: of the files they name, as `files_state` has it: where they change, it is opened anew.

    Raises:
      UserError: what cannot be opened, or holds no network that sees images.
    """
    import jax

    from research import config as config_lib
    from research import models, weights
    from research.data import overlap
    from research.data.preprocessing import Preprocessing
    from research.errors import UserError, choose
    from research.experiment import Data
    from research.progress import console
    from research.training.checkpoint import open_checkpoint
    from research.understanding.network import Network
    from research.weights.pretrained import PRETRAINED

    if checkpoint:
        if len(checkpoint) > 1:
            raise UserError("--checkpoint: one network is looked into at a time.")
        found = open_checkpoint(checkpoint[0])
        name, facts = found.metadata["experiment"], found.metadata["facts"]
        if name == "input_optimization" or "preprocessing" not in facts:
            raise UserError(
                f"--checkpoint={checkpoint[0]}: is a run of {name}, which trained no network that "
                "sees images."
            )
        module = open_trained(found.metadata, found.path)
        config = config_lib.from_json(module.Config, found.metadata["config"], str(found.path))
        config = dataclasses.replace(config, data_dir=data_dir)
        variables = found.variables
        recalled = overlap.recall(found.path, facts)
    elif init_from in PRETRAINED and not PRETRAINED[init_from].class_names():
        known = PRETRAINED[init_from]
        trunk, preprocessing = models.create(known.model), known.preprocessing
        own = (*preprocessing.image_size, preprocessing.channels)
        shapes = jax.eval_shape(
            lambda key, image: trunk.init(key, image, features=True),
            jax.random.key(0),
            jax.ShapeDtypeStruct((1, *own), "float32"),
        )
        variables = weights.into(shapes, weights.load(init_from), source=init_from).variables

        def maps(variables: Any, images: Any) -> Any:
            return trunk.apply(variables, preprocessing.standardise(images), features=True)

        return Opened(Network(maps, jax.device_put(variables), (), own), preprocessing, None)
    else:
        from experiments import classification

        if init_from not in PRETRAINED:
            choose(model or "(none)", models.available(), "model: name --model for a file;")
        config = classification.Config(
            init_from=init_from or NETWORK, init_as=init_as, model=model or "convnet"
        )
        module, (config, facts, variables) = classification, classification.pretrained(config)

    source = module.build(config, facts)
    preprocessing = Preprocessing.from_json(facts["preprocessing"])

    def outputs(variables: Any, images: Any) -> Any:
        return source.evaluation.predict(variables, {"image": images})

    shape = (*preprocessing.image_size, preprocessing.channels)
    names = source.network.names
    network = Network(
        outputs,
        jax.device_put(variables),
        names.of,
        shape,
        class_layer=f"outputs/{names.output}" if names.of and names.output else "",
        exclusive=names.exclusive,
    )
    if not checkpoint:
        return Opened(network, preprocessing, None)

    @functools.cache
    def unseen() -> Data:
        data, report = overlap.new_only(source.data(), *recalled)
        for line in overlap.lines(report):
            console().print(line, markup=False)
        return data

    return Opened(network, preprocessing, source._replace(data=unseen))


def opened(config: Config) -> Opened:
    """The network that a configuration names."""
    init_from = "" if config.checkpoint else (config.init_from or NETWORK)
    state = files_state([*config.checkpoint, init_from])
    names = config.checkpoint, init_from, config.init_as, config.model, config.data_dir
    return open_network(*names, state)


def files_state(names: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
    """Each file below some paths, with its size and when it was last changed."""
    from pathlib import Path

    found = []
    for path in (Path(name).expanduser() for name in names if name):
        files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
        found += [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return tuple(found)


def ask(config: Config) -> "Question":
    """The question that a configuration puts, its images read.

    Raises:
      UserError: files that are no images.
    """
    import numpy as np

    from research.data import images
    from research.data.preprocessing import fit
    from research.data.source import Arrays, Source
    from research.errors import UserError
    from research.progress import console
    from research.spacing import some_of, spaced
    from research.understanding.answers import Question

    network, preprocessing, source = opened(config)
    files = [str(file) for file in images.list_images(config.inputs)] if config.inputs else []
    read = [images.read(file, preprocessing.white) for file in files]
    for file, image in zip(files, read, strict=True):
        if said := converted(file, image.shape[-1], preprocessing.channels):
            console().print(f"{file}: {said}", markup=False)

    @functools.cache
    def splits() -> Mapping[str, Source]:
        if source is None:
            raise UserError(
                f"--method={config.method}: needs images: --inputs=FOLDER, or a --checkpoint, "
                "whose data set it then takes."
            )
        return source.data().evals

    def survey() -> Source:
        if files:
            fitted = np.stack([fit(image, preprocessing) for image in read])
            return Source(Arrays({"image": fitted}), min(config.batch_size, len(files)))
        return splits().get("test") or next(iter(splits().values()))

    fitted = [fit(image, preprocessing) for image in read]
    from_nothing = config.method == "visualise" and config.start != "input"
    sampled = ""
    if not files and source is not None and method_kind(config) != "survey" and not from_nothing:
        examples = survey().examples
        count = 100 if config.method == "deletion" else 4
        chosen = spaced(len(examples), count).tolist()
        fitted = [np.asarray(examples[i]["image"]) for i in chosen]
        files, read = [f"test {i}" for i in chosen], fitted
        sampled = some_of(len(examples), count)
    blank = np.zeros((0, *network.image_shape), np.uint8)
    mean = np.broadcast_to(np.asarray(preprocessing.mean, np.float32), network.image_shape[2])
    return Question(
        config=config,
        network=network,
        images=np.stack(fitted) if fitted else blank,
        originals=read,
        names=tuple(file.rpartition("/")[2] for file in files),
        mean=mean.copy(),
        survey=survey,
        sampled=sampled,
    )


def method_kind(config: Config) -> str:
    """What the method does: optimise, look or survey. Raises UserError where it is unknown."""
    from research.errors import choose
    from research.understanding.methods import METHODS

    return choose(config.method, METHODS, "method").kind


def converted(file: str, channels: int, wanted: int) -> str:
    """What is done to an image before the network gets it; "" where nothing is worth saying."""
    from pathlib import Path

    from research.data.images import has_alpha

    said = []
    if has_alpha(Path(file).read_bytes()):
        said.append("transparency is laid over white")
    if channels < wanted:
        said.append("grey, given to the network as RGB")
    elif channels > wanted:
        said.append("in colour, given to the network as grey")
    return "; ".join(said)


def answered(config: Config) -> bool:
    """Prints what --method=list and --method=layers ask for; False for other methods."""
    from research.understanding import methods

    if config.method == "list":
        methods.show_methods()
    elif config.method == "layers":
        from research.understanding.listing import show_layers

        show_layers(opened(config).network)
    return config.method in methods.ANSWERS


def check_flags(config: Config) -> None:
    """Raises UserError for flags that have no effect on any method, or that contradict others."""
    from research.errors import UserError
    from research.weights.pretrained import PRETRAINED

    for field in dataclasses.fields(config):
        if field.name in NOT_HERE and getattr(config, field.name) != field.default:
            raise UserError(
                f"--{field.name}: is about training networks, and has no effect here; leave it out."
            )
    if config.checkpoint and config.init_from:
        raise UserError("--init_from: --checkpoint names a network already; leave one out.")
    if config.model and (config.checkpoint or config.init_from in (*PRETRAINED, "")):
        raise UserError("--model: is for --init_from=FILE; the network named here has its own.")
    if config.init_as and (config.checkpoint or config.init_from in (*PRETRAINED, "")):
        raise UserError("--init_as: is for --init_from=FILE; leave it out.")


def build(config: Config, facts: Mapping[str, Any] | None = None) -> "Experiment":
    """The method as an experiment: what is optimised is an image, and the network is frozen.

    Raises:
      UserError: names that are unknown, and methods that do not apply to the network.
    """
    import jax.numpy as jnp
    import numpy as np
    import optax

    from research.data.source import Arrays, Source
    from research.errors import UserError
    from research.experiment import Data, Evaluation, Evaluator, Experiment, Network, Training
    from research.understanding import checked, looked, optimised, painted, surveyed

    method_kind(config)
    check_flags(config)
    refuse_unused(config, "method", USED_BY)
    if config.parallel != "single" and method_kind(config) != "survey":
        raise UserError(
            f"--parallel={config.parallel}: --method={config.method} runs on one device; leave the "
            "flag out."
        )
    rooms = (optimised, painted, looked, checked, surveyed)
    makers = {name: maker for room in rooms for name, maker in room.ANSWERS.items()}
    question = ask(config)
    answer = makers[config.method](question)
    images = question.images if answer.images is None else answer.images
    params = np.zeros(1, np.float32) if answer.params is None else answer.params

    def init(key: Any) -> dict[str, Any]:
        return {"params": {"image": jnp.asarray(params)}, "schedule": {"step": jnp.int32(0)}}

    def no_loss(*_: Any) -> Any:
        raise AssertionError("a method without steps has no loss")

    def data() -> Data:
        if answer.survey is not None:
            return Data(answer.survey, {"data": answer.survey})
        source = Source(Arrays({"image": images}), len(images))
        stream = dataclasses.replace(source, seed=config.seed)
        return Data(stream, {"inputs": source})

    training = Training(
        loss=answer.loss or no_loss,
        # The loop's loss is a mean over images; one image's steps must not depend on the others.
        optimizer=optax.chain(optax.scale(float(len(images))), answer.optimizer),
        learning_rate=answer.learning_rate,
        steps=answer.steps,
    )
    said = f"; {question.sampled}" if question.sampled else ""
    evaluator = Evaluator(
        protocol={name: f"{line}{said}" for name, line in answer.protocol.items()},
        measure=answer.measure,
        score=answer.score,
        draw=answer.draw,
        draw_split=answer.draw_split,
    )
    return Experiment(
        network=Network(init),
        training=training,
        evaluation=Evaluation(answer.predict, {config.method: evaluator}, notes=answer.notes),
        data=data,
        facts={"method": config.method},
    )


def gallery(config: Config) -> Callable[[], str]:
    """Returns what makes one HTML page of all methods that apply to the network.

    Raises:
      UserError: where there is nothing to show.
    """
    from research.understanding.gallery import make_gallery

    check_flags(config)
    ask(dataclasses.replace(config, method="saliency")).needs_inputs()
    return functools.partial(make_gallery, config, build)


MODES = Modes(pages={"gallery": gallery})
