"""Clean and corrupt prompts."""

import dataclasses

import pytest

from mu_jax.errors import UserError
from mu_jax.facts.corrupt import GaussianNoise, OtherSubject, RandomTokens
from mu_jax.facts.counterfact_formats import Train
from mu_jax.facts.sports import Sports
from mu_jax.facts.templates import Template
from mu_jax.testing import ToyTokenizer
from mu_jax.types import Fact

TEMPLATES = [f for f in Sports().templates if isinstance(f, Template)]
SPORTS = (" golf", " baseball")
PLAIN = Template("plain", "{subject} plays", tuple((s, s) for s in SPORTS))
TEXTUAL = (OtherSubject(), RandomTokens())


def fact(subject: str, answer: str, relation: str = "plays") -> Fact:
    wrong = " golf" if answer != " golf" else " baseball"
    return Fact(subject, subject, relation, answer, wrong, f"{subject} plays")


def subjects(pair, tokenizer, side="corrupt"):
    """What stands at the subject's tokens of each row."""
    asked = getattr(pair, side)
    return [
        tokenizer.decode(tokens[mask]).strip()
        for tokens, mask in zip(asked.tokens, asked.subject, strict=True)
    ]


@pytest.fixture(scope="module")
def facts():
    return Sports().load()[:60]


@pytest.mark.parametrize("how", TEXTUAL, ids=lambda how: type(how).__name__)
@pytest.mark.parametrize("template", TEMPLATES, ids=lambda t: t.name)
def test_clean_and_corrupt_differ_at_the_subject_and_only_there(facts, template, how):
    pair = how(facts, facts, template, ToyTokenizer(1 << 20))
    assert len(pair.kept) > 40
    differ = pair.clean.tokens != pair.corrupt.tokens
    assert not (differ & ~pair.clean.subject).any()
    assert differ.any(axis=1).all()
    for name in ("valid", "subject", "answer", "foil", "options"):
        assert (getattr(pair.clean, name) == getattr(pair.corrupt, name)).all()


def test_the_corrupt_subject_has_another_answer(facts):
    tokenizer = ToyTokenizer(1 << 20)
    answers = {f.subject: f.answer for f in facts}
    pair = OtherSubject()(facts, facts, TEMPLATES[0], tokenizer)
    found = zip(
        pair.kept,
        subjects(pair, tokenizer),
        subjects(pair, tokenizer, "clean"),
        strict=True,
    )
    for i, other, own in found:
        assert answers[other] != facts[i].answer
        assert own == facts[i].subject


def test_the_corrupt_subject_has_the_same_relation():
    pool = [
        fact("Ann", " golf", "plays"),
        fact("Bo", " baseball", "watches"),
        fact("Cy", " baseball", "plays"),
        fact("Di", " golf", "watches"),
    ]
    tokenizer = ToyTokenizer(1 << 20)
    for seed in range(5):
        pair = OtherSubject(seed)(pool, pool, PLAIN, tokenizer)
        assert subjects(pair, tokenizer) == ["Cy", "Di", "Ann", "Bo"]
    alone = OtherSubject()(pool[:1], pool[1:2] + pool[2:], PLAIN, tokenizer)
    assert subjects(alone, tokenizer) == ["Cy"]
    with pytest.raises(UserError, match="none of 1 facts"):
        OtherSubject()(pool[:1], pool[1:2], PLAIN, tokenizer)


def test_a_fact_of_the_same_subject_is_no_other_subject():
    pool = [fact("Ann", " golf"), fact("Ann", " baseball")]
    with pytest.raises(UserError, match="none of 2 facts"):
        OtherSubject()(pool, pool, PLAIN, ToyTokenizer())


