import dataclasses
import itertools
import pickle
import threading
import time
from collections import Counter

import cv2
import numpy as np
import pytest
from absl import flags

from research.data.images.preprocessing import Mapped, Preprocessing
from research.data.own.folders import FolderSplit
from research.data.sources import source as source_lib
from research.data.sources.examples import Arrays, decode
from research.data.sources.source import Source, permutation
from research.errors import UserError


class Squares:
    """Example i is told by its values; counts what is read."""

    def __init__(self, length, broken=()):
        self.length, self.broken, self.reads = length, broken, 0

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.reads += 1
        if index in self.broken:
            raise UserError(f"example {index} is broken")
        image = np.full((2, 3, 1), index % 256, np.uint8)
        return {"image": image, "label": np.asarray(index**2 % 10, np.int32)}


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        np.testing.assert_array_equal(a[name], b[name])


KINDS = {"cached": 2**30, "decoded": 0}


@pytest.fixture(params=KINDS)
def cache_bytes(request):
    return KINDS[request.param]


def test_batch_holds_the_examples_its_index_names(cache_bytes):
    batch = Source(Squares(50), 8, seed=3, cache_bytes=cache_bytes).batch(2)
    assert batch["image"].shape == (8, 2, 3, 1) and batch["image"].dtype == np.uint8
    assert batch["index"].dtype == np.int32 and batch["label"].dtype == np.int32
    assert batch["mask"].all()
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["index"])
    np.testing.assert_array_equal(batch["label"], batch["index"] ** 2 % 10)


def test_examples_of_many_shapes_come_alone_beside_padding(cache_bytes):
    class Ragged(Squares):
        def __getitem__(self, index):
            return {"image": np.full((index + 1, 2), index)}

    source = Source(Ragged(5), 3, cache_bytes=cache_bytes, alone=True)
    assert source.memory is None and source.num_batches == 5
    for index, batch in enumerate(source.iterate()):
        assert batch["mask"].tolist() == [True, False, False]
        np.testing.assert_array_equal(batch["image"], np.full((3, index + 1, 2), index))
    part = Source(Ragged(4), 4, alone=True, part=(1, 2)).batch(2)
    assert not part["mask"].any() and part["index"].tolist() == [2, 2]


def test_batch_is_a_pure_function_of_seed_and_step(cache_bytes):
    make = lambda: Source(Squares(50), 8, seed=3, cache_bytes=cache_bytes)
    one, other = make(), make()
    batches = [one.batch(step) for step in range(20)]
    for step in [19, 0, 7, 7, 12]:  # any order, repeatedly, in another object
        same(batches[step], other.batch(step))
    assert any(
        (a["index"] != Source(Squares(50), 8, seed=4).batch(step)["index"]).any()
        for step, a in enumerate(batches)
    )


@pytest.mark.parametrize(("length", "size"), [(50, 8), (7, 16), (1, 4), (12, 4)])
def test_each_epoch_of_a_stream_has_every_example_once(length, size):
    source = Source(Squares(length), size, seed=0)
    stream = np.concatenate([source.batch(step)["index"] for step in range(3 * length)])
    epochs = stream[: 2 * length].reshape(2, length)
    for epoch in epochs:
        assert sorted(epoch) == list(range(length))
    if length > 10:
        assert (epochs[0] != epochs[1]).any()


def test_seeds_do_not_share_orders():
    # seed + epoch as the seed of an epoch would make run 1 a copy of run 0, one epoch late.
    orders = [tuple(permutation(20, seed, epoch)) for seed in range(5) for epoch in range(5)]
    assert len(set(orders)) == len(orders)


def test_order_is_frozen():
    # NumPy promises never to change RandomState; a saved run can be resumed years later.
    assert permutation(10, 0, 0).tolist() == [6, 1, 0, 5, 3, 8, 7, 9, 2, 4]


def test_order_is_uniform():
    counts = np.zeros((5, 5))
    for seed in range(2000):
        counts[np.arange(5), permutation(5, seed, 0)] += 1
    # Each cell is binomial(2000, 1/5): mean 400, standard deviation 18.
    assert abs(counts - 400).max() < 5 * 18


