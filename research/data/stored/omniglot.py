"""Omniglot (Lake et al. 2015) from its official archives: drawings of characters by alphabet."""

import io
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import UrlInfo

from research.data.images.reading import decode_image
from research.data.stored.encoding import Keyed, png

_URL = "https://github.com/brendenlake/omniglot/raw/master/python/"


class Drawing(NamedTuple):
    """One file images_background/ALPHABET/characterNN/LLLL_DD.png."""

    alphabet: str
    character: int  # of its alphabet, from 0
    label: int  # of all 1,623 characters
    drawer: int  # 1 to 20
    file: str
    path: str


def drawings(archive: Path) -> list[Drawing]:
    """Returns the drawings of an archive, in the order of their paths."""
    found = []
    with zipfile.ZipFile(archive) as opened:
        for path in sorted(opened.namelist()):
            parts = path.split("/")
            if len(parts) == 4 and parts[3].endswith(".png") and parts[0] != "__MACOSX":
                _, alphabet, character, file = parts
                number = int(character.removeprefix("character")) - 1
                label, drawer = file.removesuffix(".png").split("_")
                found.append(Drawing(alphabet, number, int(label) - 1, int(drawer), file, path))
    return found


def full_splits(builder: Any, files: dict[str, Path]) -> dict[str, Keyed]:
    """Reads TFDS's omniglot from four archives; labels number all 1,623 characters."""
    archives = {
        "train": "images_background.zip",
        "test": "images_evaluation.zip",
        "small1": "images_background_small1.zip",
        "small2": "images_background_small2.zip",
    }
    inside = {split: drawings(files[name]) for split, name in archives.items()}
    everything = [drawing for split in inside.values() for drawing in split]
    names = {d.label: f"{d.alphabet}_{d.character}" for d in everything}
    builder.info.features["alphabet"].names = sorted({d.alphabet for d in everything})
    builder.info.features["label"].names = [names[label] for label in sorted(names)]

    def examples(split: str) -> Keyed:
        with zipfile.ZipFile(files[archives[split]]) as archive:
            for drawing in inside[split]:
                yield (
                    f"{drawing.alphabet}_{drawing.character}_{drawing.file}",
                    {
                        "image": io.BytesIO(archive.read(drawing.path)),
                        "alphabet": drawing.alphabet,
                        "alphabet_char_id": drawing.character,
                        "label": drawing.label,
                    },
                )

    return {split: examples(split) for split in archives}


class OmniglotSmall(  # type: ignore[call-arg]
    tfds.core.GeneratorBasedBuilder, skip_registration=True
):
    """Five alphabets to train on (background_small1), and unseen ones to test on (small2).

    And "runs", the 20 published one-shot runs: 20 characters of one alphabet, in each one support
    and one query, by two drawers. White on black, unlike the archives, because augmentation fills
    with black from outside an image. 105x105.
    """

    name = "omniglot_small"
    VERSION = tfds.core.Version("1.0.0")
    url_infos = {  # noqa: RUF012 (as TFDS has it)
        f"{_URL}images_background_small1.zip": UrlInfo(
            tfds.core.utils.Size(1319022),
            "f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4",
            "images_background_small1.zip",
        ),
        f"{_URL}images_background_small2.zip": UrlInfo(
            tfds.core.utils.Size(1580917),
            "3ccaa407515a8778e5d0861875af38b17e418f301ad5bb3b5a6b65d901a41c7f",
            "images_background_small2.zip",
        ),
        f"{_URL}one-shot-classification/all_runs.zip": UrlInfo(
            tfds.core.utils.Size(352787),
            "437c1eeab0af8484112e1b4cc0f3d541ec727f7c47b9b202da738af9dfd6c325",
            "all_runs.zip",
        ),
    }

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Two small parts of Omniglot, and its published one-shot runs.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(105, 105, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(),
                    "drawer": tfds.features.Scalar(np.int64),  # 1 to 20; 0 where not known
                    "run": tfds.features.Scalar(np.int64),  # 1 to 20; 0 outside of the runs
                    "is_query": tfds.features.Scalar(np.int64),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://github.com/brendenlake/omniglot",
            license="MIT",
            citation="Lake, Salakhutdinov, Tenenbaum: Human-level concept learning through "
            "probabilistic program induction, 2015",
        )

    def _generate_examples(self, examples: Keyed) -> Keyed:
        return examples  # conversions.py divides them into splits


def small_splits(builder: Any, files: dict[str, Path]) -> dict[str, Keyed]:
    """Reads OmniglotSmall from three archives."""
    archives = {"train": "images_background_small1.zip", "test": "images_background_small2.zip"}
    inside = {split: drawings(files[name]) for split, name in archives.items()}
    seen = {drawing.alphabet for drawing in inside["train"]}
    inside["test"] = [drawing for drawing in inside["test"] if drawing.alphabet not in seen]
    runs = one_shot_runs(files["all_runs.zip"])

    def character(drawing: Drawing) -> str:
        return f"{drawing.alphabet}_{drawing.character}"

    names = dict.fromkeys(character(d) for split in inside.values() for d in split)
    names |= dict.fromkeys(name for name, *_ in runs)
    builder.info.features["label"].names = list(names)

    def examples(split: str) -> Keyed:
        with zipfile.ZipFile(files[archives[split]]) as archive:
            for d in inside[split]:
                picture = {"image": inverted(archive.read(d.path), d.path), "label": character(d)}
                yield f"{character(d)}_{d.file}", picture | _numbers(d.drawer, 0, 0)

    def published() -> Keyed:
        with zipfile.ZipFile(files["all_runs.zip"]) as archive:
            for name, run, is_query, path in runs:
                picture = {"image": inverted(archive.read(path), path), "label": name}
                yield path, picture | _numbers(0, run, is_query)

    return {"train": examples("train"), "test": examples("test"), "runs": published()}


def inverted(drawing: bytes, path: str) -> io.BytesIO:
    """Encodes a PNG with black and white exchanged."""
    return png(255 - decode_image(drawing, path))


def one_shot_runs(archive: Path) -> list[tuple[str, int, int, str]]:
    """Returns (class, run from 1, whether it is a query, path) of each picture of all_runs.zip."""
    found = []
    with zipfile.ZipFile(archive) as opened:
        for run in range(1, 21):
            text = opened.read(f"run{run:02d}/class_labels.txt").decode()
            for query, support in (line.split() for line in text.splitlines()):
                name = support.removesuffix(".png").replace("/training/", "_")
                found += [(name, run, 0, support), (name, run, 1, query)]
    return found


def _numbers(drawer: int, run: int, is_query: int) -> dict[str, int]:
    return {"drawer": drawer, "run": run, "is_query": is_query}
