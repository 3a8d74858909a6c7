"""The pages that a person reads: every command in them parses, every link leads somewhere.

Commands are the lines of ```bash blocks and the `code` in sentences and tables. They are written
for a reader, so some words stand for something else:

- `...` for `python launch.py --experiment=NAME`, with the experiment of its section's first
  command;
- a value in capitals (RUN, PATH, N), or none (`--model=`), for any: only the flag must be one;
- a flag file in a run's or a tuning's folder, RUN/flags.txt or TUNED/best.flags, for flags of
  classification;
- NAME.flags for any preset of its folder, --study=NAME and --study=mine.toml for any study;
- --experiment=NAME for classification;
- a file or a module of a person's own (mine.py, my_lab.mine) for experiments/denoising.py;
- CLONE/launch.py for launch.py.

A checkpoint says what trained it; here that is the experiment of the command before it in the
section, and classification where there is none. Code that begins with a flag (`--tile=256`) must
be flags of some experiment.
"""

import functools
import importlib
import re
import shlex
from pathlib import Path

import pytest

import experiments
import launch
from research import config as config_lib
from research import models
from research.code import files
from research.commands.study import study_of
from research.data import datasets
from research.detection import config as detection
from research.understanding.methods import METHODS

ROOT = Path(__file__).resolve().parent.parent
PRESETS = ROOT / "experiments" / "presets"
STUDIES = sorted((PRESETS / "studies").glob("*.toml"))
PAGES = [ROOT / "README.md", ROOT / "CURRICULUM.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINKED = [*PAGES, ROOT / "ARCHITECTURE.md", ROOT / "benchmarks" / "README.md"]
ANY = re.compile(r"[A-Z][A-Z0-9_]*")
NO_FIELD = ("flagfile", "help", "no-deps")  # absl's, and pip's: no field of a Config
CHOOSERS = {
    "captioning": "decoding",
    "detection": "model",
    "embedding": "loss",
    "input_optimization": "method",
}


def name(page):
    return str(page.relative_to(ROOT))


@functools.cache
def contents(page):
    """Each heading of a page, and each piece of code below it, from the top: (heading, code)."""
    text = page.read_text()
    assert text.count("`") % 2 == 0, f"{name(page)}: an odd number of `"
    kinds = r"^#+ ([^\n]*)$|```(\w*)\n(.*?)```|`([^`]+)`"
    rows = []
    for heading, language, block, inline in re.findall(kinds, text, re.DOTALL | re.MULTILINE):
        lines = block.splitlines() if language == "bash" else []
        commands = [command for line in lines for command in line.split(" && ")]
        rows += [(heading, "")] if heading else [("", c) for c in [*commands, inline] if c]
    return rows


@functools.cache
def flags_of(experiment):
    """The names of an experiment's flags, the launcher's among them."""
    config_class = experiments.open_experiment(experiment).Config
    rows = [*config_lib.options(launch.LaunchConfig), *config_lib.options(config_class)]
    return {row.flag for row in rows} | {f"no{row.flag}" for row in rows if row.type is bool}


def launched(words):
    """The arguments of a call of the launcher, or None for other commands and prose."""
    while words and re.match(r"[A-Z_]+=", words[0]):  # XLA_FLAGS=...
        words = words[1:]
    for beginning in (["python", "launch.py"], ["python", "CLONE/launch.py"], ["fovea"]):
        if words[: len(beginning)] == beginning and words[len(beginning) :]:
            return words[len(beginning) :]
    return words if words[:1] == ["..."] else None


def filled(arguments, first, before):
    """Arguments with something real in the place of what stands for it; see the top."""
    result = []
    for argument in arguments:
        flag, _, value = argument.partition("=")
        if argument == "...":
            assert first, "`...` stands before any command of its section"
            result.append(f"--experiment={first}")
        elif flag == "--flagfile" and value.endswith(("/flags.txt", "/best.flags")):
            result.append("--experiment=classification")
        elif flag == "--flagfile" and ANY.fullmatch(Path(value).stem):
            result.append(f"--flagfile={min((ROOT / value).parent.glob('*.flags'))}")
        elif flag == "--variant" and value.endswith("/best.flags"):
            result.append("--variant=--tuning_trials=16")
        elif flag == "--study" and (ANY.fullmatch(value) or value == "mine.toml"):
            result.append(f"--study={min((PRESETS / 'studies').glob('*.toml'))}")
        elif flag == "--experiment" and files.is_own(value):
            result.append("--experiment=denoising")
        elif argument == "--experiment=NAME":
            result.append("--experiment=classification")
        else:
            result.append(argument)
    says = any(a.startswith(("--experiment=", "--flagfile=", "--study=")) for a in result)
    if not says and any(a.startswith("--checkpoint=") for a in result):
        result.insert(0, f"--experiment={before or 'classification'}")
    return result


def parsed(arguments):
    """What the launcher parses; what it leaves to the experiment to look up is looked up too."""
    command, module, config, _ = launch.parse(["launch.py", *arguments])
    for text in command.variant:
        launch.variant_of(command, module, ["launch.py", *arguments], text, shlex.split(text))
    known = models.available(command.experiment)
    if known and "model_options" in vars(config) and config.model:
        models.attributes(known[config.model], config.model_options)
    if command.experiment == "input_optimization":
        assert config.method in METHODS, f"there is no method {config.method}"
    return command, module, config


def check_launch(arguments):
    """Parses a command as the launcher does; returns its experiment, "" where it needs none."""
    named, rest = [], []
    for argument in arguments:
        flag, _, value = argument.partition("=")
        (named if ANY.fullmatch(value) else rest).append(argument)
        assert flag.startswith("--"), f"{argument} is no flag"
    if rest[-1:] == ["--help"]:
        rest.pop()
    command, module, config = parsed(rest)
    for argument in named:
        flag = argument.partition("=")[0].lstrip("-")
        known = flags_of(command.experiment or "classification")
        assert flag in known, f"--{flag} is no flag of {command.experiment}"
    if module is None:
        assert command.mode in ("list", "prepare", "compare", "reproduce"), (
            "an experiment is needed"
        )
        return ""
    chooser = CHOOSERS.get(command.experiment)
    if chooser and command.mode == "train":
        config_lib.refuse_unused(config, chooser, module.USED_BY)
    return command.experiment


@functools.cache
def check_flags(text):
    """Each flag of a text must be one of some experiment, and take the value it is given."""
    for argument in shlex.split(text):
        flag, _, value = argument.partition("=")
        having = [e for e in experiments.names() if flag.lstrip("-") in flags_of(e)]
        assert having or flag.lstrip("-") in NO_FIELD, f"{flag} is no flag"
        if not having or not value or ANY.fullmatch(value):
            continue
        refusals = []
        for experiment in having:
            try:
                parsed([f"--experiment={experiment}", argument])
                break
            except Exception as error:
                refusals.append(str(error))
        else:
            raise AssertionError(f"{argument}: {refusals}")


def check(text, first, before):
    """Checks a piece of code, whatever it is; returns the experiment of a command, or ""."""
    words = shlex.split(text, comments=True) if "python" in text or "--" in text else []
    if (arguments := launched(words)) is not None:
        return check_launch(filled(arguments, first, before))
    if text.startswith("--"):
        check_flags(text)
    elif preset := re.fullmatch(r"(transfer_\w+|\w+(?=\.flags))(?:\.flags)?", text):
        assert any(PRESETS.rglob(f"{preset[1]}.flags")), "there is no such preset"
    elif words[:1] in (["python"], ["bash"]) and not words[1].startswith("-"):
        assert (ROOT / words[1]).is_file(), f"there is no {words[1]}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_parses(page):
    first = before = ""
    for heading, text in contents(page):
        if heading:
            first = before = ""
        try:
            before = check(" ".join(text.split()), first, before) or before
        except (Exception, SystemExit) as error:
            raise AssertionError(f"{name(page)}: {text}: {error}") from error
        first = first or before


def slug(heading):
    """The anchor that GitHub gives a heading."""
    heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", heading).replace(" ", "-")


def anchors(page):
    """The anchors of a page."""
    return {slug(heading) for heading, _ in contents(page) if heading}


def links(page):
    """What a page links to inside the project, as (file, anchor)."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith(("https://", "http://")):
            path, _, anchor = target.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


@pytest.mark.parametrize("page", LINKED, ids=name)
def test_every_link_leads_somewhere(page):
    for file, anchor in links(page):
        assert file.is_file() and file.is_relative_to(ROOT), f"{name(page)}: there is no {file}"
        assert not anchor or anchor in anchors(file), f"{name(page)}: {name(file)} has no #{anchor}"


def test_every_page_and_picture_is_reached_from_the_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        found = {file for file, _ in links(page)} - reached
        reached |= found
        waiting += [file for file in found if file.suffix == ".md"]
    files = [file for file in (ROOT / "docs").rglob("*") if file.is_file()]
    assert {*files, ROOT / "CURRICULUM.md", ROOT / "ARCHITECTURE.md"} <= reached
    large = [name(file) for file in files if file.stat().st_size > 200_000]
    assert not large, f"{large}: scale them down, a clone carries them for ever"


def test_files_that_pages_name_exist():
    """`experiments/filtering.py`; of `research/models/<family>.py` the folder."""
    folders = r"`((?:research|experiments|tests|benchmarks|docs|\.ci)/[^`\s]*)`"
    for page in LINKED:
        for path in re.findall(folders, page.read_text()):
            whole = path.partition("<")[0] if "<" in path else path
            assert (ROOT / whole).exists(), f"{name(page)}: there is no {path}"


def test_the_readme_repeats_figures_of_the_results():
    rows = re.findall(r"^\| \[`\w+`\].*$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    figures = [figure for row in rows if (figure := row.split("|")[3].strip())]
    assert len(figures) >= 5
    for figure in figures:
        assert figure in (ROOT / "docs" / "results.md").read_text(), f"README.md: {figure}"


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "studies").glob("*.md")), ids=name)
def test_the_page_of_a_study_is_of_what_its_file_declares(page):
    """What compare.md wrote from it: the file was not changed after the result was seen."""
    text = page.read_text()
    study, configs = study_that_ships(page.stem)
    assert text.startswith(f"# {study.question}\n") and f"- Claim: {study.claim}\n" in text
    assert f"- Budget: {study.budget}\n" in text and f"- {study.metric} (" in text
    seeds = ", ".join(map(str, study.seeds))
    assert f"- Compared with {study.baseline}, over the seeds {seeds}.\n" in text
    rows = re.findall(r"^\| (.+?) \| \d+(?: of \d+)? \| ", text, re.MULTILINE)
    assert rows[: len(configs)] == list(configs)
    share = study.difference * (100 if ", points |" in text else 1)
    declared = re.search(r"smallest difference of interest: ([\d.]+)", text)
    assert declared is not None and float(declared[1].rstrip(".")) == pytest.approx(share)
    assert f"--study={page.stem} " in text


def study_that_ships(study):
    argv = ["launch.py", "--mode=study", f"--study={study}"]
    command, module, config, given = launch.parse(argv)
    variant = functools.partial(launch.variant_of, command, module, argv)
    return study_of(command, config, given, launch.PRESETS, variant)


def test_lists_are_whole():
    """A page that lists what there is names all of it."""
    pages = {page.stem: page.read_text() for page in PAGES}
    named = {page.stem: {text for _, text in contents(page)} for page in PAGES}
    assert METHODS.keys() <= named["looking_inside"]
    assert datasets.builtins().keys() <= named["data"]
    for experiment in experiments.names():
        place = "looking_inside" if experiment == "input_optimization" else "tasks"
        assert f"--experiment={experiment}" in pages[place]
        if (ROOT / "research" / "data" / "tasks" / f"{experiment}.py").is_file():
            task = importlib.import_module(f"research.data.tasks.{experiment}")
            assert all(f"`{prefix}:" in pages["data"] for prefix in task.TASK.own)
    for study in STUDIES:
        assert f"--study={study.stem}" in named["CURRICULUM"], study.stem
        assert f"`{study.stem}`" in pages["studies"], study.stem
    segmenters = models.available("segmentation").keys()
    assert {*detection.DETECTORS, *segmenters} <= named["tasks"]
