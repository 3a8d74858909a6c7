"""Folders as training leaves them, without the training."""

import json

import numpy as np

VERSIONS = {"jax": "0.10.2", "numpy": "2.3.1"}


def write_run(
    folder,
    value=None,
    *,
    seed=0,
    metric="test/accuracy",
    flags=None,
    steps=20,
    losses=None,
    environment=None,
    trained_on="same",
    failure=None,
    experiment="classification",
    protocol="share of examples",
    seconds=2.0,
    **result,
):
    """Writes a run's folder; without a value, one that did not finish."""
    folder.mkdir(parents=True)
    config = {"seed": seed, "batch_size": 8, "optimizer": "sgd", "log_every": 1, **(flags or {})}
    begun = {
        "experiment": experiment,
        "config": config,
        "environment": {
            "python": "3.11.2",
            "platform": "Linux",
            "versions": VERSIONS,
            "devices": ["cpu: cpu"],
            "git_commit": "0123456789abcdef",
            **(environment or {}),
        },
        "parallel": {"mode": "single", "devices": 1},
        "plan": {"steps": steps, "eval_every": 5, "checkpoint_every": 5, "log_every": 1},
        "fingerprint": {"trained_on": trained_on, "data_order": f"{trained_on} {seed}"},
    }
    (folder / "config.json").write_text(json.dumps(begun))
    (folder / "flags.txt").write_text(f"--experiment={experiment}\n")
    losses = np.linspace(2, 1, steps).tolist() if losses is None else losses
    lines = [
        {"step": i, "train/loss": x, "train/accuracy": 0.5, "seconds": i * seconds / steps}
        for i, x in enumerate(losses, 1)
    ]
    for line in lines[4::5]:
        line[metric] = (value or 0.5) * line["step"] / steps
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if failure is not None:
        (folder / "failure.json").write_text(json.dumps({"kind": "not_finite", "reason": failure}))
    if value is not None:
        made = {
            "experiment": experiment,
            "step": steps,
            "seconds": seconds,
            "best": [metric, "max"],
            "metrics": {metric: value},
            "protocol": {metric.partition("/")[2]: protocol},
            **result,
        }
        (folder / "result.json").write_text(json.dumps(made))
    return folder


def write_side(folder, values, **options):
    """Writes a run for each value, with seeds from 0 on; None for one that did not finish."""
    return [
        write_run(folder / f"seed={seed}", value, seed=seed, **options)
        for seed, value in enumerate(values)
    ]
