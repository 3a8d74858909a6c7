"""Changes the code in small ways and counts how many changes its tests notice.

    pip install cosmic-ray && nice -n 15 python tests/mutants.py --sample=300 --seed=0

Mutants are cosmic-ray's: another operator, another number, a condition turned round, no decorator.
A sample of all mutants of MODULES is drawn; each is tested by the files of its own room that name
its module (of tests/research, where its room has none), in a copy of the tree, in a process of its
own. Mutants that no test notices are
printed. The sample of a seed is in random order, so what is seen of one that was stopped is fair.
"""

import argparse
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import cosmic_ray.plugins
import flax.linen  # noqa: F401  (what tests import, once for all of them)
import jax
import optax  # noqa: F401
import pytest
from cosmic_ray.commands.init import _all_work_items
from cosmic_ray.mutating import use_mutation

MODULES = [
    *("losses/*.py", "metrics/*.py", "geometry/*.py"),
    *("training/step.py", "data/sources/source.py", "data/sources/examples.py"),
]
# In annotations alone: `str | None`; and numbers of lines and the like are no behaviour.
LEFT_OUT = re.compile("BitOr")
LONGEST = 180  # seconds; a mutant that takes more does not end, which is noticed


def tests_of(module: Path) -> list[str]:
    """Returns the test files that name a module: its own room's, or else all."""
    package = ".".join(("research", *module.parts[1:-1]))
    names = re.compile(
        rf"from {re.escape(package)}\.{module.stem} import"
        rf"|from {re.escape(package)} import [^\n]*\b{module.stem}\b"
    )
    files = [
        file for file in Path("tests/research").rglob("test_*.py") if names.search(file.read_text())
    ]
    own = [file for file in files if file.parent == Path("tests") / module.parent]
    return [str(file) for file in sorted(own or files)]


def passes(tests: list[str]) -> bool:
    """Returns whether all tests pass, in a process that begins where this one stands."""
    child = os.fork()
    if child == 0:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        os.setsid()
        code = 1
        try:
            code = pytest.main(["-x", "-q", "-n0", "-p", "no:cacheprovider", *tests])
        finally:
            os._exit(int(code))
    began = time.monotonic()
    while time.monotonic() - began < LONGEST:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sample", type=int, default=300, help="mutants that are tried")
    parser.add_argument("--seed", type=int, default=0, help="which of them are")
    parser.add_argument("--skip", type=int, default=0, help="mutants of the sample tried before")
    parser.add_argument("--minutes", type=float, default=1e9, help="when to stop, at the latest")
    given = parser.parse_args()

    copy = Path(tempfile.mkdtemp(prefix="mutants-"))
    root = Path(__file__).resolve().parent.parent
    for name in ("research", "experiments", "tests", "launch.py", "pyproject.toml"):
        source = root / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
    os.chdir(copy)
    sys.dont_write_bytecode = True
    began, survivors, tried = time.monotonic(), [], 0
    try:
        modules = [file for pattern in MODULES for file in sorted(Path("research").glob(pattern))]
        items = [item.mutations[0] for item in _all_work_items(modules, {})]
        items = [item for item in items if not LEFT_OUT.search(item.operator_name)]
        sample = random.Random(given.seed).sample(items, min(given.sample, len(items)))
        sample = sample[given.skip :]
        print(f"{len(sample)} of {len(items)} mutants of {len(modules)} modules", flush=True)
        sound: dict[Path, bool] = {}
        for number, item in enumerate(sample, given.skip + 1):
            if time.monotonic() - began > 60 * given.minutes:
                break
            module = Path(item.module_path)
            tests = tests_of(module)
            if module not in sound:
                sound[module] = bool(tests) and passes(tests)
                if not sound[module]:
                    print(f"{module}: its tests do not pass as it is: {tests}", flush=True)
            if not sound[module]:
                continue
            operator = cosmic_ray.plugins.get_operator(item.operator_name)(**item.operator_args)
            with use_mutation(module, operator, item.occurrence):
                survived = passes(tests)
            tried += 1
            if survived:
                row, column = item.start_pos
                line = module.read_text().splitlines()[row - 1].strip()
                survivors.append(
                    f"{module}:{row}:{column} {item.operator_name.split('/')[-1]}: {line}"
                )
                print(f"[{number}] survives {survivors[-1]}", flush=True)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    print(f"{tried - len(survivors)} of {tried} mutants were noticed (jax {jax.__version__})")


if __name__ == "__main__":
    main()
