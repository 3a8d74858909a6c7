"""Every topic of docs/course, by its commands: what must hold of what they print does.

    COURSE_TABLE=course.md pytest -m course tests/test_course.py

writes a table of all topics, too. Commands that name photo.jpg take a photograph of COURSE_PHOTOS,
a folder, or else scikit-image's cup of coffee.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import course_pages
import pytest
import skimage

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 600  # seconds a command
PHOTO = "photo.jpg"

pytestmark = pytest.mark.course


class Done(NamedTuple):
    """A command that ran: its numbers, what it printed, and how long it took."""

    metrics: dict
    printed: str
    seconds: float


class Runner:
    """Runs each command once, in one folder."""

    def __init__(self, folder):
        self.folder, self.done, self.rows = folder, {}, []

    def run(self, command):
        if command not in self.done:
            self.done[command] = self.launch(command, len(self.done))
        return self.done[command]

    def launch(self, command, number):
        words = shlex.split(command)[2:]
        words = [re.sub(r"(=|,)docs/", rf"\1{ROOT}/docs/", word) for word in words]
        words = [word.replace(PHOTO, str(photograph())) for word in words]
        given = [word.partition("=")[2] for word in words if word.startswith("--workdir=")]
        path = self.folder / (given[0] if given else f"run{number}")
        extra = [] if given or "--mode=list" in words else [f"--workdir={path}"]
        began = time.perf_counter()
        process = subprocess.run(
            [sys.executable, str(ROOT / "launch.py"), *words, *extra],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            env={**os.environ, "COLUMNS": "160"},
        )
        assert process.returncode == 0, process.stderr[-500:]
        result = path / "result.json"
        metrics = json.loads(result.read_text())["metrics"] if result.is_file() else {}
        return Done(metrics, process.stdout, time.perf_counter() - began)


def photograph():
    """Returns a photograph of the person's own, or the one that comes with scikit-image."""
    folder = os.environ.get("COURSE_PHOTOS")
    if folder:
        return min(Path(folder).glob("*.[jp][pn]g"))
    return Path(skimage.__file__).parent / "data" / "coffee.png"


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    found = Runner(tmp_path_factory.mktemp("course"))
    yield found
    if target := os.environ.get("COURSE_TABLE"):
        head = ["| Topic | | Seconds | What was found |", "|---|---|---|---|"]
        Path(target).write_text("\n".join([*head, *found.rows]) + "\n")


@pytest.mark.parametrize("topic", course_pages.every(), ids=lambda topic: topic.name)
def test_what_a_topic_says_holds(topic, runner):
    row = f"| {topic.name} {topic.title} |"
    try:
        for command in topic.runs:
            name = re.search(r"--workdir=(\w+)", command)
            if name and any(f"={name[1]}" in other for other in topic.commands):
                runner.run(command)
        done = [runner.run(command) for command in topic.commands]
        metrics, printed = [one.metrics for one in done], "".join(one.printed for one in done)
        checked = {line: course_pages.holds(line, metrics, printed) for line in topic.holds}
    except BaseException as error:
        runner.rows.append(f"{row} FAILED | | {str(error).splitlines()[-1][:80]} |")
        raise
    failed = [line for line, (true, _) in checked.items() if not true]
    found = "; ".join(f"{line} ({value})" for line, (_, value) in checked.items())
    seconds = sum(one.seconds for one in done)
    runner.rows.append(f"{row} {'FAILED' if failed else 'holds'} | {seconds:.0f} | {found} |")
    assert not failed, found
