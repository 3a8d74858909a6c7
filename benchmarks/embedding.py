"""What mining costs, and nearest neighbours against scikit-learn, in one process.

python benchmarks/embedding.py [--part=mining|neighbours]
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.neighbors import NearestNeighbors

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from research.losses.triplet import MINING, triplet_loss
from research.vectors.neighbours import nearest

SIZE = 64  # numbers in an embedding


def best_of(runs: int, call: Callable[[], Any]) -> float:
    """Seconds of the fastest of several runs."""
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def mining(runs: int) -> None:
    """Loss and gradient of batches of 4 images a class, and of 2 classes: the most triplets."""
    print(f"triplet loss and gradient, ms, minimum of {runs}; in brackets MiB of working memory")
    print(f"{'batch':>6} {'classes':>8}" + "".join(f"{name:>20}" for name in MINING))
    for batch in (128, 256, 512, 1024, 2048):
        for classes in (batch // 4, 2):
            labels = jnp.arange(batch) % classes
            x = jax.random.normal(jax.random.key(0), (batch, SIZE))
            x /= jnp.linalg.norm(x, axis=1, keepdims=True)
            cells = []
            for name in MINING:

                def loss(x: jax.Array, labels: jax.Array, name: str = name) -> jax.Array:
                    mask = jnp.ones(len(labels), bool)
                    return triplet_loss(x, labels, mask, jax.random.key(1), mining=name)[0].mean()

                step = jax.jit(jax.value_and_grad(loss)).lower(x, labels).compile()
                step(x, labels)
                seconds = best_of(runs, lambda: jax.block_until_ready(step(x, labels)))  # noqa: B023
                mib = step.memory_analysis().temp_size_in_bytes / 2**20
                cells.append(f"{1e3 * seconds:.1f} ({mib:.0f})")
            print(f"{batch:6} {classes:8}" + "".join(f"{c:>20}" for c in cells), flush=True)


def neighbours(runs: int) -> None:
    """10,000 queries in 100,000, 64 numbers each."""
    rng = np.random.default_rng(0)
    vectors, queries = (rng.normal(size=(n, SIZE)).astype("f") for n in (100_000, 10_000))
    for count in (1, 10):
        theirs = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(vectors)
        found = nearest(queries, vectors, count)[1]  # compiles
        same = (found == theirs.kneighbors(queries)[1]).mean()
        ours = best_of(runs, lambda: nearest(queries, vectors, count))  # noqa: B023
        other = best_of(runs, lambda: theirs.kneighbors(queries))  # noqa: B023
        print(
            f"{count:3} nearest of 100,000 for 10,000 queries: {ours:.2f} s; scikit-learn, brute "
            f"force, {other:.2f} s; ratio {other / ours:.2f}; {100 * same:.2f} % the same",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", choices=("mining", "neighbours"))
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    print(f"on {jax.devices()[0].device_kind}")
    if given.part != "neighbours":
        mining(given.runs)
    if given.part != "mining":
        neighbours(given.runs)


if __name__ == "__main__":
    main()
