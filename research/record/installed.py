"""The packages that are installed, as a file that installs them again: requirements.lock."""

import importlib.metadata
import json
import platform
import re
from collections.abc import Iterable

NAME = "requirements.lock"


def lock(installed: Iterable[importlib.metadata.Distribution] | None = None) -> str:
    """Returns lines name==version of all that this Python finds, ordered by name.

    What no index holds under that version is a comment: what was installed from a folder, a
    repository or an address (PEP 610), or with a local label, as 2.9+cpu (PEP 440).

    Args:
      installed: in the order in which Python looks for them; None for what this process finds.
    """
    rows: dict[str, str] = {}
    for found in importlib.metadata.distributions() if installed is None else installed:
        text = found.read_text("METADATA") or found.read_text("PKG-INFO") or ""
        name, version = (_field(text, field) for field in ("Name", "Version"))
        if name and version:  # else what an interrupted installation left
            rows.setdefault(re.sub(r"[-_.]+", "-", name).lower(), _line(found, name, version))
    rows.pop("pip", None)  # a new environment has one
    return "\n".join(
        [
            f"# Python {platform.python_version()} on {platform.system()} {platform.machine()}.",
            "# Again: python -m venv ENV && ENV/bin/pip install --no-deps -r requirements.lock",
            *(rows[name] for name in sorted(rows)),
            "",
        ]
    )


def _field(metadata: str, field: str) -> str:
    """Returns a field of a package's metadata; the standard library's parser takes much longer."""
    found = re.search(rf"^{field}: *(.*)$", metadata.partition("\n\n")[0], re.MULTILINE)
    return found[1].strip() if found else ""


def _line(found: importlib.metadata.Distribution, name: str, version: str) -> str:
    origin = found.read_text("direct_url.json")
    if origin:
        return f"# {name} {version}: from {_origin(origin)}"
    if found.read_text("RECORD") is None:  # no installer put it there
        return f"# {name} {version}: from a folder, not from an index"
    if "+" in version:
        return f"# {name}=={version}: of an index of its own"
    return f"{name}=={version}"


def _origin(text: str) -> str:
    """Describes direct_url.json: the address, and the commit of a repository."""
    try:
        origin = json.loads(text)
        commit = origin.get("vcs_info", {}).get("commit_id", "")
        return origin["url"] + (f" at {commit}" if commit else "")
    except (ValueError, KeyError, TypeError, AttributeError):
        return "elsewhere, not from an index"
