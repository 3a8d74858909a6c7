"""What devices exchange, counted in programs whose messages are known because they were written."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from research.hardware.collectives import Exchange, count_collectives

COUNT = 8


def text_of(function, out):
    """The compiled program of a function of each device's rows [4, 16], over eight devices."""
    mesh = jax.make_mesh((COUNT,), ("data",), axis_types=(AxisType.Auto,))
    mapped = jax.shard_map(function, mesh=mesh, in_specs=P("data"), out_specs=out, check_vma=False)
    return jax.jit(mapped).lower(jnp.zeros((COUNT * 4, 16))).compile().as_text()


def repeated(x):
    return jax.lax.scan(lambda c, _: (jax.lax.psum(c * 0.5, "data"), None), x, None, length=5)[0]


@pytest.mark.parametrize(
    ("function", "out", "kind", "number", "size"),
    [
        (lambda x: jax.lax.psum(x, "data"), P(), "all-reduce", 1, 4 * 16 * 4),
        (repeated, P(), "all-reduce", 5, 5 * 4 * 16 * 4),
        (lambda x: jax.lax.all_gather(x, "data", tiled=True), P(), "all-gather", 1, 32 * 16 * 4),
        (
            lambda x: jax.lax.psum_scatter(x.T, "data", tiled=True),
            P("data"),
            "reduce-scatter",
            1,
            16 * 4 * 4,
        ),
        (
            lambda x: jax.lax.ppermute(x, "data", [(0, 1), (1, 0)]),
            P("data"),
            "collective-permute",
            1,
            4 * 16 * 4,
        ),
    ],
)
def test_messages_and_bytes_are_those_of_the_program(function, out, kind, number, size):
    found, open_loops = count_collectives(text_of(function, out))
    assert found == {kind: Exchange(number, size)}
    assert open_loops == 0


def test_a_loop_that_the_data_end_counts_once_and_is_told():
    def until(x):
        return jax.lax.while_loop(lambda c: c.sum() < 100, lambda c: jax.lax.psum(c + 1, "data"), x)

    found, open_loops = count_collectives(text_of(until, P()))
    assert found["all-reduce"].number == 1 and open_loops == 1


# Lines as XLA writes them for TPUs, whose loops do not say how often they turn, and for GPUs, whose
# messages have a beginning and an end.
TPU = """
%cond (p: (s32[], f32[64])) -> pred[] {
  %limit = s32[]{:T(128)} constant(5)
  %p = (s32[]{:T(128)}, f32[64]{0:T(128)S(1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit), direction=LT, metadata={op_name="while/cond/lt"}
}

%body (p: (s32[], f32[64])) -> (s32[], f32[64]) {
  %q = (s32[]{:T(128)}, f32[64]{0:T(128)S(1)}) parameter(0)
  %x = bf16[64,2]{1,0:T(128)S(1)} get-tuple-element(%q), index=1
  %sum = bf16[64,2]{1,0:T(128)} all-reduce(%x), channel_id=1, to_apply=%add, backend_config={"a":[]}
  ROOT %t = (s32[]{:T(128)}, f32[64]{0:T(128)}) tuple(%q, %sum)
}

ENTRY %main (a: f32[64]) -> f32[64] {
  %t = (s32[]{:T(128)}, f32[64]{0:T(128)}) tuple(%a)
  ROOT %w = (s32[]{:T(128)}, f32[64]{0:T(128)}) while(%t), condition=%cond, body=%body
}
"""
GPU = """
ENTRY %main (a: f32[512]) -> f32[64] {
  %a = f32[512]{0} parameter(0)
  %s = f32[64,65]{1,0} all-reduce-start(%a), channel_id=2, use_global_device_ids=true, to_apply=%add
  %d = f32[64,65]{1,0} all-reduce-done(%s), metadata={scheduling_name="all-reduce-done"}
  %g = (f32[64]{0}, f32[512]{0}) all-gather-start(%d), channel_id=3, dimensions={0}
  %h = f32[512]{0} all-gather-done(%g)
  ROOT %r = f32[64]{0} reduce-scatter(%a), channel_id=4, dimensions={0}, to_apply=%add
}
"""


def test_programs_of_accelerators():
    assert count_collectives(TPU) == ({"all-reduce": Exchange(5, 5 * 64 * 2 * 2)}, 0)
    assert count_collectives(GPU) == (
        {
            "all-reduce": Exchange(1, 64 * 65 * 4),
            "all-gather": Exchange(1, 512 * 4),
            "reduce-scatter": Exchange(1, 512 * 4),
        },
        0,
    )
