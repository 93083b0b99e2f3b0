"""How sure is a mean? Intervals over facts and seeds, differences in pairs, ratios.

Values come as a table, [seeds, n]: n facts measured under every seed; where a seed left
a fact out, the table is masked. Facts and seeds are both samples, of what might have
been asked and drawn, and the variance of the mean is what facts, seeds and the rest add
to it (two crossed random effects). Each part counts with its own quantile of Student's
t, since three seeds tell far less of their scatter than sixteen facts do. Nothing is
resampled: of three seeds that gives "between the lowest and the highest", which holds
the truth three times in four.

Shares and probabilities get Wilson's interval with as many facts as would have that
variance were each 0 or 1. It stays inside [0, 1], is longer towards the middle, and is
Wilson's own where they are 0 or 1. tests/test_statistics.py counts how often all these
intervals hold the truth.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

LEVEL = 0.95

EDGE = 0.05
"""How near 0 or 1 all values are where they say yes or no rather than how much."""

Values = Float[np.ndarray, "*seeds n"] | Sequence

Table = np.ndarray
"""[seeds, n]; masked only where a seed left facts out."""


class Estimate(NamedTuple):
    """A mean, and the interval that holds it at `LEVEL`.

    `low` and `high` are None where the values say nothing about their spread: where
    there is one, or where all are the same and might be anything. `n` counts facts,
    and `seeds` how often each was measured.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    seeds: int = 1


class Spread(NamedTuple):
    """How far a mean may be off: its variance, and how far the interval reaches."""

    variance: float
    reach: float

    @property
    def quantile(self) -> float:
        """How many standard deviations it reaches."""
        return self.reach / math.sqrt(self.variance)


def estimate(values: Values, share: bool = False) -> Estimate:
    """The mean of values over facts, or over facts and seeds.

    Args:
      share: whether they are shares or probabilities, in [0, 1] by what they are.
    """
    table = _table(values)
    low, high = _share(table) if share else _real(table)
    return Estimate(float(table.mean()), low, high, table.shape[1], len(table))


def difference(a: Values, b: Values, share: bool = False) -> Estimate:
    """a - b, fact by fact: what two models were both asked is compared in pairs.

    With equally many seeds these are paired too. Otherwise the seeds of either side
    add what they scatter by.

    Raises:
      ValueError: different numbers of facts.
    """
    left, right = _table(a), _table(b)
    n = left.shape[1]
    if n != right.shape[1]:
        raise ValueError(f"{n} and {right.shape[1]} facts are not pairs")
    if len(left) == len(right):
        pairs = left - right
        spread = crossed(pairs)
    else:
        pairs = (left.mean(axis=0) - right.mean(axis=0))[None]
        spread = _unpaired(pairs, left, right)
    mean = float(pairs.mean())
    if share:
        halved = Spread(spread.variance / 4, spread.reach / 2) if spread else None
        ends = _bounded((mean + 1) / 2, halved)
        low, high = (None if end is None else 2 * end - 1 for end in ends)
        if spread and not spread.variance:
            low, high = _alike(mean, n)
    else:
        low, high = _unbounded(mean, spread)
    return Estimate(mean, low, high, n, min(len(left), len(right)))


def recovered(after: Values, never_knew: Values, original: Values) -> Estimate | None:
    """(after - never knew) / (original - never knew), of means over facts and seeds.

    0: nothing is back that a model which never knew would not have learned too; 1: all
    is. May lie outside [0, 1]. The interval is Fieller's: the ratios R for which the
    mean of (after - never knew) - R (original - never knew), fact by fact, may be 0.

    Returns:
      None where the original cannot be told from the control: there is nothing to
      recover, and the interval would have no ends.
    """
    a, c, o = map(_table, (after, never_knew, original))
    back, gap = a - c, o - c
    found = crossed(gap)
    if found is None or gap.mean() - found.reach <= 0:
        return None
    share = float(back.mean() / gap.mean())

    def outside(ratio: float) -> float:
        """Over 0 where the ratio is too far off."""
        left = back - ratio * gap
        spread = crossed(left)
        assert spread  # as the gap has one
        return abs(float(left.mean())) - spread.reach

    if outside(share) >= 0:  # every fact in the same ratio
        return Estimate(share, None, None, back.shape[1], len(back))
    ends = [_root(outside, share, side) for side in (-1, 1)]
    if None in ends:
        return None
    return Estimate(share, ends[0], ends[1], back.shape[1], len(back))


def crossed(table: Table) -> Spread | None:
    """How far the mean of a table would be off with other facts and other seeds.

    None where there is one fact. One seed says nothing about others: the spread is then
    that over facts.
    """
    return _spread(_parts(table)) if table.shape[1] > 1 else None


Part = tuple[float, int]
"""A part of a mean's variance, and the degrees of freedom it was found with."""


