"""benchmarks/accelerator.py in small, on this machine's CPU: it is to work the first time."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parent.parent / "benchmarks" / "accelerator.py"


def module():
    spec = importlib.util.spec_from_file_location("accelerator", FILE)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_the_page_is_what_the_figures_say_with_their_note():
    found = json.loads(FILE.with_suffix(".json").read_text())
    page = FILE.with_suffix(".md").read_text()
    assert module().page(found).strip() == page.strip()
    assert found["note"] in page


def test_what_failed_first_is_not_lost():
    row, other = {"what": "as it comes"}, {"what": "--deterministic"}
    late = {"rows": [row], "failed": "was not done within 9 s"}
    joined = module().joined
    assert joined(joined({}, late), {"rows": [other]}) == {**late, "rows": [row, other]}
    both = joined(late, {"rows": [], "failed": "no word"})
    assert both == {"rows": [row], "failed": "was not done within 9 s; no word"}


@pytest.mark.families
def test_every_part_gives_figures(tmp_path):
    given = ["--tiny", f"--out={tmp_path}", f"--data_dir={tmp_path / 'data'}", "--seconds=600"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, FILE, *given], check=True, env=environment, timeout=650)
    parts = json.loads((tmp_path / "accelerator.json").read_text())["parts"]
    assert {k: x["failed"] for k, x in parts.items() if "failed" in x} == {}
    by_part = {name: found["rows"] for name, found in parts.items()}
    assert [row["bits equal twice"] for row in by_part["deterministic"]] == [True, True]
    assert [row["what"] for row in by_part["remat"]] == [
        "--remat=full",
        "--remat=blocks",
        "--remat=none",
    ]
    assert all(
        row["MiB, as --mode=check says"] > 0 for row in by_part["remat"]
    )  # so small, nothing is saved
    assert by_part["training"][0]["images a second"] > 0
    away = [row["RMS away / deviation"] for row in by_part["precision"]]
    assert away[0] == 0 and away[1] < 1e-5 < away[2]  # a CPU keeps the digits of float32
    assert "| what |" in (tmp_path / "accelerator.md").read_text()