@pytest.mark.parametrize(
    "how", [*TEXTUAL, GaussianNoise()], ids=lambda how: type(how).__name__
)
def test_a_prompt_that_names_its_subject_twice_has_no_corrupt_one(how):
    """It would still say who is meant, or differ at more than the subject."""
    prompt = "Ann plays, says Ann, the"
    twice = dataclasses.replace(fact("Ann", " golf"), prompt=prompt, start=0)
    facts = [twice, fact("Bo", " golf"), fact("Cy", " baseball")]
    assert how(facts, facts, Train(), ToyTokenizer(1 << 20)).kept == [1, 2]
    with pytest.raises(UserError, match=r"none of 1 facts.*each named once"):
        how([twice], facts, Train(), ToyTokenizer(1 << 20))


def test_facts_without_a_partner_are_left_out():
    pool = [fact("A B", " golf"), fact("C D", " baseball"), fact("E F G", " golf")]
    pair = OtherSubject()(pool, pool, TEMPLATES[0], ToyTokenizer())
    assert pair.kept == [0, 1]
    assert len(pair.clean.tokens) == len(pair.corrupt.tokens) == 2


def test_no_partner_at_all_is_refused():
    same = [fact("A B", " golf"), fact("C D", " golf")]
    with pytest.raises(UserError, match="none of 2 facts has a corrupt subject"):
        OtherSubject()(same, same, TEMPLATES[0], ToyTokenizer())


@pytest.mark.parametrize("how", TEXTUAL, ids=lambda how: type(how).__name__)
def test_the_seed_decides_the_corruption(facts, how):
    def corrupt(seed):
        seeded = dataclasses.replace(how, seed=seed)
        pair = seeded(facts, facts, TEMPLATES[0], ToyTokenizer())
        return pair.corrupt.tokens.tolist()

    assert corrupt(0) == corrupt(0) != corrupt(1)


def test_random_words_depend_on_nothing_but_their_fact(facts):
    def corrupt(which, pool):
        tokenizer = ToyTokenizer(1 << 20)
        pair = RandomTokens()(which, pool, TEMPLATES[0], tokenizer)
        ids = [which[i].id for i in pair.kept]
        return dict(zip(ids, subjects(pair, tokenizer), strict=True))

    some = facts[:12]
    found = corrupt(some, facts)
    assert len(found) > 8
    assert corrupt(some[::-1], []) == found
    assert corrupt(some[3:5], []).items() <= found.items()
    assert all(words == words.lower() for words in found.values())
    assert not {f.subject for f in some} & set(found.values())


def test_facts_for_which_no_words_fit_are_refused(facts):
    with pytest.raises(UserError, match="none of 60 facts has a corrupt subject"):
        RandomTokens(tries=0)(facts, facts, TEMPLATES[0], ToyTokenizer())


def test_a_fact_whose_prompt_lacks_its_subject_is_refused():
    odd = dataclasses.replace(fact("Ann", " golf"), prompt="Who plays")
    with pytest.raises(UserError, match="subject 'Ann' is not found in 'Who plays'"):
        RandomTokens()([odd], [], PLAIN, ToyTokenizer())


def test_noise_leaves_the_text_as_it_is(facts):
    pair = GaussianNoise()(facts, (), TEMPLATES[0], ToyTokenizer())
    assert pair.kept == list(range(60))
    for clean, corrupt in zip(pair.clean, pair.corrupt, strict=True):
        assert (clean == corrupt).all()


@pytest.mark.parametrize("scale", [0, -1.0, float("nan")])
def test_noise_without_a_scale_is_refused(scale):
    with pytest.raises(UserError, match="expected a scale above 0"):
        GaussianNoise(scale=scale)


@pytest.mark.parametrize(
    "how", [*TEXTUAL, GaussianNoise()], ids=lambda how: type(how).__name__
)
def test_both_sides_are_padded_to_the_length_asked_for(facts, how):
    pair = how(facts, facts, TEMPLATES[0], ToyTokenizer(), length=50)
    assert pair.clean.tokens.shape == pair.corrupt.tokens.shape
    assert pair.clean.tokens.shape[1] == 50
