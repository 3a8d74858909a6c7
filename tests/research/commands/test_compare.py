"""--mode=compare as a person types it, on folders that training could have left."""

import csv
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from run_folders import write_run, write_side

import launch
from research.comparison.study import Study, declare

BROWSER = next(
    (p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None
)
SGD = [0.900, 0.912, 0.921, 0.903, 0.931, 0.908]
ADAM = [0.931, 0.952, 0.943, 0.944, 0.962, 0.937]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Runs of three optimizers, and what --mode=compare wrote of them in out/."""
    place = tmp_path_factory.mktemp("compare")
    write_side(place / "runs" / "sgd", SGD, parameters=10, flops=1e6)
    write_side(place / "runs" / "adam", ADAM, flags={"optimizer": "adam"}, parameters=10, flops=2e6)
    lamb = [*ADAM[:4], None, None]
    write_side(place / "runs" / "lamb", lamb, flags={"optimizer": "lamb"}, losses=[3.0] * 7)
    flags = [f"--runs={place / 'runs' / name}" for name in ("sgd", "adam")]
    flags.append(f"--runs=<b>={place / 'runs' / 'lamb'}")
    assert main(*flags, "--difference=0.005", f"--workdir={place / 'out'}") == 0
    return place


def main(*flags):
    return launch.main(["launch.py", "--mode=compare", *flags])


def test_every_run_is_a_row_and_the_file_tells_which_failed(place):
    with open(place / "out" / "compare.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["test/accuracy"] for row in rows[:6]] == [str(x) for x in SGD]
    assert len(rows) == 18 and [row["seed"] for row in rows[12:]] == list("012345")
    assert rows[16]["failure"] == "unfinished: step 7 of 20" and rows[16]["test/accuracy"] == ""
    values = json.loads((place / "out" / "compare.json").read_text())
    assert values["variants"]["<b>"]["n"] == 4 and values["variants"]["<b>"]["runs"] == 6
    assert values["flags"] == {"optimizer": {"sgd": "sgd", "adam": "adam", "<b>": "lamb"}}


def test_all_forms_say_the_same_verdict(place):
    texts = {end: (place / "out" / f"compare.{end}").read_text() for end in ("md", "tex", "html")}
    for text in texts.values():
        assert "adam is higher than sgd by 3.2 points" in text
        assert "2 of 6 runs of " in text and "unfinished: step 7 of 20" in text
    assert texts["tex"].count("\\begin{tabular}") == 3


def test_the_page_is_whole_and_loads_nothing(place):
    page = (place / "out" / "compare.html").read_text()
    for heading in ("Every run", "Learning curves", "Cost and quality", "What differs"):
        assert f"<h2>{heading}</h2>" in page
    pictures = re.findall(r'<img alt="[^"]*" src="([^"]*)">', page)
    assert len(pictures) == 3 and all(x.startswith("data:image/") for x in pictures)
    assert not re.search(r"https?:|url\(|<script|<link|<iframe|@import", page)
    assert "<b>" not in page and "&lt;b&gt;" in page
    assert page.count("--workdir=NEW") == 18
    assert f"--flagfile={place}/runs/sgd/seed=0/flags.txt" in page
    assert "--mode=compare --runs=" in page  # what made it


def test_pictures_show_means_bands_and_every_value(tmp_path, figures):
    """Of the means that are drawn, against the runs' own numbers."""
    for name, slope in (("a", 1.0), ("b", 2.0)):
        for seed in range(3):
            losses = [slope * (step + seed) for step in range(1, 21)]
            flags = {"optimizer": name}
            write_run(tmp_path / name / f"seed={seed}", 0.5, seed=seed, losses=losses, flags=flags)
    runs = [f"--runs={tmp_path / name}" for name in "ab"]
    assert main(*runs, f"--workdir={tmp_path / 'out'}") == 0
    drawn = figures[tmp_path / "out" / "curves.png"]
    assert drawn.has("train/loss", "test/accuracy", "step", "seconds", "a", "b")
    steps = np.arange(1, 21)
    np.testing.assert_allclose(drawn.lines[0], np.stack([steps, steps + 1.0], 1))
    np.testing.assert_allclose(drawn.lines[1], np.stack([steps, 2.0 * (steps + 1)], 1))
    np.testing.assert_allclose(drawn.lines[2][:, 0], steps * 0.1)  # 2 seconds, 20 steps
    assert figures[tmp_path / "out" / "values.png"].has("a", "b")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "needs --runs="),
        (("--runs=nowhere/*",), "--runs=nowhere/*: matches no run"),
        (("--runs={}/runs/sgd", "--metric=test/acuracy"), "Did you mean 'test/accuracy'"),
        (("--runs={}/runs/sgd", "--baseline=sgf"), "Did you mean 'sgd'"),
        (("--runs={}/runs/sgd", "--runs={}/runs/sgd/seed=0"), "is in both sides"),
        (("--runs={}/runs/sgd", "--difference=-1"), "at least 0"),
        (("--runs={}/runs/sgd", "--mode=train", "--experiment=classification"), "is for --mode=co"),
        (("--runs={0}/runs/sgd", "--workdir={0}/out"), "holds a compare.json already"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    place, tmp_path, monkeypatch, capsys, flags, said
):
    monkeypatch.chdir(tmp_path)
    assert main(*(flag.format(place) for flag in flags)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error
    assert not list(tmp_path.iterdir())


def test_what_is_compared_has_its_own_folder_and_the_runs_stay_as_they_are(
    place, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    runs = shutil.copytree(place / "runs" / "sgd", tmp_path / "runs" / "sgd")
    before = sorted(runs.rglob("*"))
    assert main("--runs=runs/sgd/seed=[01]", "--runs=late=runs/sgd/seed=[23]") == 0
    assert sorted(runs.rglob("*")) == before
    assert len(list(tmp_path.glob("runs/compare/*/compare.html"))) == 1
    said = capsys.readouterr().out
    assert "verdict  late: no inference" in said
    assert "WARNING  sides differ in no flag that changes results." in said


def test_a_studys_folder_is_compared_by_what_it_declared(tmp_path, capsys):
    variants = {"slow": ("--optimizer=sgd",), "fast one": ("--optimizer=adam",)}
    declaration = Study(
        "classification",
        variants,
        tuple(range(6)),
        difference=0.01,
        baseline="fast one",
        question="Is <Adam> faster?",
        claim="Adam is.",
        budget="20 steps",
    )
    place = tmp_path / "study"
    place.mkdir()
    declare(declaration, place)
    write_side(place / "slow", SGD)
    write_side(place / "fast-one", ADAM[:5], flags={"optimizer": "adam", "weight_decay": 0.5})
    assert main(f"--runs={place}", f"--workdir={tmp_path / 'out'}", "--difference=0.02") == 0
    values = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert values["baseline"] == "fast one" and values["difference"] == 0.02
    assert values["comparisons"]["slow"]["verdict"]["kind"] == "lower"
    assert values["variants"]["fast one"]["runs_of_it"][5]["failure"] == "not begun"
    said = capsys.readouterr().out
    assert "--difference=0.02 is not the 0.01 that study declared" in said
    assert "more than the flags under study: weight_decay" in said
    # The page says all by itself: question, claim, declaration, command, verdict, picture, tables.
    page = (tmp_path / "out" / "compare.md").read_text()
    assert page.startswith("# Is <Adam> faster?\n\n- Claim: Adam is.\n- test/accuracy (higher is ")
    assert "- Compared with fast one, over the seeds 0, 1, 2, 3, 4, 5.\n- Budget: 20 steps" in page
    command = f"python launch.py --mode=compare --runs={place} --workdir={tmp_path / 'out'}"
    assert f"```bash\n{command} --difference=0.02\n```" in page
    told = next(line for line in said.splitlines() if line.startswith("verdict  slow is lower"))
    assert f"- {told.removeprefix('verdict  ')}\n" in page
    assert "](values.png)\n" in page and (tmp_path / "out" / "values.png").exists()
    parts = re.findall("^## (.*)", page, re.MULTILINE)
    assert parts[0] == "Verdicts" and parts[-1] == "Warnings" and "Flags that differ" in parts
    assert "Is &lt;Adam&gt; faster?" in (tmp_path / "out" / "compare.html").read_text()


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (apt-get install chromium)")
def test_a_browser_shows_the_page_and_asks_nobody_for_anything(place, tmp_path):
    check = """<script>addEventListener("load", () => {
      const images = [...document.images];
      const shown = images.filter(i => i.complete && i.naturalWidth > 50).length;
      const fetched = performance.getEntriesByType("resource")
        .filter(entry => !entry.name.startsWith("data:")).length;
      const rows = document.querySelector("table").rows.length;
      document.title = [images.length, shown, fetched, rows, document.body.scrollHeight].join(" ");
    });</script>"""
    file = tmp_path / "compare.html"
    page = (place / "out" / "compare.html").read_text()
    file.write_text(page.replace("</body>", check + "</body>"))
    done = subprocess.run(
        [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom",
         "--disable-background-networking", "--virtual-time-budget=5000", "--enable-logging=stderr",
         f"--user-data-dir={tmp_path / 'profile'}", file.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    title = done.stdout.partition("<title>")[2].partition("</title>")[0]
    images, shown, fetched, rows, height = map(int, title.split())
    assert images == shown == 3 and fetched == 0 and rows == 4 and height > 1000
    assert "CONSOLE" not in done.stderr
