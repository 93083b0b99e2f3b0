"""Unlearning depth: exactly 0 for the model itself, exactly 1 where it never knew."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mu_jax.errors import UserError
from mu_jax.evals.depth import UnlearningDepth, depth
from mu_jax.facts.sports import TRAIN
from mu_jax.facts.tokens import prompts
from mu_jax.model.taps import Patch
from mu_jax.testing import tiny_model
from mu_jax.types import Fact, Facts, Known

pytestmark = pytest.mark.usefixtures("quick")
DEPTH = UnlearningDepth(threshold=1e-3, batch=4, cells=2)
KNOWN, INVENTED = ("Ann", "Bea", "Cy", "Dee", "Eve"), ("Vy", "Una", "Xo", "Oto", "Zed")
SPORTS = (" football", " baseball", " basketball")


def fact(subject: str, i: int) -> Fact:
    answer, wrong = SPORTS[i % 3], SPORTS[(i + 1) % 3]
    return Fact(subject, subject, "", answer, wrong, "")


TWINS = tuple(fact(name, i) for i, name in enumerate(INVENTED))
LONGER = tuple(fact(f"{name} van der Tal", i) for i, name in enumerate(INVENTED))


@pytest.fixture(scope="module")
def facts():
    forget = (fact(name, i) for i, name in enumerate(KNOWN))
    return Facts(tuple(Known(f, "forget", 1.0) for f in forget))


def measured(rows, metric: str) -> np.ndarray:
    """[layer, fact]"""
    return np.array([r.values for r in rows if r.metric == metric])


@pytest.fixture(scope="module")
def of_another(tiny, facts):
    """What an unrelated model does, with twins of other lengths than the facts."""
    return DEPTH(tiny_model(seed=1), "mine", tiny, facts, TRAIN, LONGER)


def test_the_model_itself_is_intact_exactly(tiny, facts):
    rows = DEPTH(tiny, "same", tiny, facts, TRAIN, LONGER)
    assert (measured(rows, "drop_edited") == 0).all()
    (uds,) = measured(rows, "uds")
    assert len(uds) and (uds == 0).all()
    assert (np.concatenate([r.values for r in rows if r.metric == "erased"]) == 0).all()


def test_a_model_to_which_the_subjects_are_the_twins_never_knew_exactly(tiny, facts):
    """Its embeddings of the two are exchanged, which no other token notices."""
    table = tiny.params["embedder"]
    token = lambda text: tiny.tokenizer.encode(text).ids[1]
    pairs = [
        (token(f" {a}"), token(f" {b}")) for a, b in zip(KNOWN, INVENTED, strict=True)
    ]
    order = np.arange(tiny.spec.vocabulary)
    for a, b in pairs:
        order[[a, b]] = b, a
    axes = tuple(table.named_shape)
    exchanged = table.unwrap(*axes)[order]
    params = {**tiny.params, "embedder": jax.tree.map(lambda _: exchanged, table)}
    edited = dataclasses.replace(tiny, params=params)
    rows = DEPTH(edited, "twin", tiny, facts, TRAIN, TWINS)
    never, drop = (measured(rows, f"drop_{m}") for m in ("never_knew", "edited"))
    assert (never == drop).all() and (np.abs(never) > 1e-3).any()
    (uds,) = measured(rows, "uds")
    assert len(uds) and (uds == 1).all()


def test_the_drops_by_hand(tiny, facts, of_another):
    """A full run a layer, its stream at each row's end replaced by the donor's."""
    asked = prompts([TRAIN(f) for f in facts.forget], tiny.tokenizer)
    twins = prompts([TRAIN(f) for f in LONGER], tiny.tokenizer)
    at, layers = np.arange(len(asked.tokens)), tiny.spec.layers

    def said(model, donors) -> np.ndarray:
        ends = np.asarray(model.run(donors, read=("resid",)).reads["resid"])
        donor = np.zeros((layers, *asked.tokens.shape, tiny.spec.embedding), np.float32)
        donor[:, at, asked.last] = ends[:, at, donors.last]
        out = []
        for k in range(layers):
            weight = np.zeros((layers, *asked.tokens.shape), np.float32)
            weight[k, at, asked.last] = 1
            logits = tiny.run(asked, patch={"resid": Patch(weight, donor)}).logits
            out.append(np.asarray(jax.nn.log_softmax(logits))[at, asked.answer])
        return np.array(out)

    own = said(tiny, asked)
    for metric, model, donors in (
        ("drop_never_knew", tiny, twins),
        ("drop_edited", tiny_model(seed=1), asked),
    ):
        want = own - said(model, donors)
        got = measured(of_another, metric)
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)
        assert np.abs(want).max() > 0.1


def test_the_score_is_the_mean_of_the_erasures_weighted_by_what_was_there(of_another):
    d1, d2 = (measured(of_another, f"drop_{m}") for m in ("never_knew", "edited"))
    there = d1 > DEPTH.threshold
    share = np.clip(d2 / d1, 0, 1)
    told = there.any(axis=0)
    want = [
        np.average(share[t, i], weights=d1[t, i])
        for i, t in enumerate(there.T)
        if t.any()
    ]
    (uds,) = measured(of_another, "uds")
    np.testing.assert_allclose(uds, want, rtol=0, atol=1e-3)
    assert len(uds) == told.sum()
    for k, encodes in enumerate(there, 1):
        rows = [r for r in of_another if (r.at, r.metric) == (f"layer={k}", "erased")]
        assert [r.n for r in rows] == [encodes.sum()] * bool(encodes.any())


def test_the_drop_of_several_rounds_is_their_mean(tiny, facts, of_another):
    edited = tiny_model(seed=1)
    other = DEPTH(edited, "mine", tiny, facts, TRAIN, TWINS)
    both = DEPTH(edited, "mine", tiny, facts, TRAIN, (*LONGER, *TWINS))
    each = [measured(r, "drop_never_knew") for r in (of_another, other)]
    got = measured(both, "drop_never_knew")
    np.testing.assert_allclose(got, np.mean(each, axis=0), rtol=0, atol=2e-6)
    assert np.abs(each[0] - each[1]).max() > 1e-2


def test_facts_that_no_layer_encodes_have_no_score(tiny, facts):
    rows = UnlearningDepth(threshold=50.0, batch=4, cells=2)(
        tiny_model(seed=1), "mine", tiny, facts, TRAIN, TWINS
    )
    assert {r.metric for r in rows} == {"drop_never_knew", "drop_edited"}
    assert len(rows) == 2 * tiny.spec.layers and all(r.n == 5 for r in rows)


def test_twins_that_do_not_correspond_are_refused(tiny, facts):
    for twins in ((), TWINS[:4], (*TWINS, TWINS[0])):
        with pytest.raises(UserError, match=f"{len(twins)} twins of 5 forgotten facts"):
            DEPTH(tiny, "m", tiny, facts, TRAIN, twins)
    with pytest.raises(UserError, match=r"depth\.threshold = 0"):
        UnlearningDepth(threshold=0)


drops = arrays(np.float64, (4, 3), elements=st.floats(-9, 9, width=16))


@given(drops, drops)
def test_erasure_and_score_are_shares(d1, d2):
    erased, uds = depth(d1, d2, 0.05)
    there = d1 > 0.05
    assert (np.isnan(erased) == ~there).all()
    assert (np.isnan(uds) == ~there.any(axis=0)).all()
    for found in (erased, uds):
        told = found[~np.isnan(found)]
        assert ((told >= 0) & (told <= 1)).all()
    deeper = depth(d1, d2 + 1, 0.05)[1]
    assert (np.isnan(uds) | (deeper >= uds - 1e-12)).all()
