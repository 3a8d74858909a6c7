import ast
import re
from collections.abc import Iterator
from pathlib import Path

HOUSE = Path(__file__).parents[1]
ROOMS = [HOUSE / "research", HOUSE / "experiments"]
FILES = [HOUSE / "launch.py", *sorted(path for room in ROOMS for path in room.rglob("*.py"))]
# First words that name no thing.
RIDDLES = re.compile("What|Of|Whom?|How|Where|Whether|Which|Why|When|That")
# First words that end in "s", as verbs do in the third person, and are nouns.
NOUNS = re.compile(
    "Batches|Boxes|Classes|Folders|Images|Inputs|Lines|Logits|Log-probabilities|Products|Rows|Values"
)
VERB = re.compile("[A-Z][a-z-]*s")


def definitions(tree: ast.Module) -> Iterator[tuple[ast.AST, str, bool]]:
    """Yields every function and class, its name, and whether it is public and not a method."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node, node.name, node in tree.body and not node.name.startswith("_")


def is_called(node: ast.AST) -> bool:
    """Returns whether a definition is a function and no property, so that it does something."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    return not any(ast.unparse(d).endswith("property") for d in node.decorator_list)


def is_verb(word: str) -> bool:
    """Returns whether a docstring's first word may be a verb in the third person."""
    return bool(VERB.fullmatch(word)) and not NOUNS.fullmatch(word)


def faults(path: Path) -> Iterator[str]:
    """Yields a line for each docstring that is missing or begins with a wrong word."""
    tree = ast.parse(path.read_text())
    place = path.relative_to(HOUSE)
    said = [(tree, "the module", bool(tree.body)), *definitions(tree)]
    for node, name, needed in said:
        text = ast.get_docstring(node) or ""  # type: ignore[arg-type]
        if needed and not text:
            yield f"{place}: {name} has no docstring"
        if not text:
            continue
        first = text.split()[0].rstrip(",:;.")
        if RIDDLES.fullmatch(first) or (is_called(node) and not is_verb(first)):
            yield f"{place}: {name}: {text.splitlines()[0]}"


def test_docstrings_name_their_thing():
    assert len(FILES) > 200
    found = [fault for path in FILES for fault in faults(path)]
    assert not found, "\n".join(found)


def test_riddles_and_gaps_are_found(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "HOUSE", tmp_path)
    path = tmp_path / "room.py"
    path.write_text(
        '"""How it is."""\n'
        "def named(): ...\n"
        "def _hidden(): ...\n"
        'class Thing:\n    """A thing."""\n    def of(self):\n        """Of a thing."""\n'
        '    @property\n    def size(self):\n        """The size."""\n'
        'def _noun():\n    """A thing."""\n'
        'def _plural():\n    """Rows of it."""\n'
        'def _formula():\n    """{name: x}s."""\n'
        'def _verb():\n    """Reads, and returns."""\n'
    )
    assert sorted(faults(path)) == [
        "room.py: _formula: {name: x}s.",
        "room.py: _noun: A thing.",
        "room.py: _plural: Rows of it.",
        "room.py: named has no docstring",
        "room.py: of: Of a thing.",
        "room.py: the module: How it is.",
    ]
