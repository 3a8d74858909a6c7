"""Captioning: describes a picture in a sentence, by a convolutional encoder and a decoder.

    python launch.py --experiment=captioning

learns to describe scenes of coloured digits (16,000 to train, 1,000 to test), which are made on
first use, and is scored by sentences it decodes by itself. A person's own pictures and sentences:
--dataset=captions:IMAGES_DIR:FILE; presets are below experiments/presets/captioning.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from research.config import option, redefault, refuse_unused
from research.data.config import ImageConfig, Resize
from research.sequences.config import USED_BY, DecodingConfig
from research.training.config import AugmentedTrainingConfig, TrainingConfig

if TYPE_CHECKING:
    from research.experiment import Batch, Data, Experiment, Facts


@dataclasses.dataclass(frozen=True)
class Config(DecodingConfig, AugmentedTrainingConfig):
    """Captioning"""

    model: Literal["show_and_tell", "show_attend_and_tell", "spatial_attention"] = option(
        "spatial_attention",
        "The image is the first word, is looked at before each word is read, or after.",
    )
    backbone: str = option("compact", "Encoder: a classifier that --mode=list shows.")
    feature_map: str = option("", "Name of the encoder's map; empty: the last.")
    cell: Literal["rnn", "lstm", "gru"] = option("lstm", "Cell of the recurrent layers.")
    model_options: tuple[str, ...] = option(
        (), "Attributes of the model, such as embedding=128,features=256,layers=2,dropout=0.3."
    )
    resize: Resize = redefault(ImageConfig, "resize", "stretch")
    references: int = option(3, "Captions of each image that a step learns from.", minimum=1)
    min_count: int = option(
        1, "Words of the training captions that come less often are unknown.", minimum=1
    )
    max_length: int = option(
        20, "Words of a caption, at most; in training, and when captions are made.", minimum=1
    )
    cut_long: bool = option(False, "Cut longer training captions instead of refusing them.")
    label_smoothing: float = option(
        0.0, "Share of each word that is spread over all words.", minimum=0.0, maximum=0.99
    )
    attention_penalty: float = option(
        0.0,
        "Weight of looking at every place once: Xu et al. 2015, equation 14 (1.0).",
        minimum=0.0,
    )
    cache_features: bool = option(
        False, "Compute the maps of a frozen encoder once and keep them in --data_dir/features."
    )
    # The recipe of the default run, for the scenes of digits.
    dataset: str = redefault(TrainingConfig, "dataset", "digit_scenes")
    batch_size: int = redefault(TrainingConfig, "batch_size", 32)
    eval_batch_size: int = redefault(TrainingConfig, "eval_batch_size", 128)
    learning_rate: float = redefault(TrainingConfig, "learning_rate", 1.5e-3)
    epochs: float = redefault(TrainingConfig, "epochs", 5.0)


def build(config: Config, facts: "Facts | None" = None) -> "Experiment":
    """Builds the experiment from its data set, or from the facts of a checkpoint.

    Raises:
      UserError: for names that are unknown, captions that do not fit, and flags at odds.
    """
    # Imported here, so that --help answers without loading JAX.
    import jax
    import jax.numpy as jnp

    from research import models
    from research.assembly import assemble, bind_images, make_training
    from research.data import feature_cache, pipeline
    from research.data.datasets import opener
    from research.data.images.augment import augment_batch, example_keys
    from research.data.stored.scenes import captions as scenes
    from research.data.tasks import captioning as task
    from research.data.text import captions as captions_lib
    from research.data.text import tokens
    from research.data.text.tokens import BEGIN, END, PADDING, SPECIAL, Buckets, Vocabulary
    from research.errors import UserError, choose
    from research.experiment import Evaluation, Evaluator, Experiment, Names, Prediction
    from research.losses.captioning import attention_penalty, caption_cross_entropy
    from research.metrics import captions as metrics
    from research.random import stream
    from research.record.progress import console
    from research.sequences import decoding
    from research.sequences.sentences import Sentences
    from research.weights.transfer import matcher

    refuse_unused(config, "decoding", USED_BY)

    # --- Data, and the facts that travel with the weights ---
    dataset = opener(config, task.TASK)
    # "validation" is held out before captions are cut, which are trained on.
    whole = functools.cache(lambda: pipeline.divide(dataset().splits, config))
    texts = functools.cache(lambda: {k: task.captions(split) for k, split in whole().items()})

    @functools.cache
    def vocabulary() -> Vocabulary:
        """Returns the vocabulary with numbers for words of references alone; needs the data set."""
        everything = (text for split in texts().values() for image in split for text in image)
        return known.with_others(everything)

    def numbered() -> Mapping[str, Any]:
        """Returns the splits with tokens in the place of sentences."""
        return captions_lib.tokenise(
            whole(), texts(), vocabulary(), config.max_length, config.cut_long, facts is None
        )

    if facts is None:
        sentences = (text for image in texts()["train"] for text in image)
        known = Vocabulary.of(sentences, config.min_count)
    else:
        known = Vocabulary(tuple(facts["words"]))

    data = assemble(
        config,
        facts,
        dataset,
        choose(config.backbone, models.available(), "backbone"),
        inspect=task.inspect,
        classifier=config.backbone,
        divided=numbered,
        learned=lambda raw, splits: {"words": list(known.known)},
    )
    preprocessing = data.preprocessing

    # --- Model ---
    entry = models.available("captioning")[config.model]
    model: Any = entry.make(
        **{
            **models.attributes(entry, config.model_options),
            "vocabulary": known.size,
            "backbone_name": config.backbone,
            "feature_map": config.feature_map,
            "cell": config.cell,
        }
    )
    names = Names((*SPECIAL, *known.known), "words", exclusive=False)
    network = bind_images(config, model, preprocessing, names)

    def encoded(variables: Any, batch: "Batch") -> jax.Array:
        """Returns the encoder's map: computed now, or read from the batch where it was cached."""
        if "features" in batch:
            return jnp.asarray(batch["features"], jnp.float32)
        maps: jax.Array = network.evaluate(variables, network.see(batch), method="maps")
        return maps

    def known_words(references: jax.Array) -> jax.Array:
        return jnp.where(references < known.size, references, tokens.UNKNOWN)

    # --- Training ---
    def augment(key: jax.Array, batch: "Batch", axis: str | None) -> "Batch":
        keys = example_keys(key, batch["index"], batch["occurrence"])
        chosen = {
            **batch,
            "tokens": captions_lib.draw_references(keys, batch["tokens"], config.references),
        }
        if "image" not in batch:
            return chosen
        return {**chosen, "image": augment_batch(config, key, batch, data.components)[1]}

    def loss(
        variables: Any, batch: "Batch", key: jax.Array, axis: str | None
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        cached = "features" in batch
        source = encoded(variables, batch) if cached else network.see(batch)
        method = "from_maps" if cached else "__call__"
        (logits, attention), state = network.train(
            variables, source, batch["tokens"], method=method, key=key, axis=axis
        )
        targets = known_words(batch["tokens"])
        per_example, right = caption_cross_entropy(logits, targets, config.label_smoothing)
        if config.attention_penalty and attention is not None:
            per_example += config.attention_penalty * attention_penalty(attention, targets)
        return per_example, state, {"word_accuracy": right}

    training = make_training(config, network, data, loss, augment, below="backbone")
    if data.trains:  # what does not fit comes up before anything is written
        shapes = jax.eval_shape(network.init, jax.random.key(0))
        if config.cache_features:
            encoder = {"backbone": shapes["params"]["backbone"]}
            feature_cache.check(config, encoder, matcher(config.freeze))
        if config.attention_penalty and config.model == "show_and_tell":
            raise UserError(
                "--attention_penalty: --model=show_and_tell has no attention; leave one out."
            )

    def sources() -> "Data":
        opened = data.splits()
        if config.cache_features and data.trains:
            opened = opened.replaced(with_features())
        buckets = Buckets.of(captions_lib.tokens_of(opened["train"]))
        return data.sources(opened, collate=buckets, large=("image", "features"))

    def with_features() -> dict[str, Any]:
        """Returns splits with the maps of the frozen encoder, which are computed once."""
        key = stream(jax.random.key(config.seed), "init")  # as research.training.state does
        variables = training.start(jax.jit(network.init)(key))
        own = feature_cache.below("backbone", variables)
        encoder = feature_cache.encoder_of(encoded, own, preprocessing.blank())
        uncached = dataclasses.replace(config, cache_mb=0)
        pictures = pipeline.fitted(data.divided(), preprocessing.unnormalised(), uncached)
        return feature_cache.split_features(pictures, encoder, Path(config.data_dir) / "features")

    # --- Evaluation and prediction ---
    def decode(variables: Any, state: Any, batch: "Batch") -> decoding.Decoded:
        count = len(state["recurrent"][0][0])
        step = lambda state, token: network.evaluate(variables, state, token, method="step")
        rows = batch["index"] if "index" in batch else jnp.arange(count)
        keys = example_keys(stream(jax.random.key(config.seed), "sample"), rows)
        begin = jnp.full(count, BEGIN)
        return decoding.decode(config, step, state, begin, END, config.max_length + 1, keys)

    def predict(variables: Any, batch: "Batch") -> dict[str, jax.Array]:
        maps = encoded(variables, batch)
        state = network.evaluate(variables, maps, method="begin")
        said = decode(variables, state, batch)
        outputs = {"tokens": said.tokens, "log_probability": said.log_probability}
        # The attention before each word comes from one more pass over the decoded words.
        words = said.tokens[:, None]
        logits, attention = network.evaluate(variables, state, words, method="tell")
        spoken = (said.tokens != PADDING)[..., None]
        outputs["words"] = jnp.where(spoken, logits[:, 0], -jnp.inf).max(1)  # anywhere in it
        if attention is not None:
            side = maps.shape[1:3]
            outputs["attention"] = attention[:, 0].reshape(*said.tokens.shape, *side)
        return outputs

    def doubt(variables: Any, batch: "Batch") -> jax.Array:
        state = network.evaluate(variables, encoded(variables, batch), method="begin")
        logits, _ = network.evaluate(variables, state, batch["tokens"], method="tell")
        return caption_cross_entropy(logits, known_words(batch["tokens"]))[0]

    def measure(outputs: Any, batch: "Batch") -> dict[str, tuple[jax.Array, jax.Array]]:
        return metrics.measure(outputs["tokens"])

    def said_and_true(kept: Any, targets: "Batch") -> tuple[list[Any], list[Any]]:
        """Returns the words of each caption, and of each of its references."""
        said = [known.decode(row).split() for row in kept["tokens"]]
        return said, [captions_lib.references(rows, vocabulary()) for rows in targets["tokens"]]

    def score(kept: Any, targets: "Batch") -> dict[str, float]:
        words, true = said_and_true(kept, targets)
        scores = metrics.score(words, true)
        said = [" ".join(caption) for caption in words]
        if scores.get("identical_captions") == 1:
            console().print(f"collapse: all {len(said)} captions are {said[0]!r}", markup=False)
        if "things" in targets:
            things = list(map(task.as_things, targets["things"]))
            scores |= metrics.scene_scores(said, things, scenes.mentioned, scenes.is_true)
        return scores

    how = decoding.protocol(config)
    told = Sentences(known, vocabulary)
    captions = Evaluator(
        protocol={
            "words": f"mean words of a caption; {how}",
            "unfinished": f"share of captions that --max_length={config.max_length} cut; {how}",
            **metrics.protocol(how),
        },
        measure=measure,
        keep=lambda outputs, batch: {"tokens": outputs["tokens"]},
        score=score,
        bias=lambda kept, targets: metrics.bias(*said_and_true(kept, targets)),
        draw=told.draw,
    )
    return Experiment(
        network=network,
        training=training,
        evaluation=Evaluation(predict, {"captions": captions}, data.best("bleu4"), loss=doubt),
        data=sources,
        facts=data.facts,
        prediction=Prediction(data.read, told.describe, draw=told.draw, save=told.save),
    )
