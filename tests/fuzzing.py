"""Changed files, and a guard that sees what is done beside reading them."""

import contextlib
import copy
import json
import signal
import sys
import sysconfig
from pathlib import Path

from hypothesis import strategies as st

SECONDS = 1.0  # of computing, for one input
# What programs that read a text can be asked to do, and what no reader expects.
WORDS = (
    *("", " ", "\0", "\n", "\t", '"', "'", "[", "]", "{", "}", "<", ">", "#", ",", ":", "=", "%s"),
    *(
        "../",
        "../outside.png",
        "../outside.txt",
        "/etc/passwd",
        "~root/x",
        "~nobody-here/x",
        "..\\",
    ),
    *("file:///etc/passwd", "http://127.0.0.1/x", "<!ENTITY a SYSTEM 'file:///etc/passwd'>"),
    *("-1", "0", "1e999", "-0.0", "NaN", "Infinity", "9" * 400, "9" * 5000, "1" + "0" * 18),
    *(
        "null",
        "true",
        "é",
        "\ud7ff",
        "\u202e",
        "\U0010ffff",
        "!!python/object:os.system",
        "&a",
        "*a",
    ),
    *("[" * 3000, "{" * 3000, '{"a":' * 3000, "a" * 2000, "(" * 300, "- " * 300),
)
BYTES = (*map(str.encode, WORDS), b"\xff", b"\x80\x04", b"\xef\xbb\xbf", b"\xff" * 8)
# Values of every kind that JSON has, and texts that take the place of one.
VALUES = (
    *(
        None,
        True,
        -1,
        0,
        1e308,
        "",
        "a\nb",
        "../outside.png",
        "/etc/passwd",
        [],
        {},
        [1],
        ["1"] * 4,
    ),
    *({"a": 1}, [[]], 2**63, "9" * 5000),
)
RAW = ("9" * 5000, "9" * 400, "1e999", "NaN", "-Infinity", "[" * 3000, "[" * 900 + "]" * 900)


def changed(seeds):
    """Files that differ from one of the seeds in one to four places; some are cut.

    The changes are drawn as one row of bytes, seven a change, which takes a tenth of the time.
    """
    drawn = st.binary(min_size=7, max_size=28)
    return st.builds(_changed, st.sampled_from(seeds), drawn)


def _changed(seed, drawn):
    data = bytearray(seed)
    for start in range(0, len(drawn) - 6, 7):
        place, kind = int.from_bytes(drawn[start : start + 3], "big"), drawn[start + 3] % 7
        number = int.from_bytes(drawn[start + 4 : start + 6], "big")
        word = BYTES[drawn[start + 6] % len(BYTES)]
        at = place % (min(len(data), 64 if place >> 23 else len(data)) + 1)
        if kind == 0:
            data[at : at + 1] = bytes([number % 256])
        elif kind == 1 and at < len(data):
            data[at] ^= 1 << number % 8
        elif kind == 2:
            data[at:at] = word
        elif kind == 3:
            data[at : at + number % 9] = word
        elif kind == 4:
            del data[at : at + number % 9]
        elif kind == 5:
            data[at:at] = data[at : at + number % 200]
        elif kind == 6 and number % 4 == 0:
            del data[at:]
    return bytes(data)


def changed_json(seeds):
    """JSON in which a value is another, or its text is changed as `changed` does."""

    def build(seed, place, value, raw):
        rows = copy.deepcopy([seed])
        found = list(_places(rows))
        inside, key = found[place % len(found)]
        if raw is None:
            inside[key] = value
            return json.dumps(rows[0]).encode()
        inside[key] = "\x01"
        return json.dumps(rows[0]).replace(json.dumps("\x01"), raw).encode()

    value = st.sampled_from(VALUES)
    raw = st.one_of(st.none(), st.sampled_from(RAW))
    structured = st.builds(build, st.sampled_from(seeds), st.integers(0, 999), value, raw)
    return st.one_of(structured, changed([json.dumps(seed).encode() for seed in seeds]))


def _places(rows):
    keys = rows if isinstance(rows, dict) else range(len(rows)) if isinstance(rows, list) else ()
    for key in keys:
        yield rows, key
        yield from _places(rows[key])


class Hang(BaseException):
    """An input that takes longer than SECONDS of computing; no reader catches it."""


class Guard:
    """Watches what the process opens, writes and starts while a reader runs."""

    _watching = None

    def __init__(self, folder):
        self.folder = str(folder)
        self.found = []
        paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib")}
        code = [*filter(None, sys.path), str(Path(__file__).parents[1]), *paths]
        self._code = tuple({str(Path(path).resolve()) for path in code} | set(code))

    @classmethod
    @contextlib.contextmanager
    def over(cls, folder):
        """Gives a guard whose `found` names what was touched outside of a folder."""
        guard = cls(folder)
        cls._watching = guard
        signal.signal(signal.SIGPROF, _hang)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            yield guard
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            cls._watching = None

    def see(self, event, args):
        """Notes an event of `sys.addaudithook` that is more than reading within the folder."""
        if event == "open":
            path, mode = args[0], args[1] or ""
            if isinstance(path, int) or self._within(path):
                return
            if not set(mode) & set("wax+") and self._is_code(path):
                return
        elif event in (
            "os.listdir",
            "os.scandir",
            "os.mkdir",
            "os.remove",
            "os.rename",
            "os.rmdir",
        ):
            if isinstance(args[0], int) or self._within(args[0]) or self._is_code(args[0]):
                return
        elif event not in STARTED:
            return
        self.found.append((event, str(args)[:200]))

    def _within(self, path):
        text = str(Path(str(path) if not isinstance(path, bytes) else path.decode()).absolute())
        return ".." not in Path(text).parts and (text + "/").startswith(self.folder + "/")

    def _is_code(self, path):
        return str(path).startswith(self._code)


STARTED = (
    *("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.symlink"),
    *("socket.connect", "socket.getaddrinfo", "urllib.Request", "pickle.find_class"),
)


def _hang(*_):
    raise Hang


def _hook(event, args):
    guard = Guard._watching
    if guard is not None:
        Guard._watching = None  # looking opens nothing, but it may raise events
        try:
            guard.see(event, args)
        finally:
            Guard._watching = guard


sys.addaudithook(_hook)
