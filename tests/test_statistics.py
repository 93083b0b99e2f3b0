"""Intervals hold what they should, and claim no certainty."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mu_jax.statistics import difference, estimate

SHARES = arrays(float, st.integers(2, 40), elements=st.floats(0, 1))


@given(SHARES)
@settings(deadline=None)
def test_the_interval_holds_the_mean_and_stays_in_range(values):
    found = estimate(values)
    assert found.n == len(values)
    assert -1e-9 <= found.low <= found.mean + 1e-9
    assert found.mean - 1e-9 <= found.high <= 1 + 1e-9


def test_all_of_sixteen_is_not_certainty():
    assert estimate(np.ones(16)).low == pytest.approx(0.806, abs=1e-3)
    assert estimate(np.zeros(16)).high == pytest.approx(0.194, abs=1e-3)
    assert estimate(np.ones(64)).low > estimate(np.ones(16)).low


def test_one_value_says_nothing_of_its_spread():
    assert estimate([2.5])[1:3] == (None, None)


def test_ninety_five_per_cent_of_intervals_hold_the_truth():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(300):
        found = estimate(rng.beta(2, 5, size=40))
        hits += found.low <= 2 / 7 <= found.high
    assert 0.90 <= hits / 300 <= 0.98


def test_seeds_that_disagree_widen_the_interval():
    facts = np.random.default_rng(0).uniform(size=32)
    alike = estimate([facts, facts, facts])
    apart = estimate([facts - 0.3, facts, facts + 0.3])
    assert alike.mean == pytest.approx(apart.mean) == pytest.approx(facts.mean())
    assert apart.high - apart.low > 1.5 * (alike.high - alike.low)
    assert (apart.n, apart.seeds) == (32, 3)


def test_pairs_are_sharper_than_groups():
    rng = np.random.default_rng(0)
    hard = rng.uniform(0, 1, size=40)  # how hard a fact is, for both models
    a, b = hard + 0.05 + rng.normal(0, 0.01, 40), hard
    found = difference(a, b)
    assert found.low > 0 and found.mean == pytest.approx(0.05, abs=0.01)
    assert estimate(a).low < estimate(b).high  # which groups alone would not show


def test_sixteen_equal_pairs_are_not_certainty():
    same = np.linspace(0, 1, 16)
    found = difference(same, same)
    assert found[:3] == pytest.approx((0, -0.194, 0.194), abs=1e-3)
    all_gone = difference(np.zeros(16), np.ones(16))
    assert (all_gone.low, all_gone.high) == pytest.approx((-1, -0.806), abs=1e-3)
    assert difference(np.ones(1), np.ones(1))[1:3] == (None, None)


def test_what_are_no_pairs_is_refused():
    with pytest.raises(ValueError, match="not pairs"):
        difference(np.ones(3), np.ones(4))
