"""A person's own experiment: found, kept with the run, resumed and evaluated like any of ours."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

import experiments
import launch
from research.code import files
from research.data.sources.source import Source

ROOT = Path(launch.__file__).resolve().parent

# It imports a file beside it as a script would, and one in a folder when it is built.
MINE = '''"""A word, as mine."""

import dataclasses

import nets
from experiments import language
from research.config import option


@dataclasses.dataclass(frozen=True)
class Config(language.Config):
    boost: float = option(1.0, "Factor of the learning rate.", minimum=0.0)


def build(config, facts=None):
    from .parts.scale import scaled

    return language.build(scaled(config, nets.FEATURES), facts)
'''
SCALE = """import dataclasses


def scaled(config, features):
    rate = config.learning_rate * config.boost
    return dataclasses.replace(config, features=features, learning_rate=rate)
"""
SQUARES = """import dataclasses

import numpy as np


@dataclasses.dataclass
class Squares:
    def __len__(self):
        return 40

    def __getitem__(self, i):
        return {"square": np.int32(i * i)}
"""
# What another file than mine.py is, beside it; one is not imported.
OTHERS = {"nets.py": "FEATURES = 6\n", "parts/scale.py": SCALE, "beside.py": "1 / 0\n"}


def write(folder, contents):
    """Writes {path: text}; returns the folder."""
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def lab(folder, **changed):
    """A folder with mine.py and the files that it imports."""
    changes = {f"{name}.py": text for name, text in changed.items()}
    return write(folder, {"mine.py": MINE, **OTHERS, **changes})


def digest(file):
    """Of an experiment's file and what it imports."""
    return files.read(*files.find(str(file))).digest


def main(folder, *given):
    """launch.main in a folder."""
    flags = ["--compilation_cache=", "--parallel=single", "--eval_every=2"]
    if not any(flag.startswith(("--checkpoint", "--flagfile")) for flag in given):
        flags.append("--steps=2")
    before = Path.cwd()
    os.chdir(folder)
    try:
        return launch.main(["fovea", *flags, *given])
    finally:
        os.chdir(before)


