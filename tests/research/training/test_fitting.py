"""--batch_size=auto against a search through all sizes, and in a run's own folder."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import launch
from research.data.sources.examples import Arrays
from research.data.sources.source import Source
from research.data.text.tokens import Buckets
from research.hardware.compiling import peak_of
from research.training.config import TrainingConfig
from research.training.fitting import largest_batch, rows_of
from research.training.programs import batch_shapes


@dataclasses.dataclass(frozen=True)
class Classes(TrainingConfig):
    """Its batches hold several images of a class"""

    images_per_class: int = 1


@pytest.mark.parametrize("curve", [lambda n: 100 + 3 * n, lambda n: 40 + n * n, lambda n: 1000])
@pytest.mark.parametrize("limit", [50, 103, 106, 107, 196, 2000, 10**6])
@pytest.mark.parametrize(("unit", "most"), [(1, 1000), (8, 64), (3, 100), (16, 16)])
def test_it_is_the_largest_of_all_that_fit(curve, limit, unit, most):
    asked = []

    def peak(size):
        asked.append(size)
        return curve(size) if size <= 512 else None  # refused by the compiler

    sizes = [unit * 2**k for k in range(12) if unit * 2**k <= most]
    fitting = [n for n in sizes if n <= 512 and curve(n) <= limit]
    found = largest_batch(peak, limit, unit, most)
    assert found == ((fitting[-1], curve(fitting[-1])) if fitting else None)
    assert max(asked) <= max(most, unit)


def test_proportional_memory_needs_few_compilations():
    asked = []

    def peak(size):
        asked.append(size)
        return 1000 + 7 * size

    assert largest_batch(peak, 1000 + 7 * 5000, 8, 10**6) == (4096, 1000 + 7 * 4096)
    assert len(asked) <= 4


class Refused:
    """A program that a compiler refuses, in its words."""

    def __init__(self, said):
        self.said = said

    def compile(self, compiler_options=None):
        raise jax.errors.JaxRuntimeError(self.said)


TOO_LARGE = "Ran out of memory in memory space hbm. Used 20.25G of 15.75G hbm."


def test_a_step_that_the_compiler_refuses_has_no_peak():
    assert peak_of(Refused(TOO_LARGE)) is None
    with pytest.raises(jax.errors.JaxRuntimeError, match="another"):
        peak_of(Refused("another error"))
    fitting = jax.jit(lambda x: x + 1.0).lower(jax.ShapeDtypeStruct((1000,), np.float32))
    assert peak_of(fitting) == 2 * 4000  # what goes in, and what comes out


@pytest.mark.parametrize(
    ("devices", "accumulate", "images", "unit", "least"),
    [(8, 1, 4, 8, 8), (8, 1, 3, 24, 24), (1, 2, 4, 4, 8), (1, 1, 1, 1, 2), (2, 3, None, 6, 6)],
)
def test_batches_hold_whole_classes_two_at_least(devices, accumulate, images, unit, least):
    config = TrainingConfig(accumulate=accumulate)
    if images is not None:
        config = Classes(accumulate=accumulate, images_per_class=images)
    assert rows_of(config, devices) == (unit, least)


def test_the_shapes_of_a_batch_are_those_of_the_largest():
    tokens = np.zeros((4000, 1, 41), np.int32)
    for row, length in zip(tokens, [8] * 3999 + [33], strict=True):
        row[0, :length] = 5
    source = Source(Arrays({"tokens": tokens}), 64, seed=0, collate=Buckets.of(tokens))
    shapes = batch_shapes(source, 64)
    assert shapes["tokens"].shape == (64, 1, 36)  # of a bucket
    widths = {source.batch(step)["tokens"].shape[-1] for step in range(63)}
    assert widths == {8, 36}
    assert {name: x.dtype for name, x in shapes.items()} == {
        name: x.dtype for name, x in source.batch(0).items()
    }


@pytest.mark.families  # programs of several runs
def test_a_run_holds_the_number_taken_and_goes_on_with_it(tmp_path, capsys):
    given = ["--experiment=classification", "--model=linear", "--parallel=single", "--steps=2"]
    given += [f"--data_dir={tmp_path / 'data'}", f"--workdir={tmp_path / 'run'}"]
    given += ["--compilation_cache=", "--batch_size=auto"]
    assert launch.main(["x", *given, "--device_memory=400KB", "--stop_after=0.5"]) == 0
    said = capsys.readouterr().out
    (line,) = (line for line in said.splitlines() if line.startswith("--batch_size="))
    size = int(line.partition("=")[2].partition(":")[0])
    assert size & (size - 1) == 0 and 8 <= size <= 512
    assert f"--batch_size={size}\n" in (tmp_path / "run" / "flags.txt").read_text()
    # The memory of another machine changes nothing of a run that has begun.
    assert launch.main(["x", *given, "--device_memory=4GB"]) == 0
    assert (
        json.loads((tmp_path / "run" / "config.json").read_text())["config"]["batch_size"] == size
    )
    assert launch.main(["x", *given[:-1], "--batch_size=auto", "--mode=evaluate"]) == 2
    assert "--batch_size=auto: is for training" in capsys.readouterr().err
    assert launch.main(["x", *given, "--device_memory=1KB", f"--workdir={tmp_path / 'b'}"]) == 2
    assert "not even 1 examples fit" in capsys.readouterr().err
    assert launch.main(["x", *given[:-1], "--batch_size=-1"]) == 2
