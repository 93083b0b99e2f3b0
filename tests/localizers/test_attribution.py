"""Attribution is the derivative of patching."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mu_jax.errors import UserError
from mu_jax.facts.corrupt import other_subject
from mu_jax.facts.sports import Sports
from mu_jax.localizers.attribution import ROLES, AttributionPatching
from mu_jax.localizers.patching import donors, patched, zero_weights
from mu_jax.testing import tiny_model
from mu_jax.types import Site

pytestmark = pytest.mark.usefixtures("quick")
KINDS = ("attn", "mlp", "head")


@pytest.fixture(scope="module")
def pair(tiny):
    source = Sports()
    facts = source.load()[:60]
    pair = other_subject(facts, facts, source.templates[0], tiny.tokenizer)
    return [p.rows(slice(5)) for p in pair[:2]]


def difference(logits, asked):
    """The logit difference, kept in float64."""
    options = jnp.take_along_axis(logits, asked.options, axis=1)
    true = asked.options == asked.answer[:, None]
    rest = jnp.where(true, 0, options).sum(axis=1) / (options.shape[1] - 1)
    return jnp.where(true, options, 0).sum(axis=1) - rest


def test_attribution_is_the_derivative_of_patching(pair):
    clean, corrupt = pair
    with jax.enable_x64(True):
        model = tiny_model()
        params = jax.tree.map(lambda a: a.astype(jnp.float64), model.params)
        model = type(model)(model.name, model.network, params, model.tokenizer)
        maps = AttributionPatching(batch=3).maps(model, clean, corrupt)
        # Without the shared prefix: patching here is of every position.
        logits, donor = donors(model.network, params, corrupt, KINDS, 0)
        patch = jax.jit(
            functools.partial(patched, metric=difference, prefix=0),
            static_argnames=("network",),
        )
        f = lambda w: np.asarray(patch(model.network, params, clean, w, donor))
        zero = zero_weights(donor)
        gap = (f(zero) - np.asarray(difference(logits, corrupt))).sum()
        # In the last layer only the last position can matter: stay below it.
        rng, step = np.random.default_rng(0), 1e-3
        for kind in KINDS:
            for _ in range(2):
                row = rng.integers(len(clean.tokens))
                inside = np.flatnonzero(clean.subject[row])[0]
                position = rng.integers(inside, clean.last[row] + 1)
                at = [rng.integers(6), row, position, *([1] if kind == "head" else [])]
                up, down = (
                    f({**zero, kind: zero[kind].at[tuple(at)].set(h)})
                    for h in (step, -step)
                )
                slope = (up - down)[row] / (2 * step) / gap
                got = maps[kind][tuple(at)]
                assert slope != 0
                # Second-order error of the difference: some 1e-6 of the largest score.
                assert abs(got - slope) < 1e-5 * np.abs(maps[kind]).max(), (kind, at)


@pytest.fixture(scope="module")
def method():
    return AttributionPatching(batch=5)


@pytest.fixture(scope="module")
def scores(tiny, pair, method):
    return method(tiny, *pair)


@pytest.fixture(scope="module")
def maps(tiny, pair, method):
    return method.maps(tiny, *pair)


def test_there_is_one_score_for_every_site(tiny, scores):
    layers = range(tiny.spec.layers)
    want = {Site(i, kind) for kind in ("attn", "mlp") for i in layers}
    want |= {Site(i, "head", h) for i in layers for h in range(tiny.spec.heads)}
    assert scores.values.keys() == want
    assert all(np.isfinite(v) for v in scores.values.values())


def test_a_score_is_the_sum_over_rows_and_positions(scores, maps):
    for site, value in scores.values.items():
        part = maps[site.kind][site.layer]
        part = part if site.head is None else part[..., site.head]
        assert value == pytest.approx(part.sum(), rel=1e-4, abs=1e-6)


def test_the_roles_of_a_layer_sum_to_its_score(tiny, scores):
    table = np.array(scores.tables["mlp"])
    assert table.shape == (tiny.spec.layers, len(ROLES)) == (7, len(scores.axes["mlp"]))
    for layer, row in enumerate(table):
        assert sum(row) == pytest.approx(scores.values[Site(layer, "mlp")], abs=1e-6)


def test_nothing_before_the_subject_matters(scores, maps, pair):
    for array in maps.values():
        for row, mask in enumerate(pair[0].subject):
            assert (array[:, row, : mask.argmax()] == 0).all()
    assert (np.array(scores.tables["mlp"])[:, ROLES.index("before")] == 0).all()


def test_padding_does_not_matter(maps, pair):
    for array in maps.values():
        for row, valid in enumerate(pair[0].valid):
            assert (array[:, row, ~valid] == 0).all()


def test_prompts_of_other_shapes_are_refused(tiny, pair, method):
    clean, corrupt = pair
    with pytest.raises(UserError, match="as many rows of as many tokens"):
        method(tiny, clean, corrupt.rows(slice(3)))


def test_a_corruption_that_changes_nothing_is_refused(tiny, pair, method):
    with pytest.raises(UserError, match="same logit difference"):
        method(tiny, pair[0], pair[0])
