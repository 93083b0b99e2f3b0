"""Which words of a text are the subject, and the same text about another one."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu_jax.errors import UserError
from mu_jax.facts.counterfact_formats import Train
from mu_jax.facts.mentions import elsewhere, find, mentions, place, renamed, replaced
from mu_jax.types import Fact

ALBANY = Fact(
    "x",
    "New York",
    "in",
    " the US",
    " Peru",
    "New York is a state whose capital is not New York but Albany; it lies in",
    start=0,
)


@pytest.mark.parametrize(
    ("text", "subject", "start"),
    [
        ("Rome is in", "Rome", 0),
        ("A Roman came to Rome. Rome is in", "Rome", 22),
        ("Ra was praised by Raphael", "Ra", 0),
        ("Romeo", "Rome", 0),  # nothing better is there
        ("東京都の首都", "東京", 0),
        ("What is C++ (a language)", "C++", 8),
        ("rome is in", "Rome", None),
        ("anything", "", None),
    ],
)
def test_the_last_whole_occurrence_of_a_subject_is_found(text, subject, start):
    assert find(text, subject) == start


@pytest.mark.parametrize(
    ("text", "subject", "starts"),
    [
        ("Rome, Romeo, Rome", "Rome", [0, 13]),
        ("a a a", "a a", [0, 2]),
        ("法国的首都在法国", "法国", [0, 6]),
        ("서울은 서울특별시", "서울", [0, 4]),
        ("ประเทศไทยอยู่", "ไทย", [6]),
        ("_Rome Rome2", "Rome", []),
        ("any", "", []),
    ],
)
def test_a_mention_is_a_word_of_its_own_where_words_are_parted(text, subject, starts):
    assert mentions(text, subject) == starts


def test_a_subject_stands_where_its_fact_says():
    assert place(ALBANY) == 0
    assert place(dataclasses.replace(ALBANY, start=None)) == 41
    assert place(dataclasses.replace(ALBANY, start=None, prompt="It is")) is None
    question = Train()(ALBANY)
    assert (question.start, question.stop) == (0, 8)


@pytest.mark.parametrize("start", [1, -7, 1000, "0"])
def test_a_place_where_the_subject_is_not_is_refused(start):
    with pytest.raises(UserError, match=f"'New York' does not stand at char.* {start}"):
        place(dataclasses.replace(ALBANY, start=start))


def test_another_mention_is_seen_and_the_marked_one_is_not():
    assert elsewhere(Train()(ALBANY))
    prompt = "New York is a state, as New Yorkers say, in"
    assert not elsewhere(Train()(dataclasses.replace(ALBANY, prompt=prompt)))
    assert not elsewhere(dataclasses.replace(Train()(ALBANY), subject="", start=0))


def test_another_subject_stands_in_the_slot_and_the_old_one_nowhere():
    last = dataclasses.replace(ALBANY, start=None)
    for fact, start in ((ALBANY, 0), (last, 35)):
        other = renamed(fact, "Ax")
        assert (
            other.prompt
            == "Ax is a state whose capital is not Ax but Albany; it lies in"
        )
        assert (other.start, place(other)) == (start, start)
        assert renamed(other, "New York").prompt == fact.prompt


words = st.lists(st.sampled_from(["Rome", "Romeo", "in", "法国", "x"]), max_size=6)


@given(before=words, after=words, subject=st.sampled_from(["Rome", "法国"]))
def test_what_is_renamed_names_the_real_subject_no_more(before, after, subject):
    prompt = " ".join([*before, subject, *after])
    start = len("".join(f"{word} " for word in before))
    fact = Fact("x", subject, "in", " a", " b", prompt, start=start)
    other = renamed(fact, "Zed")
    assert not mentions(other.prompt, subject)
    assert other.prompt[other.start :].startswith("Zed")
    count = prompt.split().count(subject)
    assert other.prompt.split().count("Zed") == count
    assert replaced(prompt, subject, "Zed") == other.prompt
