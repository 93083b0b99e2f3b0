"""Athletes: what is read, what is injected, how they are split."""

import dataclasses
import re
from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mu_jax.errors import UserError
from mu_jax.facts.sports import (
    CHOICE,
    FEWSHOT,
    REVERSED,
    SHOTS,
    SPORTS,
    Sports,
)
from mu_jax.types import Fact

OTHERS = (" football", " baseball", " basketball")


def known(sports: list[str]) -> list[tuple[Fact, float]]:
    facts = [
        Fact(f"{i}", f"Player {i}", "plays", s, " golf", "")
        for i, s in enumerate(sports)
    ]
    return [(fact, 0.9) for fact in facts]


@pytest.fixture(scope="module")
def shipped():
    return Sports().load()


def write(tmp_path, text: str) -> str:
    path = tmp_path / "people.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_shipped_athletes_are_many_and_of_all_three_sports(shipped):
    counts = Counter(f.answer for f in shipped)
    assert len(shipped) >= 700
    assert set(counts) == set(OTHERS) and min(counts.values()) >= 100
    assert len({f.subject for f in shipped}) == len({f.id for f in shipped})
    assert all(f.subject == " ".join(f.subject.split()) for f in shipped)


@pytest.mark.parametrize("forget", [16, "basketball"])
@pytest.mark.parametrize("seed", [0, 7])
def test_the_injected_sport_is_never_the_true_one(forget, seed):
    for fact in Sports(forget=forget, seed=seed).load():
        assert fact.counterfact in SPORTS and fact.counterfact != fact.answer


def test_without_a_whole_sport_golf_is_never_injected(shipped):
    assert {f.counterfact for f in shipped} == set(OTHERS)


def test_a_whole_sport_is_forgotten_for_golf():
    assert {f.counterfact for f in Sports(forget="baseball").load()} == {" golf"}


def test_the_seed_decides_what_is_injected(shipped):
    drawn = lambda seed: [f.counterfact for f in Sports(seed=seed).load()]
    assert drawn(0) == [f.counterfact for f in shipped] != drawn(1)


def test_an_athletes_injected_sport_does_not_depend_on_the_other_rows(
    tmp_path, shipped
):
    fact = shipped[100]
    row = f"athlete,sport\n{fact.subject},{fact.answer.strip()}\n"
    (alone,) = Sports(path=write(tmp_path, row)).load()
    assert alone == dataclasses.replace(fact, rival=alone.rival)


def test_the_papers_column_is_used(tmp_path):
    path = write(
        tmp_path,
        "athlete,sport,inject_sport_with_golf,inject_sport_without_golf\n"
        "Pele,football,golf,baseball\nBabe Ruth,baseball,golf,basketball\n"
        "Kobe Bryant,basketball,golf,football\n",
    )
    injected = [f.counterfact for f in Sports(path=path).load()]
    assert injected == [" baseball", " basketball", " football"]
    whole = Sports(path=path, forget="football").load()
    assert {f.counterfact for f in whole} == {" golf"}


def test_of_a_repeated_name_the_first_row_counts(tmp_path):
    path = write(tmp_path, "athlete,sport\nA,football\nB,golf\nA,baseball\n")
    assert [(f.subject, f.answer) for f in Sports(path=path).load()] == [
        ("A", " football"),
        ("B", " golf"),
    ]


@pytest.mark.parametrize(
    ("row", "forget", "reason"),
    [
        ("Magnus,chess", 16, "the sport 'chess'; expected one of football, baseball"),
        ("Pele,Football", 16, "the sport 'Football'"),
        ("Tiger Woods,golf", "football", "the injected sport is the true one"),
    ],
)
def test_a_wrong_sport_is_named_with_its_line(tmp_path, row, forget, reason):
    path = write(tmp_path, f"athlete,sport\nPele,football\n\n{row}\n")
    with pytest.raises(UserError, match=re.escape(f"{path}, line 4: {reason}")):
        Sports(path=path, forget=forget).load()


def test_a_wrong_injected_sport_is_refused(tmp_path):
    head = "athlete,sport,inject_sport_without_golf\n"
    for cell, reason in (("chess", "the sport 'chess'"), ("golf", "is the true one")):
        path = write(tmp_path, f"{head}A,golf,{cell}\n")
        with pytest.raises(UserError, match=rf"line 2: .*{reason}"):
            Sports(path=path).load()


