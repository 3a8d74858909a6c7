"""Optimizers and learning-rate schedules by name, put together from optax's parts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.errors import UserError, choose, nearest
from research.training.config import OptimizationConfig

PyTree = Any

# name -> (momentum -> gradients scaled into a step of learning rate 1).
_SCALINGS: dict[str, Callable[[float], optax.GradientTransformation]] = {
    # p -= lr g
    "sgd": lambda momentum: optax.identity(),
    # v = m v + g;  p -= lr v                                Polyak 1964, as Sutskever et al. 2013
    "momentum": lambda momentum: optax.trace(momentum),
    # v = m v + g;  p -= lr (g + m v)                        Nesterov 1983, as Sutskever et al. 2013
    "nesterov": lambda momentum: optax.trace(momentum, nesterov=True),
    # s = s + g²;  p -= lr g / (sqrt(s) + eps)               Duchi et al. 2011, with PyTorch's eps
    "adagrad": lambda momentum: _scale_by_root_of_sum(1e-10),
    # s = 0.9 s + 0.1 g²;  p -= lr g / (sqrt(s) + eps)       Tieleman & Hinton 2012, lecture 6.5
    "rmsprop": lambda momentum: optax.scale_by_rms(decay=0.9, eps=1e-8, eps_in_sqrt=False),
    # first and second moments, bias corrected               Kingma & Ba 2015, algorithm 1
    "adam": lambda momentum: optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
    # Adam; decay outside the moments                        Loshchilov & Hutter 2019, algorithm 2
    "adamw": lambda momentum: optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
    # AdamW's step, each tensor's that decays scaled to |p|  You et al. 2020, algorithm 2
    "lamb": lambda momentum: optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-6),
}
_DECOUPLED = ("adamw", "lamb")

OPTIMIZERS = tuple(_SCALINGS)


def make(
    name: str,
    schedule: optax.Schedule,
    *,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    clip_norm: float = 0.0,
    frozen: Callable[[str], bool] | None = None,
    rate: Callable[[str], float] | None = None,
) -> optax.GradientTransformation:
    """Returns the optimizer `name` (one of OPTIMIZERS); its equation stands in the table above.

    Args:
      schedule: step -> learning rate, from `schedule` below.
      momentum: of momentum and nesterov; the others do not use it.
      weight_decay: λ, on parameters of more than one dimension (no biases, no normalisation).
        adamw and lamb subtract lr λ p beside the adaptive step (decoupled; lamb scales both by its
        trust ratio); the others add λ p to the gradient (the L2 penalty λ/2 |p|²), as PyTorch does.
        lamb scales what would decay alone, as its authors' code does: the norm of a bias that
        starts at zero would hold it there.
      clip_norm: gradients whose norm over all parameters that train is larger are scaled down to
        it (Pascanu et al. 2013), before weight decay; 0 for no clipping.
      frozen: path such as "stem/conv1/kernel" -> whether that parameter stays as it is, bit for
        bit. It needs no optimizer state and has no part in the gradient's norm.
      rate: path -> factor of that parameter's learning rate (discriminative fine-tuning, Howard &
        Ruder 2018).

    Raises:
      UserError: for an unknown name; in `init`, where all or no parameters are frozen.
    """
    scaling = choose(name, _SCALINGS, "optimizer")(momentum)
    decay = optax.add_decayed_weights(weight_decay, mask=_has_more_than_one_dimension)
    parts = [
        *([optax.clip_by_global_norm(clip_norm)] if clip_norm > 0 else []),
        *([decay] if weight_decay and name not in _DECOUPLED else []),
        scaling,
        *([decay] if weight_decay and name in _DECOUPLED else []),
        *([_scale_by_trust_ratio()] if name == "lamb" else []),
        optax.scale_by_learning_rate(schedule),
        *([_scale_by_path(rate)] if rate is not None else []),
    ]
    optimizer = optax.chain(*parts)
    if frozen is None:
        return optimizer

    def labels(params: PyTree) -> PyTree:
        named = jax.tree.map_with_path(
            lambda path, _: "frozen" if frozen(path_name(path)) else "trained", params
        )
        kinds = set(jax.tree.leaves(named))
        if kinds == {"trained"}:
            paths = [path_name(path) for path, _ in jax.tree.leaves_with_path(params)]
            raise UserError(
                f"--freeze matches no parameter; they are called {', '.join(paths[:3])}, ..., "
                f"{paths[-1]}, and --mode=check without --freeze lists all."
            )
        if kinds == {"frozen"}:
            raise UserError("--freeze matches every parameter; nothing is left to train.")
        return named

    return optax.partition({"trained": optimizer, "frozen": _stay()}, labels)


def path_name(path: tuple[Any, ...]) -> str:
    """Returns a leaf's path in a tree of dictionaries as "stem/conv1/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _scale_by_path(rate: Callable[[str], float]) -> optax.GradientTransformation:
    """Multiplies each update by its path's factor."""
    return optax.stateless(
        lambda updates, params: jax.tree.map_with_path(
            lambda path, u: rate(path_name(path)) * u, updates
        )
    )


