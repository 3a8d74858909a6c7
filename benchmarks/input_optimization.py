"""Looking into a network: speed beside torch, and the memory of occlusion and of neighbours.

    python benchmarks/input_optimization.py [--torch=PYTHON]

Steps of class visualisation in pixels (ascent on a score, L2, Adam) on ResNet-18, 224x224, random
weights: one at a time, many inside lax.scan, and the same in torch where it can be imported, or
where --torch names another Python that can. Each is timed in a process of its own, after a first
step.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
SIDE = 224


def rate(step: Callable[[], object], seconds: float) -> float:
    """Calls a second, after one that compiles."""
    step()
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        step()
        calls += 1
    return calls / (time.perf_counter() - began)


def ours(seconds: float) -> dict[str, float]:
    """Steps a second, one call a step and ten steps a call."""
    import jax
    import jax.numpy as jnp
    import optax

    from research import models

    model = models.create("resnet18")
    variables = model.init(jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))
    optimizer = optax.chain(optax.add_decayed_weights(1e-4), optax.adam(0.05))

    def step(state, _):
        image, opt_state = state
        gradient = jax.grad(lambda x: -model.apply(variables, x)[0, 7])(image)
        updates, opt_state = optimizer.update(gradient, opt_state, image)
        return (optax.apply_updates(image, updates), opt_state), None

    image = jnp.zeros((1, SIDE, SIDE, 3))
    start = (image, optimizer.init(image))
    one = jax.jit(lambda s: step(s, None)[0])
    ten = jax.jit(lambda s: jax.lax.scan(step, s, None, 10)[0])
    return {
        "jit, a call a step": rate(lambda: jax.block_until_ready(one(start)), seconds),
        "jit, 10 steps in lax.scan": 10 * rate(lambda: jax.block_until_ready(ten(start)), seconds),
    }


TORCH = """
import json, sys, time, torch, torchvision
seconds, side = float(sys.argv[1]), int(sys.argv[2])
torch.manual_seed(0)
net = torchvision.models.resnet18().eval()
for p in net.parameters():
    p.requires_grad_(False)
image = torch.zeros(1, 3, side, side, requires_grad=True)
optimizer = torch.optim.Adam([image], 0.05, weight_decay=1e-4)
def step():
    optimizer.zero_grad()
    (-net(image)[0, 7]).backward()
    optimizer.step()
step()
began, calls = time.perf_counter(), 0
while time.perf_counter() - began < seconds:
    step(); calls += 1
print(json.dumps({"torch " + torch.__version__: calls / (time.perf_counter() - began)}))
"""


def peak() -> float:
    """Largest resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def occlusion() -> dict[str, float]:
    """Memory of the whole map of one photograph's size, EfficientNet-Lite0, chunks of 16."""
    import jax
    import jax.numpy as jnp

    from research import models
    from research.understanding.occlusion import occlude

    model = models.create("efficientnet_lite0")
    variables = model.init(jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))
    before = peak()
    look = jax.jit(
        lambda x: occlude(lambda i: model.apply(variables, i)[:, 7], x, (37, 37), (18, 18), 0.0, 16)
    )
    image = jnp.ones((1, SIDE, SIDE, 3))
    jax.block_until_ready(look(image))
    began = time.perf_counter()
    found = jax.block_until_ready(look(image))
    return {
        "positions": float(found.scores.size),
        "seconds": time.perf_counter() - began,
        "MiB before": before,
        "MiB peak": peak(),
    }


def neighbours() -> dict[str, float]:
    """Memory of 200 queries against 5,000 images of 224 x 224 x 3, read a block at a time."""
    import numpy as np

    from research.vectors.neighbours import Stored, nearest

    def read(start: int, stop: int) -> np.ndarray:
        rng = np.random.default_rng(start)
        return rng.integers(0, 255, (stop - start, SIDE, SIDE, 3), np.uint8)

    before = peak()
    queries = np.asarray(read(0, 200), np.float32).reshape(200, -1)
    began = time.perf_counter()
    nearest(queries, Stored(read, 5000), 9, others=np.arange(200))  # as --method=neighbours does
    return {
        "seconds": time.perf_counter() - began,
        "MiB before": before,
        "MiB peak": peak(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--method", choices=["visualise", "occlusion", "neighbours"])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--torch", default=sys.executable, help="a Python that has torch")
    options = parser.parse_args()
    if options.method:
        work = {"visualise": lambda: ours(options.seconds), "occlusion": occlusion}
        print(json.dumps({**work, "neighbours": neighbours}[options.method]()))
        return
    for method in ("visualise", "occlusion", "neighbours"):
        command = [sys.executable, __file__, f"--method={method}", f"--seconds={options.seconds}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        for name, value in json.loads(done.stdout.splitlines()[-1]).items():
            print(f"{method:12}{name:28}{value:10.2f}", flush=True)
        if method == "visualise":
            arguments = [options.torch, "-c", TORCH, str(options.seconds), str(SIDE)]
            done = subprocess.run(arguments, capture_output=True, text=True)
            if done.returncode:
                print("visualise   torch is not there")
                continue
            for name, value in json.loads(done.stdout.splitlines()[-1]).items():
                print(f"{method:12}{name:28}{value:10.2f}", flush=True)


if __name__ == "__main__":
    main()
