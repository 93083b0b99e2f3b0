"""What holds of every attack that trains no weights, whatever it does."""

import dataclasses

import numpy as np
import pytest
from noisy_victim import made

from mu_jax.attacks.directions import AblateDirection
from mu_jax.attacks.hints import Hints
from mu_jax.attacks.perturb import Perturb
from mu_jax.attacks.quantize import Quantize
from mu_jax.attacks.restore import Restore
from mu_jax.attacks.scoring import BEFORE, METRICS, ORIGINAL, TWINS
from mu_jax.types import Facts

pytestmark = pytest.mark.usefixtures("quick")
SPLITS = {"forget", "never_knew", "heldout"}
ATTACKS = {
    "hints": Hints(kinds=("related", "options"), counts=(2,)),
    "quantize": Quantize(bits=(4,)),
    "restore": Restore(groups=("layer", "above")),
    "directions": AblateDirection(layers=(1, 5)),
    "perturb": Perturb(layers=(1, 5), epsilons=(0.0, 0.2), steps=2),
}
POINTS = {
    "hints": ["kind=related hints=2", "kind=options"],
    "quantize": ["bits=4"],
    "restore": ["layer=2", "layer=4", "layers>=4"],
    "directions": ["layer=1", "layer=5"],
    "perturb": [f"layer={i} eps={e}" for i in (1, 5) for e in ("0", "0.2")],
}
FITTED = {"directions", "perturb"}


class Sealed(dict):
    """A journal to which nothing new may be added."""

    def __setitem__(self, key, value):
        raise AssertionError(f"{key} is measured again")


@pytest.fixture(scope="module")
def victim(tiny):
    return made(tiny, seed=3)


@pytest.fixture(scope="module", params=list(ATTACKS))
def attacked(request, victim):
    """An attack's name, its rows, its journal, and what it told of its progress."""
    journal, told = {}, []
    rows = ATTACKS[request.param](
        victim, request.param, journal, lambda *now: told.append(now)
    )
    return request.param, rows, journal, told


def values(rows, at, split, metric="p_true"):
    (row,) = [r for r in rows if (r.at, r.split, r.metric) == (at, split, metric)]
    return row.values


def test_every_point_is_measured_once_after_the_baselines(attacked, victim):
    name, rows, _, told = attacked
    assert list(dict.fromkeys(r.at for r in rows)) == [ORIGINAL, BEFORE, *POINTS[name]]
    places = [(r.at, r.split, r.metric) for r in rows]
    assert len(places) == len(set(places))
    assert len(places) == (2 + len(POINTS[name])) * len(SPLITS) * len(METRICS)
    for row in rows:
        assert (row.eval, row.model, row.seed, row.prompt) == (name, "two", 3, "train")
        assert bool(row.budget) == (row.at not in (ORIGINAL, BEFORE))
        facts = victim.scored if name in FITTED else victim.facts.forget
        assert row.n == (2 if row.split == "heldout" else len(facts))
    assert told[0] == (name, 0, len(POINTS[name]))
    assert told[-1] == (name, len(POINTS[name]), len(POINTS[name]))


def test_the_control_is_the_same_attack_where_twins_stand_for_the_facts(tiny, victim):
    """What learns from facts learns from twins then, and no fact is asked."""
    twins = victim.twins
    known = tuple(
        dataclasses.replace(k, fact=twins.get(k.fact.id, k.fact))
        for k in victim.facts.known
    )
    of_twins = dataclasses.replace(
        victim, facts=Facts(known), twins={t.id: t for t in twins.values()}
    )
    for name in FITTED:
        attack, points = ATTACKS[name], POINTS[name]
        rows = attack(dataclasses.replace(victim, control=True), name, {})
        assert [r.at for r in rows[:: len(METRICS)]] == [
            f"{at}{TWINS}" for at in points
        ]
        assert {r.split for r in rows} == {"never_knew"}
        assert {r.facts for r in rows} == {tuple(f.id for f in of_twins.scored)}
        direct = [r for r in attack(of_twins, name, {}) if r.at in points]
        said = [r.values for r in direct if r.split == "forget"]
        # Apart by how a batch is padded, and by the sixth digit, to which rows round.
        for row, values in zip(rows, said, strict=True):
            np.testing.assert_allclose(row.values, values, rtol=0, atol=2e-6)


def test_what_was_measured_before_is_not_measured_again(attacked, victim):
    name, rows, journal, _ = attacked
    assert ATTACKS[name](victim, name, Sealed(journal)) == rows
    last = POINTS[name][-1]
    rest = {k: v for k, v in journal.items() if f"/{last}/" not in k}
    assert len(rest) < len(journal)
    assert ATTACKS[name](victim, name, rest) == rows


def test_an_attack_changes_what_is_said(attacked):
    name, rows, _, _ = attacked
    for at in POINTS[name]:
        nothing = at.endswith("eps=0")
        same = values(rows, at, "forget") == values(rows, BEFORE, "forget")
        assert same == nothing, at


def test_the_victim_is_as_it_was(attacked, victim, tiny):
    fresh = made(tiny, seed=3)
    name = attacked[0]
    assert victim.original is tiny
    for label, array in victim.model.params.items():
        same = (array == fresh.model.params[label]).data_array
        assert bool(same.all()), (name, label)
    assert dataclasses.replace(victim).twins == fresh.twins