def _scale_by_trust_ratio() -> optax.GradientTransformation:
    """Applies optax's trust ratio to parameters that decay; steps of the others stay as they are.

    `optax.masked` would change the layout of the state, which existing checkpoints hold.
    """
    every = optax.scale_by_trust_ratio()

    def update(updates: PyTree, state: Any, params: PyTree | None = None) -> tuple[PyTree, Any]:
        scaled, state = every.update(updates, state, params)
        decays = _has_more_than_one_dimension(updates)
        return jax.tree.map(lambda d, s, u: s if d else u, decays, scaled, updates), state

    return optax.GradientTransformation(every.init, update)


def _scale_by_root_of_sum(eps: float) -> optax.GradientTransformation:
    """Scales gradients to g / (sqrt(s) + eps), s the sum of all g² so far.

    optax.scale_by_rss adds eps to s: gradients below its root then hardly move anything.
    """

    def update(
        updates: PyTree, state: optax.ScaleByRssState, params: PyTree | None = None
    ) -> tuple[PyTree, optax.ScaleByRssState]:
        sums = jax.tree.map(lambda g, s: s + g * g, updates, state.sum_of_squares)
        steps = jax.tree.map(lambda g, s: g / (jnp.sqrt(s) + eps), updates, sums)
        return steps, optax.ScaleByRssState(sums)

    def init(params: PyTree) -> optax.ScaleByRssState:
        return optax.ScaleByRssState(jax.tree.map(jnp.zeros_like, params))

    return optax.GradientTransformation(init, update)


def _has_more_than_one_dimension(params: PyTree) -> PyTree:
    return jax.tree.map(lambda p: p.ndim > 1, params)


def _stay() -> optax.GradientTransformation:
    """Makes updates that change no bit: p + -0.0 is p for every p, whereas -0.0 + 0.0 is 0.0."""

    def update(updates: PyTree, state: optax.EmptyState, params: PyTree | None = None) -> Any:
        return jax.tree.map(lambda u: jnp.full_like(u, -0.0), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


SCHEDULES = ("constant", "step", "exponential", "cosine", "one_cycle")


def schedule(
    name: str,
    peak: float,
    steps: int,
    warmup: int = 0,
    *,
    final: float = 1e-3,
    factor: float = 0.1,
    milestones: tuple[float, ...] = (0.5, 0.75),
) -> optax.Schedule:
    """Returns step (from 0) -> learning rate, for `name` of SCHEDULES.

    The rate rises linearly from peak / (warmup + 1) and reaches `peak` at step `warmup` (Goyal et
    al. 2017). With u = (step - warmup) / (steps - warmup), from 0 to 1, it then is

      constant     peak
      step         peak factor^n, n the number of milestones not above u (He et al. 2016)
      exponential  peak final^u
      cosine       peak (final + (1 - final) (1 + cos πu) / 2)   (Loshchilov & Hutter 2017)
      one_cycle    cosine's fall, but the rise starts at peak / 25 and takes 30 % of all steps
                   where `warmup` is 0 (Smith & Topin 2018, annealed by a cosine as fastai does)

    and stays at the last value after `steps`.

    Args:
      final: the last rate of exponential, cosine and one_cycle, as a fraction of `peak`.
      milestones: fractions of the steps past warm-up, between 0 and 1.

    Raises:
      UserError: for an unknown name, or a warm-up that is as long as the training.
    """
    if name not in SCHEDULES:
        raise UserError(f"unknown schedule {name!r}.{nearest(name, SCHEDULES)}")
    start = 1 / (warmup + 1)
    if name == "one_cycle":
        start, warmup = 1 / 25, warmup or round(0.3 * steps)
    if not 0 <= warmup < steps:
        raise UserError(f"warm-up of {warmup} steps must be shorter than the {steps} of training.")
    if name == "exponential" and final <= 0:
        raise UserError(f"an exponential schedule never reaches {final}: final must be above 0.")

    rest = steps - warmup
    match name:
        case "constant":
            fall = optax.constant_schedule(peak)
        case "step":
            falls_at = np.array(milestones) * rest

            def fall(step: Any) -> jax.Array:
                return peak * factor ** jnp.sum(step >= falls_at)

        case "exponential":
            fall = optax.exponential_decay(peak, rest, final, end_value=peak * final)
        case _:
            fall = optax.cosine_decay_schedule(peak, rest, alpha=final)
    if not warmup:
        return fall
    return optax.join_schedules([optax.linear_schedule(start * peak, peak, warmup), fall], [warmup])


def from_config(
    config: OptimizationConfig,
    steps: int,
    frozen: Callable[[str], bool] | None = None,
    rate: Callable[[str], float] | None = None,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Returns the optimizer that a configuration describes, for `steps` steps, and its rate."""
    course = schedule(config.schedule, config.learning_rate, steps, round(config.warmup * steps))
    optimizer = make(
        config.optimizer,
        course,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
        frozen=frozen,
        rate=rate,
    )
    return optimizer, course