def test_a_pass_goes_in_order_and_masks_its_padding(cache_bytes):
    source = Source(Squares(11), 4, cache_bytes=cache_bytes)
    assert source.num_batches == 3
    batches = list(source.iterate())
    assert len(batches) == 3
    index = np.concatenate([b["index"] for b in batches])
    mask = np.concatenate([b["mask"] for b in batches])
    assert index[mask].tolist() == list(range(11)) and mask.sum() == 11
    assert batches[2]["mask"].tolist() == [True, True, True, False]
    assert batches[2]["image"][3].max() == 0  # padding repeats example 0


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("parts", [2, 4])
def test_parts_concatenate_to_the_global_batch(seed, parts, cache_bytes):
    make = lambda part: Source(Squares(11), 8, seed, cache_bytes, part=part)
    for step in (0, 1):
        pieces = [make((i, parts)).batch(step) for i in range(parts)]
        joined = {name: np.concatenate([p[name] for p in pieces]) for name in pieces[0]}
        same(joined, make((0, 1)).batch(step))


@pytest.mark.parametrize("seed", [None, 5])
def test_a_part_reads_its_own_rows_alone(seed):
    examples = Squares(64)
    source = Source(examples, 32, seed, cache_bytes=0, part=(1, 4))
    assert source.memory is None  # the first was looked at: too large
    examples.reads = 0
    for step in (0, 1):
        source.batch(step)
    assert examples.reads == 2 * 32 / 4


@pytest.mark.parametrize(("length", "size"), [(50, 8), (5, 12), (1, 4)])
def test_a_stream_counts_the_copies_of_an_example_over_the_whole_batch(length, size, cache_bytes):
    make = lambda part: Source(Squares(length), size, 3, cache_bytes, part=part)
    for step in range(3):
        batch = make((0, 1)).batch(step)
        assert batch["occurrence"].dtype == np.int32
        index = batch["index"].tolist()
        expected = [index[:row].count(index[row]) for row in range(size)]
        assert batch["occurrence"].tolist() == expected
        parts = [make((i, 2)).batch(step)["occurrence"] for i in range(2)]  # two processes
        assert np.concatenate(parts).tolist() == expected
    assert "occurrence" not in Source(Squares(length), size).batch(0)  # a pass has no copies


@pytest.mark.parametrize("start", [0, 1, 13])
def test_iterate_gives_the_same_batches_from_anywhere(start, cache_bytes):
    source = Source(Squares(50), 8, seed=1, cache_bytes=cache_bytes)
    batches = source.iterate(start)
    for step, batch in enumerate(itertools.islice(batches, 10), start):
        same(batch, source.batch(step))
    batches.close()
    assert len(list(source.iterate(start, start + 3))) == 3


def test_iterate_from_the_middle_reads_nothing_before():
    examples = Squares(1000)
    batches = Source(examples, 10, cache_bytes=0).iterate(start=97)
    assert next(batches)["index"].tolist() == list(range(970, 980))
    batches.close()
    assert examples.reads < 50


def folder_examples(tmp_path, count=20):
    files = [str(tmp_path / f"{i}.png") for i in range(count)]
    for i, file in enumerate(files):
        cv2.imwrite(file, np.full((5, 4 + i % 3, 3), 5 * i, np.uint8))
    split = FolderSplit(tuple(files), np.arange(count, dtype=np.int32) % 3)
    return Mapped(split, Preprocessing((6, 6)))


def test_worker_processes_give_the_same_batches_and_errors(tmp_path):
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain's processes want absl's flags, as a launcher has them
    examples = folder_examples(tmp_path, 40)
    (tmp_path / "37.png").write_bytes(b"no image")
    source = Source(examples, 2, cache_bytes=0, workers=2)
    batches = source.iterate(1)
    for step in range(1, 18):
        same(next(batches), source.batch(step))
    with pytest.raises(UserError, match=r"37\.png: is damaged, or no image"):
        next(batches)
    # Few batches are not worth processes.
    assert next(source.iterate(1, 4))["index"].tolist() == [2, 3]


def test_errors_come_out_in_the_consumer(cache_bytes):
    source = Source(Squares(50, broken=[20]), 8, cache_bytes=cache_bytes)
    with pytest.raises(UserError, match="example 20 is broken"):
        list(source.iterate())


