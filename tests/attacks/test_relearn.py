"""Relearning: who is taught what, what is scored, and that nothing is done twice."""

import dataclasses

import numpy as np
import pytest
from made_victim import bits, victim, without

from mu_jax.attacks.relearn import Relearn
from mu_jax.attacks.scoring import BEFORE, METRICS, ORIGINAL
from mu_jax.edits.step import update
from mu_jax.errors import UserError
from mu_jax.types import Edit

pytestmark = pytest.mark.usefixtures("quick")
SMALL = Relearn(
    rates=(1e-3, 3e-2), steps=4, score_at=(2, 4), rank=3, taught=3, retain=4
)
POINTS = [f"rate={rate} step={k}" for rate in ("0.001", "0.03") for k in (2, 4)]


class Steps(list):
    """A `Progress` that keeps how far an attack was at each call."""

    def __call__(self, what, done, total):
        self.append((done, total))


@pytest.fixture(scope="module")
def attacked(tiny):
    """A victim, its bits before the attack, the journal, the rows, the progress."""
    prey, journal, steps = victim(tiny), {}, Steps()
    before = bits(prey.model), update._cache_size()
    rows = SMALL(prey, "relearn", journal, steps)
    return prey, before, journal, rows, steps


def test_a_row_for_every_point_format_split_and_metric(attacked):
    prey, _, _, rows, _ = attacked
    found = [(r.at, r.prompt, r.split, r.metric) for r in rows]
    assert found == [
        (at, template.name, split, metric)
        for at in (ORIGINAL, BEFORE, *POINTS)
        for template in prey.templates
        for split in ("forget", "never_knew", "heldout")
        for metric in METRICS
    ]
    assert {r.n for r in rows if r.split != "heldout"} == {len(prey.scored)}
    assert {(r.model, r.eval, r.seed) for r in rows} == {("edited", "relearn", 0)}
    spent = {r.at: r.budget for r in rows}
    assert not spent[ORIGINAL] and not spent[BEFORE]
    assert all(
        ("2 steps" if "step=2" in at else "4 steps") in spent[at] for at in POINTS
    )
    assert "0.03" in spent[POINTS[-1]] and "0.03" not in spent[POINTS[0]]


def test_the_victim_stays_as_it_is(attacked):
    prey, (before, _), *_ = attacked
    assert bits(prey.model) == before


def test_what_answers_look_like_is_learned_and_rises_for_the_never_knew_too(attacked):
    """A random model knows nothing: all that an attack brings up it has taught."""
    rows = attacked[3]

    def value(at, split):
        chosen = {"at": at, "split": split, "metric": "p_true", "prompt": "train"}
        (row,) = (r for r in rows if all(getattr(r, k) == v for k, v in chosen.items()))
        return row.mean

    for split in ("forget", "never_knew"):
        assert value(POINTS[-1], split) > 5 * value(BEFORE, split)
        assert value(ORIGINAL, split) == value(BEFORE, split)


def test_an_attack_cut_short_goes_on_and_one_that_ended_trains_nothing(attacked):
    prey, _, journal, rows, steps = attacked
    assert steps[0] == (0, 8) and steps[-1] == (8, 8) and len(steps) == 10
    again = Steps()
    assert SMALL(prey, "relearn", journal, again) == rows and not again
    half = {key: v for key, v in journal.items() if POINTS[-1] not in key}
    assert SMALL(prey, "relearn", half, again) == rows
    assert [done for done, _ in again] == [4, 5, 6, 7, 8]


def test_rates_seeds_models_and_kinds_of_facts_share_one_program(tiny, attacked):
    _, (_, before), *_ = attacked
    assert update._cache_size() == before + 1
    chosen = victim(tiny).selection
    halved = {label: a * 0.5 for label, a in tiny.selected(chosen).items()}
    other = tiny.update(Edit(chosen, halved, []))
    related = dataclasses.replace(SMALL, data="related", rates=(0.1,), score_at=(1,))
    related(victim(tiny, other, seed=1), "relearn", {})
    control = dataclasses.replace(victim(tiny, other), control=True)
    dataclasses.replace(SMALL, rates=(0.1,), score_at=(1,))(control, "relearn", {})
    assert update._cache_size() == before + 1


def asked(prey, facts) -> set[bytes]:
    """The training prompts of these facts, padded as an attack pads them."""
    every = (*prey.facts.forget, *prey.related, *prey.facts.retain)
    prompts, _ = prey.prompts(facts, every)
    return {row.tobytes() for row in prompts.tokens}


@pytest.mark.parametrize("seed", [0, 1])
def test_who_is_taught_and_that_no_scored_fact_ever_is(tiny, seed):
    prey = victim(tiny, seed=seed)
    kinds = ("half", "related", "retain")
    lessons = {k: dataclasses.replace(SMALL, data=k).lesson(prey) for k in kinds}
    rows = {k: [{r.tobytes() for r in p.tokens} for p in v] for k, v in lessons.items()}
    retain, forget = asked(prey, prey.facts.retain), asked(prey, prey.facts.forget)
    assert rows["half"] == [asked(prey, prey.taught), retain]
    assert rows["related"] == [asked(prey, prey.related), retain]
    assert rows["retain"][0] | rows["retain"][1] == retain
    assert not rows["retain"][0] & rows["retain"][1]
    assert asked(prey, prey.scored) == forget - asked(prey, prey.taught)
    for taught, keep in rows.values():
        assert not (taught | keep) & asked(prey, prey.scored)


def test_full_fine_tuning_and_the_papers_attack(tiny):
    full = dataclasses.replace(SMALL, how="full").descent(1e-3, 5)
    assert (full.learning_rate, full.seed, full.forget_batch) == (1e-3, 5, 3)
    assert not hasattr(full, "rank")
    paper = Relearn.paper()
    lora = paper.descent(paper.rates[0], 0)
    assert (lora.rank, lora.alpha, lora.learning_rate) == (512, 32, 2e-4)
    assert lora.steps == 20 and paper.score_at == (10, 20)
    assert np.isinf(lora.clip)


@pytest.mark.parametrize(
    ("data", "split"), [("related", "heldout"), ("retain", "retain")]
)
def test_nothing_to_teach_is_one_line(tiny, data, split):
    prey = without(victim(tiny), split)
    with pytest.raises(UserError, match="no facts to teach") as error:
        dataclasses.replace(SMALL, data=data)(prey, "relearn", {})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "knobs",
    [
        {"how": "qlora"},
        {"data": "all"},
        {"rates": ()},
        {"rates": (0.0,)},
        {"score_at": ()},
        {"score_at": (0, 5)},
        {"score_at": (21,)},
    ],
)
def test_knobs_that_cannot_be_are_refused(knobs):
    with pytest.raises(UserError, match=next(iter(knobs))):
        Relearn(**knobs)
