"""General text: the loss, and how far the edited model has moved from the original."""

import numpy as np
import pytest

from mu_jax.errors import UserError
from mu_jax.evals.text_loss import TextLoss
from mu_jax.testing import tiny_model

pytestmark = pytest.mark.usefixtures("quick")
TEXT = np.random.default_rng(0).integers(2, 512, size=(7, 9), dtype=np.int32)
READ = TextLoss(batch=3, limit=5, positions=7)


@pytest.fixture(scope="module")
def other():
    return tiny_model(seed=1)


def log_p(model) -> np.ndarray:
    """[row, position, vocabulary] in float64."""
    stream, _ = model.network.stream(model.params, TEXT[:5])
    logits = np.asarray(model.network.logits(model.params, stream[:, :-1]), np.float64)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def test_both_metrics_by_hand(tiny, other):
    loss, kl = READ(other, "mine", TEXT, original=tiny)
    p, q = log_p(tiny), log_p(other)
    chosen = np.take_along_axis(q, TEXT[:5, 1:, None], axis=-1)[..., 0]
    np.testing.assert_allclose(loss.values, -chosen.mean(axis=1), rtol=1e-4)
    want = (np.exp(p) * (p - q)).sum(axis=-1).mean(axis=1)
    np.testing.assert_allclose(kl.values, want, rtol=1e-4)
    assert (loss.metric, kl.metric, kl.eval, kl.n) == ("loss", "kl", "text", 5)
    assert min(kl.values) > 0.01


def test_the_same_model_has_exactly_none(tiny):
    _, kl = READ(tiny, "same", TEXT, original=tiny)
    assert kl.values == (0,) * 5


def test_the_positions_at_a_time_change_nothing(tiny, other):
    few, many = (
        TextLoss(batch=3, limit=5, positions=n)(other, "m", TEXT, original=tiny)[1]
        for n in (7, 24)
    )
    np.testing.assert_allclose(few.values, many.values, rtol=1e-5)


def test_without_the_original_there_is_the_loss_alone(tiny):
    (loss,) = READ(tiny, "mine", TEXT)
    assert loss.metric == "loss" and loss.n == 5
    with pytest.raises(UserError, match=r"text\.positions = 0"):
        TextLoss(positions=0)
