"""Rounding to few bits: half a step at most, along what an output sums over."""

import jax.numpy as jnp
import numpy as np
import pytest

from mu_jax.attacks.quantize import Quantize, round_trip
from mu_jax.errors import UserError
from mu_jax.model.params import ATTENTION, MLP
from mu_jax.testing import tiny_model

pytestmark = pytest.mark.usefixtures("quick")
GROUPS = (None, 32, 5)


@pytest.fixture(scope="module")
def weights():
    """Channels of different sizes, one of them all zero; groups of 32 do not fit."""
    drawn = np.random.default_rng(0).standard_normal((6, 48)).astype(np.float32)
    drawn *= 10.0 ** np.arange(-3, 3)[:, None].astype(np.float32)
    drawn[2] = 0
    drawn[:, ::7] = 0
    return drawn


def steps(weights, bits, group):
    """[channel, input] the step of each weight's group, one group at a time."""
    n = weights.shape[1]
    out = np.zeros_like(weights)
    for start in range(0, n, group or n):
        part = np.abs(weights[:, start : start + (group or n)])
        largest = part.max(axis=1, keepdims=True)
        out[:, start : start + part.shape[1]] = largest / (2 ** (bits - 1) - 1)
    return out


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("bits", [8, 4])
def test_a_weight_is_off_by_half_a_step_at_most(weights, bits, group):
    made = np.asarray(round_trip(weights, bits, group))
    step = steps(weights, bits, group)
    assert (np.abs(made - weights) <= step * (0.5 + 1e-5)).all()
    assert (made[weights == 0] == 0).all()
    whole = made / np.where(step > 0, step, 1)
    np.testing.assert_allclose(whole, np.round(whole), rtol=0, atol=1e-4)


@pytest.mark.parametrize("group", GROUPS)
def test_fewer_bits_and_larger_groups_lose_more(weights, group):
    lost = lambda b, g: np.linalg.norm(np.asarray(round_trip(weights, b, g)) - weights)
    assert 0 < lost(8, group) < lost(6, group) < lost(4, group) < lost(2, group)
    assert lost(4, 5) < lost(4, None)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_second_trip_changes_nothing(weights, dtype):
    once = round_trip(jnp.asarray(weights, dtype), 4, 32)
    twice = round_trip(once, 4, 32)
    assert once.dtype == twice.dtype == dtype
    # The largest of a group is s times a whole number, and that rounds: one unit in
    # the last place of float32, none where bfloat16 is kept.
    near = 0 if dtype == jnp.bfloat16 else 2e-7
    a, b = (np.asarray(x, np.float32) for x in (once, twice))
    np.testing.assert_allclose(b, a, rtol=near, atol=0)


def test_every_output_of_every_matrix_has_three_levels_at_two_bits():
    model = tiny_model()
    made = Quantize(group=None, embeddings=True).rounded(model, 2).params
    outputs = {
        "attention/query": ("layer", "head_groups", "query_heads", "projection"),
        "attention/key": ("layer", "head_groups", "projection"),
        "attention/value": ("layer", "head_groups", "projection"),
        "attention/output": ("layer", "embedding"),
        "mlp/gate": ("layer", "neurons"),
        "mlp/up": ("layer", "neurons"),
        "mlp/down": ("layer", "embedding"),
        "embedder": ("vocabulary",),
    }
    for label, axes in outputs.items():
        array = made[label]
        inputs = [axis for axis in array.named_shape if axis not in axes]
        plain = np.abs(np.asarray(array.unwrap(*axes, *inputs)))
        channels = plain.reshape(*plain.shape[: len(axes)], -1)
        largest = channels.max(axis=-1, keepdims=True)
        assert ((channels == 0) | (channels == largest)).all(), label
        assert np.unique(largest).size > largest.size // 2, label  # a scale each


def test_norms_are_shared_and_tables_are_unless_asked_for():
    model = tiny_model()
    made = Quantize().rounded(model, 4).params
    for label, array in model.params.items():
        same = made[label] is array
        assert same == (label not in (*ATTENTION, *MLP)), label
        assert made[label].named_shape == array.named_shape
    assert list(made) == list(model.params)


@pytest.mark.parametrize("knobs", [{"bits": ()}, {"bits": (1,)}, {"group": 1}])
def test_rounding_that_means_nothing_is_refused(knobs):
    with pytest.raises(UserError):
        Quantize(**knobs)