def test_closing_early_frees_the_threads(cache_bytes):
    before = threading.active_count()
    for _ in range(3):
        batches = Source(Squares(50), 8, seed=1, cache_bytes=cache_bytes).iterate()
        next(batches)
        batches.close()
    deadline = time.time() + 10
    while threading.active_count() > before and time.time() < deadline:
        time.sleep(0.02)
    assert threading.active_count() <= before


def test_a_small_split_is_read_once():
    examples = Squares(50)
    source = Source(examples, 8, seed=1)
    for step in range(30):
        source.batch(step)
    assert examples.reads == 50 + 2  # example 0 twice more, for its size and shapes


def test_decode_wants_fixed_shapes():
    class Ragged(Squares):
        def __getitem__(self, index):
            return {"image": np.zeros((2, 2 + index // 3, 1), np.uint8)}

    with pytest.raises(ValueError, match=r"image of example 3 has shape \(2, 3, 1\)"):
        decode(Ragged(10))


def test_sources_over_arrays_share_their_memory():
    arrays = decode(Squares(50))
    assert decode(arrays) is arrays
    assert Source(arrays, 8).memory is Source(arrays, 4, seed=0).memory is arrays
    same(arrays[7], Squares(50)[7])
    with pytest.raises(ValueError, match="differ in length"):
        Arrays({"image": np.zeros(3), "label": np.zeros(4)})


def test_fingerprint_names_data_order_and_batch_size():
    base = Source(Squares(50), 8, seed=1)
    assert base.fingerprint() == Source(Squares(50), 8, seed=1, cache_bytes=0).fingerprint()
    assert base.fingerprint() == Source(Squares(50), 8, seed=1, part=(1, 2)).fingerprint()
    others = [
        Source(Squares(50), 8, seed=2),
        Source(Squares(50), 4, seed=1),
        Source(Squares(51), 8, seed=1),
        Source(Squares(50), 8),
        Source(Arrays({**decode(Squares(50)).fields, "label": np.zeros(50, np.int32)}), 8, seed=1),
    ]
    prints = {base.fingerprint(), *(other.fingerprint() for other in others)}
    assert len(prints) == 1 + len(others)


def test_sources_can_be_pickled(tmp_path):
    source = Source(folder_examples(tmp_path), 8, seed=1, cache_bytes=0)
    same(source.batch(3), pickle.loads(pickle.dumps(source)).batch(3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 10, "part": (0, 4)}, "batch size 10 is not a positive multiple"),
        ({"batch_size": 0}, "batch size 0"),
        ({"batch_size": 8, "seed": -1}, "seed -1 is negative"),
        ({"batch_size": 8, "examples": Squares(0)}, "no examples"),
    ],
)
def test_bad_input_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        Source(**{"examples": Squares(50), **options})


def test_fields_may_not_be_called_as_the_source_calls_its_own():
    arrays = Arrays({"mask": np.zeros((4, 2, 2))})
    with pytest.raises(ValueError, match="index, mask, occurrence"):
        Source(arrays, 2).batch(0)


def test_a_stream_costs_no_more_late_than_early():
    source = Source(Squares(50), 8, seed=1)
    assert source.batch(10**9)["mask"].all()  # far beyond what a run reaches


def test_every_class_gets_its_share_of_a_long_stream():
    source = Source(Squares(50), 25, seed=9)
    counts = Counter(np.concatenate([source.batch(i)["label"] for i in range(8)]).tolist())
    expected = Counter([i**2 % 10 for i in range(50)])
    assert counts == Counter({label: 4 * n for label, n in expected.items()})


def test_the_module_leaves_the_global_random_state_alone():
    np.random.seed(0)
    expected = np.random.RandomState(0).rand()
    Source(Squares(50), 8, seed=1).batch(3)
    source_lib.permutation(100, 5, 5)
    assert np.random.rand() == expected


def test_splits_are_themselves_and_never_change():
    arrays = Arrays({"label": np.arange(3)})
    for split in (arrays, source_lib.Chosen(arrays, np.array([2, 0]))):
        assert split == split and hash(split) == hash(split)  # arrays have no equality of their own
        assert split != type(split)(*vars(split).values())
        with pytest.raises(dataclasses.FrozenInstanceError):
            split.examples = arrays
