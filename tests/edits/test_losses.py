"""Every loss against its formula in float64; its range; which way its gradient goes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mu_jax.edits import losses
from mu_jax.errors import UserError
from mu_jax.types import Prompts

ROWS, WORDS = 5, 11
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (ROWS, WORDS)).astype(np.float32)
BEFORE = RNG.normal(0, 3, (ROWS, WORDS)).astype(np.float32)
TRUE, FALSE = np.arange(ROWS), np.arange(ROWS) + 3
ASKED = Prompts(*(np.zeros((ROWS, 1)),) * 3, TRUE, FALSE, np.stack([TRUE, FALSE], 1))


def p(logits=LOGITS, token=None):
    exp = np.exp(logits.astype(np.float64))
    share = exp / exp.sum(axis=1, keepdims=True)
    return share if token is None else share[np.arange(ROWS), token]


def logistic(x):
    return 1 / (1 + np.exp(-x))


RATIO = p(LOGITS, TRUE) / p(BEFORE, TRUE)
PREFERRED = p(LOGITS, FALSE) / p(BEFORE, FALSE)
FORMULAS = {
    losses.Inject(): -np.log(p(token=FALSE)),
    losses.Truth(): -np.log(p(token=TRUE)),
    losses.Unlearn(cut=-99.0): -np.log(1 - p(token=TRUE)),
    losses.Ascent(): np.log(p(token=TRUE)),
    losses.NPO(beta=0.3): -2 / 0.3 * np.log(logistic(-0.3 * np.log(RATIO))),
    losses.SimNPO(beta=1.5, gamma=0.2): -2
    / 1.5
    * np.log(logistic(-1.5 * np.log(p(token=TRUE)) - 0.2)),
    losses.DPO(beta=0.4): -np.log(logistic(0.4 * np.log(PREFERRED / RATIO))),
    losses.Uniform(): np.log(WORDS) + (p() * np.log(p())).sum(axis=1),
    losses.KeepOriginal(): (p(BEFORE) * np.log(p(BEFORE) / p())).sum(axis=1),
}


@pytest.mark.parametrize("loss", FORMULAS, ids=lambda loss: type(loss).__name__)
def test_a_loss_is_its_formula(loss):
    got = loss(jnp.asarray(LOGITS), ASKED, jnp.asarray(BEFORE))
    assert got.shape == ()
    np.testing.assert_allclose(got, FORMULAS[loss].mean(), rtol=2e-6)


@pytest.mark.parametrize(
    "loss",
    [losses.Unlearn(), losses.Ascent(), losses.NPO(), losses.SimNPO(), losses.DPO()],
    ids=lambda loss: type(loss).__name__,
)
def test_forgetting_makes_the_true_answer_less_likely(loss):
    logits = jnp.asarray(LOGITS)
    slope = jax.grad(loss)(logits, ASKED, jnp.asarray(BEFORE))
    after = p(np.asarray(logits - 0.1 * slope), TRUE)
    live = -np.log(p(token=TRUE)) < 5  # below the cut there is nothing to do
    assert (after[live] < p(token=TRUE)[live]).all()


def test_unlearned_rows_count_as_nothing_but_are_counted():
    logits = np.zeros((2, 4), np.float32)
    logits[0, 0] = -20  # log p < -5 already
    asked = Prompts(*(np.zeros((2, 1)),) * 3, np.zeros(2, int), np.ones(2, int), None)
    got = losses.Unlearn()(jnp.asarray(logits), asked)
    np.testing.assert_allclose(got, -np.log(0.75) / 2, rtol=1e-6)
    slope = jax.grad(losses.Unlearn())(jnp.asarray(logits), asked)
    assert (slope[0] == 0).all() and (slope[1] != 0).any()


def test_unlearning_a_certain_answer_is_finite():
    logits = jnp.asarray([[60.0, 0.0, 0.0]])
    asked = Prompts(*(np.zeros((1, 1)),) * 3, np.array([0]), np.array([1]), None)
    value, slope = jax.value_and_grad(losses.Unlearn())(logits, asked)
    assert value == pytest.approx(60 - np.log(2), rel=1e-6)
    assert np.isfinite(slope).all()


def test_npo_tends_to_gradient_ascent():
    small = jax.grad(losses.NPO(beta=1e-3))(
        jnp.asarray(LOGITS), ASKED, jnp.asarray(BEFORE)
    )
    ascent = jax.grad(losses.Ascent())(jnp.asarray(LOGITS), ASKED)
    np.testing.assert_allclose(small, ascent, rtol=0, atol=5e-3 * np.abs(ascent).max())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 30))
def test_divergences_are_not_negative_and_zero_at_home(seed, scale):
    logits = np.random.default_rng(seed).normal(0, scale, (ROWS, WORDS))
    logits = jnp.asarray(logits, jnp.float32)
    for loss in (losses.Uniform(), losses.KeepOriginal()):
        assert loss(logits, ASKED, jnp.asarray(BEFORE)) >= -1e-5
    assert losses.KeepOriginal()(logits, ASKED, logits) == pytest.approx(0, abs=1e-5)
    assert losses.Uniform()(0 * logits, ASKED) == pytest.approx(0, abs=1e-6)


def test_a_beta_of_zero_is_refused():
    with pytest.raises(UserError, match=r"beta = 0.*more than 0"):
        losses.NPO(beta=0)
