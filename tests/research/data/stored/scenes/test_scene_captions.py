import itertools

import pytest

from research.data.stored.scenes.captions import NUMBERS, describe, is_true, mentioned, vocabulary
from research.data.stored.scenes.drawing import COLOURS, Thing


def thing(colour, digit, size, x, y):
    """A digit twice as high as wide, centred on (x, y)."""
    return Thing(0, digit, colour, (x - size // 4, y - size // 2, x + size // 4, y + size // 2))


RED = thing("red", 3, 32, 20, 18)
BLUE = thing("blue", 7, 16, 24, 50)
GREEN = thing("green", 5, 24, 45, 21)
ORANGE = thing("orange", 4, 24, 45, 21)


def moved(what, x, y):
    return thing(what.colour, what.digit, what.size, int(x), int(y))


def test_a_scene_of_three_read_aloud():
    assert describe([RED, GREEN, BLUE]) == [
        "there are three digits and the largest is a red three",
        "the largest digit is a red three and the smallest is a blue seven",
        "a red three is above a blue seven",
        "the leftmost digit is a red three",
        "the rightmost digit is a green five",
        "the lowest digit is a blue seven",  # highest: 18 against 21, too close to call
        "from left to right a red three a blue seven a green five",
    ]


def test_one_digit_read_aloud():
    assert describe([moved(GREEN, 50, 45)]) == [
        "there is one digit and it is a green five",
        "the only digit is a green five",
        "a green five in the lower right",
    ]
    assert len(describe([moved(GREEN, 33, 45)])) == 2


@pytest.mark.parametrize(
    "things", [[RED], [RED, BLUE], [BLUE, GREEN, RED], [GREEN]], ids=lambda t: str(len(t))
)
def test_what_is_said_is_true_and_what_is_changed_is_not(things):
    also_true = {"the largest digit is a red three", "the smallest digit is a blue seven"}
    also_true |= {"the highest digit is a red three"}  # by a margin too small to speak of
    for sentence in describe(things):
        assert is_true(sentence, things)
        words = sentence.split()
        for place, word in itertools.product(range(len(words)), vocabulary()):
            changed = " ".join([*words[:place], word, *words[place + 1 :]])
            if changed not in describe(things):
                known = len(things) > 1 and changed in also_true
                assert is_true(changed, things) == known, changed


def test_the_article_is_that_of_the_colour():
    assert describe([ORANGE])[1] == "the only digit is an orange four"
    assert is_true("the only digit is an orange four", [ORANGE])
    assert not is_true("the only digit is a orange four", [ORANGE])
    assert not is_true("the only digit is an red three", [RED])
    assert mentioned("an orange four above a red three") == [("orange", 4), ("red", 3)]


def test_truth_knows_roles():
    things = [RED, GREEN, BLUE]
    assert is_true("a blue seven is below a red three", things)
    assert is_true("a green five is right of a red three", things)
    assert not is_true("the largest digit is a blue seven and the smallest is a red three", things)
    assert not is_true("from left to right a red three a green five a blue seven", things)
    assert not is_true("from left to right a red three a blue seven", things)
    assert not is_true("the highest digit is a green five", things)
    assert is_true("the highest digit is a red three", things)  # by any margin
    assert not is_true("a red three", things) and not is_true("", things)


def test_mentions_are_found_in_any_text():
    assert mentioned("a red three is above a blue seven") == [("red", 3), ("blue", 7)]
    assert mentioned("red red zero zero the largest is a WHITE nine nine") == [
        ("red", 0),
        ("white", 9),
    ]
    assert mentioned("there are three digits") == [] and mentioned("") == []


def test_the_vocabulary_is_what_sentences_use():
    words = set()
    for what, x, y in itertools.product((RED, ORANGE), (10, 50), (10, 50)):
        words |= set(" ".join(describe([moved(what, x, y)])).split())
    for order in itertools.permutations([RED, BLUE, GREEN]):
        places = [place.centre for place in (RED, BLUE, GREEN)]
        for x_first in (True, False):
            at = [place if x_first else place[::-1] for place in places]
            placed = [moved(what, *place) for what, place in zip(order, at, strict=True)]
            words |= set(" ".join(describe(placed)).split())
    fillers = {*NUMBERS, *COLOURS}
    assert words - fillers == set(vocabulary()) - fillers
    assert fillers <= set(vocabulary()) and len(vocabulary()) <= 50
