"""The localizers on the real Gemma 3 270M, over CounterFact's shipped facts."""

import numpy as np
import pytest

import mu_jax as mu
from mu_jax.types import Site

ROWS = 5
EARLY, LATE = 7, 10
"""Lookup lies below the one, extraction from the other on (18 layers)."""


@pytest.fixture(scope="module")
def pair(gemma):
    """A few known facts, and the same prompts about random words."""
    source, known = mu.CounterFact(limit=24), mu.KnownFilter(batch=24)
    facts = mu.distinct(source.load(), gemma.tokenizer)
    asked = known.ask(gemma, facts, source.templates[0])
    facts = [fact for fact, _ in known.keep(asked)]
    found = mu.RandomTokens()(facts, facts, source.templates[0], gemma.tokenizer)
    return found.clean.rows(slice(ROWS)), found.corrupt.rows(slice(ROWS))


@pytest.fixture(scope="module")
def tracing(gemma, pair):
    return mu.CausalTracing(kinds=("attn", "mlp"), rows=ROWS, example=-1)(gemma, *pair)


@pytest.fixture(scope="module")
def attribution(gemma, pair):
    kinds = ("attn", "mlp", "head")
    method = mu.AttributionPatching(kinds=kinds, direction="denoising", batch=ROWS)
    return method(gemma, *pair)


def column(scores, kind: str, role: str) -> np.ndarray:
    """[layer] the map of one kind at one role."""
    return np.array(scores.tables[kind])[:, list(scores.axes[kind]).index(role)]


def test_mlps_look_the_fact_up_early_at_the_subjects_last_token(tracing):
    at_subject = column(tracing, "mlp", "last")
    assert at_subject.argmax() < EARLY and at_subject.max() > 0.4
    assert at_subject[LATE:].max() < 0.1
    elsewhere = [r for r in tracing.axes["mlp"] if r != "last"]
    assert max(column(tracing, "mlp", r)[:EARLY].max() for r in elsewhere) < 0.3


def test_attention_brings_it_to_the_end_late(tracing):
    at_end = column(tracing, "attn", "end")
    assert at_end.argmax() >= LATE and at_end.max() > 0.4
    assert np.abs(at_end[:EARLY]).max() < 0.1


def test_attribution_predicts_tracing_of_mlps(tracing, attribution):
    sites = sorted(tracing.of("mlp"))
    traced = [tracing.values[s] for s in sites]
    predicted = [attribution.values[s] for s in sites]
    assert np.corrcoef(traced, predicted)[0, 1] > 0.8
    assert np.argmax(predicted) < EARLY


def test_paths_lead_from_early_mlps_to_late_heads(gemma, pair):
    scores = mu.PathPatching(rows=ROWS)(gemma, *pair)
    heads = [Site.parse(name) for name in scores.notes["extraction_heads"]]
    assert heads[0].layer >= LATE
    feeding = np.array(scores.tables["mlp"])[:, 0]
    assert feeding.argmax() < EARLY and feeding.max() > 0.1
    assert (feeding[scores.notes["receiver"] :] == 0).all()


def test_edges_of_a_node_add_up_to_its_score(gemma, pair, attribution):
    found = mu.EdgeAttribution(steps=0, rows=ROWS)
    edges = found.edges(gemma, *pair)
    noising = mu.AttributionPatching(kinds=("mlp", "head"), batch=ROWS)
    nodes, direct = edges.nodes(), noising(gemma, *pair).values
    scale = max(abs(v) for v in direct.values())
    for site, score in direct.items():
        assert nodes[str(site)] == pytest.approx(score, abs=1e-3 * scale)


def test_the_map_of_one_prompt_says_the_same_as_that_of_all(gemma, pair):
    one = [p.rows(slice(1)) for p in pair]
    maps = mu.CausalTracing(kinds=("mlp",), rows=ROWS).token_maps(gemma, *one)
    layer, token = np.unravel_index(maps["mlp"].argmax(), maps["mlp"].shape)
    subject = np.flatnonzero(one[0].subject[0])
    assert layer < EARLY and token == subject[-1]
    assert maps["mlp"].shape == (gemma.spec.layers, one[0].last[0] + 1)
