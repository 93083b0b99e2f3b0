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

Values = Float[np.ndarray, "... n"] | Sequence

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


def estimate(values: Values, share: bool = False) -> Estimate:
    """The mean of values over facts, or over facts and seeds.

    Args:
      share: whether they are shares or probabilities, in [0, 1] by what they are.
    """
    table = _table(values)
    mean = float(table.mean())
    low, high = _share(table) if share else _unbounded(mean, reach(table))
    return Estimate(mean, low, high, table.shape[1], len(table))


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
        off = reach(pairs)
    else:
        pairs = (left.mean(axis=0) - right.mean(axis=0))[None]
        off = _unpaired(pairs, left, right)
    mean = float(pairs.mean())
    if not share:
        low, high = _unbounded(mean, off)
    elif off == 0:
        low, high = _alike(mean, n)
    else:  # in [-1, 1]
        ends = _bounded((mean + 1) / 2, off and off / 2)
        low, high = (None if end is None else 2 * end - 1 for end in ends)
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
    off = reach(gap)
    if off is None or gap.mean() - off <= 0:
        return None
    share = float(back.mean() / gap.mean())

    def outside(ratio: float) -> float:
        """Over 0 where the ratio is too far off."""
        left = back - ratio * gap
        return abs(float(left.mean())) - (reach(left) or 0.0)

    if outside(share) >= 0:  # every fact in the same ratio
        return Estimate(share, None, None, back.shape[1], len(back))
    ends = [_root(outside, share, side) for side in (-1, 1)]
    if None in ends:
        return None
    return Estimate(share, ends[0], ends[1], back.shape[1], len(back))


def reach(table: Table) -> float | None:
    """How far the mean of a table may be off, other facts and other seeds asked.

    At `LEVEL`, were there no ends to the values' range. None where there is one fact.
    One seed says nothing about others: what it gives is the reach over facts.
    """
    return _total(_parts(table)) if table.shape[1] > 1 else None


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


def _unpaired(pairs: Table, left: Table, right: Table) -> float | None:
    """Of the mean of pairs that are means over different seeds on either side."""
    if pairs.shape[1] == 1:
        return None
    parts = _parts(pairs)
    for side in (left, right):
        parts += _parts(side)[1:2] if len(side) > 1 else []
    return _total(parts)


def _total(parts: Sequence[Part]) -> float:
    """How far a mean may be off whose variance has these parts."""
    return math.sqrt(sum(_student(freedom) ** 2 * part for part, freedom in parts))


@functools.cache
def _student(freedom: int) -> float:
    """The quantile of Student's t at `LEVEL`."""
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, freedom))


Ends = tuple[float | None, float | None]


def _unbounded(mean: float, off: float | None) -> Ends:
    """Student's interval; none where nothing varies."""
    return (mean - off, mean + off) if off else (None, None)


def _share(table: Table) -> Ends:
    """Of values in [0, 1].

    Where all are as good as 0 or 1, their scatter says little (of 16 facts at .999
    each, another one may be at 0): they count as yes or no, which no more facts than
    there are can have said.
    """
    (seeds, n), mean, off = table.shape, float(table.mean()), reach(table)
    decided = float(np.ma.minimum(table, 1 - table).max()) <= EDGE
    if off is None or not decided:
        return _bounded(mean, off)
    from scipy.stats import norm

    extra = float(norm.ppf((1 + LEVEL) / 2)) ** 2 / n
    if seeds > 1 and off:
        extra = max(extra, off**2 / (mean * (1 - mean)))
    return _wilson(mean, extra)


def _bounded(mean: float, off: float | None) -> Ends:
    """Wilson's interval, of as many yes and no as would be off as far.

    None of one value, nor of equal ones that are neither: they have no scatter.
    """
    return _wilson(mean, off**2 / (mean * (1 - mean))) if off else (None, None)


def _alike(mean: float, n: int) -> Ends:
    """Of n pairs that all differ by the same: how far may others, up to -1 or 1, draw?

    Wilson's upper end of 0 in n bounds the share of pairs that differ otherwise.
    """
    from scipy.stats import binomtest

    share = float(binomtest(0, n).proportion_ci(LEVEL, method="wilson").high)
    return mean - share * (mean + 1), mean + share * (1 - mean)


def _wilson(mean: float, extra: float) -> tuple[float, float]:
    """Wilson's score interval (1927); `extra` is its z^2 / n."""
    middle = mean + extra / 2
    off = math.sqrt(extra * mean * (1 - mean) + extra**2 / 4)
    low, high = (middle - off) / (1 + extra), (middle + off) / (1 + extra)
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
