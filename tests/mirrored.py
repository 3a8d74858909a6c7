"""Runs whose folder is in the stand-in for a store: trained, begun, killed, and looked at."""

import hashlib
import json
import time

import toys
from toy_runs import CONFIG, data

from research.distributed.folder import open_run
from research.record import checksums
from research.remote.mirror import Mirror
from research.training import parallel as parallel_lib
from research.training.loop import train

ADDRESS, FOLDER = "gs://bucket/runs/a", "bucket/runs/a"
LATEST = "checkpoints/latest"
LOG = "metrics.jsonl"


def run(folder, held=None, saved=lambda: None, experiment=None):
    """Trains the smallest experiment to its end, in a folder of this machine."""
    parallel = parallel_lib.create(CONFIG.parallel, CONFIG.batch_size, CONFIG.accumulate)
    with open_run(folder, "toy", CONFIG, None, held, saved) as record:
        experiment = experiment or toys.experiment(data=data)
        record.finish(train(experiment, CONFIG, parallel, record).result)


def remote(experiment=None):
    with Mirror(ADDRESS) as mirror:
        run(mirror.path, mirror.lock, mirror.push, experiment)


def told(read):
    """Returns the bits of a finished run's state, and its log."""
    result = json.loads(read("result.json"))
    rows = [json.loads(line) for line in read("metrics.jsonl").splitlines()]
    return result["fingerprint"], [{k: v for k, v in r.items() if k != "seconds"} for r in rows]


def finished(files):
    """Returns the checkpoints that have their list."""
    return {n for n in files if n.startswith("checkpoints/") and n.endswith(checksums.NAME)}


def broken_promises(files):
    """Yields what lists promise that is not there, by a plain look at each."""
    for name in [n for n in files if n.rpartition("/")[2] == checksums.NAME]:
        folder = name.removesuffix(checksums.NAME)
        for file, entry in json.loads(files[name])["files"].items():
            content = files.get(folder + file)
            if content is None:
                if file not in ("result.json", "stopped.json"):  # listed before they are written
                    yield f"{folder + file} is missing"
                continue
            if file == "metrics.jsonl":
                content = content[: entry["size"]]
            if hashlib.sha256(content).hexdigest() != entry["sha256"]:
                yield f"{folder + file} differs"


def begun():
    """Leaves a run of two files in the store, and returns its folder."""
    with Mirror(ADDRESS) as mirror:
        (mirror.path / "config.json").write_text("{}")
        (mirror.path / LOG).write_text("1\n")
    return mirror.path


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def killed(mirror):
    """Ends a mirror as kill -9 would: nothing is copied, and the lease stays."""
    mirror._lease.stop_renewing()
    mirror.lock.close()


def ahead(log, monkeypatch, after=0.0):
    """Leaves a folder whose log the store does not have, and its lease, which may have run out."""
    mirror = Mirror(ADDRESS).__enter__()
    (mirror.path / "config.json").write_text("{}")
    mirror.push()
    (mirror.path / LOG).write_text(log)
    killed(mirror)
    if after:
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + after)
    return mirror.path