def read(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder that holds lab/mine.py, and its run in RUN."""
    folder = tmp_path_factory.mktemp("own")
    lab(folder / "lab")
    assert main(folder, "--experiment=lab/mine.py", "--workdir=RUN") == 0
    return folder


def test_a_run_keeps_what_was_run_and_says_which(place):
    run = place / "RUN"
    kept = {p.relative_to(run / "code").as_posix() for p in (run / "code").rglob("*.py")}
    assert kept == {"mine.py", "nets.py", "parts/__init__.py", "parts/scale.py"}  # not beside.py
    assert (run / "code/mine.py").read_text() == MINE
    assert (run / "flags.txt").read_text().startswith("--experiment=code/mine.py\n")
    assert read(run / "result.json")["experiment"] == "mine.py"
    fingerprint = read(run / "config.json")["fingerprint"]
    assert fingerprint["code"] == digest(place / "lab/mine.py") == digest(run / "code/mine.py")
    assert not list((place / "lab").rglob("__pycache__"))


def test_the_checkpoint_alone_evaluates_and_predicts_with_the_code_that_trained_it(
    place, tmp_path, capsys
):
    shutil.copytree(place / "RUN/checkpoints", tmp_path / "moved")  # no lab, no code/ beside it
    assert main(tmp_path, "--mode=evaluate", "--checkpoint=moved", "--workdir=EVAL") == 0
    evaluated = read(tmp_path / "EVAL/result.json")
    assert evaluated["metrics"] == read(place / "RUN/result.json")["metrics"]
    assert evaluated["code"] == digest(place / "lab/mine.py")
    assert "other code" not in capsys.readouterr().out

    (tmp_path / "beginning.txt").write_text("he")
    given = ["--checkpoint=moved", "--inputs=beginning.txt", "--written=4", "--workdir=PREDICT"]
    assert main(tmp_path, "--mode=predict", *given) == 0
    assert "beginning.txt" in (tmp_path / "PREDICT/predictions.jsonl").read_text()

    ours = ["--mode=evaluate", "--experiment=language", "--checkpoint=moved"]
    assert main(tmp_path, *ours) == 2
    assert "is of --experiment=mine.py, not of language" in capsys.readouterr().err


def test_evaluation_with_code_that_has_changed_says_so(place, tmp_path, capsys):
    own = lab(tmp_path, nets="# Mine.\nFEATURES = 6\n")
    given = ["--mode=evaluate", "--experiment=mine.py", f"--checkpoint={place / 'RUN'}"]
    assert main(own, *given, "--workdir=EVAL") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "was trained with other code (nets.py, line 1: nothing there, '# Mine.' here)" in said, (
        said
    )
    assert read(own / "EVAL/result.json")["code"] == digest(own / "mine.py")


def test_any_method_looks_into_a_network_of_ones_own(tmp_path, capsys):
    mine = MINE.replace("language", "filtering").replace("scaled(config, nets.FEATURES)", "config")
    lab(tmp_path / "lab", mine=mine)
    assert main(tmp_path, "--experiment=lab/mine.py", "--workdir=RUN") == 0
    shutil.rmtree(tmp_path / "lab")
    looking = ["--experiment=input_optimization", "--method=layers", "--checkpoint=RUN"]
    assert main(tmp_path, *looking) == 0
    assert "3 x 3" in capsys.readouterr().out


def test_flags_txt_repeats_the_run_wherever_its_folder_lies(place, tmp_path):
    shutil.copytree(place / "RUN", tmp_path / "moved")
    # In the current folder lies another file of that path; it is not what the run's flags mean.
    write(tmp_path, {"code/mine.py": "raise SystemExit"})
    assert main(tmp_path, "--flagfile=moved/flags.txt", "--workdir=AGAIN") == 0
    again = read(tmp_path / "AGAIN/result.json")
    assert again["fingerprint"] == read(place / "RUN/result.json")["fingerprint"]
    assert (tmp_path / "AGAIN/flags.txt").read_text() == (place / "RUN/flags.txt").read_text()


def test_resuming_needs_the_same_code_and_not_the_same_place(place, tmp_path, capsys):
    run, own = tmp_path / "RUN", tmp_path / "elsewhere"
    shutil.copytree(place / "RUN", run)
    (run / "result.json").unlink()  # as if it had been killed at its end
    lab(own, nets="FEATURES = 7\n")
    assert main(own, "--experiment=mine.py", "--workdir=../RUN") == 2
    said = capsys.readouterr().err
    assert "(nets.py, line 1: 'FEATURES = 6' there, 'FEATURES = 7' here)" in said
    assert said.count("\n") == 1 and not (run / "result.json").exists()

    write(run, {"code/mine.py": MINE + "\n"})  # the copy must be what the run began with, too
    assert main(run, "--flagfile=flags.txt", "--workdir=.") == 2
    assert "code: was changed since" in capsys.readouterr().err

    lab(own)
    assert main(own, "--experiment=mine.py", "--workdir=../RUN") == 2
    assert "code/mine.py: was changed since this run began" in capsys.readouterr().err

    (run / "code/mine.py").unlink()
    assert main(own, "--experiment=mine.py", "--workdir=../RUN") == 0
    assert (run / "code/mine.py").read_text() == MINE
    again = read(run / "result.json")
    assert again["fingerprint"] == read(place / "RUN/result.json")["fingerprint"]


@pytest.mark.parametrize("initialised", [True, False])
def test_a_module_that_can_be_imported_is_an_experiment(
    place, tmp_path, capsys, monkeypatch, initialised
):
    """From the current folder or from Python's path, in a package, with its absolute imports."""
    mine = MINE.replace("import nets", "from my_lab import nets").replace(".parts", "..parts")
    package = {"first/mine.py": mine, "nets.py": "FEATURES = 6", "parts/scale.py": SCALE}
    if initialised:
        package |= {"__init__.py": "", "first/__init__.py": ""}
    write(tmp_path / "my_lab", package)
    given = "--experiment=my_lab.first.mine"
    assert main(tmp_path, given, "--workdir=RUN") == 0
    made = read(tmp_path / "RUN/result.json")
    assert made["fingerprint"] == read(place / "RUN/result.json")["fingerprint"]
    assert "--experiment=code/my_lab/first/mine.py" in (tmp_path / "RUN/flags.txt").read_text()
    begun = read(tmp_path / "RUN/config.json")["fingerprint"]["code"]
    assert digest(tmp_path / "RUN/code/my_lab/first/mine.py") == begun
    assert "my_lab" not in sys.modules

    assert main(place, given, "--workdir=NEVER") == 2  # another current folder
    assert f"{given}: there is no such module" in capsys.readouterr().err
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit):
        main(place, given, "--help")
    said = capsys.readouterr().out
    assert "classification, denoising, detection" in said and "my_lab.first.mine\n" in said
    assert "A word, as mine." in said and "--boost=NUMBER" in said and "\nConfig:" in said


def test_an_experiment_of_ours_is_the_same_by_name_file_and_module(monkeypatch):
    monkeypatch.chdir(ROOT)
    ours = experiments.open_experiment("filtering")
    assert experiments.open_experiment("experiments/filtering.py") is ours
    assert experiments.open_experiment("experiments.filtering") is ours


