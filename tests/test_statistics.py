"""Intervals hold what they should, and claim no certainty."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import t

from mu_jax.statistics import difference, estimate, reach, recovered

SHARES = arrays(float, st.integers(2, 40), elements=st.floats(0, 1))
TRIES = 400


def covered(draw, truth: float, interval) -> float:
    """How many of TRIES intervals hold the truth."""
    found = [interval(draw()) for _ in range(TRIES)]
    return sum(f.low <= truth <= f.high for f in found) / TRIES


def enough(share: float) -> bool:
    """Whether it may be .95, within three standard errors of a count out of TRIES."""
    return share > 0.95 - 3 * np.sqrt(0.95 * 0.05 / TRIES)


@given(SHARES)
@settings(deadline=None)
def test_the_interval_holds_the_mean_and_stays_in_range(values):
    found = estimate(values, share=True)
    assert found.n == len(values)
    if found.low is not None:
        assert 0 <= found.low <= found.mean + 1e-9
        assert found.mean - 1e-9 <= found.high <= 1


def test_all_of_sixteen_is_not_certainty():
    assert estimate(np.ones(16), share=True).low == pytest.approx(0.806, abs=1e-3)
    assert estimate(np.zeros(16), share=True).high == pytest.approx(0.194, abs=1e-3)
    wider = estimate(np.ones(16), share=True)
    assert estimate(np.ones(64), share=True).low > wider.low
    fewer = estimate([0.0] + [1.0] * 15, share=True)
    assert fewer.low < wider.low and fewer.high < wider.high


def test_yes_and_no_get_wilsons_interval():
    from scipy.stats import binomtest

    for n in (8, 16):
        for count in range(n + 1):
            found = estimate([1.0] * count + [0.0] * (n - count), share=True)
            wilson = binomtest(count, n).proportion_ci(0.95, method="wilson")
            assert found[1:3] == pytest.approx((wilson.low, wilson.high), abs=1e-9)


def test_what_is_no_share_gets_no_proportions_interval():
    """Ranks that are all 0 are no "0 of 16"."""
    assert estimate(np.zeros(16)) == (0, None, None, 16, 1)
    assert estimate(np.zeros(16), share=True).high > 0.19


def test_as_good_as_all_is_as_sure_as_all():
    """Nothing says that the next fact is not at 0, however little these scatter."""
    near = 1 - np.random.default_rng(0).uniform(0, 1e-4, 16)
    found = estimate(near, share=True)
    assert found.low == pytest.approx(estimate(np.ones(16), share=True).low, abs=1e-3)


def test_one_value_says_nothing_of_its_spread():
    assert estimate([0.5], share=True)[1:3] == (None, None)
    assert estimate([[2.5], [2.6]])[1:3] == (None, None)
    assert difference([1.0], [0.5], share=True)[1:3] == (None, None)
    assert recovered([0.5], [0.1], [0.9]) is None


@pytest.mark.parametrize("n", (8, 16, 32))
def test_nineteen_of_twenty_intervals_hold_the_truth(n):
    """Yes or no, probabilities (in the middle, at both ends, near one) and ranks.

    Wilson's own is a little over or under with p, as counts are whole: its p is drawn.
    """
    rng = np.random.default_rng(n)
    hits = []
    for _ in range(TRIES):
        p = rng.uniform(0.02, 0.98)
        found = estimate((rng.random(n) < p).astype(float), share=True)
        hits.append(found.low <= p <= found.high)
    assert enough(np.mean(hits))
    for a, b in ((2, 5), (0.5, 0.5), (5, 1)):
        share = lambda values: estimate(values, share=True)
        draw = lambda a=a, b=b: rng.beta(a, b, n)
        assert enough(covered(draw, a / (a + b), share)), (a, b)
    ranks = lambda size: np.log1p(np.floor(np.exp(rng.normal(2, 1.5, size))))
    assert enough(covered(lambda: ranks(n), ranks(10**6).mean(), estimate))


@pytest.mark.parametrize("sds", [(0.3, 0, 0.1), (0.1, 0.1, 0.05), (0.1, 0.3, 0.05)])
def test_they_do_over_seeds_too(sds):
    """Three seeds, whatever scatters most: facts, both, or seeds.

    Resampling three seeds holds the truth in .78 of the cases where they scatter most.
    """
    of_facts, of_seeds, rest = sds
    rng, seeds, n = np.random.default_rng(0), 3, 16

    def draw():
        facts, own = (
            rng.normal(0, of_facts, (1, n)),
            rng.normal(0, of_seeds, (seeds, 1)),
        )
        return facts + own + rng.normal(0, rest, (seeds, n))

    assert enough(covered(draw, 0, estimate))
    assert enough(covered(lambda: (draw(), draw()[:2]), 0, lambda v: difference(*v)))


def test_they_do_where_each_seed_asks_half_of_the_facts():
    rng, n = np.random.default_rng(0), 16

    def draw():
        values = rng.normal(0, 0.3, n) + rng.normal(0, 0.1, (2, n))
        left_out = [rng.permutation(n) < n // 2 for _ in range(2)]
        return np.ma.array(values, mask=left_out)

    assert enough(covered(draw, 0, estimate))


def test_they_do_for_what_is_recovered():
    rng, n = np.random.default_rng(0), 16

    def draw():
        knew, never = rng.beta(8, 2, n), rng.beta(2, 6, n)
        return 0.4 * knew + 0.6 * never + rng.normal(0, 0.1, n), never, knew

    assert enough(covered(draw, 0.4, lambda v: recovered(*v)))


def test_three_seeds_that_disagree_show_no_difference():
    """.9, .3 and .6 against .5 on every fact."""
    table = np.array([[0.9], [0.3], [0.6]]) + np.linspace(-0.02, 0.02, 16)
    for other in (np.full((3, 16), 0.5), np.full((1, 16), 0.5)):
        found = difference(table, other, share=True)
        assert found.mean == pytest.approx(0.1)
        assert found.low < -0.2 and found.high > 0.4
    alone = estimate(table, share=True)
    assert alone.low < 0.3 and alone.high > 0.9 and (alone.n, alone.seeds) == (16, 3)


def test_seeds_that_both_sides_share_are_paired():
    """A bad seed is bad for both, and says nothing about their difference."""
    rng = np.random.default_rng(0)
    seeds = np.array([[0.3], [0.0], [-0.3]])
    a = 0.55 + seeds + rng.normal(0, 0.01, (3, 16))
    b = 0.50 + seeds + rng.normal(0, 0.01, (3, 16))
    assert difference(a, b, share=True).low > 0
    assert difference(a, b[:2], share=True).low < 0


def test_recovered_seeds_that_disagree_widen_it():
    rng = np.random.default_rng(0)
    never, knew = np.full((3, 16), 0.1), np.full((3, 16), 0.9)
    back = 0.5 + rng.normal(0, 0.02, (3, 16))
    alike = recovered(back, never, knew)
    apart = recovered(back + np.array([[0.3], [0.0], [-0.3]]), never, knew)
    assert alike.mean == pytest.approx(apart.mean) == pytest.approx(0.5, abs=0.02)
    assert apart.high - apart.low > 5 * (alike.high - alike.low)


def test_what_stands_out_from_no_scatter_is_not_recovered():
    rng = np.random.default_rng(0)
    knew, never = rng.uniform(size=(2, 16))
    assert recovered(knew, never + (knew - never).mean() - 0.01, knew) is None
    assert recovered(never, knew, never) is None


def test_fourteen_thousand_values_under_seven_seeds_fit():
    found = estimate(np.random.default_rng(0).normal(size=(7, 14_000)))
    assert found.n == 14_000 and found.low < 0 < found.high


def test_masked_facts_count_for_nothing():
    rng = np.random.default_rng(0)
    values = rng.uniform(size=(2, 12))
    table = np.ma.array(values, mask=np.tile(np.arange(12) >= 10, (2, 1)))
    want = estimate(values[:, :10], share=True)
    assert estimate(table, share=True) == pytest.approx(want)
    # of the rest, least squares: what is left when facts and seeds are fitted
    values[1] += 0.5
    table = np.ma.array(values, mask=rng.random((2, 12)) < 0.3)
    rows, columns = np.nonzero(~table.mask)
    design = np.eye(2)[rows], np.eye(12)[columns]
    design, seen = np.hstack(design), table.compressed()
    fit = design @ np.linalg.lstsq(design, seen, rcond=None)[0]
    cells = len(seen)
    rest = ((seen - fit) ** 2).sum() / (cells - len(set(columns)) - 1) / cells
    off, n = (table - seen.mean()).filled(0), len(set(columns))
    of_facts = n / (n - 1) * (off.sum(axis=0) ** 2).sum() / cells**2
    of_seeds = 2 * (off.sum(axis=1) ** 2).sum() / cells**2
    assert of_seeds > 5 * rest
    few, many = t.ppf(0.975, 1), t.ppf(0.975, n - 1)
    want = many**2 * max(of_facts, rest) + few**2 * (of_seeds - rest)
    found = reach(table[:, ~table.mask.all(axis=0)])
    assert found == pytest.approx(np.sqrt(want))


def test_pairs_are_sharper_than_groups():
    rng = np.random.default_rng(0)
    hard = rng.uniform(0, 1, size=40)  # how hard a fact is, for both models
    a, b = hard + 0.05 + rng.normal(0, 0.01, 40), hard
    found = difference(a, b)
    assert found.low > 0 and found.mean == pytest.approx(0.05, abs=0.01)
    assert estimate(a).low < estimate(b).high  # which groups alone would not show


def test_differences_of_many_shares_have_students_interval():
    """Far from -1 and 1, and of many facts, the ends of the range are out of sight."""
    a, b = np.random.default_rng(0).beta(5, 5, size=(2, 2000))
    found, want = difference(a, b, share=True), difference(a, b)
    assert found[:3] == pytest.approx(want[:3], rel=0.01, abs=1e-4)


def test_sixteen_equal_pairs_are_not_certainty():
    same = np.linspace(0, 1, 16)
    found = difference(same, same, share=True)
    assert found[:3] == pytest.approx((0, -0.194, 0.194), abs=1e-3)
    all_gone = difference(np.zeros(16), np.ones(16), share=True)
    assert (all_gone.low, all_gone.high) == pytest.approx((-1, -0.613), abs=1e-3)


def test_what_are_no_pairs_is_refused():
    with pytest.raises(ValueError, match="not pairs"):
        difference([1.0] * 3, [1.0] * 4)
