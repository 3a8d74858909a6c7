"""Finds and checks the original archives of a data set, or downloads them where that is allowed."""

import contextlib
import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.progress import Progress

from research.errors import UserError
from research.record.progress import console, is_live

_TIMEOUT = 30  # seconds without an answer


def file_name(url: str, info: Any) -> str:
    """Returns the file name under which an archive is searched for; `info` is TFDS's UrlInfo."""
    return info.filename or url.rpartition("/")[2]


def find(
    dataset: str, url_infos: Mapping[str, Any], source: Path, allow_download: bool
) -> dict[str, Path]:
    """Returns {file name: path} of archives whose sha256 is the one that TFDS registers.

    They are looked for in `source` and its subfolders; several sets use the same file names.

    Raises:
      UserError: naming the URL, size and file name of what is missing, or the file that is damaged.
    """
    found, missing = {}, {}
    for url, info in url_infos.items():
        name = file_name(url, info)
        candidates = [source / name, *sorted(source.glob(f"*/{name}"))]
        candidates = [path for path in candidates if path.is_file()]
        good = (path for path in candidates if sha256(path) == info.checksum)
        path = next(good, None)
        if path is not None:
            found[name] = path
        elif candidates and not allow_download:
            raise UserError(
                f"{candidates[0]}: its sha256 is not the one that TFDS registers for {dataset} "
                f"({info.checksum}); it is damaged, or of another set"
            )
        else:
            missing[url] = info
    if missing and not allow_download:
        described = ", ".join(f"{file_name(u, i)} ({i.size}) from {u}" for u, i in missing.items())
        raise UserError(
            f"--dataset={dataset}: {source} lacks {described}; put it there (--source=FOLDER), or "
            "let it be fetched (--allow_download)"
        )
    for url, info in missing.items():
        name = file_name(url, info)
        found[name] = fetch(url, info, source / dataset / name)
    return found


def sha256(path: Path) -> str:
    """Returns the sha256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(url: str, info: Any, target: Path) -> Path:
    """Downloads to `target`, which appears only when it is whole and its sha256 is right.

    Raises:
      UserError: where it cannot be downloaded, or is not what TFDS registers.
    """
    console().print(f"fetching {url} ({info.size})", markup=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with (
            urllib.request.urlopen(url, timeout=_TIMEOUT) as answer,
            part.open("wb") as file,
            Progress(console=console(), disable=not is_live()) as progress,
        ):
            bar = progress.add_task(target.name, total=int(info.size))
            while block := answer.read(2**20):
                file.write(block)
                progress.advance(bar, len(block))
        if sha256(part) != info.checksum:
            raise UserError(f"{url}: what came is not what TFDS registers (sha256 differs)")
        part.replace(target)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"{url}: cannot be fetched ({reason})") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
    return target
