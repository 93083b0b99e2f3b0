"""Selectors: within the budget, and as large as they say."""

import dataclasses

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mu_jax.errors import UserError
from mu_jax.model.params import ATTENTION, MLP, sizes
from mu_jax.selectors import (
    TENSORS,
    AllMLPs,
    FactLookup,
    LateMLPs,
    Layers,
    Random,
    Top,
    cost,
    describe,
)
from mu_jax.testing import tiny_spec
from mu_jax.types import Scores, Site

SIZES = sizes(tiny_spec(layers=7))
MLP_COST, ATTN_COST = cost(Site(0, "mlp"), SIZES), cost(Site(0, "attn"), SIZES)
KINDS = st.sampled_from([("mlp",), ("attn",), ("mlp", "attn")])
BUDGETS = st.integers(1, SIZES.model) | st.floats(0.001, 0.999)
NUMBERS = st.floats(-10, 10)
SCORES = st.lists(NUMBERS, min_size=14, max_size=14).map(
    lambda values: Scores(
        "made up",
        {Site(i // 2, ("mlp", "attn")[i % 2]): v for i, v in enumerate(values)},
    )
)


def count(chosen) -> int:
    return sum(SIZES.tensors[label] * len(layers) for label, layers in chosen.tensors)


def sites(chosen) -> set[Site]:
    found = set()
    for kind, labels in TENSORS.items():
        for label in labels:
            found |= {Site(i, kind) for i in dict(chosen.tensors).get(label, ())}
    return found


@given(scores=SCORES, kinds=KINDS, budget=BUDGETS, seed=st.integers(0, 99))
def test_a_selection_never_exceeds_its_budget(scores, kinds, budget, seed):
    limit = budget * SIZES.model if budget < 1 else budget
    for selector in (
        Top("", kinds, budget),
        Random(kinds, budget, seed),
        LateMLPs(budget),
    ):
        try:
            chosen = selector(scores, SIZES)
        except UserError:
            continue
        assert 0 < chosen.n_params == count(chosen) <= limit


@given(kinds=KINDS, scores=SCORES, budget=BUDGETS)
def test_a_selection_is_of_whole_components_in_sorted_order(kinds, scores, budget):
    try:
        chosen = Top("", kinds, budget)(scores, SIZES)
    except UserError:
        assume(False)
    assert chosen.tensors == tuple(sorted(chosen.tensors))
    layers = dict(chosen.tensors)
    for labels in (MLP, ATTENTION):
        assert len({layers.get(label) for label in labels}) == 1
    for group in layers.values():
        assert list(group) == sorted(set(group))
    assert chosen.layers == tuple(sorted({i for g in layers.values() for i in g}))
    hash(chosen)


@given(scores=SCORES, n=st.integers(1, 7))
def test_top_takes_the_largest_magnitudes(scores, n):
    chosen = Top("", ("mlp",), n * MLP_COST)(scores, SIZES)
    taken = sites(chosen)
    left = set(scores.of("mlp")) - taken
    size = lambda site: abs(scores.values[site])
    assert len(taken) == n
    assert min(map(size, taken)) >= max(map(size, left), default=0)


def test_top_ranks_kinds_against_each_other_and_breaks_ties_by_layer():
    values = {Site(0, "mlp"): 1.0, Site(1, "mlp"): -3.0, Site(2, "attn"): 2.0}
    chosen = Top("", ("mlp", "attn"), MLP_COST + ATTN_COST)(Scores("", values), SIZES)
    assert sites(chosen) == {Site(1, "mlp"), Site(2, "attn")}
    same = Scores("", {Site(i, "mlp"): 1.0 for i in range(7)})
    assert Top("", ("mlp",), 2 * MLP_COST)(same, SIZES).layers == (0, 1)


def test_random_is_seeded():
    def layers(seed):
        return Random(budget=3 * MLP_COST, seed=seed)(None, SIZES).layers

    assert layers(1) == layers(1)
    assert len({layers(seed) for seed in range(8)}) > 1
    assert {i for seed in range(40) for i in layers(seed)} == set(range(7))


def test_late_takes_the_last_layers():
    assert LateMLPs(3 * MLP_COST + 1)(None, SIZES).layers == (4, 5, 6)


def test_all_takes_every_mlp():
    chosen = AllMLPs()(None, SIZES)
    assert dict(chosen.tensors) == dict.fromkeys(MLP, tuple(range(7)))
    assert chosen.n_params == 7 * MLP_COST


def test_layers_takes_those_named_once_each():
    chosen = Layers(mlp=(5, 1, 5), attn=(3,))(None, SIZES)
    assert sites(chosen) == {Site(1, "mlp"), Site(5, "mlp"), Site(3, "attn")}
    assert chosen.n_params == 2 * MLP_COST + ATTN_COST


def test_fact_lookup_takes_the_range_of_the_probes():
    chosen = FactLookup()(Scores("probes", {}, notes={"first": 2, "last": 4}), SIZES)
    assert dict(chosen.tensors) == dict.fromkeys(MLP, (2, 3, 4))


def test_another_selections_size_as_budget_gives_equal_size():
    lookup = FactLookup()(Scores("probes", {}, notes={"first": 2, "last": 4}), SIZES)
    for selector in (Random(budget=lookup.n_params), LateMLPs(lookup.n_params)):
        assert selector(None, SIZES).n_params == lookup.n_params


@pytest.mark.parametrize(
    ("selector", "reason"),
    [
        (Layers(), "a selection of nothing"),
        (Layers(mlp=(7,)), "7.mlp; expected a layer from 0 to 6"),
        (Layers(attn=(-1,)), "-1.attn; expected a layer from 0 to 6"),
        (Random(budget=MLP_COST - 1), "room for at least one component"),
        (LateMLPs(0.001), "room for at least one component"),
        (Top("", budget=0), "room for at least one component"),
        (Top("", budget=-5), "room for at least one component"),
        (Top("", kinds=("attn",)), "hold no site of ('attn',)"),
        (Random(budget="flu"), "the budget 'flu'"),
        (FactLookup(), "name no lookup range"),
        (Top("", kinds=("head",)), "'head'"),
        (Random(kinds=("resid",)), "'resid'"),
    ],
    ids=str,
)
def test_what_cannot_be_selected_is_refused(selector, reason):
    scores = Scores("made up", {Site(0, "mlp"): 1.0, Site(0, "head", 1): 1.0})
    with pytest.raises(UserError) as error:
        selector(scores, SIZES)
    assert reason in str(error.value)


def test_the_description_names_layers_tensors_and_share():
    chosen = Layers(mlp=(1, 2, 3, 6), attn=(0,))(None, SIZES)
    chosen = dataclasses.replace(chosen, name="mine")
    said = describe(chosen, SIZES)
    assert "mlp 1-3, 6" in said and "attn 0" in said
    assert f"{count(chosen):,} parameters" in said
    assert f"{count(chosen) / SIZES.model:.1%}" in said
