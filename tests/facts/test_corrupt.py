"""Clean and corrupt prompts."""

import pytest

from mu_jax.errors import UserError
from mu_jax.facts.corrupt import other_subject
from mu_jax.facts.sports import Sports
from mu_jax.testing import ToyTokenizer
from mu_jax.types import Fact

TEMPLATES = Sports().templates


def fact(subject: str, answer: str) -> Fact:
    wrong = " golf" if answer != " golf" else " baseball"
    return Fact(subject, subject, "plays", answer, wrong, "")


@pytest.fixture(scope="module")
def facts():
    return Sports().load()[:60]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda t: t.name)
def test_clean_and_corrupt_differ_at_the_subject_and_only_there(facts, template):
    tokenizer = ToyTokenizer(1 << 20)
    pair = other_subject(facts, facts, template, tokenizer)
    differ = pair.clean.tokens != pair.corrupt.tokens
    assert not (differ & ~pair.clean.subject).any()
    assert differ.any(axis=1).all()
    for name in ("valid", "subject", "answer", "foil", "options"):
        assert (getattr(pair.clean, name) == getattr(pair.corrupt, name)).all()


def test_the_corrupt_subject_has_another_answer(facts):
    tokenizer = ToyTokenizer(1 << 20)
    answers = {f.subject: f.answer for f in facts}
    pair = other_subject(facts, facts, TEMPLATES[0], tokenizer)
    for row, i in enumerate(pair.kept):
        mask = pair.corrupt.subject[row]
        other = tokenizer.decode(pair.corrupt.tokens[row][mask]).strip()
        assert answers[other] != facts[i].answer
        clean = tokenizer.decode(pair.clean.tokens[row][mask]).strip()
        assert clean == facts[i].subject


def test_facts_without_a_partner_are_left_out():
    pool = [fact("A B", " golf"), fact("C D", " baseball"), fact("E F G", " golf")]
    pair = other_subject(pool, pool, TEMPLATES[0], ToyTokenizer())
    assert pair.kept == [0, 1]
    assert len(pair.clean.tokens) == len(pair.corrupt.tokens) == 2


def test_no_partner_at_all_is_refused():
    same = [fact("A B", " golf"), fact("C D", " golf")]
    with pytest.raises(UserError, match="none of 2 facts has another subject"):
        other_subject(same, same, TEMPLATES[0], ToyTokenizer())


def test_the_seed_decides_the_partners(facts):
    def corrupt(seed):
        pair = other_subject(facts, facts, TEMPLATES[0], ToyTokenizer(), seed=seed)
        return pair.corrupt.tokens.tolist()

    assert corrupt(0) == corrupt(0) != corrupt(1)


def test_both_sides_are_padded_to_the_length_asked_for(facts):
    pair = other_subject(facts, facts, TEMPLATES[0], ToyTokenizer(), length=50)
    assert pair.clean.tokens.shape == pair.corrupt.tokens.shape
    assert pair.clean.tokens.shape[1] == 50
