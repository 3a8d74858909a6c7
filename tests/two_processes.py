"""One of several processes of a test: joins the others, then does the same work as they do.

    python tests/two_processes.py HOST:PORT,N,I WORK

WORK is JSON: {"toy": [folders]} trains the smallest experiment with batch statistics and a loss
over the whole batch in each folder, for as many steps as its name says, and {"launch": [arguments]}
calls the launcher with each list of arguments. With {"blind": N}, process N does not see what the
first writes, and the launcher itself joins. With {"unlike": [N, WHAT]}, process N has other labels
to evaluate ("labels"), sees no checkpoint ("checkpoints") or a damaged one ("damage").
{"busy": SECONDS} lets the first work alone, for longer than processes are patient.
"""

import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]

import jax  # noqa: E402

DEVICES = 2  # of each process, where "devices" does not say


def train_toy(folder: Path) -> None:
    """Trains up to the share of all steps that the folder's name ends with, or to the end."""
    import toy_runs
    import toys

    from research.distributed.group import is_first
    from research.training.evaluation import save_outcomes

    share = float(folder.name.rpartition("-")[2]) if "-" in folder.name else 1.0
    config = dataclasses.replace(toy_runs.CONFIG, parallel="auto", stop_after=share)
    finished = toy_runs.run(folder, config, toys.experiment(data=toy_runs.data, batch_wide=True))
    if is_first():
        save_outcomes(folder / "outcomes", finished.evaluations)
    (folder / f"result-{jax.process_index()}.json").write_text(json.dumps(finished.result))


def damaged(path: Path) -> None:
    """Says that the newest checkpoint is damaged."""
    from research.record.checksums import DamagedError

    if path.name == "8":
        raise DamagedError(f"{path}: is damaged.")


def become_unlike(what: str) -> None:
    """Makes this process see other labels of the test split, or checkpoints otherwise."""
    import toy_runs

    from research.data.sources.examples import Arrays
    from research.experiment import Data
    from research.training import checkpointer

    if what == "checkpoints":
        checkpointer.steps = lambda folder: []
    if what == "damage":
        checkpointer.verify = damaged
    if what != "labels":
        return
    train, test = toy_runs.source(40, seed=0), toy_runs.source(21)
    fields = dict(test.examples.fields)
    fields["label"] = fields["label"].copy()
    fields["label"][11] ^= 1
    other = dataclasses.replace(test, examples=Arrays(fields))
    toy_runs.data = lambda: Data(train, {"test": other})


def main(where: str, work: dict[str, Any]) -> None:
    """Does the work, as one of the processes of `where`."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", work.get("devices", DEVICES))
    import launch
    from research.distributed import folder, group
    from research.distributed.joining import joined

    if "blind" in work:
        if work["blind"] == int(where.rpartition(",")[2]):
            folder._appears = lambda file: False
        sys.exit(launch.main(["launch.py", *work["launch"][0], f"--distributed={where}"]))
    if "unlike" in work and work["unlike"][0] == int(where.rpartition(",")[2]):
        become_unlike(work["unlike"][1])
    if "busy" in work:
        group.PATIENCE = work["busy"] / 5
    with joined(where, 60.0, {}):
        if "busy" in work and group.is_first():
            time.sleep(work["busy"])
        for path in work.get("toy", ()):
            train_toy(Path(path))
        for arguments in work.get("launch", ()):
            code = launch.main(["launch.py", *arguments])
            assert code == 0, (code, arguments)


if __name__ == "__main__":
    os.environ["JAX_PLATFORMS"] = "cpu"
    main(sys.argv[1], json.loads(sys.argv[2]))
