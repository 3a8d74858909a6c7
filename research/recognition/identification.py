"""Answers about a person's own files by embeddings: identification and verification."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num, UInt8
from tensorboardX import SummaryWriter

from research.data.files import at_home
from research.data.images.preprocessing import Preprocessing, read_batch
from research.errors import UserError
from research.experiment import Consulted, Facts, Prediction
from research.figures import embedding as figures
from research.metrics.sampling import between
from research.recognition import identities
from research.recognition.identities import Identities
from research.record.run_folder import save_figures
from research.vectors.neighbours import Metric, nearest

THUMBNAIL = 28  # pixels a side
UNKNOWN = "unknown"  # the name of inputs without an identity near enough
LEAST_MAPPED = 5  # images that make a map


def thumbnails(
    pictures: Num[Array, "batch height width channel"],
) -> UInt8[Array, "batch thumb thumb"]:
    """Makes small grey images: the baseline of raw pixels, and the pictures of a whole split."""
    grey = pictures.astype(jnp.float32).mean(-1)
    small = jax.image.resize(grey, (len(grey), THUMBNAIL, THUMBNAIL), "linear")
    return jnp.clip(jnp.round(small), 0, 255).astype(jnp.uint8)


def small(
    pictures: Num[np.ndarray, "n height width channel"],
) -> UInt8[np.ndarray, "n thumb thumb"]:
    """Returns `thumbnails` on the host."""
    return np.asarray(thumbnails(jnp.asarray(pictures)))


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The decision on distances of embeddings: at most `threshold` means the same."""

    metric: Metric
    threshold: float

    def distances(
        self, a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "n d"]
    ) -> Float[np.ndarray, " n"]:
        """Returns the distance of each row of a to the same row of b."""
        return between(a[:, None], b[:, None], self.metric)[:, 0, 0]

    @classmethod
    def choose(cls, given: float, facts: Mapping[str, Any], metric: Metric) -> "Verdict":
        """Chooses the given threshold, or else the one measured on the monitored split.

        Raises:
          UserError: if there is neither.
        """
        measured = facts.get("measured", {}).get(f"{facts['monitored']}/verification_threshold")
        if not given and measured is None:
            raise UserError(
                "the checkpoint was saved between evaluations, or no class had two images to "
                "evaluate, so no threshold is known; set --threshold, or take the last checkpoint."
            )
        return cls(metric, given or measured)


@runtime_checkable
class IdentificationOptions(Protocol):
    """The flags of prediction."""

    @property
    def gallery(self) -> str: ...
    @property
    def pairs(self) -> str: ...
    @property
    def threshold(self) -> float: ...


def answers(
    config: IdentificationOptions, facts: Facts, preprocessing: Preprocessing, metric: Metric
) -> Prediction:
    """Makes the prediction for a person's own files: embeddings, identities or verified pairs.

    Raises:
      UserError: for --gallery and --pairs at once.
    """

    def load(files: Sequence[str]) -> UInt8[np.ndarray, "n height width channel"]:
        return read_batch(files, preprocessing)["image"]

    if config.gallery and config.pairs:
        raise UserError("--gallery and --pairs: one at a time; a pair needs no gallery.")
    if config.pairs:
        return _verifying(config, facts, load, metric)
    embeddings = Prediction(
        read=lambda files: {"image": load(files)},
        describe=lambda outputs, batch: [
            {"summary": f"{len(row)} numbers", "embedding": row.tolist()}
            for row in outputs["embedding"]
        ],
        collect=lambda folder, rows: save_all(folder, rows, load, facts),
    )
    return _identifying(embeddings, config, facts, load, metric) if config.gallery else embeddings


