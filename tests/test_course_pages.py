"""docs/course: all topics in order, each with commands and what holds; `-m course` runs them."""

import re

import course_pages
import pytest

from research.course.examples import EXAMPLES

EVERY = course_pages.every()


def test_all_topics_are_there_in_order():
    assert [topic.name for topic in EVERY] == course_pages.TOPICS
    assert len(EVERY) == 159


@pytest.mark.parametrize("topic", EVERY, ids=lambda topic: topic.name)
def test_a_topic_has_commands_and_says_what_holds(topic):
    """That the commands parse is for tests/test_docs.py."""
    assert topic.commands and topic.holds and len(topic.title) > 1
    assert all(command.startswith("python launch.py ") for command in topic.commands)
    for relation in topic.holds:
        text = re.fullmatch(r'"[^"]+"', relation)
        assert text or course_pages.RELATION.fullmatch(relation), relation
    examples = set(re.findall(r"--example=(\w+)", " ".join(topic.commands)))
    assert examples <= EXAMPLES.keys()
    own = {r.partition("/")[0] for r in topic.holds if r.partition("/")[0] in EXAMPLES}
    assert own <= examples  # what must hold is of what the commands print


def test_examples_name_the_topics_that_use_them():
    for name, example in EXAMPLES.items():
        flag = f"--example={name}"
        using = {t.name for t in EVERY if any(c.endswith(flag) for c in t.commands)}
        assert using == set(example.topics.split()), name


def test_every_example_has_its_picture():
    assert {path.stem for path in course_pages.PICTURES.glob("*.png")} == set(EXAMPLES)


def test_relations():
    found = [{"test/a": 0.5, "b": 2.0}, {"test/a": 0.7}]
    assert course_pages.holds("test/a == 0.7", found, "") == (True, "0.7")
    assert course_pages.holds("1:test/a < 2:test/a", found, "")[0]
    assert not course_pages.holds("b <= 1.9", found, "")[0]
    assert course_pages.holds('"it falls"', found, "one batch: it falls")[0]
    assert not course_pages.holds('"it falls"', found, "it does NOT fall")[0]
    with pytest.raises(KeyError):
        course_pages.holds("test/none > 0", found, "")
