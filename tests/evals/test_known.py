"""Which facts a model knows."""

import numpy as np
import pytest

from mu_jax.errors import UserError
from mu_jax.evals.known import KnownFilter
from mu_jax.facts.sports import Sports
from mu_jax.facts.tokens import prompts

pytestmark = pytest.mark.usefixtures("quick")
TRAIN = Sports().templates[0]


@pytest.fixture(scope="module")
def facts():
    return Sports().load()[:10]


def test_the_probability_is_that_of_the_answer_among_all_tokens(tiny, facts):
    asked = KnownFilter(batch=5).ask(tiny, facts, TRAIN)
    assert [fact for fact, _ in asked] == list(facts)
    rows = prompts([TRAIN(f) for f in facts], tiny.tokenizer)
    logits = np.asarray(tiny.run(rows).logits, np.float64)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    want = p[np.arange(len(facts)), rows.answer]
    np.testing.assert_allclose([p for _, p in asked], want, rtol=1e-4)


def test_facts_over_the_threshold_are_kept_in_order(facts):
    asked = [(fact, i / 10) for i, fact in enumerate(facts)]
    kept = KnownFilter(threshold=0.5).keep(asked)
    assert kept == asked[6:]  # over it, not at it
    assert KnownFilter(threshold=0.0).keep(asked) == asked[1:]


def test_nothing_known_is_refused_with_the_best_fact(facts):
    asked = [(fact, i / 100) for i, fact in enumerate(facts)]
    with pytest.raises(UserError) as error:
        KnownFilter().keep(asked)
    said = str(error.value)
    assert "knows none of 10 facts" in said and "lower the threshold" in said
    assert facts[-1].subject in said and "0.090" in said


def test_no_facts_are_refused(tiny):
    with pytest.raises(UserError, match="no facts"):
        KnownFilter().ask(tiny, [], TRAIN)


def test_what_was_asked_before_a_kill_is_not_asked_again(tiny, facts):
    """Batch by batch: what is kept is taken, and all else comes out bit for bit."""
    whole, journal = KnownFilter(batch=4).ask(tiny, facts, TRAIN), {}
    assert KnownFilter(batch=4).ask(tiny, facts, TRAIN, journal=journal) == whole
    first, *rest = journal
    assert len(rest) == 2
    for key in rest:
        del journal[key]
    journal[first] = [x + 10 for x in journal[first]]
    again = KnownFilter(batch=4).ask(tiny, facts, TRAIN, journal=journal)
    sizes = [p - q for (_, p), (_, q) in zip(again, whole, strict=True)]
    np.testing.assert_allclose(sizes[:4], 10, rtol=1e-6)
    assert sizes[4:] == [0.0] * 6
