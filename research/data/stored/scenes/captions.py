"""A small language about scenes, in both directions: things to sentences, sentences to claims.

    there are four digits and the largest is a red three
    the largest digit is a red three and the smallest is a blue seven
    a red three is above a blue seven           (below, left of, right of)
    the leftmost digit is a green five          (rightmost, highest, lowest)
    from left to right a red three a blue seven a green five
    there is one digit and it is a red three
    the only digit is a red three
    an orange three in the upper left           (upper right, lower left, lower right)

Sentences are lower-case words and spaces. Each can be decided from the picture: sizes and places
that differ by less than a few pixels are not mentioned.
"""

import itertools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from research.data.stored.scenes.drawing import COLOURS, SIDE, Thing

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MARGIN = 4.0  # pixels by which two places must differ to be compared
_LISTED = 3  # things that a sentence lists at most


Things = Sequence[Thing]


def describe(things: Things) -> list[str]:
    """Returns all true sentences about the things that can be decided, two or more, in fixed order.

    As `drawing.draw` makes scenes, sizes differ, and no two things share both colour and digit.
    """
    if len(things) == 1:
        (only,) = things
        found = [f"there is one digit and it is {_name(only)}", f"the only digit is {_name(only)}"]
        places = [place for place in _PLACES if _lies(only, place, MARGIN)]
        return found + [f"{_name(only)} in the {place}" for place in places]
    largest, smallest = _first(things, "largest"), _first(things, "smallest")
    found = [
        f"there are {NUMBERS[len(things)]} digits and the largest is {_name(largest)}",
        f"the largest digit is {_name(largest)} and the smallest is {_name(smallest)}",
    ]
    for relation in _RELATIONS:
        if _related(largest, relation, smallest, MARGIN, clear=1.5):
            found.append(f"{_name(largest)} is {relation} {_name(smallest)}")
    for extreme in ("leftmost", "rightmost", "highest", "lowest"):
        if _leads(_first(things, extreme), things, extreme, MARGIN):
            found.append(f"the {extreme} digit is {_name(_first(things, extreme))}")
    across = sorted(things, key=lambda thing: thing.centre[0])
    xs = [thing.centre[0] for thing in across]
    if len(xs) <= _LISTED and all(b - a >= MARGIN for a, b in itertools.pairwise(xs)):
        found.append(f"from left to right {' '.join(map(_name, across))}")
    return found


def mentioned(sentence: str) -> list[tuple[str, int]]:
    """Returns the (colour, digit) of each thing that a sentence names, in its order.

    Any text will do, a network's too: a colour followed by a digit is a mention.
    """
    words = sentence.lower().split()
    return [
        (colour, NUMBERS.index(digit))
        for colour, digit in itertools.pairwise(words)
        if colour in COLOURS and digit in NUMBERS
    ]


def is_true(sentence: str, things: Things) -> bool:
    """Returns whether a sentence is of this language and its claim is true of the things.

    Any margin is enough: two places too close for `describe` do not make a claim false.
    """
    for pattern, holds in _CLAIMS:
        if match := pattern.fullmatch(sentence):
            by_name = {(thing.colour, thing.digit): thing for thing in things}
            mentions = mentioned(sentence)
            named = [by_name[mention] for mention in mentions if mention in by_name]
            return len(named) == len(mentions) and holds(match.groupdict(), named, things)
    return False


def vocabulary() -> list[str]:
    """Returns all words of the language, sorted."""
    frame = "there is are one digit digits and the it only a an in from left to right"
    words = {*frame.split(), *NUMBERS, *COLOURS, *_EXTREMES}
    phrases = (*_PLACES, *_RELATIONS)
    return sorted(words | {word for phrase in phrases for word in phrase.split()})


class _Direction(NamedTuple):
    """A unit step; pixels, x to the right, y downwards."""

    x: int
    y: int

    def along(self, point: tuple[float, float]) -> float:
        return self.x * point[0] + self.y * point[1]