def _verifying(
    config: IdentificationOptions,
    facts: Facts,
    load: Callable[[Sequence[str]], Any],
    metric: Metric,
) -> Prediction:
    """Makes the prediction for pairs of files: whether they are the same."""
    pairs: dict[str, tuple[str, str]] = {}

    def inputs() -> list[str]:
        read = identities.read_pairs(at_home(config.pairs))
        for first, second in read:
            name, times = f"{first} | {second}", 1
            while name in pairs:  # every line gets an answer, repeated lines too
                times += 1
                name = f"{first} | {second} ({times})"
            pairs[name] = (first, second)
        Verdict.choose(config.threshold, facts, metric)
        return list(pairs)

    def read(names: list[str]) -> dict[str, Any]:
        first, second = zip(*(pairs[name] for name in names), strict=True)
        return {"image": load(first), "other": load(second)}

    def describe(outputs: Any, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
        verdict = Verdict.choose(config.threshold, facts, metric)
        distances = verdict.distances(outputs["embedding"], outputs["other"])
        rows = []
        for distance in distances.tolist():
            same = distance <= verdict.threshold
            word = "the same" if same else "different"
            summary = f"{word}, distance {distance:.3f} (threshold {verdict.threshold:.3f})"
            rows.append({"summary": summary, "same": same, "distance": distance})
        return rows

    return Prediction(read, describe, inputs=inputs)


def _identifying(
    prediction: Prediction,
    config: IdentificationOptions,
    facts: Facts,
    load: Callable[[Sequence[str]], Any],
    metric: Metric,
) -> Prediction:
    """Makes the prediction of identities, whose known images are embedded first."""

    def consult(embed: Consulted) -> Prediction:
        verdict = Verdict.choose(config.threshold, facts, metric)
        path, made_with = at_home(config.gallery), network(facts)
        if path.is_file():
            known, embeddings = identities.load_embeddings(path, made_with)
        else:
            everyone = identities.read_folder(path)
            readable, outputs = embed(list(everyone.files))
            known, embeddings = everyone.take(readable), outputs["embedding"]
            identities.warn_of_lost(everyone, known)

        def describe(outputs: Any, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
            distance, place = nearest(outputs["embedding"], embeddings, 1, metric)
            columns = distance[:, 0].tolist(), place[:, 0].tolist(), outputs["embedding"]
            return [
                _identity(known, verdict, d, i) | {"embedding": x.tolist()}
                for d, i, x in zip(*columns, strict=True)
            ]

        def draw(outputs: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
            distance, place = nearest(outputs["embedding"], embeddings, 1, metric)
            files = [known.files[i] for i in place[:, 0]]
            if not all(Path(file).is_file() for file in files):
                return {}  # the embeddings' file alone, moved away from its images
            names = [known.identities[i] for i in place[:, 0]]
            pictures = small(batch["image"]), small(load(files))
            return {"matches": figures.matches(*pictures, names, distance[:, 0], verdict.threshold)}

        def collect(folder: Path, rows: list[dict[str, Any]]) -> None:
            save_all(folder, rows, load, facts)
            identities.save_embeddings(
                folder / "gallery.npz", embeddings, known.files, known.identities, made_with
            )

        return prediction._replace(describe=describe, draw=draw, collect=collect)

    return prediction._replace(consult=consult)


def _identity(known: Identities, verdict: Verdict, distance: float, place: int) -> dict[str, Any]:
    """Describes one input's nearest identity."""
    name = known.identities[place]
    if distance <= verdict.threshold:
        identity, summary = name, f"{name}, distance {distance:.3f}"
    else:
        identity, summary = UNKNOWN, f"{UNKNOWN}; nearest is {name}, distance {distance:.3f}"
    return {
        "summary": summary,
        "identity": identity,
        "nearest": name,
        "nearest_file": known.files[place],
        "distance": distance,
        "threshold": verdict.threshold,
    }


def network(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the facts that embeddings must share to be compared."""
    return {"preprocessing": facts["preprocessing"], "weights": facts["weights"]}


def names_of(files: Sequence[str]) -> list[str]:
    """Returns the identities of images by their paths, as `identities.read_folder` does.

    An identity is the folder below the one that holds all files, or else the file's own name.
    """
    parents = [Path(file).absolute().parent for file in files]
    whole = Path(os.path.commonpath(parents))
    below = [parent.relative_to(whole).parts for parent in parents]
    return [
        parts[0] if parts else Path(file).stem for file, parts in zip(files, below, strict=True)
    ]


def save_all(
    folder: Path,
    rows: list[dict[str, Any]],
    load: Callable[[Sequence[str]], Any],
    facts: Mapping[str, Any],
) -> None:
    """Writes embeddings.npz, TensorBoard's projector, and maps by PCA and t-SNE."""
    x = np.array([row["embedding"] for row in rows], np.float32)
    files = [row["file"] for row in rows]
    names = [
        name if row.get("identity", UNKNOWN) == UNKNOWN else row["identity"]
        for name, row in zip(names_of(files), rows, strict=True)
    ]
    identities.save_embeddings(folder / "embeddings.npz", x, files, names, network(facts))
    pictures = np.concatenate([small(load(files[i : i + 256])) for i in range(0, len(files), 256)])
    writer = SummaryWriter(str(folder / "projector"))
    lines = [[Path(file).name, name] for file, name in zip(files, names, strict=True)]
    writer.add_embedding(
        x,
        metadata=lines,
        label_img=np.repeat(pictures[:, None] / 255.0, 3, axis=1),
        metadata_header=["file", "identity"],
    )
    writer.close()
    if len(x) >= LEAST_MAPPED:
        groups = np.unique(names, return_inverse=True)[1]
        save_figures(folder, {"map": figures.maps(x, pictures, groups)})
