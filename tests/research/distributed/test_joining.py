"""What processes say of themselves, and which of it refuses them."""

import copy

import pytest

import launch
from research import commands
from research.code import files
from research.distributed import folder, joining
from research.distributed.joining import Place, difference, place_of
from research.errors import UserError


def test_where_a_process_stands():
    assert place_of("off") is None and place_of("auto") == Place()
    assert place_of("10.0.0.1:1234,8,7") == Place("10.0.0.1:1234", 8, 7)
    assert place_of("[::1]:1234,2,0") == Place("[::1]:1234", 2, 0)


@pytest.mark.parametrize("said", ["on", "host,2,0", "host:1,2", "host:1,2,2", "host:1,2,-1", ""])
def test_what_is_no_place_is_refused(said):
    with pytest.raises(UserError, match="HOST:PORT,N,I"):
        place_of(said)


ONE = {
    "host": "a",
    "code": "1f",
    "machine": {"python": "3.12", "versions": {"jax": "0.10.2", "flax": "0.12"}},
    "flags": {"learning_rate": 0.1, "log_every": 50},
    "used": 4,
    "visible": 4,
}


def two(**changes):
    other = copy.deepcopy(ONE)
    for name, value in changes.items():
        other[name] = {**other[name], **value} if isinstance(value, dict) else value
    return [ONE, other]


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"flags": {"log_every": 10}}, "differ in --log_every: 10, not 50"),
        ({"flags": {"resume": "never"}}, "differ in --resume: never, not None"),
        ({"machine": {"versions": {"jax": "0.11.0"}}}, "differ in "),
        ({"machine": {"python": "3.11"}}, "differ in python: 3.11, not 3.12"),
        ({"code": "2e"}, "different code"),
        ({"host": "b", "used": 1}, "b: 4 devices are visible, and 1 are used by 1 processes"),
    ],
)
def test_a_difference_is_one_line(changes, said):
    line = difference(two(**changes), "process {}".format)
    assert said in line and "\n" not in line
    if "host" not in changes:
        assert line.startswith("process 1 and process 0")


def test_processes_that_are_alike_differ_in_nothing():
    assert difference(two(), "process {}".format) == ""
    assert difference(two(host="b"), "process {}".format) == ""
    # Four processes of a machine, each of which sees all devices and uses one.
    assert difference([{**ONE, "used": 1}] * 4, "process {}".format) == ""


def test_the_code_is_told_by_its_content(monkeypatch, tmp_path):
    (tmp_path / "research").mkdir()
    file = tmp_path / "research" / "x.py"
    monkeypatch.setattr(joining, "ROOT", tmp_path)
    file.write_text("a = 1\n")
    before = joining.code_digest()
    file.write_text("a = 2\n")
    assert joining.code_digest() != before
    file.write_text("a = 1\n")
    assert joining.code_digest() == before


@pytest.mark.parametrize("mode", ["train", "evaluate", "predict"])
def test_a_persons_own_code_is_compared_before_anything_is_done(
    mode, monkeypatch, tmp_path, capsys
):
    told = {}

    def refuse(name, values, mend):
        told.update(values)
        raise UserError("other code")

    monkeypatch.setattr(commands, "refuse_different", refuse)
    (tmp_path / "mine.py").write_text("from experiments.classification import *\n")
    given = [f"--experiment={tmp_path / 'mine.py'}", f"--mode={mode}", "--compilation_cache="]
    assert launch.main(["x", *given]) == 2
    assert "other code" in capsys.readouterr().err
    code = files.read(tmp_path, "mine.py")
    assert told == {"code of the experiment": code.digest}


def test_a_mark_that_another_machine_does_not_see_is_missed(monkeypatch, tmp_path):
    monkeypatch.setattr(folder, "APPEARS", 0.3)
    assert not folder._appears(tmp_path / "mark")
    assert not folder._appears(tmp_path / "elsewhere" / "mark")
    (tmp_path / "mark").touch()
    assert folder._appears(tmp_path / "mark")


def test_an_error_of_another_process_is_known(monkeypatch):
    collective = ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer")
    assert joining.of_others(collective)
    try:
        raise UserError("a checkpoint could not be written") from collective
    except UserError as error:
        assert joining.of_others(error)
    assert not joining.of_others(ValueError("shapes differ"))