_EXTREMES: dict[str, Callable[[Thing], float]] = {
    "largest": lambda thing: thing.size,
    "smallest": lambda thing: -thing.size,
    "leftmost": lambda thing: -thing.centre[0],
    "rightmost": lambda thing: thing.centre[0],
    "highest": lambda thing: -thing.centre[1],
    "lowest": lambda thing: thing.centre[1],
}
_RELATIONS = {
    "left of": _Direction(1, 0),  # in "a is left of b", b lies to the right of a
    "right of": _Direction(-1, 0),
    "above": _Direction(0, 1),
    "below": _Direction(0, -1),
}
_PLACES = {
    "upper left": _Direction(-1, -1),
    "upper right": _Direction(1, -1),
    "lower left": _Direction(-1, 1),
    "lower right": _Direction(1, 1),
}


def _name(thing: Thing) -> str:
    return f"{_coloured(thing.colour)} {NUMBERS[thing.digit]}"


def _coloured(colour: str) -> str:
    """Returns the colour with its article: "a red", "an orange"."""
    return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour}"


def _first(things: Things, extreme: str) -> Thing:
    return max(things, key=_EXTREMES[extreme])


def _leads(thing: Thing, things: Things, extreme: str, margin: float = 0.0) -> bool:
    """Returns whether a thing is ahead of all others by a margin."""
    value = _EXTREMES[extreme]
    return all(value(thing) - value(other) >= margin for other in things if other is not thing)


def _related(a: Thing, relation: str, b: Thing, margin: float = 0.0, clear: float = 1.0) -> bool:
    """Returns whether b lies in the relation's direction from a, and less (a factor) sideways."""
    direction = _RELATIONS[relation]
    step = (b.centre[0] - a.centre[0], b.centre[1] - a.centre[1])
    ahead, aside = direction.along(step), abs(_Direction(direction.y, direction.x).along(step))
    return ahead > 0 and ahead >= max(margin, clear * aside)


def _lies(thing: Thing, place: str, margin: float = 0.0) -> bool:
    """Returns whether a thing's centre lies in a quarter, `margin` from its inner borders."""
    off = (thing.centre[0] - SIDE / 2, thing.centre[1] - SIDE / 2)
    return min(_PLACES[place].x * off[0], _PLACES[place].y * off[1]) >= margin


def _pattern(text: str) -> re.Pattern[str]:
    """Compiles a pattern: THING is any thing; NUMBER, EXTREME, PLACE and RELATION are captured."""
    words = {"number": NUMBERS, "extreme": _EXTREMES, "place": _PLACES, "relation": _RELATIONS}
    for name, choice in words.items():
        text = text.replace(name.upper(), f"(?P<{name}>{'|'.join(choice)})")
    thing = f"(?:{'|'.join(map(_coloured, COLOURS))}) (?:{'|'.join(NUMBERS)})"
    return re.compile(text.replace("THING", thing))


# (words captured, things named, all things) -> whether the sentence holds.
_Check = Callable[[dict[str, str], Things, Things], bool]
_CHECKS: dict[str, _Check] = {
    "there is one digit and it is THING": lambda words, named, things: len(things) == 1,
    "the only digit is THING": lambda words, named, things: len(things) == 1,
    "THING in the PLACE": lambda words, named, things: _lies(named[0], words["place"]),
    "there are NUMBER digits and the largest is THING": lambda words, named, things: (
        words["number"] == NUMBERS[len(things)] and _leads(named[0], things, "largest")
    ),
    "the largest digit is THING and the smallest is THING": lambda words, named, things: (
        _leads(named[0], things, "largest") and _leads(named[1], things, "smallest")
    ),
    "THING is RELATION THING": lambda words, named, things: _related(
        named[0], words["relation"], named[1]
    ),
    "the EXTREME digit is THING": lambda words, named, things: (
        len(things) > 1 and _leads(named[0], things, words["extreme"])
    ),
    "from left to right THING(?: THING)*": lambda words, named, things: (
        sorted(things, key=lambda thing: thing.centre[0]) == list(named)
    ),
}
_CLAIMS = tuple((_pattern(text), check) for text, check in _CHECKS.items())
