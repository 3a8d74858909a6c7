"""benchmarks/reading.py in small."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.mark.families
def test_every_way_of_reading_gives_a_rate():
    given = ["--count=4", "--batch_size=4", "--sides=240x320,448x448", "--rounds=1"]
    told = subprocess.run(
        [sys.executable, BENCHMARKS / "reading.py", *given, "--seconds=0.1", "--workers=1"],
        check=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "COLUMNS": "160"},
        timeout=300,
        capture_output=True,
        text=True,
    ).stdout
    rows = json.loads((BENCHMARKS / "accelerator.json").read_text())["parts"]["training"]["rows"]
    wanted = rows[0]["images a second"]
    assert f"{wanted:,.0f} images/s" in told
    found = re.findall(r"│ (\S.*?) +│ ([\d,]+) +│ ([\d,]+) +│ ([\d.]+) +│ (\S+) ", told)
    assert len(found) == 2 * 11
    for _, wall, processor, ratio, cores in found:
        assert min(int(wall.replace(",", "")), float(ratio)) > 0
        assert float(cores) == pytest.approx(wanted / int(processor.replace(",", "")), rel=0.06)
    ahead = re.findall(r"│ (--decode=\w+, .*?) +│ ([\d,]+) ", told)
    assert [name for name, _ in ahead] == 2 * [
        f"--decode={decode}, {kind}"
        for decode in ("full", "reduced")
        for kind in ("threads", "--workers=1")
    ]
