"""Compiles one pure function for one device, for a mesh of devices (jit) or for pmap.

A function to compile has the form (replicated, batch) -> (replicated, per-example outputs), made
by `make(axis)`; training and evaluation steps share it.
"""

import collections
import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from research.distributed import group as distributed
from research.errors import UserError
from research.experiment import Batch, PyTree
from research.hardware.target import Target, compiled_for
from research.training.config import LoopConfig

AXIS = "data"
Compiling = Callable[[], contextlib.AbstractContextManager[None]]
Make = Callable[[str | None], Callable[[PyTree, Batch], tuple[PyTree, PyTree]]]


class Parallel(NamedTuple):
    """The placement of replicated values and batches, and the compilation of functions of them."""

    mode: str  # "single", "jit" or "pmap"
    devices: int  # over all processes
    replicated: jax.sharding.Sharding
    split: jax.sharding.Sharding
    shard: str = "none"  # what devices share out of a state: "none", "state" or "params"
    by_device: bool = False  # batch statistics of training are of each device's rows

    @property
    def target(self) -> Target:
        """Returns what functions are compiled for."""
        device: Any = next(iter(self.replicated.device_set))
        if self.mode != "jit" or self.by_device:  # a function sees the rows of one device
            return Target(device.platform, by_device=self.by_device)
        return Target(device.platform, self.replicated, self.split)

    def places(self, values: PyTree) -> PyTree:
        """Returns the sharding of each array of values: replicated, but for what is shared out.

        That is the optimizer's state of a `TrainState`, and with "params" all that is trained, its
        average and the parameters of variables too.
        """
        mesh = self.replicated.mesh if isinstance(self.replicated, NamedSharding) else None

        def place(path: Any, x: Any) -> jax.sharding.Sharding:
            names = {getattr(key, "name", getattr(key, "key", None)) for key in path}
            shared = {"state": {"opt_state"}, "params": {"opt_state", "params"}}.get(self.shard)
            if mesh is None or self.mode != "jit" or not shared or not names & shared:
                return self.replicated
            sides = [side if side % self.devices == 0 else 0 for side in x.shape]
            if not any(sides):
                return self.replicated
            return NamedSharding(mesh, P(*[None] * sides.index(max(sides)), AXIS))

        return jax.tree.map_with_path(place, values)

    def over_devices(self, function: Callable[..., PyTree]) -> Callable[..., PyTree]:
        """Returns (params, model state, batch, key) -> what function(axis, ...) returns on all.

        Each device of a mesh (mode "jit") sees its rows of the batch; what function returns must be
        the same on all of them.
        """
        assert isinstance(self.replicated, NamedSharding) and self.mode == "jit"
        return jax.shard_map(
            functools.partial(function, AXIS),
            mesh=self.replicated.mesh,
            in_specs=(P(), P(), P(AXIS), P()),
            out_specs=P(),
            check_vma=False,
        )

    def put(self, values: PyTree) -> PyTree:
        """Places values (parameters, state) on every device, or shares them out.

        All processes have the same values.
        """
        if distributed.count() == 1:
            return jax.device_put(values, self.places(values))

        def everywhere(x: np.ndarray) -> jax.Array:
            return jax.make_array_from_callback(x.shape, self.replicated, lambda index: x[index])

        return jax.tree.map(everywhere, jax.tree.map(np.asarray, values))

    def put_batch(self, batch: Batch) -> Batch:
        """Places this process' rows of a batch, split over the devices, and counts the batch."""
        distributed.begin_batch()
        return self.place(batch)

    def place(self, batch: Batch) -> Batch:
        """Places this process' rows of some fields, split over the devices."""
        if self.mode == "pmap":
            batch = {k: x.reshape(self.devices, -1, *x.shape[1:]) for k, x in batch.items()}
        if distributed.count() == 1:
            return jax.device_put(dict(batch), self.split)
        return {k: jax.make_array_from_process_local_data(self.split, x) for k, x in batch.items()}

    def shapes(self, batch: Batch) -> Batch:
        """Returns the shapes that `put_batch` gives a batch, from those of its arrays."""
        if self.mode != "pmap":
            return batch
        parts = self.devices
        return {
            k: jax.ShapeDtypeStruct((parts, x.shape[0] // parts, *x.shape[1:]), x.dtype)
            for k, x in batch.items()
        }

    def get_rows(self, outputs: PyTree) -> PyTree:
        """Returns per-example outputs of the global batch on the host, in one leading dimension."""
        if self.mode == "pmap":
            outputs = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs)
        if distributed.count() > 1:
            from jax.experimental import multihost_utils

            outputs = multihost_utils.process_allgather(outputs, tiled=True)
        return jax.tree.map(np.asarray, outputs)

    def compile(self, make: Make, values: PyTree, batch: Batch, donate: bool = False) -> Any:
        """Compiles make(axis) for these shapes, ahead of time: other shapes raise, never recompile.

        Args: those of `lower`.
        """
        return self.lower(make, values, batch, donate).compile()

    def lower(
        self,
        make: Make,
        values: PyTree,
        batch: Batch,
        donate: bool = False,
    ) -> Any:
        """Returns the program of make(axis) for these shapes, before XLA compiles it.

        Args:
          make: from the axis to reduce over (None: the function sees the global batch).
          values: the argument that `put` places, or shapes alone.
          batch: as `put_batch` returns it, or shapes alone.
          donate: let the outputs reuse the memory of `values`, which must not be used again.
        """
        donated = (0,) if donate else ()
        with compiled_for(self.target):
            if self.mode == "pmap":
                # None in in_axes and out_axes keeps the state without a leading device dimension.
                return jax.pmap(
                    make(AXIS), AXIS, in_axes=(None, 0), out_axes=(None, 0), donate_argnums=donated
                ).lower(values, batch)
            function = make(None)
            places = results = self.replicated
            if self.shard != "none":
                places = self.places(values)
                results = self.places(jax.eval_shape(function, values, batch)[0])
            return jax.jit(
                function,
                in_shardings=(places, self.split),
                out_shardings=(results, self.split),
                donate_argnums=donated,
            ).lower(values, batch)


def whole_shapes(batch: Batch) -> Batch:
    """Returns the shapes of the batch of all processes, of which this is one's part."""
    return {
        name: jax.ShapeDtypeStruct((len(x) * distributed.count(), *x.shape[1:]), x.dtype)
        for name, x in batch.items()
    }


def placed_batches(batches: Iterator[Batch], parallel: Parallel) -> Iterator[Batch]:
    """Yields batches on the devices, one ahead: the next is copied while a step runs."""
    ahead: collections.deque[Batch] = collections.deque()
    for batch in batches:
        ahead.append(parallel.put_batch(batch))
        if len(ahead) > 1:
            yield ahead.popleft()
    yield from ahead


def for_evaluation(config: LoopConfig, over: Sequence[Any] | None = None) -> Parallel:
    """Returns the parallel mode for batches of --eval_batch_size, or else --batch_size."""
    if config.eval_batch_size:
        size, flag = config.eval_batch_size, "--eval_batch_size"
        return create(config.parallel, size, flag=flag, over=over, shard=config.shard)
    return create(config.parallel, config.batch_size, over=over, shard=config.shard)


def for_training(config: LoopConfig, over: Sequence[Any] | None = None) -> Parallel:
    """Returns the parallel mode for batches of --batch_size.

    Args:
      over: devices to compile for, in the place of this machine's.

    Raises:
      UserError: where they, or the batches of evaluation, do not divide by the devices.
    """
    for_evaluation(config, over)
    return create(
        config.parallel,
        config.batch_size,
        config.accumulate,
        over=over,
        shard=config.shard,
        by_device=config.batch_statistics == "device",
    )


class CompiledByShape:
    """A compiled function of (values, batch), with one program for each shape of batch.

    A program is compiled when a batch of its shape comes for the first time, and never again.
    """

    def __init__(
        self, compile: Callable[[PyTree, Batch], Any], compiling: Compiling = contextlib.nullcontext
    ) -> None:
        """Makes one that has no program yet; it compiles within `compiling`, which may time it."""
        self._compile, self._compiling = compile, compiling
        self._programs: dict[Any, Any] = {}

    def program(self, values: PyTree, batch: Batch) -> Any:
        """Returns the program of the shapes of a batch, as `Parallel.put_batch` returns it."""
        shapes = tuple((name, value.shape) for name, value in batch.items())
        if shapes not in self._programs:
            with self._compiling():
                self._programs[shapes] = self._compile(values, batch)
        return self._programs[shapes]

    def __call__(self, values: PyTree, batch: Batch) -> Any:
        """Runs the program of the batch's shapes."""
        return self.program(values, batch)(values, batch)


def devices_of(mode: str, over: Sequence[Any] | None = None) -> int:
    """Returns how many devices share a batch in a parallel mode."""
    return 1 if mode == "single" else len(jax.devices() if over is None else over)


def create(
    mode: str,
    batch_size: int,
    accumulate: int = 1,
    flag: str = "--batch_size",
    over: Sequence[Any] | None = None,
    shard: str = "none",
    by_device: bool = False,
) -> Parallel:
    """Makes the parallel mode over all devices.

    Args:
      mode: "auto" (jit on several devices), "single", "jit" or "pmap"; several processes have jit.
      batch_size: of the global batch; must divide by devices x accumulate.
      flag: the name of the flag that gives this number.
      over: devices to compile for, in the place of this machine's.
      shard: what they share out of a state: "none", "state" or "params".
      by_device: batch statistics of training are of each device's rows.

    Raises:
      UserError: where it does not divide, and for a mode that --shard does not have.
    """
    if shard != "none" and mode == "pmap":
        raise UserError(f"--shard={shard}: is not for --parallel=pmap; leave one of them out.")
    if shard != "none" and distributed.count() > 1:
        raise UserError(f"--shard={shard}: is for one process so far; leave it out.")
    there = jax.devices() if over is None else over
    devices = len(there)
    if distributed.count() > 1:
        mode = "jit"  # whatever a run of one process kept: it may go on in several
    if mode == "auto":
        mode = "jit" if devices > 1 else "single"
    if mode == "single":
        devices = 1
    if batch_size % (devices * accumulate):
        parts = f" x {accumulate} parts of --accumulate" if accumulate > 1 else ""
        parts_in_all = devices * accumulate
        raise UserError(
            f"{flag}={batch_size} does not divide by {devices} devices{parts}; the nearest "
            f"that does is {max(1, round(batch_size / parts_in_all)) * parts_in_all}."
        )
    if mode == "single":
        device = SingleDeviceSharding(there[0])
        return Parallel(mode, 1, device, device)
    # Explicit axes, make_mesh's default, break Linen's gradients.
    mesh = jax.make_mesh((devices,), (AXIS,), axis_types=(AxisType.Auto,), devices=over)
    everywhere, split = NamedSharding(mesh, P()), NamedSharding(mesh, P(AXIS))
    return Parallel(mode, devices, everywhere, split, shard, by_device)
