import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from research.errors import UserError
from research.weights import unwrapped
from research.weights.torchfile import LEGACY_MAGIC, load_torch

FIXTURES = Path(__file__).parents[2] / "fixtures"


@pytest.mark.parametrize("file", ["zip.pth", "legacy.pth"])
def test_reads_what_torch_saved(file):
    tensors = unwrapped(load_torch(FIXTURES / file))
    grid = np.arange(6.0, dtype="f").reshape(2, 3)
    expected = {
        "float32": grid,
        "transposed": grid.T,
        "row": grid[1],
        "parameter": np.full((2, 2), 0.5, "f"),
        "float64": np.array([1.0, 2.0]),
        "float16": np.array([0.25, -8.0], np.float16),
        "bfloat16": np.array([0.25, -8.0], ml_dtypes.bfloat16),
        "int64": np.array(7),
        "bool": np.array([True, False]),
        "empty": np.zeros((0, 3), "f"),
    }
    assert list(tensors) == list(expected)
    for name, value in expected.items():
        assert tensors[name].dtype == value.dtype, name
        np.testing.assert_array_equal(tensors[name], value, err_msg=name)


@pytest.mark.parametrize("file", ["zip.pth", "legacy.pth"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.99])
def test_a_file_cut_short_is_named(file, share, tmp_path):
    whole = (FIXTURES / file).read_bytes()
    path = tmp_path / file
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=f"{file}.*cut short"):
        load_torch(path)


def test_a_flipped_bit_is_found_in_a_zip_file(tmp_path):
    whole = bytearray((FIXTURES / "zip.pth").read_bytes())
    whole[whole.index(np.full(4, 0.5, "<f4").tobytes())] ^= 1
    (tmp_path / "a.pth").write_bytes(whole)
    with pytest.raises(UserError, match="damaged"):
        load_torch(tmp_path / "a.pth")


def zip_file(path, pickled, storages=(), compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, data in enumerate(storages):
            archive.writestr(f"archive/data/{key}", data)
    return path


def legacy_file(path, pickled, storages=()):
    head = [pickle.dumps(x, 2) for x in (LEGACY_MAGIC, 1001, {"little_endian": True})]
    keys = pickle.dumps([str(i) for i in range(len(storages))], 2)
    path.write_bytes(b"".join([*head, pickled, keys, *storages]))
    return path


class Runs:
    """Pickles as a call of a function that a checkpoint has no business to call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("write", [zip_file, legacy_file])
def test_no_foreign_function_is_called(write, tmp_path):
    trace = tmp_path / "trace"
    calls = [
        Runs(os.system, f"touch {trace}"),
        Runs(os.mkdir, str(trace)),
        Runs(eval, f"open({str(trace)!r}, 'w')"),
        Runs(exec, f"open({str(trace)!r}, 'w')"),
        Runs(__import__, "this"),
    ]
    for protocol in (0, 2, 4):
        for call in calls:
            path = write(tmp_path / "a.pth", pickle.dumps({"w": call}, protocol))
            with pytest.raises(UserError, match="refused"):
                load_torch(path)
            assert not trace.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cposix\nsystem\n(X\x0b\x00\x00\x00touch tracetR.",
        b"(X\x0b\x00\x00\x00touch traceiposix\nsystem\n.",
        b"cnumpy.core.multiarray\nscalar\n.",
        b"cresearch.weights.torchfile\nload_torch\n(X\x0b\x00\x00\x00/etc/passwdtR.",
        b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n.",
        b"\x80\x04\x8c\x0bcollections\x8c\x1dOrderedDict.__init__.__self__\x93.",
        b"ctorch\nFloatStorage\n)R.",  # a name that is not to be called
    ],
)
def test_names_outside_the_list_are_refused(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="refused"):
        load_torch(zip_file(tmp_path / "a.pth", program))
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "program",
    [
        b"}r\xff\xff\xff\x7f.",  # memo number 2^31 - 1
        b"}q\x00(X\x05\x00\x00\x00modelh\x00u.",  # a mapping within itself
        b"})" + b"\x85" * 10**5 + b"Ns.",  # a key of tuples within tuples
    ],
)
def test_a_few_bytes_cannot_take_memory_or_stack(program, tmp_path):
    with pytest.raises(UserError):
        load_torch(zip_file(tmp_path / "a.pth", program))


def tensor_pickle(size, offset, shape, strides):
    """{"w": tensor}, written by hand: opcodes as in pickletools."""
    out = io.BytesIO()

    def push(value):
        out.write(pickle.dumps(value, 2)[2:-1])

    out.write(b"\x80\x02}")
    push("w")
    out.write(b"ctorch._utils\n_rebuild_tensor_v2\n((")
    push("storage")
    out.write(b"ctorch\nFloatStorage\n")
    for value in ("0", "cpu", size):
        push(value)
    out.write(b"tQ")
    for value in (offset, shape, strides, False):
        push(value)
    out.write(b"tRs.")
    return out.getvalue()


def test_a_tensor_written_by_hand_is_read(tmp_path):
    data = np.arange(6, dtype="<f4").tobytes()
    path = zip_file(tmp_path / "a.pth", tensor_pickle(6, 1, (2, 2), (2, 1)), [data])
    np.testing.assert_array_equal(load_torch(path)["w"], [[1, 2], [3, 4]])
    storage = struct.pack("<q", 6) + data
    path = legacy_file(tmp_path / "b.pth", tensor_pickle(6, 1, (2, 2), (2, 1)), [storage])
    np.testing.assert_array_equal(load_torch(path)["w"], [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("size", "offset", "shape", "strides"),
    [
        (4, 0, (10**6, 10**6), (0, 0)),  # expanded: terabytes from 16 bytes
        (4, 0, (2, 2), (1000, 1)),
        (4, 3, (2,), (1,)),
        (4, -1, (2,), (1,)),
        (4, 0, (-2,), (1,)),
        (4, 0, (2, 2), (1,)),
        (-1, 0, (2,), (1,)),
        (10**12, 0, (10**12,), (1,)),  # a storage larger than its record
    ],
)
def test_a_tensor_outside_its_storage_is_refused(size, offset, shape, strides, tmp_path):
    record = np.arange(4, dtype="<f4").tobytes()
    pickled = tensor_pickle(size, offset, shape, strides)
    with pytest.raises(UserError, match=r"a\.pth"):
        load_torch(zip_file(tmp_path / "a.pth", pickled, [record]))


def test_other_content_is_refused(tmp_path):
    for content in ([1, 2], {}, {"w": 1.0}, {"state_dict": {"w": "text"}}):
        with pytest.raises(UserError, match="refused"):
            load_torch(zip_file(tmp_path / "a.pth", pickle.dumps(content, 2)))
    squeezed = zip_file(
        tmp_path / "b.pth", tensor_pickle(1, 0, (1,), (1,)), [bytes(10**6)], zipfile.ZIP_DEFLATED
    )
    with pytest.raises(UserError, match="compressed"):
        load_torch(squeezed)
    with pytest.raises(UserError, match="no_such"):
        load_torch(tmp_path / "no_such.pth")
    (tmp_path / "c.pth").write_text("<html>404 not found</html>")
    with pytest.raises(UserError, match=r"c\.pth"):
        load_torch(tmp_path / "c.pth")
