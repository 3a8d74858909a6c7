"""What lies in a person's folder is found, and what is passed over is counted."""

import os
from pathlib import Path

import pytest

from research.data import files
from research.data.files import count_line, find, inside, subfolders
from research.errors import UserError

IMAGES = (".png", ".jpg")


def put(*paths):
    for file in paths:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")


def names(folder, endings=IMAGES):
    return [str(file.relative_to(folder)) for file in find(folder, endings).files]


def test_what_systems_and_tools_leave_is_passed_over_and_counted(tmp_path):
    put(*(tmp_path / "a" / f"{k}.PNG" for k in (10, 2, 1)), tmp_path / "b" / "c" / "x.jpg")
    put(tmp_path / "a" / "notes.txt")
    junk = ("a/._1.png", "a/.ipynb_checkpoints/1-checkpoint.png", "@eaDir/2.png/x.jpg")
    put(*(tmp_path / name for name in (*junk, "__MACOSX/a/._2.png", "$RECYCLE.BIN/9.png")))
    put(*(tmp_path / "a" / name for name in (".DS_Store", "Thumbs.db", "desktop.ini")))
    assert names(tmp_path) == ["a/1.PNG", "a/2.PNG", "a/10.PNG", "b/c/x.jpg"]
    found = find(tmp_path, IMAGES)
    assert found.left_out == {"hidden or of the system": 5}
    assert [folder.name for folder in subfolders(tmp_path)] == ["a", "b"]
    assert names(tmp_path / "a", None)[-1] == "notes.txt"
    assert names(tmp_path) != names(tmp_path, None)
    assert find(tmp_path, IMAGES, deep=False).files == ()


def test_links_are_followed_once_and_those_to_nowhere_are_counted(tmp_path):
    far, folder = tmp_path / "far", tmp_path / "set"
    put(far / "1.png", folder / "own" / "0.png")
    (folder / "linked").symlink_to(far)
    (folder / "a.png").symlink_to(far / "1.png")
    (folder / "own" / "up").symlink_to(folder)  # a circle
    (folder / "gone.png").symlink_to(far / "2.png")
    (folder / "gone").symlink_to(tmp_path / "no folder")
    (folder / "gone.txt").symlink_to(far / "2.txt")
    assert names(folder) == ["a.png", "linked/1.png", "own/0.png"]
    assert find(folder, IMAGES).left_out == {
        "links to what is not there": 2,
        "links to folders already read": 1,
    }
    with pytest.raises(UserError, match=r"set/gone: is a link to what is not there"):
        subfolders(folder)


def test_a_link_does_not_take_the_place_of_the_folder_it_leads_to(tmp_path):
    put(tmp_path / "b" / "0.png", tmp_path / "a" / "1.png")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "b")
    assert names(tmp_path) == ["a/1.png", "b/0.png"]
    assert find(tmp_path, IMAGES).left_out == {"links to folders already read": 1}


def test_a_tool_s_folder_need_not_be_readable(tmp_path, monkeypatch):
    put(tmp_path / "a.png", tmp_path / "lost+found" / "b.png")
    listed = files._listed

    def refused(folder):
        if folder.name == "lost+found":  # tests may be root's
            raise UserError(f"{folder}: cannot be read (Permission denied)")
        return listed(folder)

    monkeypatch.setattr(files, "_listed", refused)
    assert names(tmp_path) == ["a.png"]


def test_what_cannot_be_read_to_an_end_is_passed_over(tmp_path):
    put(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "null.png").symlink_to(os.devnull)
    assert names(tmp_path) == ["a.png"]
    assert find(tmp_path, IMAGES).left_out["neither files nor folders"] == 1


def test_names_that_are_not_in_utf8_are_named(tmp_path):
    put(Path(os.fsdecode(os.fsencode(tmp_path) + b"/ch\xeavre/1.png")))
    with pytest.raises(UserError, match=r"holds a name that is not in UTF-8, ch\\xeavre; rename"):
        subfolders(tmp_path)
    (tmp_path / os.fsdecode(b"ch\xeavre") / "1.png").rename(tmp_path / os.fsdecode(b"\xe9.png"))
    with pytest.raises(UserError, match=r"not in UTF-8, \\xe9.png") as caught:
        find(tmp_path, IMAGES)
    str(caught.value).encode()  # can be printed


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match="none: cannot be read"):
        list(subfolders(tmp_path / "none"))


@pytest.mark.parametrize("name", ["../a.png", "b/../../a.png", "/a.png", "C:\\a.png", "b\\..\\a"])
def test_paths_that_lead_out_are_refused(name, tmp_path):
    with pytest.raises(UserError, match=r"row 3: .* leads out of"):
        inside(tmp_path, name, "row 3")
    assert inside(tmp_path, "b/a..png", "row 3") == tmp_path / "b/a..png"


def test_a_file_is_read_whole_within_bounds(tmp_path):
    put(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_text("abc")
    assert files.read_bytes(tmp_path / "a.txt", most=3) == b"abc"
    with pytest.raises(UserError, match=r"a.txt: has 3 bytes; 2 at most are read"):
        files.read_bytes(tmp_path / "a.txt", most=2)
    os.mkfifo(tmp_path / "pipe")
    for name in (tmp_path / "pipe", Path(os.devnull), Path("/dev/zero")):
        with pytest.raises(UserError, match="is a pipe or a device"):
            files.read_bytes(name)
    for name in ("x" * 300, "none", "a\0b"):
        with pytest.raises(UserError, match=r"cannot be read|is no name of a file"):
            files.read_text(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"a": %s}' % ("9" * 5000), "a number of thousands of digits"),
        ('{"a": 1,}', r"is no JSON \(line 1"),
        ("", r"is no JSON \(line 1"),
    ],
)
def test_json_of_any_depth_and_size_is_content_or_one_line(text, message, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=f"a.json: .*{message}"):
        files.read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("[1e999, NaN, 1]")  # readers judge what numbers mean
    assert files.read_json(tmp_path / "a.json")[0] == float("inf")


def test_long_rows_of_digits_are_sorted():
    assert sorted(["a10", "a2", "9" * 5000], key=files.natural) == ["9" * 5000, "a2", "a10"]


def test_the_line_of_counts():
    assert count_line(5, {"hidden": 0}) == "images: 5 found, 5 used"
    line = count_line(5, {"hidden": 1, "unreadable": 2}, "boxes")
    assert line == "boxes: 5 found, 2 used, 3 left out (hidden: 1, unreadable: 2)"
