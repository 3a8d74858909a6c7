"""Archives of the published formats, made up, which TFDS is told to expect."""

import gzip
import hashlib
import io
import tarfile
import zipfile

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import UrlInfo

RNG = np.random.default_rng(0)


def idx(array):
    """A gzipped IDX file of bytes."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return gzip.compress(header + array.astype(np.uint8).tobytes())


def tarred(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def zipped(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def registers(monkeypatch, name, archives):
    """Makes TFDS expect these archives instead of the published ones."""
    stock = tfds.builder_cls(name)
    infos = {}
    for url, info in stock.url_infos.items():
        content = archives[url.rpartition("/")[2]]
        digest = hashlib.sha256(content).hexdigest()
        infos[url] = UrlInfo(tfds.core.utils.Size(len(content)), digest, info.filename)
    monkeypatch.setattr(stock, "url_infos", infos)


def write(folder, archives):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in archives.items():
        (folder / name).write_bytes(content)
    return folder


def by_tfds(name, data_dir, split):
    """{image bytes: example}, read by the stock builder of TFDS."""
    builder = tfds.builder(name, data_dir=data_dir)
    assert type(builder).__module__.startswith("tensorflow_datasets.image_classification")
    source = builder.as_data_source(split)
    return {source[i]["image"].tobytes(): source[i] for i in range(len(source))}


def mnist_like(train=12, test=5):
    images = {"train": RNG.integers(0, 256, (train, 28, 28)), "t10k": None}
    images["t10k"] = RNG.integers(0, 256, (test, 28, 28))
    labels = {name: RNG.integers(0, 10, len(values)) for name, values in images.items()}
    files = {}
    for name in images:
        files[f"{name}-images-idx3-ubyte.gz"] = idx(images[name])
        files[f"{name}-labels-idx1-ubyte.gz"] = idx(labels[name])
    return files, images, labels
