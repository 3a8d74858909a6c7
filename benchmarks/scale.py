"""The table of docs/scale.md: steps compiled for accelerators that are not at hand, as Markdown.

    python benchmarks/scale.py --tpu=PYTHON --gpu=PYTHON
    python benchmarks/scale.py --tpu=PYTHON --rows=resnet50 --topologies=v5e:2x4

--tpu and --gpu name the Pythons of environments with libtpu and with jax-cuda12-plugin, which
docs/scale.md tells how to make; rows of a kind that has none are left out. Each is a process.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HOUSE = Path(__file__).resolve().parent.parent
RESNET50 = (
    *("--experiment=classification", "--dataset=digits", "--model=resnet50", "--image_size=224"),
    *("--precision=bfloat16", "--batch_size=2048", "--eval_batch_size=2048"),
)
ROWS = {
    "resnet50": ("ResNet-50, 224, bfloat16", RESNET50, ("v5e:2x4", "h100:8")),
    "resnet50-device": (
        "the same, --batch_statistics=device",
        (*RESNET50, "--batch_statistics=device"),
        ("v5e:2x4", "h100:8"),
    ),
    "resnet50-remat": ("the same, --remat=full", (*RESNET50, "--remat=full"), ("v5e:2x4",)),
    "segmentation": (
        "segmentation",
        ("--experiment=segmentation", "--batch_size=128"),
        ("v5e:2x4", "h100:8"),
    ),
    "embedding": (
        "embedding",
        ("--experiment=embedding", "--batch_size=1024", "--images_per_class=64"),
        ("v5e:2x4", "h100:8", "v6e:4x4", "v5p:2x2x2"),
    ),
    "embedding-large": (
        "embedding",
        ("--experiment=embedding", "--batch_size=8192", "--images_per_class=512"),
        ("v5e:16x16", "h100:32x8"),
    ),
}
COLUMNS = (
    "step",
    "global batch",
    "for",
    "memory a device",
    "exchanged a step",
    "ms at best",
    "s to compile",
)


def cells(name: str, row: dict[str, Any]) -> list[str]:
    """The cells of one compiled training step."""
    kinds = row["collectives"].items()
    bound = row["roofline"]
    limit = max(bound, key=bound.get) if bound else ""
    return [
        name,
        f"{row['batch']:,}",
        row["topology"],
        "refused" if row["memory"] is None else f"{row['memory'] / 2**20:,.0f} MiB"
        + ("" if row["fits"] else ", too much"),
        ", ".join(f"{x['number']} {kind} of {x['bytes'] / 2**20:.1f} MiB" for kind, x in kinds),
        f"{1e3 * bound[limit]:.3g} by {limit}" if bound else "–",
        f"{row['compile_seconds']:.0f}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tpu", default="", help="Python with libtpu")
    parser.add_argument("--gpu", default="", help="Python with jax-cuda12-plugin")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--topologies", default="", help="only these")
    parser.add_argument("--data_dir", default="data")
    options = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for key in options.rows.split(","):
        name, flags, topologies = ROWS[key]
        for topology in topologies:
            python = options.tpu if topology.startswith("v") else options.gpu
            if not python or (options.topologies and topology not in options.topologies.split(",")):
                continue
            with tempfile.TemporaryDirectory() as folder:
                given = ["--mode=compile", f"--topology={topology}", f"--workdir={folder}"]
                command = [python, "launch.py", *flags, *given, f"--data_dir={options.data_dir}"]
                done = subprocess.run(command, cwd=HOUSE, capture_output=True, text=True)
                file = Path(folder) / "compile.json"
                if not file.exists():
                    print(f"{name}, {topology}: {done.stderr[-300:]}", file=sys.stderr)
                    continue
                print(f"| {' | '.join(cells(name, json.loads(file.read_text())[0]))} |", flush=True)


if __name__ == "__main__":
    main()
