"""Selectors: as much as the budget says, and as large as they say."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mu_jax.errors import UserError
from mu_jax.model.params import ATTENTION, MLP, sizes
from mu_jax.model.releases import spec
from mu_jax.selectors import (
    BOTH,
    AllMLPs,
    FactLookup,
    LateMLPs,
    Layers,
    Nonlocalized,
    PathLookup,
    Random,
    RandomMLPs,
    Top,
)
from mu_jax.selectors.selections import TENSORS, cost, describe, matrices, parts
from mu_jax.testing import tiny_spec
from mu_jax.types import Scores, Site

SIZES = sizes(tiny_spec(layers=7))
MLP_COST, ATTN_COST = cost(Site(0, "mlp"), SIZES), cost(Site(0, "attn"), SIZES)
LABELS = (*ATTENTION, *MLP)
KINDS = st.sampled_from([("mlp",), ("attn",), ("mlp", "attn")])
BUDGETS = st.integers(1, SIZES.model) | st.floats(0.001, 0.999)
SEEDS = st.integers(0, 99)
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


def pairs(chosen) -> set[tuple[str, int]]:
    return {(label, i) for label, layers in chosen.tensors for i in layers}


def limit_of(budget) -> float:
    return budget * SIZES.model if budget < 1 else budget


@given(scores=SCORES, kinds=KINDS, budget=BUDGETS, seed=SEEDS)
def test_a_clean_selection_never_exceeds_its_budget(scores, kinds, budget, seed):
    for selector in (
        Top("", kinds, budget),
        Random(budget, seed),
        RandomMLPs(budget, seed),
        LateMLPs(budget),
        PathLookup("", budget=budget),
    ):
        try:
            chosen = selector(scores, SIZES)
        except UserError:
            continue
        assert 0 < chosen.n_params == count(chosen) <= limit_of(budget)


@given(scores=SCORES, kinds=KINDS, budget=BUDGETS)
def test_a_clean_selection_stops_where_the_next_component_would_exceed(
    scores, kinds, budget
):
    ranked = sorted(
        (s for s in scores.values if s.kind in kinds),
        key=lambda s: (-abs(scores.values[s]), s),
    )
    try:
        chosen = Top("", kinds, budget)(scores, SIZES)
    except UserError:
        assert cost(ranked[0], SIZES) > limit_of(budget)
        return
    taken = sites(chosen)
    assert taken == set(ranked[: len(taken)])
    for following in ranked[len(taken) : len(taken) + 1]:
        assert chosen.n_params + cost(following, SIZES) > limit_of(budget)


@given(scores=SCORES, kinds=KINDS, budget=BUDGETS)
def test_top_as_in_the_paper_reaches_its_budget_with_whole_components(
    scores, kinds, budget
):
    chosen = Top("", kinds, budget, mode="paper")(scores, SIZES)
    taken = sites(chosen)
    everything = sum(cost(s, SIZES) for s in scores.values if s.kind in kinds)
    assert chosen.n_params == count(chosen) >= min(limit_of(budget), everything)
    last = max(taken, key=lambda s: (-abs(scores.values[s]), s))
    assert chosen.n_params - cost(last, SIZES) < limit_of(budget)


@given(budget=BUDGETS, seed=SEEDS)
def test_random_as_in_the_paper_reaches_its_budget_without_the_gate(budget, seed):
    chosen = Random(budget, seed, mode="paper")(None, SIZES)
    drawn = {label for label, _ in pairs(chosen)}
    assert "mlp/gate" not in drawn
    every = SIZES.layers * sum(SIZES.tensors[k] for k in LABELS if k != "mlp/gate")
    assert chosen.n_params == count(chosen) >= min(limit_of(budget), every)
    largest = max(SIZES.tensors[label] for label in drawn)
    assert chosen.n_params - largest < limit_of(budget)


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


@pytest.mark.parametrize("draw", [Random, RandomMLPs])
def test_a_random_selection_is_seeded(draw):
    chosen = [draw(3 * MLP_COST, seed)(None, SIZES).tensors for seed in range(8)]
    assert draw(3 * MLP_COST, 5)(None, SIZES).tensors == chosen[5]
    assert len(set(chosen)) > 1


@pytest.mark.parametrize(
    ("mode", "labels"),
    [("clean", set(LABELS)), ("paper", set(LABELS) - {"mlp/gate"})],
)
def test_random_draws_single_matrices_of_every_kind_and_layer(mode, labels):
    seen = set()
    for seed in range(60):
        seen |= pairs(Random(3 * MLP_COST, seed, mode)(None, SIZES))
    assert seen == {(label, i) for label in labels for i in range(SIZES.layers)}
    split = Random(3 * MLP_COST, 0, mode)(None, SIZES)
    assert {len(layers) for _, layers in split.tensors} != {3}


def test_random_matrices_are_drawn_without_replacement():
    chosen = Random(10 * SIZES.model)(None, SIZES)
    assert chosen.tensors == Nonlocalized()(None, SIZES).tensors


def test_random_mlps_are_whole_and_of_every_layer():
    seen = set()
    for seed in range(40):
        chosen = RandomMLPs(3 * MLP_COST, seed)(None, SIZES)
        assert {s.kind for s in sites(chosen)} == {"mlp"}
        assert chosen.n_params == 3 * MLP_COST
        seen |= set(chosen.layers)
    assert seen == set(range(7))


def test_late_takes_the_last_layers():
    assert LateMLPs(3 * MLP_COST + 1)(None, SIZES).layers == (4, 5, 6)


def test_all_takes_every_mlp():
    chosen = AllMLPs()(None, SIZES)
    assert dict(chosen.tensors) == dict.fromkeys(MLP, tuple(range(7)))
    assert chosen.n_params == 7 * MLP_COST


def test_nonlocalized_takes_every_mlp_and_attention():
    chosen = Nonlocalized()(None, SIZES)
    assert dict(chosen.tensors) == dict.fromkeys(LABELS, tuple(range(7)))
    assert chosen.n_params == 7 * (MLP_COST + ATTN_COST)


@pytest.mark.parametrize(
    ("model", "selector", "n_params"),
    [
        ("gemma-7b", Layers(mlp=range(2, 8)), 1_358_954_496),
        ("gemma2-9b", Layers(mlp=range(2, 7)), 770_703_360),
        ("gemma-7b", Layers(attn=(0,)), 50_331_648),
        ("gemma2-9b", Layers(attn=(0,)), 44_040_192),
        ("gemma2-9b", Nonlocalized(), 42 * (44_040_192 + 154_140_672)),
        ("gemma-7b", AllMLPs(), 28 * 226_492_416),
    ],
)
def test_sizes_are_those_of_the_paper(model, selector, n_params):
    assert selector(None, sizes(spec(model))).n_params == n_params


def test_nonlocalized_gemma_2_is_what_the_paper_says():
    chosen = Nonlocalized()(None, sizes(spec("gemma2-9b")))
    assert f"{chosen.n_params / 1e9:.2f}B" == "8.32B"


@pytest.mark.parametrize("model", ["gemma-7b", "gemma2-9b"])
def test_baselines_of_the_paper_have_at_least_the_parameters_of_its_lookup(model):
    of = sizes(spec(model))
    budget = Layers(mlp=range(2, 7))(None, of).n_params
    rng = np.random.default_rng(0)
    ranked = Scores(
        "tracing", {Site(i, k): rng.normal() for i in range(of.layers) for k in BOTH}
    )
    for selector in (
        Top("tracing", BOTH, budget, "paper"),
        Random(budget, mode="paper"),
        RandomMLPs(budget),
    ):
        assert selector(ranked, of).n_params >= budget


def test_layers_takes_those_named_once_each():
    chosen = Layers(mlp=(5, 1, 5), attn=(3,))(None, SIZES)
    assert sites(chosen) == {Site(1, "mlp"), Site(5, "mlp"), Site(3, "attn")}
    assert chosen.n_params == 2 * MLP_COST + ATTN_COST


@pytest.mark.parametrize("named", [range(2, 5), [2, 3, 4], (2, 3, 4)])
def test_layers_may_be_a_range_and_still_compare_and_hash(named):
    assert Layers(mlp=named) == Layers(mlp=(2, 3, 4))
    assert hash(Layers(mlp=named)) == hash(Layers(mlp=(2, 3, 4)))
    assert Layers(mlp=named)(None, SIZES).layers == (2, 3, 4)


def test_fact_lookup_takes_the_range_of_the_probes():
    chosen = FactLookup()(Scores("probes", {}, notes={"first": 2, "last": 4}), SIZES)
    assert dict(chosen.tensors) == dict.fromkeys(MLP, (2, 3, 4))


def test_fact_lookup_of_a_flat_curve_is_refused():
    notes = {"first": 0, "last": 0, "flat": "the probe's curve ends at 0.44"}
    with pytest.raises(UserError, match=r"no lookup range: the probe's curve ends at"):
        FactLookup()(Scores("probes", {}, notes=notes), SIZES)


FEEDING = Scores(
    "paths",
    {Site(i, "mlp"): v for i, v in enumerate([0.1, -0.3, 0.02, 0.05, 0, 0, 0])}
    | {Site(5, "head", 1): 0.9},
)


@pytest.mark.parametrize(
    ("threshold", "layers"),
    [(0.02, (0, 1, 3)), (0.05, (0, 1)), (0.2, (1,)), (0.0, (0, 1, 2, 3))],
)
def test_path_lookup_takes_the_mlps_over_its_threshold(threshold, layers):
    chosen = PathLookup(threshold=threshold)(FEEDING, SIZES)
    assert dict(chosen.tensors) == dict.fromkeys(MLP, layers)


def test_path_lookup_with_a_budget_takes_the_largest_whatever_the_threshold():
    lookup = PathLookup(threshold=9.0, budget=3 * MLP_COST)
    assert lookup(FEEDING, SIZES).layers == (0, 1, 3)
    assert "MLPs that feed" in lookup(FEEDING, SIZES).origin


def test_another_selections_size_as_budget_gives_equal_size():
    lookup = FactLookup()(Scores("probes", {}, notes={"first": 2, "last": 4}), SIZES)
    size = lookup.n_params
    for selector in (RandomMLPs(size), LateMLPs(size), PathLookup(budget=size)):
        assert selector(FEEDING, SIZES).n_params == size


SMALLEST = min(SIZES.tensors.values())


@pytest.mark.parametrize(
    ("selector", "reason"),
    [
        (Layers(), "a selection of nothing"),
        (Layers(mlp=(7,)), "7.mlp; expected a layer from 0 to 6"),
        (Layers(attn=(-1,)), "-1.attn; expected a layer from 0 to 6"),
        (Random(SMALLEST - 1), f"a budget of {SMALLEST - 1} parameters; expected"),
        (Random(0, mode="paper"), "a budget of 0 parameters; expected at least"),
        (RandomMLPs(MLP_COST - 1), f"expected at least {MLP_COST:,} parameters"),
        (LateMLPs(0.001), f"at least {MLP_COST:,} parameters for the first of them"),
        (Top("", budget=0), "a budget of 0 parameters"),
        (Top("", budget=-5), "a budget of -5 parameters"),
        (Top("", budget=MLP_COST - 1), "the first of them, 0.mlp; raise the budget"),
        (PathLookup(budget=1), "a budget of 1 parameters"),
        (Top("", kinds=("attn",)), "hold no site of kind attn"),
        (Top("", kinds=("mlp", "attn")), "hold no site of kind attn"),
        (Top("", kinds=()), "hold no site of kind (none)"),
        (Top("", kinds=("head",)), "'head'"),
        (Top("", mode="rough"), "the mode 'rough'; expected clean or paper"),
        (Random(mode="rough"), "the mode 'rough'; expected clean or paper"),
        (Random(budget="flu"), "the budget 'flu'"),
        (FactLookup(), "name no lookup range"),
        (
            PathLookup(threshold=1.5),
            "no MLP feeds the extraction heads by more than 1.5 (the largest by 1.000);"
            " expected at least one; lower the threshold, or give a budget",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_selected_is_refused(selector, reason):
    scores = Scores("made up", {Site(0, "mlp"): 1.0, Site(0, "head", 1): 1.0})
    with pytest.raises(UserError) as error:
        selector(scores, SIZES)
    assert reason in str(error.value)


def test_scores_without_any_mlp_are_refused_by_path_lookup():
    with pytest.raises(UserError, match="no site of kind mlp"):
        PathLookup()(Scores("probes", {Site(0, "resid"): 1.0}), SIZES)


def test_the_description_names_layers_tensors_and_share():
    chosen = Layers(mlp=(1, 2, 3, 6), attn=(0,))(None, SIZES)
    chosen = dataclasses.replace(chosen, name="mine")
    assert describe(chosen, SIZES) == (
        f"attn 0, mlp 1-3, 6 (16 tensors, {count(chosen):,} parameters,"
        f" {count(chosen) / SIZES.model:.1%} of the model; named layers)"
    )


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (["mlp/gate 2", "mlp/up 2", "mlp/up 4"], "gate 2, up 2, 4"),
        (["mlp/gate 1", "mlp/up 1", "mlp/down 1"], "mlp 1"),
        (["mlp/gate 1", "mlp/up 1", "mlp/down 2"], "gate 1, up 1, down 2"),
        (["attention/key 5", "attention/key 6", "mlp/down 0"], "key 5-6, down 0"),
        ([f"{label} 3" for label in LABELS], "attn 3, mlp 3"),
    ],
    ids=str,
)
def test_split_components_are_described_matrix_by_matrix(chosen, said):
    named = [(label, int(layer)) for label, layer in map(str.split, chosen)]
    selection = matrices(named, SIZES, "made up")
    assert parts(selection) == said
    assert describe(selection, SIZES).startswith(f"{said} ({len(chosen)} tensors, ")


@given(seed=SEEDS)
def test_every_selected_matrix_is_described(seed):
    chosen = Random(0.3, seed)(None, SIZES)
    said = parts(chosen)
    for label, _ in chosen.tensors:
        kind = "attn" if label in ATTENTION else "mlp"
        assert label.partition("/")[2] in said or kind in said
