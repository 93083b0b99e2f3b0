"""Who may be taught and who is scored."""

import dataclasses

import pytest
from made_victim import victim

from mu_jax.errors import UserError
from mu_jax.facts.groups import alike
from mu_jax.types import Facts, Known


def of(tiny, *names: str, seed: int = 0):
    """A victim that forgot what these are called."""
    prey = victim(tiny, seed=seed)
    fact = prey.facts.forget[0]
    made = (
        dataclasses.replace(fact, id=str(i), subject=name)
        for i, name in enumerate(names)
    )
    facts = Facts(tuple(Known(fact, "forget", 0.9) for fact in made))
    return dataclasses.replace(prey, facts=facts)


@pytest.mark.parametrize("seed", range(4))
def test_no_fact_is_taught_under_one_id_and_scored_under_another(tiny, seed):
    names = ("Ann", "Bo", "ANN", "Cy", "Bo ", "Di", "Ánn")
    prey = of(tiny, *names, seed=seed)
    taught, scored = ({alike(f.subject) for f in half} for half in prey.halves)
    assert taught and scored and not taught & scored
    assert sorted(f.id for half in prey.halves for f in half) == list("0123456")
    assert 2 <= len(prey.taught) <= 3


def test_one_fact_under_two_ids_has_no_halves(tiny):
    with pytest.raises(UserError, match="1 forgotten facts; expected two or more"):
        _ = of(tiny, "Ann", "ANN").halves


def test_where_all_differ_the_halves_are_those_that_the_seed_draws(tiny):
    prey = of(tiny, *"abcdefgh", seed=3)
    assert [f.id for f in prey.taught] == list("1234")
    assert len(prey.scored) == 4


@pytest.mark.parametrize(
    ("held", "scored"), [(0, 0), (2, 2), (7, 4), (32, 16), (50, 16)]
)
def test_related_facts_are_known_of_the_kind_and_nowhere_else(tiny, held, scored):
    prey = victim(tiny)
    fact = prey.facts.forget[0]
    others = [
        Known(dataclasses.replace(fact, id=str(i), subject=f"Ann {i}"), "heldout", 0.9)
        for i in range(held)
    ]
    kind = dataclasses.replace(fact, id="kind", relation="another")
    kept = [k for k in prey.facts.known if k.split != "heldout"]
    last = [Known(kind, "heldout", 0.9)] if held else []
    prey = dataclasses.replace(prey, facts=Facts((*kept, *others, *last)))
    assert [f.id for f in prey.heldout] == [str(i) for i in range(scored)]
    assert [f.id for f in prey.related] == [str(i) for i in range(scored, held)]
