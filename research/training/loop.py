"""The one training loop, read from top to bottom; every experiment goes through it."""

import contextlib
import functools
import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from research import config as config_lib
from research.code import files as code_lib
from research.data.sources import overlap
from research.distributed import group as distributed
from research.distributed.group import of_first, refuse_different
from research.errors import NotFiniteError, UserError, nearest
from research.experiment import Evaluation, Experiment, Variables
from research.nn.normalisation import counting_values
from research.record.progress import TrainingProgress
from research.record.run_folder import RunFolder, fingerprint
from research.runtime import environment
from research.training import state as state_lib
from research.training.checkpointer import Checkpointer
from research.training.chosen import chosen_by, weights_of_run
from research.training.config import LoopConfig
from research.training.evaluation import SplitResult, flat_metrics, make_evaluate, report_of
from research.training.interrupts import Interrupts, Stopped
from research.training.not_finite import check_step
from research.training.parallel import CompiledByShape, Parallel, placed_batches, whole_shapes
from research.training.plan import TIMED, last_step, long_run, make_plan
from research.training.profiling import Profile, steps_of
from research.training.programs import step_cost, train_steps
from research.training.spending import (
    COMPILATION,
    EVALUATION,
    OTHER,
    TRAINING,
    Spending,
    count_parameters,
)
from research.training.state import TrainState
from research.training.statistics import batches_of, check_values, make_estimate
from research.training.step import make_eval_step
from research.weights.trained import trained_on as trained_before

# Steps that may be under way on the device at once: enough to hide the host's work, few enough
# that waiting batches take no memory worth speaking of.
STEPS_AHEAD = 2


def new_state(experiment: Experiment, config: LoopConfig, parallel: Parallel) -> TrainState:
    """Makes the state before the first step, on the devices."""
    seed = np.uint32(config.seed)
    init = jax.jit(lambda seed: state_lib.init(experiment.network, seed))
    variables = parallel.put(experiment.training.start(init(seed)))

    def create(variables: Variables, seed: jax.Array) -> TrainState:
        return state_lib.create(experiment.training, variables, config.ema_decay > 0, seed)

    places = parallel.places(jax.eval_shape(create, variables, seed))
    return jax.jit(create, out_shardings=places)(variables, seed)


class Window:
    """Totals of the steps since the last log line; they stay on the device until `close`."""

    def __init__(self) -> None:
        self._totals: list[Any] = []

    def add(self, totals: Any) -> None:
        """Takes one step's totals; waits where more than STEPS_AHEAD steps are under way."""
        self._totals.append(totals)
        if len(self._totals) > STEPS_AHEAD:
            jax.block_until_ready(self._totals[-1 - STEPS_AHEAD])

    def close(self, step: int) -> dict[str, float]:
        """Returns their means. Raises NotFiniteError with the first step of a non-finite loss."""
        rows, self._totals = jax.device_get(self._totals), []
        sums: dict[str, np.ndarray] = {}
        for number, row in enumerate(rows, step - len(rows) + 1):
            if not np.isfinite(row["loss"][0]):
                raise NotFiniteError(
                    f"the loss is {float(row['loss'][0])} at step {number}; the last checkpoint "
                    "before it is kept. Lower --learning_rate, raise --warmup or set --clip_norm."
                )
            for name, pair in row.items():
                sums[name] = sums.get(name, 0.0) + np.array(pair, np.float64)
        return {f"train/{name}": float(s / w) for name, (s, w) in sums.items() if w}


class Finished(NamedTuple):
    """The results of a run at its end, or where --stop_after left it."""

    result: dict[str, Any]  # the content of result.json
    evaluations: dict[str, SplitResult]  # of each split, with the final weights
    complete: bool


