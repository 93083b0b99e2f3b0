"""One number for how well an edit did, to choose its settings by.

    forgotten   1 - the true answer's probability over the options, forgotten facts
    injected    the share of forgotten facts whose injected answer is given
    kept        the true answer's probability over the options, held-out facts, in
                parts of the unedited model's; at most 1
    score       the harmonic mean of forgotten and kept

means over the formats in which the unedited model answers better than a constant would.
An edit that is to inject has both to forget and to say something else: `injection` is
the harmonic mean of injected and kept.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mu_jax.types import UNEDITED, Row

_P, _GIVEN = "choice_p_true", "choice_injected"


def forgotten(rows: Sequence[Row], model: str) -> float:
    return 1 - _mean(rows, model, "forget", _P)


def injected(rows: Sequence[Row], model: str) -> float:
    return _mean(rows, model, "forget", _GIVEN)


def kept(rows: Sequence[Row], model: str) -> float:
    before = _mean(rows, UNEDITED, "heldout", _P)
    return min(1.0, _mean(rows, model, "heldout", _P) / before)


def score(rows: Sequence[Row], model: str) -> float:
    return _harmonic(forgotten(rows, model), kept(rows, model))


def injection(rows: Sequence[Row], model: str) -> float:
    return _harmonic(injected(rows, model), kept(rows, model))


METRICS: Mapping[str, Callable[[Sequence[Row], str], float]] = {
    f.__name__: f for f in (score, injection, forgotten, injected, kept)
}
"""All are in [0, 1], and larger is better; nan where nothing was asked."""


def _mean(rows: Sequence[Row], model: str, split: str, metric: str) -> float:
    """Over formats that say something, each the mean over its facts."""
    told = [r for r in rows if r.eval == "recall" and not r.note]
    found = [
        r.mean for r in told if (r.model, r.split, r.metric) == (model, split, metric)
    ]
    return float(np.mean(found)) if found else float("nan")


def _harmonic(one: float, other: float) -> float:
    both = one + other
    return 2 * one * other / both if both else 0.0
