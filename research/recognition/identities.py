"""Known identities and pairs to verify, read from files, and embeddings on disk."""

import csv
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from research.data.files import composed, count_line, few, find, natural, read_text, subfolders
from research.data.images.reading import EXTENSIONS
from research.errors import UserError
from research.record import arrays
from research.record.progress import console


class Identities(NamedTuple):
    """Known images and their identities."""

    files: tuple[str, ...]
    identities: tuple[str, ...]

    def take(self, positions: Int[np.ndarray, " n"]) -> "Identities":
        """Returns the images at these positions."""
        return Identities(*(tuple(column[i] for i in positions) for column in self))


def warn_of_lost(everyone: Identities, known: Identities) -> None:
    """Names the identities of whom no image is known any more."""
    if lost := sorted(set(everyone.identities) - set(known.identities), key=natural):
        console().print(
            f"nobody is taken for {few(lost, 10)}: none of their images can be read", markup=False
        )


def read_folder(folder: Path) -> Identities:
    """Reads FOLDER/NAME/*.png, several images an identity, and FOLDER/NAME.png, one.

    Raises:
      UserError: no folder, no images, an identity that occurs twice.
    """
    if not folder.is_dir():
        raise UserError(f"--gallery={folder}: no such folder; one subfolder or file an identity")
    found: dict[str, list[Path]] = {}
    places: dict[str, Path] = {}
    alone = find(folder, EXTENSIONS, deep=False)
    left_out = Counter(alone.left_out)
    for path in sorted([*subfolders(folder), *alone.files], key=lambda path: natural(path.name)):
        if path.is_dir():
            below = find(path, EXTENSIONS)
            images, name = list(below.files), composed(path.name)
            left_out.update(below.left_out)
            if not images:
                raise UserError(f"{path}: holds no images; fill or remove it")
        else:
            images, name = [path], composed(path.stem)
        other = places.setdefault(name.casefold(), path)
        if other is not path:
            raise UserError(
                f"--gallery={folder}: {other.name} and {path.name} are one identity twice; put "
                "their images into one subfolder, or rename one"
            )
        found[name] = images
    if not found:
        raise UserError(
            f"--gallery={folder}: is empty; put one subfolder or file an identity there"
        )
    line = count_line(sum(map(len, found.values())) + left_out.total(), left_out)
    console().print(f"--gallery={folder}: {line}", markup=False)
    rows = [(str(file), name) for name, images in found.items() for file in images]
    return Identities(*(tuple(column) for column in zip(*rows, strict=True)))


def read_pairs(file: Path) -> list[tuple[str, str]]:
    """Reads the pairs of a CSV file: two paths a line, absolute or from its folder; # comments.

    Raises:
      UserError: naming the file and line that does not name two images.
    """
    try:
        lines = list(csv.reader(read_text(file, f"--pairs={file}").splitlines()))
    except csv.Error as error:
        raise UserError(f"--pairs={file}: cannot be read ({error})") from None
    pairs = []
    for number, cells in enumerate(lines, 1):
        names = [cell.strip() for cell in cells]
        if not any(names) or names[0].startswith("#"):
            continue
        if len(names) != 2:
            raise UserError(
                f"{file}, line {number}: has {len(names)} columns; two image files are needed"
            )
        paths = [str(file.parent / name) for name in names]
        if missing := [path for path in paths if not os.path.isfile(path)]:
            raise UserError(f"{file}, line {number}: {missing[0]}: no such file")
        pairs.append((paths[0], paths[1]))
    if not pairs:
        raise UserError(f"--pairs={file}: holds no pairs; write two image files a line")
    return pairs


def save_embeddings(
    file: Path,
    embeddings: Float[np.ndarray, "n d"],
    files: Sequence[str],
    identities: Sequence[str],
    network: Mapping[str, Any],
) -> None:
    """Writes embeddings with their files, identities and network, for `load_embeddings`."""
    np.savez(
        file,
        embedding=embeddings,
        path=np.array(files),
        identity=np.array(identities),
        network=np.array(json.dumps(network, sort_keys=True)),
    )


def load_embeddings(
    file: Path, network: Mapping[str, Any]
) -> tuple[Identities, Float[np.ndarray, "n d"]]:
    """Reads the file that `save_embeddings` wrote.

    Args:
      network: the weights and preprocessing that must have made the embeddings.

    Raises:
      UserError: a file that cannot be read, is empty, or is of another network.
    """
    try:
        values = arrays.load(file, ("embedding", "path", "identity", "network").__contains__)
        theirs = dict(json.loads(str(values["network"])))
        embeddings, names = values["embedding"], (values["path"], values["identity"])
        if embeddings.ndim != 2 or any(column.shape != embeddings.shape[:1] for column in names):
            raise ValueError("its columns differ")
    except (*arrays.DAMAGE, RecursionError) as error:
        raise UserError(f"--gallery={file}: is no embeddings.npz of --mode=predict") from error
    for what, ours in network.items():
        if theirs.get(what) != ours:
            raise UserError(
                f"--gallery={file}: was made with other {what} than the checkpoint has, so its "
                "distances mean nothing; give the folder of its images instead"
            )
    if not len(embeddings):
        raise UserError(f"--gallery={file}: is empty")
    return Identities(*(tuple(map(str, column.tolist())) for column in names)), embeddings