def _parts(table: Table) -> list[Part]:
    """Of facts, of seeds, and of the rest, in turn; of one seed, that of facts alone.

    The squared sums of a fact's values, and of a seed's, hold what is its own and its
    share of the rest, which is therefore taken off again.
    """
    (seeds, n), cells = table.shape, int(np.ma.count(table))
    off = np.ma.filled(table - table.mean(), 0)
    of_facts = n / (n - 1) * float((off.sum(axis=0) ** 2).sum()) / cells**2
    if seeds == 1:
        return [(of_facts, n - 1)]
    of_seeds = seeds / (seeds - 1) * float((off.sum(axis=1) ** 2).sum()) / cells**2
    freedom = cells - n - seeds + 1
    rest = float((_residuals(table) ** 2).sum()) / max(freedom, 1) / cells
    parts = [(of_facts - rest, n - 1), (of_seeds - rest, seeds - 1), (rest, n - 1)]
    return [(max(part, 0.0), own) for part, own in parts]


def _residuals(table: Table) -> Float[np.ndarray, " cells"]:
    """What neither the fact nor the seed says of a value, by least squares."""
    if not np.ma.is_masked(table):
        of_seeds = table.mean(axis=1, keepdims=True)
        return np.ravel(table - table.mean(axis=0) - of_seeds + table.mean())
    seeds, facts = np.nonzero(~np.ma.getmaskarray(table))
    effects = np.hstack(
        [np.eye(n)[i] for n, i in zip(table.shape, (seeds, facts), strict=True)]
    )
    values = table.compressed()
    return values - effects @ np.linalg.lstsq(effects, values, rcond=None)[0]


def _unpaired(pairs: Table, left: Table, right: Table) -> Spread | None:
    """Of the mean of pairs that are means over different seeds on either side."""
    if pairs.shape[1] == 1:
        return None
    parts = _parts(pairs)
    for side in (left, right):
        parts += _parts(side)[1:2] if len(side) > 1 else []
    return _spread(parts)


def _spread(parts: Sequence[Part]) -> Spread:
    variance = sum(part for part, _ in parts)
    reach = sum(_student(freedom) ** 2 * part for part, freedom in parts)
    return Spread(variance, math.sqrt(reach))


@functools.cache
def _student(freedom: int) -> float:
    """The quantile of Student's t at `LEVEL`."""
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, freedom))


Ends = tuple[float | None, float | None]


def _real(table: Table) -> Ends:
    return _unbounded(float(table.mean()), crossed(table))


def _unbounded(mean: float, spread: Spread | None) -> Ends:
    """Student's interval; none where nothing varies."""
    if spread is None or not spread.variance:
        return None, None
    return mean - spread.reach, mean + spread.reach


def _share(table: Table) -> Ends:
    """Of values in [0, 1].

    Where all are as good as 0 or 1, their scatter says little (of 16 facts at .999
    each, another one may be at 0): they count as yes or no, which no more facts than
    there are can have said.
    """
    mean, n = float(table.mean()), table.shape[1]
    spread = crossed(table)
    decided = float(np.ma.minimum(table, 1 - table).max()) <= EDGE
    if spread is None or not decided:
        return _bounded(mean, spread)
    from scipy.stats import norm

    # n - 1, by which the variance was divided, for n: Wilson's own for yes and no.
    variance = spread.variance * (n - 1) / n
    most = mean * (1 - mean) / variance if variance else math.inf
    return _wilson(mean, min(most, n), float(norm.ppf((1 + LEVEL) / 2)))


def _bounded(mean: float, spread: Spread | None) -> Ends:
    """Wilson's interval, of as many yes and no as have this variance; none of one.

    A mean of equal values that are neither has no spread to go by.
    """
    if spread is None or not spread.variance:
        return None, None
    return _wilson(mean, mean * (1 - mean) / spread.variance, spread.quantile)


def _alike(mean: float, n: int) -> Ends:
    """Of n pairs that all differ by the same: how far may others, up to -1 or 1, draw?

    Wilson's upper end of 0 in n bounds the share of pairs that differ otherwise.
    """
    from scipy.stats import binomtest

    share = float(binomtest(0, n).proportion_ci(LEVEL, method="wilson").high)
    return mean - share * (mean + 1), mean + share * (1 - mean)


def _wilson(mean: float, n: float, quantile: float) -> tuple[float, float]:
    """Wilson's score interval (1927), for an n that need not be whole."""
    extra = quantile**2 / n
    middle = mean + extra / 2
    reach = math.sqrt(extra * mean * (1 - mean) + extra**2 / 4)
    low, high = (middle - reach) / (1 + extra), (middle + reach) / (1 + extra)
    return max(float(low), 0.0), min(float(high), 1.0)


def _root(outside: Callable[[float], float], share: float, side: int) -> float | None:
    """Where `outside` turns positive on one side of `share`; None if nowhere."""
    from scipy.optimize import brentq

    near, step = share, 0.01
    while step < 1e6:
        if outside(far := share + side * step) > 0:
            return brentq(outside, near, far)  # pyright: ignore[reportReturnType]
        near, step = far, step * 2
    return None


def _table(values: Values) -> Table:
    """The values as a table, without facts that no seed was asked about."""
    if not np.ma.is_masked(values):
        return np.atleast_2d(np.asarray(values, np.float64))
    table = np.atleast_2d(np.ma.asarray(values, np.float64))
    return table[:, ~np.ma.getmaskarray(table).all(axis=0)]
