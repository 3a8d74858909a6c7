"""Language: a recurrent network learns a text's next characters, and continues texts.

    python launch.py --experiment=language

learns the word "hello" in seconds: after the first l it says l, after the second o, which no model
without memory can. `--text=PATH` learns a file (experiments/presets/language/text.flags),
`--text=python_manual` a text that comes with Python, and

    python launch.py --mode=predict --checkpoint=RUN --inputs=BEGINNING.txt --temperature=0.7

writes on from the beginning in a file. `--experiment=language --mode=diagnose` measures how far
back gradients reach, in a vanilla network and in LSTMs.
"""

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, Literal

from research.config import option, redefault
from research.modes import Modes
from research.training.config import ScheduleName, TrainingConfig

if TYPE_CHECKING:
    from research.experiment import Batch, Data, Experiment, Facts, Pictures
    from research.record.report import Report

HELLO = "hello"


@dataclasses.dataclass(frozen=True)
class Config(TrainingConfig):
    """Language"""

    text: str = option(
        "",
        "Text file to learn, or to be evaluated on, UTF-8; python_manual: 757 kB that come with "
        f'Python; empty: the word "{HELLO}".',
        learned=False,
    )
    cell: Literal["rnn", "lstm", "gru"] = option("rnn", "Cell of the recurrent layers.")
    features: int = option(8, "Hidden units of a layer.", minimum=1)
    layers: int = option(1, "Recurrent layers.", minimum=1)
    dropout: float = option(0.0, "Rate before the last layer.", minimum=0.0, maximum=0.95)
    sequence_length: int = option(4, "Characters of a training example.", minimum=1)
    # They change the written text, not the learned weights.
    temperature: float = option(
        0.7,
        "For sampling: near 0 the likeliest character, large any.",
        minimum=0.01,
        changes_result=False,
    )
    written: int = option(
        400,
        "Characters that --mode=predict writes.",
        minimum=1,
        changes_result=False,
        only=("predict",),
    )
    recalled: int = option(
        60, "Symbols, the first of which is to be recalled.", minimum=2, only=("diagnose",)
    )
    recurrent: Literal["orthogonal", "xavier"] = option(
        "orthogonal", "First recurrent weights of the diagnosed cells.", only=("diagnose",)
    )
    # The recipe of the default run, for "hello".
    validation: float = redefault(TrainingConfig, "validation", 0.0)
    batch_size: int = redefault(TrainingConfig, "batch_size", 1)
    learning_rate: float = redefault(TrainingConfig, "learning_rate", 0.02)
    schedule: ScheduleName = redefault(TrainingConfig, "schedule", "constant")
    steps: int = redefault(TrainingConfig, "steps", 200)
    clip_norm: float = redefault(TrainingConfig, "clip_norm", 5.0)
    parallel: Literal["auto", "single", "jit", "pmap"] = redefault(
        TrainingConfig, "parallel", "single"
    )


