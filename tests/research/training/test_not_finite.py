"""--debug_nans on networks that fail at a known layer and step; --profile's steps and files."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toys

from research.errors import NotFiniteError, UserError
from research.training.not_finite import check_step
from research.training.profiling import Profile, steps_of

ONE = jnp.float32(1.0)


class Fails(nn.Module):
    """Three layers; the second divides by zero, or has a gradient that does."""

    how: str

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4, name="first")(x)
        x = Second(self.how, name="second")(x)
        return nn.Dense(1, name="third")(x)


class Second(nn.Module):
    how: str

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4, name="inner")(x)
        if self.how == "forward":
            return x / jnp.zeros_like(x)
        if self.how == "backward":
            return jnp.sqrt(0.0 * x)  # 0, with an infinite slope: 0 x infinity below
        return x


def step_of(how, scale=1.0):
    model, batch = Fails(how), toys.batches(1)[0]

    def loss(variables, batch, key, axis):
        rows = batch["image"].reshape(len(batch["image"]), -1)
        return scale * model.apply(variables, rows)[:, 0], {}, {}

    experiment = toys.replaced(
        toys.experiment(optimizer=optax.sgd(0.1)),
        init=lambda key: model.init(key, jnp.zeros((1, 192))),
        loss=loss,
    )
    state = toys.new_state(experiment)
    return experiment.training, state._replace(step=jnp.int32(6)), batch


def checked(how, accumulate, bad, **changed):
    training, state, batch = step_of(how, **changed)
    totals = {"loss": (jnp.float32(bad), ONE), "gradient_norm": (jnp.float32(bad), ONE)}
    check_step(training, accumulate, state, lambda: batch, totals)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("forward", "step 7: layer second is the first whose output is not finite"),
        ("backward", "step 7: the gradient of second/inner/(bias|kernel) is the first"),
        ("not at all", "step 7: loss or gradient is not finite, but not where"),
    ],
)
def test_the_first_layer_is_named_with_the_step(how, said, accumulate):
    with pytest.raises(NotFiniteError, match=said):
        checked(how, accumulate, np.nan)


def test_the_loss_itself_and_parameters_are_named():
    with pytest.raises(NotFiniteError, match="the loss is not finite, though the outputs"):
        checked("not at all", 1, np.inf, scale=np.inf)
    training, state, batch = step_of("not at all")
    params = jax.tree.map(lambda x: x, state.params)
    params["third"]["bias"] = jnp.full(1, jnp.nan)
    totals = {"loss": (jnp.float32(np.nan), ONE), "gradient_norm": (ONE, ONE)}
    with pytest.raises(NotFiniteError, match="parameter third/bias is not finite before it"):
        check_step(training, 1, state._replace(params=params), lambda: batch, totals)


def test_finite_steps_pass_and_their_batches_stay_on_the_device():
    training, state, _ = step_of("forward")
    totals = {"loss": (ONE, ONE), "gradient_norm": (ONE, ONE)}
    check_step(training, 1, state, lambda: pytest.fail("the batch was copied"), totals)


def test_a_trace_holds_the_steps_and_opens_in_both_programs(tmp_path, capsys):
    with Profile("3,2", tmp_path) as profile:
        for step in range(1, 7):
            profile.before(step)
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                totals = jnp.ones(3) * step
            profile.after(step, totals)
            assert (tmp_path / "profile").exists() == (step >= 4)
    assert list(tmp_path.rglob("*.xplane.pb")) and list(tmp_path.rglob("perfetto_trace.json.gz"))
    assert "ui.perfetto.dev" in capsys.readouterr().out


def test_other_steps_are_refused():
    assert steps_of("") is None and steps_of("20,5") == (20, 5)
    for wrong in ("5", "0,5", "5,0", "a,b", "1,2,3"):
        with pytest.raises(UserError, match=f"--profile={wrong}: START,COUNT"):
            steps_of(wrong)