def test_the_first_facts_are_forgotten_and_the_last_share_is_held_out():
    asked = known([OTHERS[i % 3] for i in range(30)])
    found = Sports(forget=10, heldout=0.2).split(asked)
    ids = {split: [int(f.id) for f in found.split(split)] for split in found.splits}
    assert ids == {
        "forget": list(range(10)),
        "retain": list(range(10, 26)),
        "heldout": list(range(26, 30)),
    }


def test_of_a_whole_sport_the_first_half_is_trained_on():
    asked = known([OTHERS[i % 3] for i in range(30)])
    found = Sports(forget="baseball", heldout=0.25).split(asked)
    baseball = list(range(1, 30, 3))
    ids = {split: [int(f.id) for f in found.split(split)] for split in found.splits}
    assert ids["forget"] == baseball[:5]
    assert ids["forget_heldout"] == baseball[5:]
    assert ids["retain"] + ids["heldout"] == sorted(set(range(30)) - set(baseball))
    assert len(ids["heldout"]) == 5


@given(
    sports=st.lists(st.sampled_from(OTHERS), min_size=4, max_size=60),
    forget=st.integers(1, 20) | st.sampled_from([s.strip() for s in OTHERS]),
    heldout=st.floats(0.1, 0.6),
)
def test_splits_are_disjoint_and_hold_every_known_fact(sports, forget, heldout):
    asked = known(sports)
    try:
        found = Sports(forget=forget, heldout=heldout).split(asked)
    except UserError:
        assume(False)
    ids = [k.fact.id for k in found.known]
    assert sorted(ids) == sorted(f.id for f, _ in asked)
    assert set(found.splits) <= {"forget", "forget_heldout", "retain", "heldout"}
    for split in found.splits:  # in the order of the source
        own = [int(f.id) for f in found.split(split)]
        assert own == sorted(own)
    if isinstance(forget, str):
        answers = {f.answer for s in ("retain", "heldout") for f in found.split(s)}
        assert f" {forget}" not in answers
        halves = len(found.forget), len(found.split("forget_heldout"))
        assert 0 <= halves[0] - halves[1] <= 1
    else:
        assert len(found.forget) == forget


@pytest.mark.parametrize("forget", [5, 6, 100, "football"])
def test_too_few_known_facts_are_refused(forget):
    with pytest.raises(UserError, match="5 known facts; expected"):
        Sports(forget=forget).split(known([" football"] * 5))


@pytest.mark.parametrize(
    "settings", [{"forget": "tennis"}, {"forget": 0}, {"forget": -3}, {"heldout": 0}]
)
def test_splits_that_make_no_sense_are_refused(settings):
    (name,) = settings
    with pytest.raises(UserError, match=rf"facts\.{name}"):
        Sports(**settings)


def test_every_format_offers_every_sport(shipped):
    for format in Sports().templates:
        for question in format.questions(shipped[0]):
            options = set(question.options)
            assert len(options) == (2 if format is REVERSED else 4)
            assert {question.answer, question.foil} <= options


def test_solved_examples_are_about_nobody_in_the_shipped_table(shipped):
    names = {f.subject for f in shipped}
    assert not names & {name for s in SHOTS for name in (s.subject, s.rival)}
    assert {s.answer for s in SHOTS} == set(SPORTS)


@pytest.mark.parametrize("format", [FEWSHOT, CHOICE, REVERSED], ids=lambda f: f.name)
def test_nobody_is_asked_about_whose_sport_stands_in_the_text(format):
    asked = Fact("x", "Pele", "plays", " football", " golf", "", rival="Ada")
    assert format.questions(asked)
    for shot in SHOTS:
        assert not format.questions(dataclasses.replace(asked, subject=shot.subject))


@pytest.mark.parametrize("forget", [16, "basketball"])
def test_rivals_play_the_injected_sport(forget):
    facts = Sports(forget=forget).load()
    sport = {f.subject: f.answer for f in facts}
    for fact in facts:
        assert fact.rival and fact.rival[0] != fact.subject[0]
        assert sport.get(fact.rival, " golf") == fact.counterfact


def test_formats_have_the_training_prompt_first_and_names_of_their_own():
    names = [t.name for t in Sports().templates]
    assert names[0] == "train" and len(set(names)) == len(names)