def test_files_of_one_name_do_not_meet(tmp_path):
    """Neither those of two folders, nor those that are named like ours or like Python's."""
    text = MINE.replace("import nets", "import language as other, nets, random\nrandom.Random(0)")
    for n in (1, 2):
        own = lab(tmp_path / f"lab.{n}", nets=f"FEATURES = {n}", language=f"N = {n}", random="1/0")
        write(own, {"my-exp.py": text + "N = other.N\n"})
    first, second = (experiments.open_experiment(f"{tmp_path}/lab.{n}/my-exp.py") for n in (1, 2))
    assert (first.nets.FEATURES, first.N) == (1, 1)
    assert (second.nets.FEATURES, second.N) == (2, 2)
    assert "nets" not in sys.modules and "language" not in sys.modules

    ours = lab(tmp_path / "ours")
    (ours / "mine.py").rename(ours / "language.py")
    module = experiments.open_experiment(str(ours / "language.py"))
    assert experiments.name_of(module) == "language.py"
    assert issubclass(module.Config, experiments.open_experiment("language").Config)


def test_a_folder_beside_is_kept_whatever_python_finds_elsewhere(tmp_path, monkeypatch):
    mine = MINE.replace(
        "from .parts.scale import scaled", "import parts.scale\n    import json.deep"
    )
    own = lab(tmp_path / "lab", mine=mine)
    write(own, {"json/deep.py": ""})  # Python's own comes first
    kept = {"mine.py", "nets.py", "parts/__init__.py", "parts/scale.py"}
    assert set(files.read(own, "mine.py").files) == kept
    monkeypatch.syspath_prepend(own)
    assert set(files.read(own, "mine.py").files) == kept
    write(tmp_path / "installed", {"parts/__init__.py": ""})
    monkeypatch.syspath_prepend(tmp_path / "installed")
    assert set(files.read(own, "mine.py").files) == {"mine.py", "nets.py"}


def test_workers_import_what_was_read_however_it_is_edited(tmp_path):
    own = lab(tmp_path, mine="import squares\n" + MINE, squares=SQUARES)
    module = experiments.open_experiment(str(own / "mine.py"))
    write(own, {"squares.py": "1 / 0"})
    source = Source(module.squares.Squares(), 2, cache_bytes=0, workers=1)
    if not launch.flags.FLAGS.is_parsed():
        launch.flags.FLAGS.mark_as_parsed()
    batches = source.iterate()
    found = [next(batches)["square"].tolist() for _ in range(4)]
    batches.close()
    assert found == [[0, 1], [4, 9], [16, 25], [36, 49]]


def test_a_study_keeps_the_code_in_every_run(place, tmp_path, capsys):
    study = [
        "--mode=study",
        f"--experiment={place / 'lab/mine.py'}",
        "--variant=--boost=1",
        "--repeats=1",
    ]
    assert main(tmp_path, *study, "--variant=--boost=0.5", "--workdir=STUDY") == 0
    one, half = (tmp_path / "STUDY" / f"boost={value}" / "seed=0" for value in ("1", "0.5"))
    assert (one / "code/nets.py").exists() and (half / "code/nets.py").exists()
    fingerprint = read(place / "RUN/result.json")["fingerprint"]
    assert read(one / "result.json")["fingerprint"] == fingerprint
    assert read(half / "result.json")["fingerprint"] != fingerprint

    lab(tmp_path / "other", nets="FEATURES = 7")
    assert main(tmp_path, *study, "--variant=--experiment=other/mine.py") == 2
    assert "a study is of one experiment" in capsys.readouterr().err


def test_code_that_no_import_statement_names_is_refused(tmp_path, capsys, monkeypatch):
    """No run could keep a copy of it."""
    how = "import importlib\n\nnets = importlib.import_module({})".format
    own = lab(tmp_path / "lab", mine=MINE.replace("import nets", how("'nets'")))
    given = ["--experiment=lab/mine.py", "--workdir=NEVER"]
    assert main(tmp_path, *given) == 2
    assert "mine.py, line 7: ModuleNotFoundError: No module named" in capsys.readouterr().err
    monkeypatch.syspath_prepend(own)  # as where the folder is installed
    assert main(tmp_path, *given) == 2
    assert "nets.py: was loaded by other means" in capsys.readouterr().err
    sys.modules.pop("nets")
    lab(own, mine=MINE.replace("import nets", how("'.nets', __package__")))
    assert main(tmp_path, *given) == 2
    assert "mine.py, line 7: ModuleNotFoundError: there is no nets.py, or no import" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "NEVER").exists()


def test_nothing_of_a_persons_is_overwritten(tmp_path, capsys):
    own = write(lab(tmp_path), {"code/nets.py": "precious = 1"})
    assert main(own, "--experiment=mine.py", "--workdir=.") == 2
    assert "code/nets.py: would be overwritten" in capsys.readouterr().err
    assert (own / "code/nets.py").read_text() == "precious = 1"


