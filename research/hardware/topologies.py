"""Accelerators by name, with their peaks, and their devices as XLA compiles for them.

XLA compiles for hardware that is not there; it takes the compiler alone, a package each.
"""

import contextlib
import importlib.util
import os
import re
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from research.errors import UserError, nearest


class Chip(NamedTuple):
    """One device, and the most that its maker says of it; None where nothing is known.

    Attributes:
      kind: "tpu", "gpu" or "cpu".
      memory: bytes.
      share: of its memory that a program may take: JAX leaves the rest free on GPUs.
      flops: operations a second, by precision. Products of float32 are rounded to TF32 on GPUs and
        to bfloat16 on TPUs, as JAX does where nothing else is asked.
      bandwidth: bytes a second between memory and chip.
      links: bytes a second that leave a chip for others of its host or pod, over all its links.
      network: the same to other hosts; None where there are no hosts within a pod.
    """

    kind: str
    memory: int | None
    share: float = 1.0
    flops: tuple[float, float] | None = None  # bfloat16, float32
    bandwidth: float | None = None
    links: float | None = None
    network: float | None = None


GIB = 2**30
GPU_SHARE = 0.75  # XLA_PYTHON_CLIENT_MEM_FRACTION's default

# Cloud TPU's pages on v5e, v5p and v6e (2026): HBM, peak compute a chip, interchip interconnect in
# both directions. NVIDIA's data sheets of A100, H100 and H200 SXM: tensor cores without sparsity,
# half of NVLink's sum of both directions, and one adapter of 400 Gb/s a GPU (200 for A100).
CHIPS = {
    "v5e": Chip("tpu", int(15.75 * GIB), 1.0, (197e12, 197e12), 819e9, 200e9),
    "v5p": Chip("tpu", int(95.74 * GIB), 1.0, (459e12, 459e12), 2765e9, 600e9),
    "v6e": Chip("tpu", int(31.25 * GIB), 1.0, (918e12, 918e12), 1640e9, 448e9),
    "a100": Chip("gpu", 85094825984, GPU_SHARE, (312e12, 156e12), 2039e9, 300e9, 25e9),
    "h100": Chip("gpu", 84929347584, GPU_SHARE, (989e12, 494e12), 3352e9, 450e9, 50e9),
    "h200": Chip("gpu", 150754820096, GPU_SHARE, (989e12, 494e12), 4800e9, 450e9, 50e9),
    "cpu": Chip("cpu", None),
}
EXAMPLES = "v5e:2x4, v5e:16x16, v5p:2x2x2, v6e:4x4, h100:8, h100:32x8, h200:8, a100:8, cpu:8"

# What XLA asks of a GPU, as a device would answer.
_GPU = """gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: {shared}
  shared_memory_per_block_optin: {optin} core_count: {cores} fpus_per_core: {fpus}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth} l2_cache_size: {cache} clock_rate_ghz: {clock}
  device_memory_size: {memory} cuda_compute_capability {{ major: {major} }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536 }}
platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 12 }}
runtime_version {{ major: 12 minor: 9 }} device_description_str: "{name}"
"""
_HOPPER: dict[str, Any] = {
    "shared": 233472,
    "optin": 232448,
    "cores": 132,
    "fpus": 128,
    "cache": 52428800,
    "clock": 1.98,
    "major": 9,
}
_GPUS: dict[str, dict[str, Any]] = {
    "h100": {**_HOPPER, "name": "NVIDIA H100 80GB HBM3"},
    "h200": {**_HOPPER, "name": "NVIDIA H200"},
    "a100": {
        "shared": 167936,
        "optin": 166912,
        "cores": 108,
        "fpus": 64,
        "cache": 41943040,
        "clock": 1.41,
        "major": 8,
        "name": "NVIDIA A100-SXM4-80GB",
    },
}


class Topology(NamedTuple):
    """Devices that a program can be compiled for.

    Attributes:
      name: as --topology has it.
      devices: of JAX; they need not be there.
      hosts: machines that they are in; of a TPU's pod 1, whose chips are linked directly.
      said: bytes of a device's memory in the place of the chip's; None for the chip's.
    """

    name: str
    chip: Chip
    devices: tuple[Any, ...]
    hosts: int
    said: int | None = None

    @property
    def usable(self) -> int | None:
        """Returns the bytes of a device's memory that a program may take."""
        if self.said is not None or self.chip.memory is None:
            return self.said
        said = os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", "")
        share = float(said) if self.chip.kind == "gpu" and said else self.chip.share
        return int(share * self.chip.memory)


def open_topology(name: str) -> Topology:
    """Returns the devices that a name such as "v5e:2x4", "h100:32x8" (hosts x GPUs) stands for.

    Raises:
      UserError: for other names, and where the compiler's package is not installed.
    """
    chip, _, sizes = name.partition(":")
    if chip not in CHIPS or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){0,2}", sizes):
        raise UserError(f"--topology={name}: one such as {EXAMPLES} is needed.{_near(chip)}")
    kind, numbers = CHIPS[chip].kind, [int(size) for size in sizes.split("x")]
    if kind == "cpu":
        return Topology(name, CHIPS[chip], _cpus(name, numbers), 1)
    if kind == "tpu":
        return Topology(name, CHIPS[chip], _tpus(name), 1)
    hosts, each = numbers if len(numbers) == 2 else (1, numbers[0])
    if len(numbers) > 2:
        raise UserError(f"--topology={name}: hosts x GPUs of each, {chip}:32x8, are needed.")
    return Topology(name, CHIPS[chip], _gpus(name, chip, hosts, each), hosts)


def _near(chip: str) -> str:
    return "" if chip in CHIPS else nearest(chip, CHIPS)


def _cpus(name: str, numbers: list[int]) -> tuple[Any, ...]:
    (count,) = numbers if len(numbers) == 1 else (0,)
    with contextlib.suppress(RuntimeError):  # the devices are started already, as in tests
        jax.config.update("jax_num_cpu_devices", count)
    devices = jax.devices("cpu")
    if not 0 < count <= len(devices):
        raise UserError(f"--topology={name}: a number of CPU devices is needed, cpu:8.")
    return tuple(devices[:count])


def _missing(name: str, packages: str) -> UserError:
    return UserError(
        f"--topology={name}: XLA's compiler for it is not installed: pip install {packages}"
    )


def _tpus(name: str) -> tuple[Any, ...]:
    if importlib.util.find_spec("libtpu") is None:
        raise _missing(name, f"'jax[tpu]=={version('jax')}'")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # it would look for a host in the cloud
    return _described(name, platform="tpu", topology_name=name)


def _gpus(name: str, chip: str, hosts: int, each: int) -> tuple[Any, ...]:
    plugins = ("jax_plugins.xla_cuda12", "jax_plugins.xla_cuda13")
    if not any(_there(plugin) for plugin in plugins):
        both = (f"jax-cuda12-{part}=={version('jax')}" for part in ("plugin", "pjrt"))
        raise _missing(name, f"--no-deps {' '.join(both)}")
    facts = CHIPS[chip]
    assert facts.memory is not None and facts.bandwidth is not None
    sizes = {"memory": facts.memory, "bandwidth": int(facts.bandwidth)}
    return _described(
        name,
        platform="cuda",
        topology_name=chip,
        topology=f"{hosts}x1x{each}",
        target_config=_GPU.format(**sizes, **_GPUS[chip]),
    )


def _there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _described(name: str, **options: Any) -> tuple[Any, ...]:
    try:
        return tuple(topologies.get_topology_desc(**options).devices)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"--topology={name}: XLA does not know it ({reason}).") from error
