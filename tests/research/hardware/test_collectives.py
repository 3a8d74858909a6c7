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


# Lines of XLA's own, without their attributes: for eight TPUs, a message as a chain of fusions, and
# an all-reduce of which each device keeps its part; for eight GPUs, messages of several arrays.
TPU_FUSED = """
%fused_computation.13 (param_0.36: f32[256,2048]) -> (f32[256,2048], f32[2048,2048], s32[2]) {
  %param_0.36 = f32[256,2048]{1,0:T(8,128)S(1)} parameter(0)
  %all-gather.11 = f32[2048,2048]{1,0:T(8,128)} all-gather(%param_0.36), channel_id=6, \
dimensions={0}, frontend_attributes={chain_id="0"}
  ROOT %custom-call.1 = (f32[256,2048]{1,0:T(8,128)S(1)}, f32[2048,2048]{1,0:T(8,128)S(1)}, \
s32[2]{0:S(4)}) custom-call(%all-gather.11), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.14 (param_0.39: f32[256,2048], param_1.49: f32[2048,2048]) -> (f32[]) {
  %param_0.39 = f32[256,2048]{1,0:T(8,128)S(1)} parameter(0)
  %all-gather.13 = f32[2048,2048]{1,0:T(8,128)S(1)} all-gather(%param_0.39), channel_id=6, \
dimensions={0}, frontend_attributes={chain_id="0"}
  ROOT %tuple.9 = (f32[2048,2048]{1,0:T(8,128)S(1)}) tuple(%all-gather.13)
}

%all-reduce-scatter (input: f32[2048,2048]) -> f32[256,2048] {
  %input = f32[2048,2048]{1,0:T(8,128)S(1)} parameter(0)
  %all-reduce.4 = f32[2048,2048]{1,0:T(8,128)} all-reduce(%input), channel_id=2, \
to_apply=%add.1.clone
  ROOT %dynamic-slice.10 = f32[256,2048]{1,0:T(8,128)S(1)} dynamic-slice(%all-reduce.4, %m, %c)
}

%fused_computation.16 (param_0.45: f32[256,2048], param_1.55: f32[2048,2048]) -> f32[2048,2048] {
  %param_0.45 = f32[256,2048]{1,0:T(8,128)S(1)} parameter(0)
  %all-gather.17 = f32[2048,2048]{1,0:T(8,128)} all-gather(%param_0.45), channel_id=6, \
dimensions={0}, frontend_attributes={chain_id="0"}
  ROOT %custom-call.3 = f32[2048,2048]{1,0:T(8,128)S(1)} custom-call(%param_0.45, \
%all-gather.17), custom_call_target="AsyncCollectiveDone"
}

ENTRY %main.1_spmd (param: f32[256,2048], param.1: f32[2048,2048]) -> f32[2048,2048] {
  %async-collective-start = (f32[256,2048]{1,0:T(8,128)S(1)}, f32[2048,2048]{1,0:T(8,128)S(1)}, \
s32[2]{0:S(4)}) fusion(%param), kind=kCustom, calls=%fused_computation.13
  %fusion.14 = (f32[2048,2048]{1,0:T(8,128)S(1)}) fusion(%get-tuple-element.13), kind=kOutput, \
calls=%async_collective_fusion.14
  %fusion = f32[256,2048]{1,0:T(8,128)S(1)} fusion(%param.1), kind=kCustom, \
calls=%all-reduce-scatter
  %async-collective-done = f32[2048,2048]{1,0:T(8,128)S(1)} fusion(%get-tuple-element.34), \
kind=kCustom, calls=%fused_computation.16
  ROOT %all-gather.18 = f32[2048,2048]{1,0:T(8,128)S(1)} all-gather(%fusion), channel_id=6, \
dimensions={0}
}
""".replace("\\\n", "")
GPU_SEVERAL = """
ENTRY %main.1_spmd (param: f32[2048,2048]) -> f32[256,2048] {
  %reduce-scatter-start = ((f32[2048,2048]{1,0}), f32[256,2048]{1,0}) reduce-scatter-start(%dot.6)
  %reduce-scatter-done = f32[256,2048]{1,0} reduce-scatter-done(%reduce-scatter-start)
  %g = ((f32[2]{0}, bf16[4]{0}), (f32[16]{0}, bf16[32]{0})) all-gather-start(%a, %b), channel_id=3
  %h = (f32[16]{0}, bf16[32]{0}) all-gather-done(%g)
  %all-to-all-start = ((f32[128,8,256]{2,0,1}), f32[128,8,256]{2,0,1}) all-to-all-start(%bitcast)
  %p = (f32[8]{0:T(8)(2,1)}, f32[8]{0}, u32[], u32[]) collective-permute-start(%c), channel_id=4
  %q = f32[8]{0} collective-permute-done(%p)
}
"""


def test_messages_within_fusions_count_once():
    whole = 2048 * 2048 * 4
    assert count_collectives(TPU_FUSED) == (
        {"all-gather": Exchange(2, 2 * whole), "reduce-scatter": Exchange(1, whole)},
        0,
    )


def test_a_beginning_holds_what_goes_in_and_what_comes_out():
    assert count_collectives(GPU_SEVERAL) == (
        {
            "all-gather": Exchange(1, 16 * 4 + 32 * 2),
            "reduce-scatter": Exchange(1, 2048 * 2048 * 4),
            "all-to-all": Exchange(1, 128 * 8 * 256 * 4),
            "collective-permute": Exchange(1, 8 * 4),
        },
        0,
    )


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
