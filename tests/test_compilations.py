"""One compilation per program and shape, however many steps, batches and models."""

import dataclasses

import pytest

import mu_jax as mu
from mu_jax.edits.step import update
from mu_jax.evals.recall import _metrics
from mu_jax.facts.corrupt import OtherSubject
from mu_jax.localizers import derivative, patched_runs
from mu_jax.localizers.attribution import AttributionPatching
from mu_jax.localizers.patched_runs import Cell
from mu_jax.localizers.tracing import CausalTracing
from mu_jax.selectors import Layers
from mu_jax.types import Edit, Site

pytestmark = pytest.mark.usefixtures("quick")


def test_steps_share_one_program_and_models_another(tiny):
    source = mu.Sports()
    known = [(fact, 1.0) for fact in source.load()[:80]]
    facts, train = source.split(known), source.templates[0]
    both = mu.prompts(
        [train(f) for f in (*facts.forget, *facts.retain)], tiny.tokenizer
    )
    text, _ = mu.Text(length=12).load(tiny.tokenizer)
    selection = dataclasses.replace(
        Layers(mlp=(4,))(mu.types.Scores("", {}), tiny.sizes), name="four"
    )
    before = update._cache_size()
    edit = mu.GradientEdit(steps=3, text_batch=1)(
        tiny, selection, both.rows(slice(16)), both.rows(slice(16, None)), text
    )
    assert update._cache_size() == before + 1

    recall, formats = mu.Recall(batch=16), source.templates[:2]
    recall(tiny, facts, formats)
    after = _metrics._cache_size()
    recall(tiny.update(Edit(selection, edit.params, [])), facts, formats)
    assert _metrics._cache_size() == after


def test_a_sweep_is_one_program_whatever_it_patches(tiny):
    source = mu.Sports()
    facts = source.load()[:40]
    made = OtherSubject()(facts, facts, source.templates[0], tiny.tokenizer)
    kinds = ("attn", "mlp", "head")
    method = CausalTracing(kinds=kinds, batch=2)
    head = Site(6, "head", 3)
    cells = [
        [Cell((Site(0, "attn"),)), Cell((head,))],
        [Cell((Site(5, "mlp"), Site(6, "mlp"), head), "last"), Cell((head,), 14)],
        [Cell((Site(layer, "mlp"),), "end") for layer in range(7)],
    ]
    before = patched_runs._run._cache_size(), derivative.gradient._cache_size()
    attribute = AttributionPatching(kinds=kinds, batch=2)
    for i, some in enumerate(cells):
        clean, corrupt = (p.rows(slice(4 * i, 4 * i + 4)) for p in made[:2])
        method.shares(tiny, clean, corrupt, some)
        attribute.maps(tiny, clean, corrupt)
    assert patched_runs._run._cache_size() == before[0] + 1
    assert derivative.gradient._cache_size() == before[1] + 1
