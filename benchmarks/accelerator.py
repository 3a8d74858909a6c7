"""One accelerator, measured in one command: python benchmarks/accelerator.py

    python benchmarks/accelerator.py                    # some 5 minutes on one GPU
    python benchmarks/accelerator.py --tiny --out=DIR   # the same program in small, on a CPU
    python benchmarks/accelerator.py --parts=remat,nms

Each part is a process of its own, so that one that fails or hangs takes no other with it. A part
that is not done after --part_seconds, or when --seconds are over, is said to be left out. Written,
anew after each part, are accelerator.md and accelerator.json, beside this file or in --out, with
the device's name. What needs a package that is not there (torch, torchvision) says so.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from accelerator_parts import MARK, PARTS

HERE = Path(__file__).resolve().parent
HOUSE = HERE.parent


def measured(part: str, tiny: bool, limit: float, **environment: str) -> dict[str, Any]:
    """Runs a part in a process of its own; "failed" says why there are no rows, or no more."""
    command = [sys.executable, str(HERE / "accelerator_parts.py"), part, *["--tiny"] * tiny]
    # PyTorch's parts share the device's memory.
    given = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", **environment}
    why = {}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=max(limit, 1), env=given, cwd=HOUSE
        )
        written = done.stdout
        if done.returncode:
            why = {"failed": (done.stderr.strip().splitlines() or ["no word"])[-1][:200]}
    except subprocess.TimeoutExpired as error:
        written = (error.stdout or b"").decode()  # bytes, whatever was asked for
        why = {"failed": f"was not done within {limit:.0f} s"}
    lines = [line for line in written.splitlines() if line.startswith(MARK)]
    found = [json.loads(line.removeprefix(MARK)) for line in lines]
    known = {k: one[k] for one in found for k in ("device", "jax")}
    return {**known, "rows": [one["row"] for one in found], **why}


def joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Joins what two processes of a part found: the rows of both, and why one failed, or each."""
    failed = [found["failed"] for found in (one, other) if "failed" in found]
    rows = [*one.get("rows", []), *other.get("rows", [])]
    return {**one, **other, "rows": rows, **({"failed": "; ".join(failed)} if failed else {})}


def shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return "–" if value is None else str(value)


def page(result: dict[str, Any]) -> str:
    """Writes the figures as Markdown."""
    lines = ["# One accelerator", "", f"`{result['command']}`, {result['date']}: "]
    lines += [f"{result['device']}, jax {result['jax']}; {result['seconds']:.0f} s in all.", ""]
    if "note" in result:  # of a person who changed the file
        lines += [result["note"], ""]
    for part, found in result["parts"].items():
        lines += [f"## {part}", "", (PARTS[part].__doc__ or "").strip(), ""]
        if "failed" in found:
            lines += [f"Not measured, or not whole: {found['failed']}.", ""]
        if not found["rows"]:
            continue
        columns = list(dict.fromkeys(name for row in found["rows"] for name in row))
        lines += [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
        for row in found["rows"]:
            lines.append(f"| {' | '.join(shown(row.get(name, '')) for name in columns)} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="small sizes, for a CPU")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--seconds", type=float, default=340.0, help="for all parts together")
    parser.add_argument("--part_seconds", type=float, default=120.0, help="for one part")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--data_dir", default="data")
    options = parser.parse_args()
    os.environ["ACCELERATOR_DATA"] = os.environ.get("ACCELERATOR_DATA") or str(
        Path(options.data_dir).absolute()
    )
    began = time.perf_counter()
    parts: dict[str, Any] = {}
    known: dict[str, Any] = {"device": "unknown device", "jax": "?"}
    for part in options.parts.split(","):
        ways = ("0", "1") if part == "deterministic" else ("",)
        for way in ways:
            left = options.seconds - (time.perf_counter() - began)
            limit = min(left, options.part_seconds)
            found = measured(part, options.tiny, limit, ACCELERATOR_DETERMINISTIC=way)
            known |= {k: found[k] for k in ("device", "jax") if k in found}
            found = {k: v for k, v in found.items() if k not in ("device", "jax")}
            parts[part] = joined(parts.get(part, {}), found)
        print(part, parts[part].get("failed", ""), parts[part]["rows"], flush=True)
        result = {
            "command": shlex.join(["python", "benchmarks/accelerator.py", *sys.argv[1:]]),
            "date": time.strftime("%Y-%m-%d"),
            **known,
            "seconds": time.perf_counter() - began,
            "parts": parts,
        }
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "accelerator.json").write_text(json.dumps(result, indent=2) + "\n")
        (options.out / "accelerator.md").write_text(page(result))


if __name__ == "__main__":
    main()
