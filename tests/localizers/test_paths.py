"""Paths: a head's effect along one route, and MLPs into the receiver."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from mu_jax.errors import UserError
from mu_jax.facts.corrupt import OtherSubject
from mu_jax.localizers.metrics import LogitDiff
from mu_jax.localizers.patched_runs import base
from mu_jax.localizers.patching import Inputs, record
from mu_jax.localizers.paths import PathPatching, _into
from mu_jax.types import Site

pytestmark = pytest.mark.usefixtures("quick", "float64")
KINDS = ("attn", "mlp", "head", "resid")
PREFIX = 4
METHOD = PathPatching(corruption=OtherSubject(), rows=5)


@pytest.fixture(scope="module")
def reads(model, pair):
    """What is read of the clean and of the corrupt run."""
    return [
        record(model.network, model.params, Inputs(side), kinds=KINDS, prefix=PREFIX)[1]
        for side in pair
    ]


@pytest.fixture(scope="module")
def direct(model, pair):
    return METHOD.direct_effects(model, *pair)


@pytest.fixture(scope="module")
def total(model, pair):
    return METHOD.direct_effects(model, *pair, hold=False)


@pytest.fixture(scope="module")
def ends(model, pair, reads, plain):
    """The mean metric of the clean and of the corrupt run."""
    bases = [Inputs(pair[1]), {k: reads[0][k] for k in KINDS}]
    last = {("resid", 6): 1.0}
    return [plain(model, *bases, w, prefix=PREFIX).mean() for w in (last, {})]


def test_a_heads_total_effect_is_causal_tracing(total, traced):
    np.testing.assert_allclose(total, traced.tables["head"], rtol=0, atol=1e-12)


def test_in_the_last_layer_the_direct_effect_is_the_total_one(direct, total):
    np.testing.assert_allclose(direct[6], total[6], rtol=0, atol=1e-12)
    assert np.abs(direct[:6] - total[:6]).max() > 1e-3


def test_a_direct_effect_holds_all_later_attention(
    model, pair, reads, plain, ends, direct
):
    clean, corrupt = reads
    donors = {**clean, "attn": corrupt["attn"]}
    for layer, head in ((0, 1), (2, 3), (4, 0), (5, 2)):
        weights = {("attn", later): 1.0 for later in range(layer + 1, 7)}
        weights[("head", layer, ..., head)] = 1.0
        value = plain(model, Inputs(pair[1]), donors, weights, prefix=PREFIX).mean()
        want = (value - ends[1]) / (ends[0] - ends[1])
        assert abs(direct[layer, head] - want) < 1e-10


def test_all_paths_into_a_layer_carry_the_whole_effect(model, pair, reads, ends):
    made, _ = base(model, Inputs(pair[1]), reads[0], PREFIX)
    embedded = [
        model.network.embeddings(model.params, p.tokens[:, PREFIX:]) for p in pair
    ]
    for receiver in (1, 4, 6):
        writes = [embedded[0] - embedded[1]]
        for kind in ("attn", "mlp"):
            writes += list((reads[0][kind] - reads[1][kind])[:receiver])
        entering = reads[0]["resid"] - reads[1]["resid"]
        np.testing.assert_allclose(
            sum(writes), entering[receiver - 1], rtol=0, atol=1e-12
        )
        change = jnp.zeros(entering.shape).at[3].set(sum(writes))
        values = _into(
            model.network,
            model.params,
            made,
            change,
            np.int32(receiver),
            np.zeros((5, 0)),
            metric=LogitDiff(),
            prefix=PREFIX,
        ).mean(axis=1)
        want = np.full(7, ends[1])
        want[3] = ends[0]
        np.testing.assert_allclose(values, want, rtol=0, atol=1e-11)


def test_only_mlps_below_the_receiver_feed_it(model, pair):
    for receiver in (0, 3, 6):
        fed = METHOD.feeding(model, *pair, receiver)
        np.testing.assert_allclose(fed[receiver:], 0, rtol=0, atol=1e-13)
        assert (np.abs(fed[:receiver]) > 1e-4).all()


def test_the_receiver_is_the_lowest_extraction_layer(model, pair, direct, once):
    method = dataclasses.replace(METHOD, heads=3)
    scores = method(model, *pair, journal=once)
    order = np.argsort(-np.abs(direct), axis=None)[:3]
    best = [Site(int(i) // 4, "head", int(i) % 4) for i in order]
    assert scores.notes["extraction_heads"] == [str(site) for site in best]
    receiver = scores.notes["receiver"]
    assert receiver == min(site.layer for site in best) > 0
    fed = method.feeding(model, *pair, receiver)
    for layer in range(7):
        assert scores.values[Site(layer, "mlp")] == fed[layer]
        heads = [scores.values[Site(layer, "head", h)] for h in range(4)]
        assert heads == direct[layer].tolist()


class Cut(Exception):
    pass


def test_a_sweep_cut_short_goes_on_where_it_was(model, pair, direct, once):
    def cut(what, done, total):
        if done:
            raise Cut

    with pytest.raises(Cut):
        METHOD.direct_effects(model, *pair, progress=cut, done=once)
    assert 0 < len(once) < direct.size
    told = []
    go_on = lambda what, done, total: told.append(done)
    again = METHOD.direct_effects(model, *pair, progress=go_on, done=once)
    assert again.tolist() == direct.tolist()
    assert told[0] == 16 and told[-1] == len(once) == direct.size


def test_the_papers_metric_is_of_half_precision(model, pair, direct):
    half = dataclasses.replace(METHOD, mode="paper").direct_effects(model, *pair)
    assert half.tolist() == half.astype(np.float16).tolist() != direct.tolist()
    np.testing.assert_allclose(half, direct, rtol=0, atol=0.05)


def test_bad_input_is_refused(model, pair):
    for wrong, message in [
        ({"heads": 0}, "0 extraction heads; expected at least 1"),
        ({"mode": "plain"}, "mode 'plain'; expected clean or paper"),
    ]:
        with pytest.raises(UserError, match=message):
            PathPatching(**wrong)
    with pytest.raises(UserError, match="as many rows of as many tokens"):
        METHOD(model, pair[0], pair[1].rows(slice(3)))
    with pytest.raises(UserError, match="same logit difference"):
        METHOD(model, pair[0], pair[0])
