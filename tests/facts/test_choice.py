"""Multiple choice: no letter is worth anything."""

import dataclasses
from collections import Counter

import pytest

from mu_jax.facts import counterfact_formats, sports
from mu_jax.facts.choice import LETTERS, Choice, shuffled
from mu_jax.types import Fact, Question

SHIPPED = {
    "sports": (sports.CHOICE, sports.Sports().load()[:40]),
    "counterfact": (
        counterfact_formats.CHOICE,
        tuple(
            Fact(
                str(i),
                f"S{i}",
                "",
                " w",
                " x",
                f"The S{i} is",
                distractors=(" y", " z"),
            )
            for i in range(40)
        ),
    ),
}
BOTH = pytest.mark.parametrize(("choice", "facts"), SHIPPED.values(), ids=SHIPPED)


def last_line(question: Question) -> str:
    """The question, without the solved ones."""
    return question.text.rpartition("\n")[2]


@BOTH
@pytest.mark.parametrize("letter", LETTERS)
def test_one_letter_always_scores_exactly_a_quarter_on_every_fact(
    choice, facts, letter
):
    for fact in facts:
        asked = choice.questions(fact)
        assert sum(q.answer == letter for q in asked) / len(asked) == 1 / 4
        assert sum(q.foil == letter for q in asked) / len(asked) == 1 / 4


@BOTH
def test_every_option_stands_once_at_every_letter(choice, facts):
    for fact in facts:
        options = choice.options or (fact.answer, fact.counterfact, *fact.distractors)
        places = Counter(
            (option, letter)
            for q in choice.questions(fact)
            for letter in LETTERS
            for option in options
            if f"{letter}.{option} " in last_line(q)
        )
        assert places == Counter((o, x) for o in options for x in LETTERS)


@BOTH
def test_letters_lead_to_the_answers(choice, facts):
    for fact in facts:
        for q in choice.questions(fact):
            said = last_line(q)
            assert q.options == LETTERS
            assert f"{q.answer}.{fact.answer} " in said
            assert f"{q.foil}.{fact.counterfact} " in said
            assert fact.subject in said and q.text.endswith(" Answer:")


@BOTH
def test_examples_are_solved_each_at_another_letter(choice, facts):
    (*solved, _) = choice.questions(facts[0])[0].text.split("\n")
    assert len(solved) == len(choice.shots) == 4
    letters = [line.rpartition("Answer:")[2] for line in solved]
    assert sorted(letters) == list(LETTERS)
    for line, letter, shot in zip(solved, letters, choice.shots, strict=True):
        assert f"{letter}.{shot.answer} " in line
        assert all(line.count(f"{x}.") == 1 for x in LETTERS)


@BOTH
def test_what_is_solved_is_the_same_for_all(choice, facts):
    asked = [q for fact in facts for q in choice.questions(fact)]
    assert len({q.text[: q.text.rindex("\n")] for q in asked}) == 1


def test_all_that_stands_before_an_athlete_is_the_same_in_a_turn():
    choice, facts = SHIPPED["sports"]
    for turn in zip(*map(choice.questions, facts), strict=True):
        assert len({q.text[: q.start] for q in turn}) == 1


@pytest.mark.parametrize("gone", ["distractor", "subject"])
def test_facts_that_cannot_be_asked_fairly_are_not(gone):
    shot = Fact("a", "Ada", "", " w", " x", "Ada is", distractors=(" y", " z"))
    choice = Choice("{prompt} {options} Answer:", (shot,))
    fact = dataclasses.replace(shot, subject="Bob", prompt="Bob is")
    assert len(choice.questions(fact)) == 4
    few = dataclasses.replace(fact, distractors=(" y",))
    assert choice.questions(few if gone == "distractor" else shot) == ()


def test_options_without_a_space_of_their_own_are_listed_alike():
    cities = ("巴黎", "罗马", "东京", "开罗")
    fact = Fact("a", "法国", "", *cities[:2], "法国是", distractors=cities[2:])
    text = Choice("{options} {prompt}", ()).questions(fact)[0].text
    assert sorted(text.split()[1:8:2]) == sorted(cities)


def test_the_first_order_depends_on_the_fact_alone():
    facts = SHIPPED["counterfact"][1]
    orders = [shuffled(fact, "mcq") for fact in facts]
    assert orders[::-1] == [shuffled(fact, "mcq") for fact in reversed(facts)]
    assert max(Counter(o.index(" w") for o in orders).values()) < 20
