"""The logit lens: every layer's answers, the last layer's being the model's own."""

import numpy as np
import pytest

from mu_jax.errors import UserError
from mu_jax.evals.lens import METRICS, LogitLens
from mu_jax.evals.recall import answers
from mu_jax.facts.counterfact import CounterFact
from mu_jax.facts.sports import TRAIN, Sports
from mu_jax.facts.tokens import prompts
from mu_jax.types import Fact, Facts, Known

pytestmark = pytest.mark.usefixtures("quick")
LENS = LogitLens(batch=4, limit=6)


@pytest.fixture(scope="module")
def found():
    source = Sports(forget=6)
    return source.split([(f, 1.0) for f in source.load()[:30]])


@pytest.fixture(scope="module")
def rows(tiny, found):
    return LENS(tiny, "mine", found, TRAIN)


def values(rows, split: str, metric: str) -> np.ndarray:
    """[layer, fact]"""
    return np.array([r.values for r in rows if (r.split, r.metric) == (split, metric)])


def test_a_row_for_every_layer_split_and_metric(tiny, found, rows):
    layers = tiny.spec.layers + 1
    places = {(r.at, r.split, r.metric) for r in rows}
    assert len(rows) == len(places) == layers * 2 * len(METRICS)
    assert {r.at for r in rows} == {f"layer={k}" for k in range(layers)}
    counts = {s: min(6, len(found.split(s))) for s in ("forget", "heldout")}
    assert all(r.n == counts[r.split] and r.prompt == "train" for r in rows)
    assert {(r.model, r.eval) for r in rows} == {("mine", "lens")}


@pytest.mark.parametrize("split", ["forget", "heldout"])
def test_the_last_layer_says_what_the_model_says(tiny, found, rows, split):
    said = answers(tiny, found.split(split)[:6], TRAIN, 4)
    for metric in METRICS[:-1]:
        last = values(rows, split, metric)[-1]
        np.testing.assert_allclose(last, said[metric], rtol=0, atol=1e-6)


def test_a_layer_by_hand(tiny, found, rows):
    asked = prompts([TRAIN(f) for f in found.forget], tiny.tokenizer)
    resid = np.asarray(tiny.run(asked, read=("resid",)).reads["resid"], np.float64)
    at = np.arange(len(asked.tokens))
    plain = lambda label: np.asarray(
        tiny.params[label].unwrap(*tiny.params[label].named_shape), np.float64
    )
    for k in (1, 4, tiny.spec.layers):
        x = resid[k - 1, at, asked.last]
        x = x / np.sqrt((x**2).mean(axis=1, keepdims=True) + tiny.spec.norm_epsilon)
        logits = (x * plain("final_norm")) @ plain("embedder").T
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        true = p[at, asked.answer]
        share = true / np.take_along_axis(p, asked.options, axis=1).sum(axis=1)
        want = {
            "p_true": true,
            "p_injected": p[at, asked.foil],
            "choice_p_true": share,
            "log_rank_true": np.log1p((p > true[:, None]).sum(axis=1)),
        }
        for metric, by_hand in want.items():
            got = values(rows, "forget", metric)[k]
            np.testing.assert_allclose(got, by_hand, rtol=1e-3, atol=1e-6)


def test_the_embeddings_of_one_token_say_one_thing(rows):
    """All prompts end in the same token, and at layer 0 nothing else has come in."""
    for metric in ("p_true", "log_rank_true"):
        assert len(set(values(rows, "forget", metric)[0])) <= 3  # answers: three sports
        assert len(set(values(rows, "forget", metric)[-1])) > 3


def test_the_batch_changes_nothing(tiny, found, rows):
    again = LogitLens(batch=5, limit=6)(tiny, "mine", found, TRAIN)
    for metric in METRICS:
        a, b = (values(r, "heldout", metric) for r in (rows, again))
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_format_that_asks_nothing_is_refused(tiny):
    fact = Fact("1", "Rome", "", " Italy", " France", "Rome lies in")
    with pytest.raises(UserError, match="'paraphrase' asks about no fact to forget"):
        LENS(
            tiny, "m", Facts((Known(fact, "forget", 1.0),)), CounterFact().templates[1]
        )
    with pytest.raises(UserError, match=r"lens\.batch = 0; expected at least 1"):
        LogitLens(batch=0)