def build(config: Config, facts: "Facts | None" = None) -> "Experiment":
    """Builds the experiment from its text, or from the facts of a checkpoint.

    Raises:
      UserError: a text that cannot be read or is too short, and flags that have no meaning here.
    """
    # Imported here, so that --help answers without loading JAX.
    import jax
    import jax.numpy as jnp
    import numpy as np

    from research.assembly import Learned, bind, make_training
    from research.data.images.augment import example_keys
    from research.data.sources.source import Source
    from research.data.text import windows as text_lib
    from research.data.text.tokens import Characters
    from research.errors import UserError
    from research.experiment import Data, Evaluation, Evaluator, Experiment, Prediction
    from research.figures import memory as figures
    from research.metrics import language as metrics
    from research.models.language import CharacterModel
    from research.random import stream
    from research.sequences import decoding

    if config.dataset:
        raise UserError(f"--dataset={config.dataset}: this experiment learns --text=PATH.")
    for flag, value in (("split_seed", config.split_seed), ("fold", config.fold)):
        if value:
            raise UserError(
                f"--{flag}={value}: a text is held out at its end, by --validation; leave it out."
            )

    # --- Data, and the facts that travel with the weights ---
    def windows() -> tuple[text_lib.Windows, text_lib.Windows]:
        codes = characters.encode(text())
        return text_lib.windows(codes, config.sequence_length, config.validation)

    text = functools.cache(lambda: text_lib.load(config.text) if config.text else HELLO)
    trains = facts is None
    if facts is None:
        characters = Characters.of(text())
        if not characters.size:
            raise UserError(f"--text={config.text}: is empty.")
        facts = {"characters": "".join(characters.symbols), "train_examples": len(windows()[0])}
    characters = Characters(tuple(facts["characters"]))
    split = "validation" if config.validation else "text"

    def sources() -> "Data":
        train, held = windows()
        size, cache = config.eval_batch_size or config.batch_size, config.cache_mb * 2**20
        evals = {split: Source(held, size, None, cache)}
        return Data(Source(train, config.batch_size, config.seed, cache), evals)

    # --- Model ---
    model = CharacterModel(
        characters.size, config.cell, config.features, config.layers, config.dropout
    )
    network = bind(config, model, jnp.zeros((1, 1), jnp.int32))

    # --- Training ---
    def loss(
        variables: Any, batch: "Batch", key: jax.Array, axis: str | None
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        (logits, _), state = network.train(variables, batch["tokens"][:, :-1], key=key, axis=axis)
        per_example, right = metrics.compared(jax.nn.log_softmax(logits), batch)
        return per_example, state, {"accuracy": right}

    # --- Evaluation and prediction ---
    def predict(variables: Any, batch: "Batch") -> dict[str, jax.Array]:
        if "beginning" in batch:
            return {"tokens": write(variables, batch)}
        logits, hidden = network.evaluate(variables, batch["tokens"][:, :-1])
        return {"log_probabilities": jax.nn.log_softmax(logits), "hidden": hidden}

    def write(variables: Any, batch: "Batch") -> jax.Array:
        """Continues the batch's beginnings of texts, [B, time] with their lengths."""
        beginning, length = jnp.asarray(batch["beginning"]), jnp.asarray(batch["length"])
        evaluate = functools.partial(network.evaluate, variables)
        last = jnp.take_along_axis(beginning, length[:, None] - 1, axis=1)[:, 0]
        mask = jnp.arange(beginning.shape[1]) < length[:, None] - 1
        keys = example_keys(stream(jax.random.key(config.seed), "sample"), batch["index"])
        return decoding.sample(
            lambda state, token: evaluate(state, token, method="step"),
            evaluate(beginning, mask, method="read"),
            last,
            -1,
            config.written,
            keys,
            config.temperature,
        ).tokens

    def draw(outputs: Any, batch: "Batch") -> "Pictures":
        length = min(int(batch["counted"][0].sum()), 48)
        read = characters.decode(batch["tokens"][0, : length + 1])
        probabilities = np.exp(outputs["log_probabilities"][0, :length])
        hidden = outputs["hidden"][0, :length]
        picture = figures.next_character(read, characters.symbols, probabilities, hidden)
        return {"next_character": picture}

    def describe(outputs: Any, batch: "Batch") -> list[dict[str, Any]]:
        return text_lib.continued(batch, outputs["tokens"], characters)

    following = Evaluator(
        metrics.protocol(config.sequence_length, config.validation),
        lambda outputs, batch: metrics.measure(outputs["log_probabilities"], batch),
        draw=draw,
    )
    return Experiment(
        network=network,
        training=make_training(
            config, network, Learned(facts, trains), loss, answers=characters.size
        ),
        evaluation=Evaluation(
            predict,
            {"characters": following},
            (f"{split}/cross_entropy", "min"),
            loss="cross_entropy",
        ),
        data=sources,
        facts=facts,
        prediction=Prediction(lambda files: text_lib.read_beginnings(files, characters), describe),
    )


def diagnose(config: Config) -> "Report":
    """Measures how far back gradients reach, in a vanilla network and in LSTMs.

    Networks of 64 units learn for 400 steps to repeat the first of --recalled symbols after the
    last.
    """
    from research.understanding import memory

    return memory.compare(
        length=config.recalled,
        features=64,
        steps=400,
        seed=config.seed,
        recurrent=config.recurrent,
    )


MODES = Modes(reports={"diagnose": diagnose})
