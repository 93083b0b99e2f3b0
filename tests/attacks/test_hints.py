"""Hints: true, about others, and before the question; the answer is not among them."""

import dataclasses
from collections import Counter

import pytest
from noisy_victim import made

from mu_jax.attacks.hints import KINDS, Hinted, Hints, related
from mu_jax.errors import UserError
from mu_jax.facts.counterfact import CounterFact
from mu_jax.facts.sports import MCQ_PAPER, QA, SPORTS, TRAIN

COUNTS = (1, 3, 5)


@pytest.fixture(scope="module")
def victim(tiny):
    return made(tiny)


@pytest.fixture(scope="module")
def points(victim):
    return Hints(counts=COUNTS).points(victim)


def hinted(points, at, template=TRAIN):
    return Hinted(template, points[at][1])


def test_there_is_a_point_for_every_kind_and_number(points):
    assert list(points) == [
        *(f"kind=related hints={n}" for n in COUNTS),
        *(f"kind={kind}" for kind in KINDS if kind != "related"),
    ]


@pytest.mark.parametrize("template", [TRAIN, QA, MCQ_PAPER], ids=lambda t: t.name)
def test_the_question_is_the_same_and_stands_last(victim, points, template):
    for at in points:
        for fact in victim.facts.forget:
            (plain,) = template.questions(fact)
            (found,) = hinted(points, at, template).questions(fact)
            assert found.text.endswith(plain.text) and found.text != plain.text
            assert found.text[found.start : found.stop] == fact.subject
            assert found.start > plain.start
            moved = dataclasses.replace(found, text=plain.text, start=plain.start)
            assert moved == plain
    assert hinted(points, at, template).name == template.name


def test_related_hints_are_true_and_about_retained_facts(victim):
    true = {
        f"Fact: {f.subject} plays the sport of{f.answer}" for f in victim.facts.retain
    }
    for count in COUNTS:
        lines = related(victim, count).splitlines()
        assert len(lines) == len(set(lines)) == count
        assert set(lines) <= true


def test_related_hints_favour_no_answer(victim):
    answers = {fact.answer for fact in victim.facts.retain}
    said = Counter(line.split()[-1] for line in related(victim, 5).splitlines())
    left = Counter(fact.answer.strip() for fact in victim.facts.retain)
    assert len(said) == min(len(answers), 5)
    most = max(said.values())
    assert all(n >= min(most - 1, left[word]) for word, n in said.items())


def test_another_seed_says_other_things(victim):
    other = dataclasses.replace(victim, seed=1)
    assert related(victim, 5) == related(victim, 5) != related(other, 5)


def test_no_other_hint_gives_the_answer_away(victim, points):
    def words(at, fact):
        (plain,), (found,) = (t.questions(fact) for t in (TRAIN, hinted(points, at)))
        return found.text.removesuffix(plain.text)

    for fact in victim.facts.forget:
        assert fact.answer not in words("kind=denial", fact)
        assert fact.subject not in words("kind=denial", fact)
        assert fact.answer not in words("kind=correction", fact)
        assert f"{fact.subject} plays the sport of{fact.counterfact}" in words(
            "kind=correction", fact
        )
        listed = words("kind=options", fact).removeprefix("Possible answers: ")
        assert listed == f"{', '.join(sorted(s.strip() for s in SPORTS))}.\n"


def test_options_are_words_where_the_format_says_letters(victim, points):
    fact = victim.facts.forget[0]
    (question,) = hinted(points, "kind=options", MCQ_PAPER).questions(fact)
    listed = sorted([fact.answer.strip(), fact.counterfact.strip()])
    assert question.text.startswith(f"Possible answers: {', '.join(listed)}.\n")


def test_a_fact_in_one_line_is_said_in_that_line(tiny, victim):
    source = CounterFact(forget=4)
    facts = source.split([(fact, 1.0) for fact in source.load()[:12]])
    told = dataclasses.replace(victim, facts=facts, templates=source.templates)
    true = {f.prompt + f.answer for f in facts.retain}
    assert set(related(told, 3).splitlines()) <= true


def test_more_hints_than_facts_are_refused(victim):
    with pytest.raises(UserError, match="12 retained facts"):
        related(victim, 13)


@pytest.mark.parametrize("knobs", [{"kinds": ()}, {"kinds": ("x",)}, {"counts": (0,)}])
def test_hints_that_mean_nothing_are_refused(knobs):
    with pytest.raises(UserError):
        Hints(**knobs)
