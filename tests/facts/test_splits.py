"""Nothing is measured where it was trained, and nothing reported where it was tuned."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu_jax.errors import UserError
from mu_jax.facts.counterfact import CounterFact
from mu_jax.facts.groups import alike
from mu_jax.facts.mentions import mentions
from mu_jax.facts.splits import untrained_neighbours
from mu_jax.facts.sports import Sports
from mu_jax.types import Fact, Facts, Known

SOURCES = {
    "sports": Sports(forget=8, tune=6),
    "counterfact": CounterFact(forget=8, tune=6, reserved=4),
}


def known(facts) -> list[tuple[Fact, float]]:
    return [(fact, 0.9) for fact in facts]


def ids(facts: Facts, *splits: str) -> set[str]:
    return {fact.id for split in splits for fact in facts.split(split)}


@pytest.fixture(scope="module", params=SOURCES)
def source(request):
    """A source, and 200 of its facts."""
    found = SOURCES[request.param]
    return found, known(found.load()[:200])


def test_without_a_seed_the_first_are_forgotten_and_with_one_they_are_drawn(source):
    how, facts = source
    of = lambda seed: dataclasses.replace(how, seed=seed).split(facts)
    assert ids(of(None), "forget") == {fact.id for fact, _ in facts[:8]}
    drawn = [ids(of(seed), "forget") for seed in range(20)]
    assert ids(of(3), "forget") == drawn[3]
    assert len({frozenset(one) for one in drawn}) == 20
    # Of 200, 20 draws of 8 leave out (1 - 8/200)^20, and so hold about 111.
    assert 90 < len(set().union(*drawn)) < 135
    everything = {known.fact.id for known in of(5).known}
    assert everything == {fact.id for fact, _ in facts}


def test_what_settings_are_chosen_on_is_neither_trained_on_nor_asked(source):
    how, facts = source
    found = how.split(facts)
    tune = ids(found, "tune")
    assert len(tune) == 6
    assert not tune & {known.fact.id for known in found.used.known}


def test_nothing_that_is_reported_is_used_to_choose_settings(source):
    how, facts = source
    found = how.split(facts)
    tuned = dataclasses.replace(how, tuning=True).split(facts)
    assert ids(tuned, "forget", "heldout") == ids(found, "tune")
    assert len(tuned.split("forget")) == len(tuned.split("heldout")) == 3
    assert ids(tuned, "retain") == ids(found, "retain")
    used = {known.fact.id for known in tuned.used.known}
    assert not used & ids(found, "forget", "heldout")
    assert {k.fact.id for k in tuned.known} == {k.fact.id for k in found.known}


def test_what_is_set_aside_is_the_same_in_every_draw(source):
    how, facts = source
    last = [fact.id for fact, _ in facts[-6:]]
    for seed in (None, 0, 1, 2):
        found = dataclasses.replace(how, seed=seed).split(facts)
        assert [fact.id for fact in found.split("tune")] == last


def test_settings_are_not_chosen_on_facts_about_one_subject():
    facts = [Fact(str(i), f"s{i // 2}", f"P{i % 2}", " x", " y", "") for i in range(20)]
    how = CounterFact(forget=2, tune=2, tuning=True)
    with pytest.raises(UserError, match="2 facts set aside, of which 0 can be held"):
        how.split(known(facts))


def test_settings_are_not_chosen_on_nothing():
    with pytest.raises(UserError, match=r"facts.tune 0 and facts.tuning"):
        Sports(tuning=True)
    with pytest.raises(UserError, match=r"facts.tune 1; expected .* half to hold out"):
        Sports(tune=1)
    with pytest.raises(UserError, match=r"facts.tune 4 with facts.forget 'football'"):
        Sports(forget="football", tune=4)


NAMES = st.sampled_from(["Rome", "ROME", "Oslo", "Lima", "Bonn", "Kyiv", "Baku"])


@given(
    drawn=st.lists(
        st.tuples(NAMES, st.sampled_from(["P1", "P2", "P3"])), min_size=8, max_size=40
    ),
    forget=st.integers(1, 4),
    seed=st.none() | st.integers(0, 3),
)
def test_nothing_else_is_trained_about_a_subject_that_is_held_out(drawn, forget, seed):
    facts = [
        Fact(str(i), subject, relation, " x", " y", f"{subject} is")
        for i, (subject, relation) in enumerate(drawn)
    ]
    try:
        found = CounterFact(forget=forget, heldout=0.3, seed=seed).split(known(facts))
    except UserError:
        return
    subjects = lambda split: {alike(fact.subject) for fact in found.split(split)}
    assert not subjects("heldout") & (subjects("forget") | subjects("retain"))


def test_neighbours_that_an_edit_trains_on_are_not_asked():
    texts = ("Oslo is in", "Bonn is in", "Old Osloan is in")
    rome = Fact("0", "Rome", "in", " x", " y", "Rome is in", neighbours=texts)
    oslo, bonn = (
        dataclasses.replace(rome, id=name, subject=name) for name in ("Oslo", "Bonn")
    )
    split = {"forget": rome, "retain": oslo, "heldout": bonn}
    found = untrained_neighbours(
        Facts(tuple(Known(fact, name, 0.9) for name, fact in split.items()))
    )
    assert [k.fact.neighbours for k in found.known] == [texts[1:]] * 3
    assert [k.split for k in found.known] == [*split]


def test_no_shipped_neighbour_is_about_a_trained_subject():
    facts = CounterFact().load()
    found = CounterFact().split(known(facts))
    trained = {fact.subject for fact in (*found.forget, *found.retain)}
    before = {text for fact in facts[:16] for text in fact.neighbours}
    after = {text for fact in found.forget for text in fact.neighbours}
    assert after < before
    about = lambda text: any(mentions(text, subject) for subject in trained)
    assert not any(map(about, after)) and all(map(about, before - after))
