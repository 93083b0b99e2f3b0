"""How sure is a mean? Intervals from resampling, over facts and over seeds.

Percentile bootstrap, seeded, so that a table made twice is the same table. Where all
values are 0 or all are 1 there is nothing to resample, and a bootstrap would claim
certainty: Wilson's interval stands in for it (16 of 16 is .81 to 1), and where 16 pairs
show no difference at all, it is -.19 to .19.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

LEVEL = 0.95
RESAMPLES = 2000


class Estimate(NamedTuple):
    """A mean, and the interval that holds it at `LEVEL`.

    `low` and `high` are None where one value says nothing about its spread. `n` counts
    facts, and `seeds` how often each was measured.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    seeds: int = 1


def estimate(values: Float[np.ndarray, "*seeds n"] | Sequence) -> Estimate:
    """The mean of values over facts, or over facts and seeds.

    With several seeds both are resampled, crossed: the same facts were measured under
    every seed.
    """
    table = np.atleast_2d(np.asarray(values, np.float64))
    seeds, n = table.shape
    low, high = _wilson(table) or _bootstrap(table)
    return Estimate(float(table.mean()), low, high, n, seeds)


def difference(
    a: Float[np.ndarray, "*seeds n"], b: Float[np.ndarray, "*seeds n"]
) -> Estimate:
    """a - b, fact by fact: what two models were both asked is compared in pairs.

    Several seeds of either are averaged first, since they do not correspond.

    Raises:
      ValueError: different numbers of facts.
    """
    means = [np.atleast_2d(np.asarray(x, np.float64)).mean(axis=0) for x in (a, b)]
    if means[0].shape != means[1].shape:
        raise ValueError(f"{means[0].shape} and {means[1].shape} are not pairs")
    found = means[0] - means[1]
    low, high = _alike(found) or _bootstrap(found[None])
    return Estimate(float(found.mean()), low, high, len(found))


def recovered(
    after: Float[np.ndarray, "*seeds n"],
    never_knew: Float[np.ndarray, "*seeds n"],
    original: Float[np.ndarray, "*seeds n"],
) -> Estimate | None:
    """(after - never knew) / (original - never knew), of means over facts.

    0: nothing is back that a model which never knew would not have learned too; 1: all
    is. May lie outside [0, 1]. Facts are resampled with their twins; None where the
    original is no better than the control, so that there is nothing to recover.
    """
    a, c, o = (
        np.atleast_2d(np.asarray(x, np.float64)).mean(axis=0)
        for x in (after, never_knew, original)
    )
    if o.mean() - c.mean() < 0.05:
        return None
    draws = _draws(len(a))
    gap = (o - c)[draws].mean(axis=1)
    shares = (a - c)[draws].mean(axis=1)[gap > 0] / gap[gap > 0]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(shares, (tail, 1 - tail))
    share = (a - c).mean() / (o - c).mean()
    return Estimate(float(share), float(low), float(high), len(a))


def _bootstrap(
    table: Float[np.ndarray, "seeds n"],
) -> tuple[float | None, float | None]:
    seeds, n = table.shape
    if n == 1 and seeds == 1:
        return None, None
    if seeds == 1:
        means = table[0][_draws(n)].mean(axis=1)
    else:
        which = _draws(seeds, "seeds")
        means = np.array(
            [table[s][:, i].mean() for s, i in zip(which, _draws(n), strict=True)]
        )
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


@functools.lru_cache(maxsize=64)
def _draws(n: int, salt: str = "") -> Int[np.ndarray, "resamples n"]:
    rng = np.random.default_rng([n, len(salt)])
    return rng.integers(n, size=(RESAMPLES, n))


def _alike(pairs: Float[np.ndarray, " n"]) -> tuple[float, float] | None:
    """The interval where all pairs differ by 0, all by 1 or all by -1; None elsewhere.

    Wilson's upper end of 0 in n bounds the share of pairs that may differ otherwise.
    """
    c = float(pairs[0])
    if c not in (-1, 0, 1) or not (pairs == c).all() or len(pairs) == 1:
        return None
    _, share = _proportion(0, len(pairs))
    return max(c - share, -1.0), min(c + share, 1.0)


def _wilson(table: Float[np.ndarray, "seeds n"]) -> tuple[float, float] | None:
    """The interval of all facts out of all, or of none; None for any other values."""
    if not ((table == 0).all() or (table == 1).all()):
        return None
    # seeds repeat the same facts and add none
    return _proportion(int(table[0].sum()), table.shape[1])


def _proportion(count: int, n: int) -> tuple[float, float]:
    """Wilson's interval of `count` in n."""
    from scipy.stats import binomtest

    found = binomtest(count, n).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)
