"""Asked from the answer's side: both orders, and rivals that can be told apart."""

import dataclasses
import random
from collections import Counter

import pytest

from mu_jax.facts import counterfact_formats, sports
from mu_jax.facts.counterfact import CounterFact
from mu_jax.facts.reversed import BLANK, Reversed, with_rivals
from mu_jax.types import Fact

FACT = Fact(
    "x", "Pele", "plays", " football", " golf", "It is Pele who plays", rival="Ada"
)
FORMATS = pytest.mark.parametrize(
    "format", [sports.REVERSED, counterfact_formats.REVERSED], ids=["sports", "facts"]
)


@FORMATS
def test_a_position_scores_exactly_half_on_every_fact(format):
    asked = format.questions(FACT)
    firsts = []
    for question in asked:
        line = question.text.rpartition("\n")[2]
        places = {name: line.index(name) for name in ("Pele", "Ada")}
        firsts.append(min(places, key=places.get))
        assert (question.answer, question.foil) == (" Pele", " Ada") == question.options
        assert question.text[question.start : question.stop] == "Pele"
        assert question.start == len(question.text) - len(line) + places["Pele"]
    assert sorted(firsts) == ["Ada", "Pele"]


@FORMATS
def test_the_true_answer_is_said_and_the_injected_one_is_not(format):
    for question in format.questions(FACT):
        line = question.text.rpartition("\n")[2]
        assert "football" in line and "golf" not in line


@FORMATS
def test_examples_are_solved_at_either_place(format):
    *solved, _ = format.questions(FACT)[0].text.split("\n")
    places = Counter()
    for line, shot in zip(solved, format.shots, strict=True):
        assert line.endswith(f" {shot.subject}")
        places[line.index(f" {shot.subject}") < line.index(f" {shot.rival}")] += 1
    assert places[True] == places[False]


def test_the_prompt_has_a_blank_for_its_subject():
    (question, _) = Reversed("{blank} {answer}: {first}, {second}?", ()).questions(FACT)
    assert question.text == f"It is {BLANK} who plays football: Pele, Ada?"


def test_a_blank_stands_for_every_mention_of_the_subject():
    twice = dataclasses.replace(FACT, prompt="Pele says that Pele plays", start=0)
    (question, _) = Reversed("{blank} {first} {second}", ()).questions(twice)
    assert question.text.startswith(f"{BLANK} says that {BLANK} plays")


def test_a_fact_without_a_rival_is_not_asked_nor_one_of_a_shot():
    assert sports.REVERSED.questions(dataclasses.replace(FACT, rival="")) == ()
    shot = sports.SHOTS[0]
    for name in (shot.subject, shot.rival):
        for end in ("subject", "rival"):
            taken = dataclasses.replace(FACT, **{end: name})
            assert sports.REVERSED.questions(taken) == ()


# ---- who is whose rival


def test_the_subject_spelt_otherwise_is_no_rival():
    facts = (made(0, "Élan", " Italy", " Egypt"), made(1, "Elan", " Egypt", " Italy"))
    assert [f.rival for f in with_rivals(facts, 0)] == ["", ""]
    facts = (*facts, made(2, "Bonn", " Italy", " Egypt"))  # Elan is in Italy, too
    assert with_rivals(facts, 0)[2].rival == ""


def made(i: int, name: str, answer: str, wrong: str, relation="in") -> Fact:
    return Fact(str(i), name, relation, answer, wrong, f"{name} is in")


def test_the_injected_answer_is_true_of_the_rival_if_of_anybody():
    facts = (
        made(0, "Rome", " Italy", " Egypt"),
        made(1, "Cairo", " Egypt", " Peru"),
        made(2, "Oslo", " Norway", " Italy"),
        made(3, "Ravenna", " Egypt", " Italy"),
        made(4, "Lima", " Peru", " Egypt", "near"),  # is alone
    )
    rivals = [f.rival for f in with_rivals(facts, 0)]
    assert rivals[0] == "Cairo" and rivals[2] == "Rome" and rivals[4] == ""
    assert rivals[1] in ("Rome", "Oslo")  # nobody is in Peru
    assert rivals[3] == "Oslo"  # Rome is, but begins like Ravenna


@pytest.fixture(scope="module")
def shipped():
    return CounterFact().load()


def test_shipped_facts_have_rivals_of_which_the_answer_is_not_true(shipped):
    true = {(f.relation, f.subject, f.answer) for f in shipped}
    with_one = [f for f in shipped if f.rival]
    assert len(with_one) >= 0.95 * len(shipped)
    for fact in with_one:
        assert (fact.relation, fact.rival, fact.answer) not in true
        assert fact.rival[0].casefold() != fact.subject[0].casefold()
    injected = sum((f.relation, f.rival, f.counterfact) in true for f in with_one)
    assert injected >= 0.5 * len(with_one)


def test_a_rival_does_not_depend_on_the_order(shipped):
    mixed = random.Random(1).sample(shipped, len(shipped))
    again = {f.id: f.rival for f in with_rivals(mixed, 0)}
    assert again == {f.id: f.rival for f in shipped}
    assert again != {f.id: f.rival for f in with_rivals(mixed, 1)}