CONFIG = MINE.partition("\n\ndef build")[0]  # ends before build
FROZEN = "@dataclasses.dataclass(frozen=True)\n"
WRONG = {
    "no Python": ("Config = 1 +\n", "mine.py, line 1: is no Python (invalid syntax"),
    "outside": ("\n\nreturn 1\n", "mine.py, line 3: is no Python ('return' outside function)"),
    "latin-1": (b"\n# \xe9\n", "mine.py, line 1: is no Python (invalid or missing encoding"),
    "ascii": (b"# coding: ascii\n\n# \xe9\n", "mine.py, line 1: is no text ('ascii' codec"),
    "NUL": ("x = 1\0\n", "mine.py, line 1: is no"),
    "missing": ("\nimport nowhere_at_all\n", "mine.py, line 2: ModuleNotFoundError: No module n"),
    "beside": ("\n\nfrom . import none\n", "line 3: ImportError: cannot import name 'none' from"),
    "beyond": ("from .. import none\n", "mine.py, line 1: ImportError: attempted relative import"),
    "name": ("from nets import none\n", "line 1: ImportError: cannot import name 'none' from 'ne"),
    "running": ("x = 1\ny = z\n", "mine.py, line 2: NameError: name 'z' is not defined"),
    "within": (MINE.replace("import nets", "import beside"), "beside.py, line 1: ZeroDivisionEr"),
    "no Config": ("def build(config, facts=None): ...\n", "mine.py, line 1: has no Config; write"),
    "no build": (CONFIG, "mine.py, line 1: has no build; write `def build"),
    "a number": (CONFIG + "\n\nbuild = 3\n", "mine.py, line 1: has no build; write `def build"),
    "no dataclass": (MINE.replace(FROZEN, ""), "mine.py, line 10: Config is no dataclass; write"),
    "thawed": (MINE.replace("(frozen=True)", ""), "mine.py, line 10: TypeError: cannot inherit"),
    "alone": (MINE.replace("(language.Config)", ""), "mine.py, line 11: Config must extend Trai"),
    "list": (MINE.replace("boost: float", "boost: list"), "line 11: Config.boost: no flag for"),
    "unknown": (MINE.replace("boost: float", "boost: Rate"), "mine.py, line 12: NameError: name"),
    "factory": (
        MINE.replace("option(1.0, ", "dataclasses.field(default_factory=float)  # ("),
        "mine.py, line 11: Config.boost has no default; a flag needs one.",
    ),
    "arguments": (MINE.replace(", facts=None", ""), "line 15: build must take (config, facts=No"),
    "needed": (MINE.replace("facts=None", "facts"), "line 15: build must take (config, facts=No"),
    "taken": (MINE.replace("boost:", "source:"), "Config.source: --source is a flag of the laun"),
    "late name": (
        MINE.replace("from .parts.scale", "from .nets"),
        "mine.py, line 16: ImportError: cannot import name 'scaled' from 'nets'",
    ),
    "late module": (
        MINE.replace(".parts", ".part"),
        "line 16: ModuleNotFoundError: there is no part",
    ),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_in_a_persons_file_is_one_line_and_exit_code_2(tmp_path, capsys, text, said):
    write(lab(tmp_path), {"mine.py": text})
    assert main(tmp_path, "--experiment=mine.py", "--workdir=NEVER") == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    assert said in lines[0], lines[0]
    assert "own_" not in lines[0] and not (tmp_path / "NEVER").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lab/mime.py", "--experiment=lab/mime.py: there is no such file. Did you mean 'mine.py'?"),
        ("lab/mine", "--experiment=lab/mine: there is no such file. Did you mean 'mine.py'?"),
        ("nowhere/mine.py", "--experiment=nowhere/mine.py: there is no such file."),
        ("./lab", "--experiment=./lab: is a folder; name the file in it."),
        ("lab.nothing", "--experiment=lab.nothing: there is no such module"),
        ("os.path.join", "--experiment=os.path.join: there is no such module"),
        ("..", "--experiment=..: there is no such module"),
        ("here", "--experiment=here: one of captioning, "),
        ("here", "Did you mean 'here.py'?"),
        ("lab/v1.2.py", "lab/v1.2.py: a dot in its name keeps it from being imported."),
        ("lab/notes.txt", "--experiment=lab/notes.txt: is no Python file"),
    ],
)
def test_an_experiment_that_is_not_there_is_one_line(tmp_path, capsys, name, said):
    lab(tmp_path / "lab")
    write(tmp_path, {"here.py": "", "lab/v1.2.py": MINE, "lab/notes.txt": ""})
    assert main(tmp_path, f"--experiment={name}") == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1, error
