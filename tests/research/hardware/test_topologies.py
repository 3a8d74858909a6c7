"""Names of devices, what is said where the compiler is not installed, and bounds by hand."""

import importlib.util

import jax
import pytest

from research.errors import UserError
from research.hardware.collectives import Exchange
from research.hardware.memory import parse_size, shown_size, used_by_refused
from research.hardware.roofline import roofline
from research.hardware.target import Target, compiled_for, target
from research.hardware.topologies import CHIPS, Topology, open_topology


@pytest.mark.parametrize(
    "name", ["", "v5:2x4", "h100", "h100:0", "v5e:2x4x4x4", "cpu:2x2", "cpu:9"]
)
def test_other_names_are_refused_in_one_line(name):
    with pytest.raises(UserError, match=f"--topology={name}: "):
        open_topology(name)


@pytest.mark.parametrize(("name", "package"), [("v5e:2x4", "jax\\[tpu\\]"), ("h100:8", "jax-cuda")])
def test_what_is_missing_is_said_with_the_command_that_mends_it(name, package, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(
        UserError, match=f"not installed: pip install .*{package}.*=={jax.__version__}"
    ):
        open_topology(name)


def test_devices_of_this_machine():
    opened = open_topology("cpu:4")
    assert len(opened.devices) == 4 and opened.usable is None


def test_jax_leaves_a_quarter_of_a_gpu_free(monkeypatch):
    opened = Topology("h100:8", CHIPS["h100"], (None,) * 8, 1)
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    assert opened.usable == pytest.approx(0.75 * 79.1 * 2**30, rel=1e-3)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", ".9")
    assert opened.usable == pytest.approx(0.9 * 79.1 * 2**30, rel=1e-3)
    assert opened._replace(said=5).usable == 5


def test_bounds_are_quantities_over_rates():
    eight = Topology("h100:8", CHIPS["h100"], (None,) * 8, 1)
    sent = {"all-reduce": Exchange(3, 8 * 10**9), "all-gather": Exchange(1, 8 * 10**9)}
    found = roofline(eight, 8 * 989e12, "bfloat16", 3352 * 10**9, sent)
    assert found.flops == pytest.approx(1.0)
    assert found.memory == pytest.approx(1.0)
    assert found.links == pytest.approx((2 * 7 + 7) * 1e9 / 450e9)  # a ring's rounds
    assert found.seconds == pytest.approx(1.0)
    # Over hosts each GPU's adapter carries an eighth of its host's share.
    two = Topology("h100:2x8", CHIPS["h100"], (None,) * 16, 2)
    found = roofline(two, 0.0, "float32", 0, {"all-reduce": Exchange(1, 8 * 10**9)})
    assert found.links == pytest.approx(max(2 * 15 / 16 * 8e9 / 450e9, 2 * 0.5 * 1e9 / 50e9))
    assert roofline(open_topology("cpu:2"), 1.0, "float32", 1, {}) is None


def test_sizes():
    assert parse_size("device_memory", "80GiB") == 80 * 2**30
    assert parse_size("device_memory", "1.5 MB") == 1_500_000
    assert parse_size("device_memory", "12") == 12
    for wrong in ("", "0", "GiB", "-1GiB", "80 gigs"):
        with pytest.raises(UserError, match="--device_memory="):
            parse_size("device_memory", wrong)
    assert [shown_size(n) for n in (12, 1536, 25.3 * 2**20)] == ["12 B", "1.5 KiB", "25.3 MiB"]


def test_the_compiler_of_tpus_says_what_it_would_have_needed():
    said = (
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space "
        "hbm. Used 20.25G of 15.75G hbm. Exceeded hbm capacity by 4.50G."
    )
    assert used_by_refused(RuntimeError(said)) == int(20.25 * 2**30)
    assert used_by_refused(RuntimeError("another error")) is None


def test_functions_are_traced_anew_for_another_target():
    traced = []

    @jax.jit
    def f(x):
        traced.append(target().platform)
        return x

    f(1.0)
    f(2.0)
    with compiled_for(Target("tpu")):
        f(1.0)
    f(3.0)
    assert traced == ["cpu", "tpu"]
