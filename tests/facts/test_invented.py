"""Twins: the same questions about nobody."""

import dataclasses
import re

import pytest

from mu_jax.errors import UserError
from mu_jax.facts.counterfact import CounterFact
from mu_jax.facts.invented import twin, twins
from mu_jax.facts.mentions import find
from mu_jax.facts.sports import Sports
from mu_jax.types import Fact

SOURCES = {"sports": Sports(), "counterfact": CounterFact()}


@pytest.fixture(scope="module", params=SOURCES, ids=SOURCES)
def both(request):
    source = SOURCES[request.param]
    pool = source.load()
    facts = pool[:300]
    return source, facts, twins(facts, pool, seed=3), pool


def test_nobody_real_is_asked_about_and_nobody_twice(both):
    _, facts, made, pool = both
    real = {name.casefold() for f in pool for name in (f.subject, f.rival)}
    names = [t.subject.casefold() for t in made]
    assert len(names) == len(facts) == len(set(names))
    assert not real & set(names)


def test_all_but_the_subject_stays(both):
    _, facts, made, _ = both
    for fact, other in zip(facts, made, strict=True):
        for field in ("relation", "answer", "counterfact", "distractors", "rival"):
            assert getattr(other, field) == getattr(fact, field)
        assert other.neighbours == () and other.id != fact.id
        start = find(fact.prompt, fact.subject)
        before, after = fact.prompt[:start], fact.prompt[start + len(fact.subject) :]
        assert other.prompt == before + other.subject + after
        assert len(other.paraphrases) == len(fact.paraphrases)


def test_the_real_subject_is_named_nowhere(both):
    source, facts, made, _ = both
    for fact, other in list(zip(facts, made, strict=True))[:60]:
        for format in source.templates:
            for question in format.questions(other):
                line = question.text.rpartition("\n")[2]
                assert not re.search(rf"(?<!\w){re.escape(fact.subject)}(?!\w)", line)
                assert find(line, other.subject) is not None


def test_names_are_made_of_words_of_the_same_relation(both):
    _, facts, made, pool = both
    words = {}
    for fact in pool:
        words.setdefault(fact.relation, set()).update(fact.subject.split())
    halved = 0
    for fact, other in zip(facts, made, strict=True):
        first, *rest = other.subject.split()
        assert len(rest) + 1 == len(fact.subject.split())
        assert set(rest) <= words[fact.relation]
        halved += bool(rest) and first not in words[fact.relation]
    assert halved <= 0.05 * len(facts)


def test_a_twin_depends_on_the_fact_and_the_seed(both):
    _, facts, made, pool = both
    assert twins(facts[:20], pool, seed=3) == made[:20]
    again = twins(facts[:20], pool, seed=4)
    assert sum(a.subject == b.subject for a, b in zip(again, made, strict=False)) <= 2
    first = twins(facts[19:20], pool, seed=3)[0]
    assert first == made[19]  # no earlier one was in its way


def test_no_word_of_a_trained_subject_is_in_a_twins_name(both):
    """But for small ones; where all are trained, words are made of halves."""
    _, _, _, pool = both
    for trained in (pool[: len(pool) // 2], pool):
        words = {w for fact in trained for w in fact.subject.split()}
        for other in twins(pool[:100], pool, trained=trained):
            assert all(w.islower() or w not in words for w in other.subject.split())


def test_subjects_of_other_relations_help_where_there_are_too_few():
    names = ("Rome", "Cairo", "Lima", "Oslo", "Quito")
    pool = [Fact(n, n, n, " x", " y", f"{n} is") for n in names]
    (made,) = twins(pool[:1], pool)
    assert made.subject not in names and made.prompt == f"{made.subject} is"


def test_a_pool_without_words_is_refused():
    fact = Fact("a", "Rome", "in", " x", " y", "Rome is in")
    with pytest.raises(UserError, match=r"no name like 'Rome'.*a larger pool"):
        twins([fact], [fact])


def test_a_subject_in_a_script_without_spaces_is_named_nowhere():
    fact = Fact(
        "a", "法国", "在", "欧洲", "亚洲", "法国在法国的", ("法国在", "它在"), start=0
    )
    made = twin(fact, "卡斯")
    assert made.prompt == "卡斯在卡斯的" and made.paraphrases == ("卡斯在",)


def test_paraphrases_that_name_the_subject_otherwise_are_dropped():
    text = "Rome, yes, Rome, not Romeo, is in"
    fact = Fact("a", "Rome", "in", " x", " y", "Rome is in", (text, "It is in"))
    made = twin(fact, r"\1 Ax")
    assert made.paraphrases == (r"\1 Ax, yes, \1 Ax, not Romeo, is in",)
    twice = dataclasses.replace(fact, prompt="Rome is not Rome, but in", start=0)
    assert twin(twice, "Ax").prompt == "Ax is not Ax, but in"
    assert twin(twice, "Ax").start == 0
    with pytest.raises(UserError, match="not found"):
        twin(dataclasses.replace(fact, prompt="It is in"), "Ax")
