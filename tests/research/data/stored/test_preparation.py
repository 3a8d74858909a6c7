"""What preparing a set asks of a person, refuses, downloads and leaves as it is."""

import http.server
import importlib.util
import threading

import numpy as np
import pytest
import tensorflow_datasets as tfds
from archives import by_tfds, mnist_like, registers, write

from research.data import datasets
from research.data.stored.preparation import prepare
from research.errors import UserError


def refuses(message, *args, **options):
    with pytest.raises(UserError, match=message) as caught:
        prepare(*args, **options)
    assert "\n" not in str(caught.value)


def test_a_missing_archive_is_described_at_once(tmp_path):
    message = (
        r"lacks t10k-images-idx3-ubyte.gz \(1.57 MiB\) from https://storage.googleapis.com/cvdf-"
        r"datasets/mnist/t10k-images-idx3-ubyte.gz, .*--source=FOLDER.*--allow_download"
    )
    refuses(message, "mnist", tmp_path / "data", tmp_path)
    refuses(r"lacks cifar-10-binary.tar.gz \(162.17 MiB\)", "cifar10", tmp_path / "data")
    # The same for a set that goes through TFDS itself.
    refuses(r"lacks imagenette2-160.tgz \(94.42 MiB\)", "imagenette/160px-v2", tmp_path / "data")
    refuses("--source=.*nix: no such folder", "mnist", tmp_path / "data", tmp_path / "nix")
    assert not list((tmp_path / "data").rglob("features.json"))


def test_a_damaged_archive_is_named(tmp_path, monkeypatch):
    archives, _, _ = mnist_like()
    registers(monkeypatch, "mnist", archives)
    source = write(tmp_path / "archives", archives)
    (source / "train-labels-idx1-ubyte.gz").write_bytes(b"cut short")
    refuses("train-labels-idx1-ubyte.gz: its sha256 is not", "mnist", tmp_path / "data", source)


def test_sets_that_share_file_names_are_told_apart(tmp_path, monkeypatch):
    digits, clothes = mnist_like(), mnist_like()
    registers(monkeypatch, "mnist", digits[0])
    registers(monkeypatch, "fashion_mnist", clothes[0])
    write(tmp_path / "archives" / "a", digits[0])
    write(tmp_path / "archives" / "b", clothes[0])
    for name in ("mnist", "fashion_mnist"):
        prepare(name, tmp_path / "data", tmp_path / "archives")
    for name, made in (("mnist", digits), ("fashion_mnist", clothes)):
        found = by_tfds(name, tmp_path / "data", "test")
        assert set(found) == {image.astype(np.uint8).tobytes() for image in made[1]["t10k"]}


def test_unknown_sets_are_refused(tmp_path):
    refuses("mnst: is unknown. Did you mean 'mnist'", "mnst", tmp_path)
    refuses("mnist comes in one form only", "mnist/small", tmp_path)


def test_sets_that_a_person_must_fetch(tmp_path):
    refuses(
        "imagenet2012: .* by hand.*ILSVRC2012_img_train.tar.*--source", "imagenet2012", tmp_path
    )


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is not None, reason="is installed here")
def test_tensorflow_is_asked_for_where_tfds_needs_it(tmp_path):
    refuses("pip install tensorflow-cpu", "imagenet2012", tmp_path / "data", tmp_path)


@pytest.fixture
def server(tmp_path):
    """A web server of the folder `served` on this machine."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}/", folder
        served.shutdown()


def test_downloads_are_announced_checked_and_kept(tmp_path, monkeypatch, capsys, server):
    base, folder = server
    archives, _, _ = mnist_like()
    registers(monkeypatch, "mnist", archives)
    stock = tfds.builder_cls("mnist")
    infos = {base + url.rpartition("/")[2]: info for url, info in stock.url_infos.items()}
    monkeypatch.setattr(stock, "url_infos", infos)
    fetch = lambda: prepare("mnist", tmp_path / "data", allow_download=True)
    with pytest.raises(UserError, match=r"idx.-ubyte\.gz: cannot be fetched"):
        fetch()
    write(folder, archives | {"train-labels-idx1-ubyte.gz": b"something else"})
    with pytest.raises(UserError, match=r"train-labels-idx1-ubyte\.gz: what came is not"):
        fetch()
    write(folder, archives)
    fetch()
    size = infos[f"{base}train-labels-idx1-ubyte.gz"].size
    assert f"fetching {base}train-labels-idx1-ubyte.gz ({size})" in capsys.readouterr().out
    kept = tmp_path / "data" / "downloads" / "mnist"
    assert sorted(path.name for path in kept.iterdir()) == sorted(archives)
    assert len(datasets.load("mnist", tmp_path / "data").splits["train"]) == 12


def test_a_prepared_set_is_left_as_it_is(tmp_path, monkeypatch, capsys):
    archives, _, _ = mnist_like()
    registers(monkeypatch, "mnist", archives)
    folder = prepare("mnist", tmp_path / "data", write(tmp_path / "archives", archives))
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert prepare("mnist", tmp_path / "data") == folder
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert "is prepared" in capsys.readouterr().out


def test_built_in_sets_need_no_source(tmp_path):
    assert prepare("digits", tmp_path) == tmp_path / "digits" / "1.0.0"
