"""Prepares a TFDS set in data_dir from original archives, once: --mode=prepare."""

from pathlib import Path
from typing import Any

from research.data import datasets
from research.data.files import at_home
from research.data.stored import archives
from research.data.stored.conversions import CONVERSIONS, Conversion
from research.data.stored.sets import content, install, installed
from research.errors import UserError, nearest
from research.record.progress import console, is_live


def prepare(
    name: str,
    data_dir: str | Path,
    source: str | Path | None = None,
    allow_download: bool = False,
) -> Path:
    """Writes the set to data_dir, where `datasets.load` and TFDS itself find it by name.

    The sets of `conversions` need no TensorFlow; any other goes through its TFDS builder.

    Args:
      name: of a TFDS set, with /CONFIG where it has several; or a built-in one.
      source: folder of the original archives; by default data_dir/downloads.
      allow_download: fetch missing archives, after saying how large they are.

    Raises:
      UserError: an unknown name; an archive that is missing, damaged or cannot be fetched; a
        builder that needs TensorFlow.
    """
    import tensorflow_datasets as tfds

    root = Path(data_dir)
    if name in datasets.builtins():
        return datasets.current(name, root)
    stock = {*tfds.list_builders(with_community_datasets=False), *CONVERSIONS}
    base, _, config = name.partition("/")
    if base not in stock:
        raise UserError(
            f"--dataset={name}: is unknown.{nearest(base, [*datasets.builtins(), *stock])} "
            "--mode=prepare takes the names of https://www.tensorflow.org/datasets/catalog"
        )
    builder_class = _builder_class(base)
    configs = [each.name for each in builder_class.BUILDER_CONFIGS]
    if (configs and not config) or (config and config not in configs):
        raise UserError(
            f"--dataset={name}: say which, {base}/CONFIG with one of {', '.join(configs)}"
            if configs
            else f"--dataset={name}: {base} comes in one form only, write --dataset={base}"
        )
    if name in installed(root):
        console().print(f"{name} is prepared: {installed(root)[name]}", markup=False)
        return installed(root)[name]
    folder = at_home(source) if source else root / "downloads"
    if source and not folder.is_dir():
        raise UserError(f"--source={source}: no such folder")
    by_hand = " ".join((builder_class.MANUAL_DOWNLOAD_INSTRUCTIONS or "").split())
    if by_hand and not source:
        raise UserError(
            f"--dataset={name}: its archives are to be had by hand only ({by_hand}); give their "
            "folder with --source=FOLDER"
        )
    if not is_live():
        tfds.disable_progress_bar()
    if base in CONVERSIONS:
        made = _by_conversion(base, config, CONVERSIONS[base], root, folder, allow_download)
    else:
        made = _by_tfds(base, config, root, folder, allow_download)
    console().print(f"{made}: {content(made)}", markup=False)
    return made


def _builder_class(name: str) -> Any:
    """Returns the class with a set's version and features: TFDS's, or a conversion's own."""
    import tensorflow_datasets as tfds

    conversion = CONVERSIONS.get(name)
    return conversion.builder() if conversion and conversion.builder else tfds.builder_cls(name)


def _by_conversion(
    name: str, config: str, conversion: Conversion, root: Path, source: Path, allow_download: bool
) -> Path:
    stock = _builder_class(name)
    wanted = stock.url_infos
    if conversion.archives:
        (chosen,) = (each for each in stock.BUILDER_CONFIGS if each.name == config)
        names = set(conversion.archives(chosen))
        wanted = {u: i for u, i in wanted.items() if archives.file_name(u, i) in names}
    files = archives.find(name, wanted, source, allow_download)
    console().print(f"preparing {name} from {source}", markup=False)

    def make(data_dir: str) -> Any:
        # Name, version and features are the stock builder's; only how archives are read is not.
        class Builder(stock, skip_registration=True):  # type: ignore[valid-type,misc,call-arg]
            name = stock.name

            def _split_generators(self, dl_manager: Any) -> Any:
                return conversion.splits(self, files)

        return Builder(data_dir=data_dir, config=config or None, file_format="array_record")

    return install(make, root)


def _by_tfds(name: str, config: str, root: Path, source: Path, allow_download: bool) -> Path:
    import tensorflow_datasets as tfds

    def make(data_dir: str) -> Any:
        builder = tfds.builder(
            name, config=config or None, data_dir=data_dir, file_format="array_record"
        )
        make_manager = builder._make_download_manager

        def manager_that_asks(**options: Any) -> Any:
            manager = make_manager(**options)
            download = manager._download

            def ask(resource: Any) -> Any:
                info = builder.url_infos.get(resource.url)
                size = info.size if info else "of unknown size"
                if not allow_download:
                    wanted = archives.file_name(resource.url, info) if info else resource.url
                    raise UserError(
                        f"--dataset={name}: {source} lacks {wanted} ({size}) from {resource.url}; "
                        "put it there (--source=FOLDER), or let it be fetched (--allow_download)"
                    )
                console().print(f"fetching {resource.url} ({size})", markup=False)
                return download(resource)

            manager._download = ask
            return manager

        builder._make_download_manager = manager_that_asks
        return builder

    # Extraction is cached by file name alone, and sets share names: a folder for each.
    extracted = root / "downloads" / "extracted" / name
    options = tfds.download.DownloadConfig(
        manual_dir=source, extract_dir=extracted, try_download_gcs=False
    )
    try:
        return install(make, root, download_dir=root / "downloads" / name, download_config=options)
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "tensorflow":
            raise
        raise UserError(
            f"--dataset={name}: TFDS prepares it with TensorFlow; install that once, for the "
            "preparation only (pip install tensorflow-cpu), and run the command again"
        ) from None
