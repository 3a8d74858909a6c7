"""Counts by hand, and against XLA's own where there is no loop."""

import jax
import jax.numpy as jnp
import pytest
import toys

from research.flops import count_flops, shown
from research.nn.convolution_cpu import depthwise
from research.nn.recurrent import Recurrent
from research.training import parallel
from research.training.config import TrainingConfig
from research.training.programs import step_cost, train_steps

MATRICES = jax.ShapeDtypeStruct((50, 8, 8), jnp.float32)
START = jax.ShapeDtypeStruct((8, 8), jnp.float32)


def by_xla(function, *arguments):
    return jax.jit(function).lower(*arguments).cost_analysis()["flops"]


def products(start, matrices):
    return jax.lax.scan(lambda c, m: (c @ m, None), start, matrices)[0]


def test_the_body_of_a_loop_counts_as_often_as_it_runs():
    assert by_xla(products, START, MATRICES) < 2 * 2 * 8**3  # what XLA says: once
    assert count_flops(products, START, MATRICES) == (50 * 2 * 8**3, 0)
    nested = jax.vmap(products, (None, 0))
    many = jax.ShapeDtypeStruct((7, *MATRICES.shape), jnp.float32)
    assert count_flops(nested, START, many).flops == 7 * 50 * 2 * 8**3


def test_a_recurrent_network_costs_what_its_steps_cost():
    batch, time, inputs, hidden = 4, 12, 16, 32
    net = Recurrent("lstm", inputs, hidden)
    x = jax.ShapeDtypeStruct((batch, time, inputs), jnp.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0), x)

    def looped(variables, x):
        return net.apply(variables, x)[0].sum()

    def unrolled(variables, x):
        states, total = net.apply(variables, batch, method="initial"), 0.0
        for t in range(time):
            states, h = net.apply(variables, states, x[:, t], method="step")
            total += h.sum()
        return total

    by_hand = batch * time * 2 * (inputs + hidden) * 4 * hidden  # the products of four gates
    assert by_hand < count_flops(looped, variables, x).flops < 1.1 * by_hand
    for change in (lambda f: f, jax.grad):
        expected = by_xla(change(unrolled), variables, x)
        assert count_flops(change(looped), variables, x).flops == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("size", "stride", "padding", "dilation", "groups"),
    [(3, 1, 1, 1, 1), (5, 2, 2, 1, 1), (3, 1, 2, 2, 1), (1, 2, 0, 1, 1), (3, 2, 1, 1, 4)],
)
def test_convolutions_and_their_gradients_count_as_xla_counts_them(
    size, stride, padding, dilation, groups
):
    def loss(images, kernel):
        maps = jax.lax.conv_general_dilated(
            images,
            kernel,
            (stride, stride),
            [(padding, padding)] * 2,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
        return maps.sum()

    images = jax.ShapeDtypeStruct((2, 9, 12, 8), jnp.float32)
    kernel = jax.ShapeDtypeStruct((size, size, 8 // groups, 16), jnp.float32)
    for function in (loss, jax.grad(loss, (0, 1))):
        counted = count_flops(function, images, kernel)
        assert counted.flops == pytest.approx(by_xla(function, images, kernel), rel=0.01)


def test_our_own_formulations_are_counted():
    images = jax.ShapeDtypeStruct((2, 10, 10, 6), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 1, 6), jnp.float32)
    counted = count_flops(lambda x, k: depthwise(x, k, 1, 1), images, kernel)
    assert counted.flops == 2 * 8 * 8 * 6 * (9 + 8)  # nine products, eight additions


def test_what_is_not_used_does_not_count():
    both = jax.jit(lambda a, b: (a @ b, a + 1.0))
    assert count_flops(both, START, START).flops == 2 * 8**3 + 64
    assert count_flops(lambda a, b: both(a, b)[1], START, START).flops == 64


def test_the_dearest_branch_counts_and_loops_without_a_known_end_are_told():
    def choose(a):
        return jax.lax.cond(a[0, 0] > 0, lambda x: x @ x, lambda x: x + 1.0, a)

    assert count_flops(choose, START).flops == 2 * 8**3

    def until(a):
        return jax.lax.while_loop(lambda x: x.sum() < 9.0, lambda x: x @ x, a)

    assert count_flops(until, START) == (2 * 8**3 + 64, 1)


def test_a_step_costs_the_same_in_parts():
    experiment, (batch,) = toys.experiment(), toys.batches(1, size=64, ragged=64)
    state = jax.eval_shape(lambda: toys.new_state(experiment))

    def flops(accumulate, mode="single", own=False):
        config = TrainingConfig(accumulate=accumulate, batch_size=64)
        devices = parallel.create(mode, 64, by_device=own)
        steps = train_steps(experiment.training, config, devices)
        return step_cost(steps, devices, state, batch).flops

    convolution = 64 * 8 * 8 * 2 * 27 * 8 * (22 / 24) ** 2  # without what meets padding
    assert 2 * convolution < flops(1) < 3 * convolution  # forward, and the kernel's gradient
    assert flops(4) == pytest.approx(flops(1), rel=0.02)
    # Eight devices do it together, each with its rows, whatever they normalise by.
    for mode in ("jit", "pmap"):
        assert flops(1, mode, own=True) == pytest.approx(flops(1), rel=0.02)
    assert flops(1, "jit") == pytest.approx(flops(1), rel=0.02)


def test_integers_are_no_floating_point():
    numbers = jax.ShapeDtypeStruct((8, 8), jnp.int32)
    assert count_flops(lambda a: (a @ a).sum(), numbers) == (0, 0)


@pytest.mark.parametrize(
    ("flops", "text"),
    [
        (0.0, "0.0 FLOPs"),
        (999.0, "999.0 FLOPs"),
        (6.3e3, "6.3 kFLOPs"),
        (1.82e7, "18.2 MFLOPs"),
        (2e19, "20,000.0 PFLOPs"),
    ],
)
def test_counts_are_shown_with_their_unit(flops, text):
    assert shown(flops) == text