def train(
    experiment: Experiment, config: LoopConfig, parallel: Parallel, run: RunFolder
) -> Finished:
    """Trains, evaluates and records, from the run folder's last checkpoint on.

    Where --stop_after leaves the run before its last step, the result is of the step it is at.

    Raises:
      Stopped: after a signal: the run is saved, and the same command continues it.
      UserError: a loss that is not finite, or a checkpoint that could not be written.
    """
    with contextlib.ExitStack() as stack:
        # --- Data and state ---
        spending = Spending()
        compiling = functools.partial(spending.on, COMPILATION)
        data, trained_on, unseen = overlap.at_training(
            experiment.data(), trained_before(config.init_from)
        )
        steps_of(config.profile)  # refuses what is no START,COUNT
        plan = make_plan(config, len(data.train.examples), experiment.training.steps)
        first = data.train.batch(0)
        state = new_state(experiment, config, parallel)

        # --- Errors are raised here, before anything is written ---
        steps = train_steps(experiment.training, config, parallel)
        step_fn = CompiledByShape(
            # --debug_nans looks at the state before a step.
            functools.partial(parallel.compile, steps, donate=not config.debug_nans),
            compiling,
        )
        with counting_values() as normalised:
            step_fn.program(state, parallel.put_batch(first))
            noisy = check_values(normalised, config.accumulate)
        for source in data.evals.values():
            jax.eval_shape(
                make_eval_step(experiment.evaluation, None), state.variables, source.batch(0)
            )
        identity = {
            "initial_parameters": fingerprint([state.params, state.model_state]),
            "data_order": data.train.fingerprint(),
        }
        if run.code is not None:
            identity["code"] = run.code.digest
        facts = dict(experiment.facts)
        if trained_on is not None:
            identity["trained_on"] = facts["trained_on"] = overlap.checksum(trained_on)
        splits = {"train": data.train, **data.evals} if distributed.count() > 1 else {}
        found = {f"data of {name}": split.content() for name, split in splits.items()}
        refuse_different("data", identity | found, "bring the same data to all machines")
        checkpointer = stack.enter_context(
            Checkpointer(run.path / "checkpoints", config.keep, run.saved)
        )
        start, seconds_before, spent = 0, 0.0, None
        mend = "see that all machines see the same checkpoints, whole, and start again"
        newest = {"newest checkpoint": str(checkpointer.last_good())}
        refuse_different("newest checkpoint", newest, mend)  # they read it together
        if restored := checkpointer.restore(state):
            values, metadata = restored
            state, start, seconds_before = (
                parallel.put(values),
                int(values.step),
                metadata["seconds"],
            )
            spent = metadata.get("spending")
            run.check_data(identity)
        refuse_different("checkpoint", {"step to go on from": str(start)}, mend)
        end = max(start, last_step(config, plan))
        surroundings = environment()
        used = {name: surroundings[name] for name in ("cores", "threads", "devices")}
        spending.begin({"start": start, **used}, spent)
        run.begin(
            start,
            {
                "environment": surroundings,
                "parallel": {"mode": parallel.mode, "devices": parallel.devices},
                "plan": plan._asdict(),
                "fingerprint": identity,
            },
        )
        if trained_on is not None:
            run.keep(overlap.FILE, overlap.as_text(trained_on))

        began = time.perf_counter()

        def elapsed() -> float:
            return seconds_before + time.perf_counter() - began

        evaluate = make_evaluate(experiment.evaluation, parallel, compiling)
        batches_of_statistics = batches_of(config) if normalised else 0
        estimate = make_estimate(
            experiment.training,
            config.seed,
            parallel,
            data.train,
            batches_of_statistics,
            config.accumulate,
            compiling,
        )
        best_name, best_mode = experiment.evaluation.best
        best_value = checkpointer.best_metrics().get(best_name)
        watch = experiment.training.watch

        def evaluate_all(details: bool) -> dict[str, SplitResult]:
            results = {}
            for name, split in data.evals.items():
                with spending.on(EVALUATION):
                    results[name] = evaluate(state.variables, split, details)
                spending.count(EVALUATION, len(split.examples))
            return results

        # --- Train ---
        progress = stack.enter_context(TrainingProgress(plan.steps, start))
        interrupts = stack.enter_context(Interrupts())
        profile = stack.enter_context(Profile(config.profile, run.path))
        if noisy:
            progress.say(noisy)
        for line in overlap.lines(unseen):
            progress.say(line)
        if start:
            progress.say(f"going on after step {start} of {plan.steps}")
        batches = stack.enter_context(contextlib.closing(data.train.iterate(start, end)))
        window = Window()
        evaluations: dict[str, SplitResult] = {}
        stack.enter_context(spending.on(TRAINING))
        for step, batch in enumerate(placed_batches(batches, parallel), start + 1):
            profile.before(step)
            before = state
            (state, totals), _ = step_fn(state, batch)
            window.add(totals)
            profile.after(step, totals)
            if config.debug_nans:
                rows = functools.partial(parallel.get_rows, batch)
                check_step(experiment.training, config.accumulate, before, rows, totals)
            spending.count(TRAINING, data.train.batch_size)
            progress.advance(step)
            if step - start == 1:
                jax.block_until_ready(totals)
                timed_from = time.perf_counter()
            elif step - start == 1 + TIMED:
                jax.block_until_ready(totals)
                each = (time.perf_counter() - timed_from) / TIMED
                if line := long_run(config, each * (end - step)):
                    progress.say(line)

            last = step == end
            stopping = interrupts.due(step) if not last else None
            # Not even a run that is to stop leaves an evaluation out: it may find the best.
            due_eval = last or step % plan.eval_every == 0
            due_save = last or stopping or step % plan.checkpoint_every == 0
            if not (due_eval or due_save or step % plan.log_every == 0):
                continue

            # The losses are checked before anything is saved: checkpoints are finite.
            metrics = window.close(step)
            warning = watch(metrics) if watch else None
            if warning:
                progress.say(f"step {step}: {warning}")
            metrics["train/learning_rate"] = float(experiment.training.learning_rate(step - 1))
            is_best = False
            if due_eval or due_save:
                with spending.on(OTHER):
                    state = state.evaluated_with(estimate(state.variables, step))
            if due_eval:
                evaluations = evaluate_all(details=last)
                metrics |= flat_metrics(evaluations)
                check_best(experiment.evaluation, evaluations)
                # A run that was left on the way keeps the same best as one that was not.
                counts = step == plan.steps or step % plan.eval_every == 0
                is_best = counts and better(metrics.get(best_name), best_value, best_mode)
                is_best = of_first("best", str(is_best)) == "True"
                best_value = metrics[best_name] if is_best else best_value
            run.log(step, {**metrics, "seconds": elapsed()}, warning)
            progress.show(step, {k: metrics[k] for k in ("train/loss", best_name) if k in metrics})
            if due_save or is_best:
                description = {
                    "experiment": run.experiment,
                    "code": code_lib.to_json(run.code) if run.code is not None else None,
                    "config": config_lib.to_json(config),
                    "facts": facts,
                    "metrics": metrics,
                    "chosen_by": chosen_by(experiment.evaluation.best) if is_best else None,
                    "seconds": elapsed(),
                    "spending": spending.to_json(),
                    "environment": surroundings,
                }
                with spending.on(OTHER):
                    run.seal()
                    checkpointer.save(state, description, best=is_best)
            if stopping:
                checkpointer.wait()
                progress.say(f"{stopping.name}: saved after step {step} of {plan.steps}")
                raise Stopped(stopping)

        # --- Finish ---
        stack.enter_context(spending.on(OTHER))
        if not evaluations:  # killed after the last checkpoint, before the result was written
            evaluations = evaluate_all(details=True)
        checkpointer.wait()
        averaged, best = state.average is not None, experiment.evaluation.best
        result = {
            "experiment": run.experiment,
            "step": end,
            "seconds": round(elapsed(), 3),
            "trained_on": unseen,
            "best": list(best),
            **weights_of_run(best, end, checkpointer.best_step(), averaged),
            **report_of(experiment.evaluation, evaluations),
            "parameters": count_parameters(state.params),
            "flops": step_cost(steps, parallel, state, whole_shapes(first)).flops,
            **spending.told(),
            **{name: identity[name] for name in ("initial_parameters", "data_order")},
            "fingerprint": fingerprint([state.params, state.model_state]),
        }
        return Finished(result, evaluations, end == plan.steps)


def check_best(evaluation: Evaluation, evaluations: Mapping[str, SplitResult]) -> None:
    """Raises UserError where no evaluator gives the metric that names the best checkpoint.

    One that is in the protocol may be missing for want of examples that count.
    """
    name, _ = evaluation.best
    known = [*flat_metrics(evaluations)]
    known += [f"{split}/{metric}" for split in evaluations for metric in evaluation.protocol]
    if name and known and name not in known:
        raise UserError(
            f"{name}: is to name the best checkpoint, but no evaluator gives it."
            f"{nearest(name, known)}"
        )


def better(value: float | None, best: float | None, mode: str) -> bool:
    """Returns whether `value` beats `best`; mode is "max" or "min".

    None and NaN, of what could not be measured, beat nothing, and are beaten by every number.
    """
    if value is None or math.isnan(value):
        return False
    if best is None or math.isnan(best):
        return True
    return value > best if mode == "max" else value < best
