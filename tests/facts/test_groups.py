"""Records of one fact stay together; where all differ, splits are what they were."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu_jax.errors import UserError
from mu_jax.facts.counterfact import CounterFact
from mu_jax.facts.groups import alike, exactly, grouped, repeats, taken
from mu_jax.facts.sports import Sports
from mu_jax.types import Fact


def made(i: int, subject: str, relation: str = "P1", answer: str = " x") -> Fact:
    return Fact(str(i), subject, relation, answer, " y", f"{subject} is")


def known(facts) -> list[tuple[Fact, float]]:
    return [(fact, 0.9) for fact in facts]


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("José Álvarez", ["jose alvarez", "JOSÉ ÁLVAREZ", "José  Alvarez"]),
        ("Müller", ["MULLER", "Mu\u0308ller"]),
        ("Straße", ["STRASSE"]),
        ("MacDonald", ["Mac Donald", "mac\u00a0donald", "\uff2dac\u3000Donald"]),
        ("محمد", ["مُحَمَّد"]),
        ("İstanbul", ["istanbul"]),
        ("서울", [" 서울", "\u1109\u1165\u110b\u116e\u11af"]),
    ],
)
def test_case_accents_and_spaces_make_no_other_subject(name, others):
    assert {alike(other) for other in others} == {alike(name)}


@pytest.mark.parametrize(
    ("one", "other"),
    [("C", "C++"), ("राम", "रेम"), ("バス", "ハス"), ("ปา", "ป่า"), ("Ann", "Anna")],
)
def test_other_letters_do(one, other):
    assert alike(one) != alike(other)


def test_the_same_subject_and_relation_are_one_fact():
    facts = [
        made(0, "Rome"),
        made(1, "Oslo"),
        made(2, "ROME", answer=" z"),
        made(3, "Rome", "P2"),
        made(4, "Oslo", "p 1"),
    ]
    assert grouped(facts) == [[0, 2], [1, 4], [3]]
    assert repeats(facts[:1], facts) == {"0", "2"}


def test_without_a_named_relation_all_of_a_subject_are_one_fact():
    """The same may be asked in other words."""
    prompts = ("{} is the capital of", "The land whose capital is {} is called")
    facts = [made(0, "Rome", prompts[0]), made(1, "Oslo"), made(2, "rome", prompts[1])]
    assert grouped([*facts, made(3, "Rome", "P2"), made(4, "Oslo", "P2")]) == [
        [0, 2, 3],
        [1],
        [4],
    ]


def test_a_group_that_does_not_fit_is_passed_over():
    groups = [[0], [1, 4, 5], [2], [3]]
    assert taken(groups, 2) == ([[0], [2]], [[1, 4, 5], [3]])
    assert exactly(groups, 9) == (groups, [])
    with pytest.raises(UserError, match=r"^1 facts .*: 0 fit, .* be 2;.*take 2,"):
        exactly([[0, 1], [2, 3]], 1)


names = st.sampled_from(
    ["Rome", "ROME", "Róme", "Oslo", "Lima", "Bonn", "Kyiv", "Baku"]
)
relations = st.sampled_from(["P1", "p1", "P2", "{} is"])
drawn = st.lists(st.tuples(names, relations), min_size=4, max_size=40)


def straddling(facts, found) -> list[list[int]]:
    """Groups of which not all are in one split."""
    split = {k.fact.id: k.split for k in found.known}
    assert sorted(split) == sorted(f.id for f in facts)
    return [g for g in grouped(facts) if len({split[facts[i].id] for i in g}) > 1]


@given(
    drawn=drawn,
    forget=st.integers(1, 8),
    reserved=st.integers(0, 6),
    heldout=st.floats(0.1, 0.6),
)
def test_no_fact_stands_in_two_splits(drawn, forget, reserved, heldout):
    facts = [made(i, *which) for i, which in enumerate(drawn)]
    source = CounterFact(forget=forget, reserved=reserved, heldout=heldout)
    try:
        found = source.split(known(facts))
    except UserError:
        return
    assert not straddling(facts, found)
    assert len(found.forget) == forget and len(found.split("reserved")) == reserved


def test_no_fact_is_forgotten_in_two_parts():
    names = ("Rome", "Oslo", "ROME", "Lima", "Bonn", "Kyiv")
    found = known(made(i, name) for i, name in enumerate(names))
    more = known(made(i, f"City{i}") for i in range(6, 20))
    source = CounterFact(forget=6, parts=3)
    parts = source.partitions(source.split([*found, *more]))
    assert [[f.id for f in part] for part in parts] == [
        ["0", "2"],
        ["1", "3"],
        ["4", "5"],
    ]
    source = CounterFact(forget=6, parts=6)
    with pytest.raises(UserError, match="1 facts to be set apart"):
        source.partitions(source.split([*found, *more]))


@given(
    names=st.lists(names, min_size=4, max_size=30),
    forget=st.integers(1, 6) | st.just("football"),
    data=st.data(),
)
def test_no_athlete_stands_in_two_splits(names, forget, data):
    sports = st.sampled_from([" football", " baseball"])
    facts = [made(i, name, "plays", data.draw(sports)) for i, name in enumerate(names)]
    try:
        found = Sports(forget=forget).split(known(facts))
    except UserError:
        return
    assert not straddling(facts, found)
    if forget == "football":
        kept = [f for s in ("retain", "heldout") for f in found.split(s)]
        assert " football" not in {f.answer for f in kept}


def test_the_shipped_facts_are_split_as_they_come():
    """Each is another one: no number of the demo depends on the groups."""
    facts = CounterFact().load()
    found = CounterFact(forget=16, reserved=8).split(known(facts))
    bare = lambda some: [f.id for f in some]
    assert bare(found.forget) == bare(facts[:16])
    assert bare(found.split("reserved")) == bare(facts[-8:])
    assert len(found.split("heldout")) == len(facts) - 24 - round(375 * 0.8)
    athletes = Sports().load()
    found = Sports().split(known(athletes))
    cut = 16 + round((len(athletes) - 16) * 0.8)
    assert [found.split(s) for s in ("forget", "retain", "heldout")] == [
        athletes[:16],
        athletes[16:cut],
        athletes[cut:],
    ]
    found = Sports(forget="baseball").split(known(athletes))
    gone = tuple(f for f in athletes if f.answer == " baseball")
    half = (len(gone) + 1) // 2
    assert found.forget == gone[:half]
    assert found.split("forget_heldout") == gone[half:]
