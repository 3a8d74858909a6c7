"""requirements.lock names what an index holds, and only mentions the rest."""

import importlib.metadata
import json
import platform

from research.record import installed


def package(folder, name, version, *, origin=None, record=True, kind="dist-info"):
    path = folder / f"{name.replace('-', '_')}-{version}.{kind}"
    path.mkdir(parents=True)
    file = "METADATA" if kind == "dist-info" else "PKG-INFO"
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nName: of its text\n"
    (path / file).write_text(text)
    if record:
        (path / "RECORD").touch()
    if origin is not None:
        (path / "direct_url.json").write_text(origin if origin == "{" else json.dumps(origin))


def test_only_what_an_index_holds_is_a_line(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    package(first, "Zeta", "1.0")
    package(first, "alpha_one", "2.1.post3")
    package(first, "pip", "25.0")
    package(first, "mine", "0.1", origin={"url": "file:///home/me/mine", "dir_info": {}})
    package(first, "theirs", "3", origin={"url": "https://x/y", "vcs_info": {"commit_id": "ab1"}})
    package(first, "torn", "4", origin="{")
    package(first, "wheel-of-cpu", "2.9.0+cpu")
    package(first, "developed", "5", record=False, kind="egg-info")
    package(second, "zeta", "9.9")  # hidden by the first
    found = importlib.metadata.distributions(path=[str(first), str(second)])
    head, again, *lines = installed.lock(found).splitlines()
    assert head.startswith(f"# Python {platform.python_version()}") and "--no-deps" in again
    assert lines == [
        "alpha_one==2.1.post3",
        "# developed 5: from a folder, not from an index",
        "# mine 0.1: from file:///home/me/mine",
        "# theirs 3: from https://x/y at ab1",
        "# torn 4: from elsewhere, not from an index",
        "# wheel-of-cpu==2.9.0+cpu: of an index of its own",
        "Zeta==1.0",
    ]


def test_the_versions_are_those_that_this_process_uses():
    lines = installed.lock().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    for name in ("jax", "numpy", "flax", "tensorflow-datasets"):
        assert pinned[name] == importlib.metadata.version(name)
