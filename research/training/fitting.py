"""The largest batch that fits into a device's memory, by compiled steps: --batch_size=auto."""

import functools
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

from research import config as config_lib
from research.assembly.defaults import power_of_two
from research.data.config import AUTO, CheckConfig
from research.data.sources.sampling import BatchOptions
from research.errors import UserError
from research.experiment import Look
from research.hardware.compiling import peak_of
from research.hardware.memory import memory_at_hand, parse_size, shown_size
from research.hardware.topologies import Topology
from research.record.progress import console
from research.training import parallel as parallel_lib
from research.training.config import LoopConfig
from research.training.programs import batch_shapes, training_program

Peak = Callable[[int], int | None]  # size of a batch -> bytes of a device; None if refused


def said_memory(config: LoopConfig) -> int | None:
    """Returns the bytes of --device_memory; None where it is not given.

    Raises:
      UserError: for a size that is none.
    """
    if isinstance(config, CheckConfig) and config.device_memory:
        return parse_size("device_memory", config.device_memory)
    return None


def memory_limit(config: LoopConfig) -> int | None:
    """Returns the bytes of --device_memory, or else of the device at hand; None if unknown.

    Raises:
      UserError: for a size that is none.
    """
    said = said_memory(config)
    return memory_at_hand() if said is None else said


def largest_batch(peak: Peak, limit: int, unit: int, most: int) -> tuple[int, int] | None:
    """Returns the largest unit x 2^k that fits, and its bytes; None where not even the unit does.

    Few sizes are compiled: memory grows nearly in proportion, so two small batches tell where to
    look; what is returned was compiled itself, and so was its double, unless that is beyond `most`.
    """
    peak = functools.cache(peak)
    steps = power_of_two(most // unit).bit_length() - 1 if most >= unit else 0

    def fits(power: int) -> bool:
        found = peak(unit << power)
        return found is not None and found <= limit

    if not fits(0):
        return None
    small, double = peak(unit), peak(2 * unit) if steps else None
    power = 0
    if small is not None and double is not None and double > small:
        power = power_of_two(1 + (limit - small) // (double - small))
        power = min(power.bit_length() - 1, steps)
    elif double is not None:
        power = steps
    while not fits(power):
        power -= 1
    while power < steps and fits(power + 1):
        power += 1
    found = peak(unit << power)
    assert found is not None
    return unit << power, found


def rows_of(config: LoopConfig, devices: int) -> tuple[int, int]:
    """Returns the number that the examples of a batch are a multiple of, and the fewest of a batch.

    A batch of several images of a class has two classes at least.
    """
    unit = devices * config.accumulate
    if not isinstance(config, BatchOptions):
        return unit, unit
    unit = math.lcm(unit, config.images_per_class)
    return unit, math.ceil(2 * config.images_per_class / unit) * unit


def with_batch_size(
    module: ModuleType, config: LoopConfig, limit: int | None, topology: Topology | None = None
) -> Any:
    """Returns the configuration with the number that --batch_size=auto stands for.

    The largest power of two (times --images_per_class and the devices, where these are none) whose
    training step fits into the memory of a device, and that the training split holds. Prints it.
    Other configurations are returned as they are.

    Args:
      limit: bytes of a device.
      topology: what to compile for, in the place of this machine.

    Raises:
      UserError: where the memory is not known, or not even the smallest batch fits.
    """
    if config.batch_size != AUTO:
        return config
    if limit is None:
        raise UserError("--batch_size=auto: needs --device_memory; this device does not say.")
    over = None if topology is None else topology.devices
    _, least = rows_of(config, parallel_lib.devices_of(config.parallel, over))
    chosen = tuple(name for name in config.unchosen if name != "batch_size")
    config = config_lib.replace(config, {"batch_size": least, "unchosen": chosen})
    experiment = module.build(config)
    if isinstance(experiment, Look):
        raise UserError("--batch_size=auto: nothing is trained here; leave it out.")
    train = experiment.data().train

    def peak(size: int) -> int | None:
        sized = config_lib.replace(config, {"batch_size": size})
        parallel = parallel_lib.for_training(sized, over)
        batch = batch_shapes(train, size)
        return peak_of(training_program(experiment, sized, parallel, batch).lowered, topology)

    found = largest_batch(peak, limit, least, len(train.examples))
    if found is None:
        raise UserError(
            f"--batch_size=auto: not even {least} examples fit into the {shown_size(limit)} of a "
            "device."
        )
    size, takes = found
    why = "the largest that fits" if 2 * size <= len(train.examples) else "all that train holds"
    console().print(
        f"--batch_size={size}: {why}; a step takes {shown_size(takes)} of {shown_size(limit)} on "
        "each device",
        markup=False,
    )
    return config_lib.replace(config, {"batch_size": size})
